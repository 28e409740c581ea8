//! Snapshots that go: by rules, many at a time, and not when that fails.

mod support;

use block_store::snapshot::tidy;
use block_store::{Store, StoreError};
use std::sync::Arc;
use support::{BLOCK, Client, Event, Machine, content, noise, vdisk};

/// Writes block 0 in a version, and takes a snapshot of that.
fn take(client: &mut Client, name: &str, version: u64) {
    let disk = client.store.vdisk("a").unwrap();
    client.write(&disk, 0, &content(version, 0, 1)).unwrap();
    client.store.create_snapshot(&["a"], name).unwrap();
}

/// The version of block 0 in a snapshot.
#[track_caller]
fn reads(store: &Arc<Store>, name: &str, version: u64) {
    let view = store.open_snapshot("a", name).unwrap();
    let mut client = Client::new(store);
    let found = client.read(&view, 0, BLOCK).unwrap();
    assert!(found == content(version, 0, 1), "{name} is not {version}");
}

/// The name can come back as long as the checkpoint has not ended: until then its layer is not merged away.
#[test]
fn a_deletion_that_fails_has_not_touched_the_snapshot() {
    let m = Machine::new(1, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", 4 << 20);
    let mut client = Client::new(&store);
    for version in 1..=3 {
        take(&mut client, &format!("s{version}"), version);
    }
    let disk = store.vdisk("a").unwrap();
    client.write(&disk, 0, &content(4, 0, 1)).unwrap();
    // No checkpoint can hold this.
    let text = noise(1, 1 << 20)
        .into_iter()
        .map(|b| char::from(b % 90 + 32));
    store.core().state.lock().catalogue.rules = Some(text.collect());
    let core = Arc::clone(store.core());
    // What upkeep's thread could do at this moment.
    m.hooks
        .before(Event::Write, "seg-", move || drop(tidy(&core, 1000)));
    let error = store.delete_snapshot("a", "s2", false).unwrap_err();
    assert!(matches!(error, StoreError::NoSpace(_)), "{error}");
    assert!(m.hooks.all_ran());
    store.core().state.lock().catalogue.rules = None;
    let names = store.snapshots(None).unwrap();
    let names: Vec<_> = names.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["s1", "s2", "s3"]);
    for version in 1..=3 {
        reads(&store, &format!("s{version}"), version);
    }
    // And then it can go.
    store.delete_snapshot("a", "s2", false).unwrap();
    while tidy(store.core(), 1000).unwrap().more {}
    assert_eq!(store.status().layers, 3);
    reads(&store, "s1", 1);
    reads(&store, "s3", 3);
}
