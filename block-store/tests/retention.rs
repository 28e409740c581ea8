//! Snapshots that go: by rules, many at a time, and not when that fails.

mod support;

use block_store::snapshot::{Reason, tidy};
use block_store::{Keep, MAX_SNAPSHOTS, Pruned, Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use support::{BLOCK, Client, Event, Machine, NOW, content, noise, vdisk};
use uuid::Uuid;

const HOUR: u64 = 3600;

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
    let error = store.delete_snapshots("a", &["s2"], false).unwrap_err();
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
    store.delete_snapshots("a", &["s2"], false).unwrap();
    while tidy(store.core(), 1000).unwrap().more {}
    assert_eq!(store.status().layers, 3);
    reads(&store, "s1", 1);
    reads(&store, "s3", 3);
}

fn names(store: &Store) -> Vec<String> {
    let all = store.snapshots(Some("a")).unwrap();
    all.into_iter().map(|s| s.name).collect()
}

/// Why each stays; nothing: it goes.
fn told(pruned: &Pruned) -> Vec<(&str, &[Reason])> {
    let all = pruned.snapshots.iter();
    all.map(|s| (s.name.as_str(), s.kept_by.as_slice()))
        .collect()
}

#[test]
fn what_no_rule_keeps_goes_by_one_checkpoint() {
    let mut m = Machine::new(2, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", 4 << 20);
    let mut client = Client::new(&store);
    // Every half hour.
    for n in 0..12 {
        m.clock.store(NOW + n * HOUR / 2, Relaxed);
        take(&mut client, &format!("s{n}"), n);
    }
    store.hold_snapshot("a", "s1", "backup").unwrap();
    store.clone_vdisk("a", "s2", "clone").unwrap();
    // Another vDisk's are another matter.
    vdisk(&store, "b", 4 << 20);
    store.create_snapshot(&["b"], "s0").unwrap();
    let keep = Keep {
        last: 2,
        hourly: 3,
        ..Keep::default()
    };
    let before = store.status();
    let dry = store.prune_snapshots("a", &keep, true).unwrap();
    use Reason::*;
    // It is 22:13 at first.
    let want: [(&str, &[Reason]); 12] = [
        ("s0", &[]),
        ("s1", &[Held]),
        ("s2", &[Cloned]),
        ("s3", &[]),
        ("s4", &[]),
        ("s5", &[]),
        ("s6", &[]),
        ("s7", &[Hourly]),
        ("s8", &[]),
        ("s9", &[Hourly]),
        ("s10", &[Last]),
        ("s11", &[Last, Hourly]),
    ];
    assert_eq!(told(&dry), want);
    assert_eq!(dry.snapshots[2].clones, ["clone"]);
    assert_eq!((names(&store).len(), dry.scheduled), (12, 0));
    assert_eq!(store.status().checkpoints, before.checkpoints);
    let done = store.prune_snapshots("a", &keep, false).unwrap();
    assert_eq!(done, dry);
    assert_eq!(store.status().checkpoints, before.checkpoints + 1);
    let left = ["s1", "s2", "s7", "s9", "s10", "s11"];
    assert_eq!(names(&store), left);
    // Again is nothing, not even a checkpoint.
    store.prune_snapshots("a", &keep, false).unwrap();
    assert_eq!(store.status().checkpoints, before.checkpoints + 1);
    drop((store, client));
    m.power_loss();
    let store = m.open();
    assert_eq!(names(&store), left);
    for round in 0..2 {
        for name in left {
            reads(&store, name, name[1..].parse().unwrap());
        }
        assert_eq!(store.snapshots(Some("b")).unwrap().len(), 1, "{round}");
        while tidy(store.core(), 1000).unwrap().more {}
    }
    // Those named, those over the clone's and the held one's, the live ones, and b's.
    assert_eq!(store.status().layers, 6 + 2 + 2);
}

#[test]
fn rules_that_keep_nothing_are_refused() {
    let m = Machine::new(3, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", 4 << 20);
    store.create_snapshot(&["a"], "s").unwrap();
    for dry in [true, false] {
        let error = store.prune_snapshots("a", &Keep::default(), dry);
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{error}");
        assert!(error.to_string().contains("keep nothing"), "{error}");
    }
    assert_eq!(names(&store), ["s"]);
}

#[test]
fn there_is_an_end_to_snapshots() {
    let m = Machine::with_segments(4, 256 << 20, 1 << 20);
    let store = m.open();
    for name in ["a", "b"] {
        vdisk(&store, name, 4 << 20);
    }
    store.create_snapshot(&["a"], "s").unwrap();
    let fill = |most: usize| {
        let rows = &mut store.core().state.lock().catalogue.snapshots;
        while rows.len() < most {
            let mut row = rows[0].clone();
            row.uuid = Uuid::new_v4();
            row.name = format!("fill-{}", rows.len());
            rows.push(row);
        }
    };
    let refused = |vdisks: &[&str]| {
        let error = store.create_snapshot(vdisks, "more").unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error}");
        error.to_string()
    };
    fill(MAX_SNAPSHOTS - 2);
    store.create_snapshot(&["a", "b"], "group").unwrap();
    let layers = store.status().layers;
    let said = refused(&["b"]);
    assert!(said.contains("the store has 4096 snapshots"), "{said}");
    store.delete_snapshots("b", &["group"], false).unwrap();
    fill(MAX_SNAPSHOTS);
    // What the store may have would be the larger number with larger segments.
    store.core().state.lock().segment_size = 64 << 20;
    let said = refused(&["b", "a"]);
    assert!(said.contains("vDisk \"a\" has 4096 snapshots"), "{said}");
    assert!(said.contains("firn snapshot prune a"), "{said}");
    assert_eq!(store.status().layers, layers);
}
