//! Snapshots that are deleted, reverted to and cloned, or that this is refused for.

use super::*;

#[test]
fn deleted_snapshots_give_their_space_back() {
    let m = Machine::new(5, 256 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    for version in 1..=10 {
        write(&mut client, "a", &mut live, version, 0, 1000);
        store
            .create_snapshot(&["a"], &format!("s{version}"))
            .unwrap();
    }
    settle(&store);
    let blocks = || store.status().live_bytes / BLOCK as u64;
    assert_eq!(blocks(), 10_000);
    for version in (1..=10).rev() {
        store
            .delete_snapshots("a", &[&format!("s{version}")], false)
            .unwrap();
        settle(&store);
        verify_all(&store, &live, &BTreeMap::new(), "deleting");
    }
    assert_eq!((blocks(), layers(&store)), (1000, 1));
    assert!(store.core().state.lock().catalogue.aliases.len() <= 10);
    store.shutdown().unwrap();
    m.assert_sound("at last");
    // Written anew, nothing is left of the old layers, nor any need to know them.
    let store = m.open();
    let mut client = Client::new(&store);
    for version in 11..14 {
        write(&mut client, "a", &mut live, version, 0, 1000);
        settle(&store);
    }
    assert!(store.core().state.lock().catalogue.aliases.is_empty());
}

/// A merge that has begun goes on past its heir, when that is deleted before the first entry has reached it.
#[test]
fn an_heir_without_anything_hands_on_what_it_was_to_get() {
    let m = Machine::new(9, 64 << 20);
    let store = m.try_open(|config| config.checkpoint_log = 1).unwrap();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 10);
    store.create_snapshot(&["a"], "full").unwrap();
    store.create_snapshot(&["a"], "empty").unwrap();
    store.delete_snapshots("a", &["full"], false).unwrap();
    // A checkpoint is wanted before the first entry moves.
    write(&mut client, "a", &mut live, 2, 5, 10);
    tidy(store.core(), 1).unwrap();
    assert_eq!(store.core().state.lock().catalogue.aliases.len(), 1);
    store.delete_snapshots("a", &["empty"], false).unwrap();
    settle(&store);
    assert_eq!(layers(&store), 1);
    verify_all(&store, &live, &BTreeMap::new(), "both deleted");
    m.assert_sound("at last");
}

/// What the next opening would not take in is not switched in: the store goes on from the checkpoint before.
#[test]
fn a_catalogue_that_has_grown_too_large_costs_the_checkpoint_and_no_more() {
    let m = Machine::new(7, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 30);
    let grow = |to| store.core().state.lock().catalogue.rules = to;
    grow(Some("r".repeat(256 << 20)));
    let refused = store.create_snapshot(&["a"], "s").unwrap_err();
    assert!(refused.to_string().contains("no checkpoint can be taken"));
    assert!(store.snapshots(None).unwrap().is_empty());
    write(&mut client, "a", &mut live, 2, 10, 30);
    verify_all(&store, &live, &BTreeMap::new(), "too large");
    grow(None);
    store.create_snapshot(&["a"], "s").unwrap();
    drop((client, store));
    let store = m.open();
    verify_all(&store, &live, &BTreeMap::new(), "opened again");
    assert_eq!(store.snapshots(None).unwrap().len(), 1);
}

#[test]
fn what_can_not_be_done_is_refused_and_changes_nothing() {
    let m = Machine::new(6, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 30);
    store.create_snapshot(&["a"], "s").unwrap();
    let before = store.snapshots(None).unwrap();
    let refused = |outcome: Result<(), StoreError>, words: &str| {
        let error = outcome.expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(store.snapshots(None).unwrap(), before);
    };
    refused(store.create_snapshot(&["a"], "s").map(drop), "already");
    refused(store.create_snapshot(&["a"], "-").map(drop), "begin");
    refused(store.create_snapshot(&["a", "a"], "t").map(drop), "twice");
    refused(store.create_snapshot(&["b"], "t").map(drop), "no vDisk");
    refused(store.create_snapshot(&[], "t").map(drop), "1 to");
    refused(
        store.delete_snapshots("a", &["t"], false).map(drop),
        "no snapshot",
    );
    refused(store.rename_snapshot("a", "s", "s"), "already");
    refused(store.revert_vdisk("a", "t", None), "no snapshot");
    refused(store.revert_vdisk("a", "s", Some("s")), "already");
    refused(store.clone_vdisk("a", "s", "a").map(drop), "already");
    refused(store.delete_vdisk("a"), "has snapshots (1)");
    refused(store.release_snapshot("a", "s", "me"), "does not hold");
    store.hold_snapshot("a", "s", "me").unwrap();
    store.hold_snapshot("a", "s", "me").unwrap();
    let error = store
        .delete_snapshots("a", &["s"], true)
        .unwrap_err()
        .to_string();
    assert!(error.contains("held by me;"), "{error}");
    store.release_snapshot("a", "s", "me").unwrap();
    store.clone_vdisk("a", "s", "c").unwrap();
    let error = store
        .delete_snapshots("a", &["s"], false)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(": c.") && error.contains("--defer"),
        "{error}"
    );
    store.rename_snapshot("a", "s", "t").unwrap();
    store.delete_snapshots("a", &["t"], true).unwrap();
    settle(&store);
    assert_eq!(layers(&store), 3, "two lie over it");
    store.delete_vdisk("c").unwrap();
    settle(&store);
    assert_eq!(layers(&store), 1);
    verify_all(&store, &live, &BTreeMap::new(), "at last");
}

#[test]
fn clones_and_reverts() {
    let mut m = Machine::new(7, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 500);
    store.create_snapshot(&["a"], "s").unwrap();
    let old = live.clone();
    write(&mut client, "a", &mut live, 2, 100, 500);
    let mut clone = old.clone();
    store.clone_vdisk("a", "s", "c").unwrap();
    write(&mut client, "c", &mut clone, 3, 50, 100);
    store.revert_vdisk("a", "s", Some("kept")).unwrap();
    let mut reverted = old.clone();
    write(&mut client, "a", &mut reverted, 4, 90, 10);
    let a = store.vdisk("a").unwrap();
    client.flush(&a).unwrap();
    drop((client, store, a));
    m.kill();
    let store = m.open();
    for round in 0..2 {
        let what = format!("round {round}");
        let snapshots = [("s", &old), ("kept", &live)];
        let snapshots = snapshots.map(|(name, image)| (name.to_owned(), image.clone()));
        verify_all(&store, &reverted, &BTreeMap::from(snapshots), &what);
        verify(&store, &store.vdisk("c").unwrap(), &clone, &what);
        settle(&store);
    }
    // A clone of a clone, when what it came from is gone.
    store.create_snapshot(&["c"], "x").unwrap();
    store.clone_vdisk("c", "x", "d").unwrap();
    store.delete_snapshots("c", &["x"], true).unwrap();
    store.delete_vdisk("c").unwrap();
    for name in ["s", "kept"] {
        store.delete_snapshots("a", &[name], true).unwrap();
    }
    store.delete_vdisk("a").unwrap();
    settle(&store);
    assert_eq!(layers(&store), 1);
    verify(&store, &store.vdisk("d").unwrap(), &clone, "d");
    store.shutdown().unwrap();
    m.assert_sound("at last");
}

/// What nothing names any more is nobody who lies over a snapshot, although it is still there.
#[test]
fn a_branch_on_its_way_out_holds_up_no_deletion() {
    let m = Machine::new(13, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    store.create_snapshot(&["a"], "s").unwrap();
    store.create_snapshot(&["a"], "t").unwrap();
    store.revert_vdisk("a", "s", None).unwrap();
    let clones = |name: &str| {
        let all = store.snapshots(Some("a")).unwrap().into_iter();
        let of_it = all.filter(|s| s.name == name);
        of_it.flat_map(|s| s.clones).collect::<Vec<_>>()
    };
    assert_eq!(clones("s"), ["a@t"]);
    let refused = store.delete_snapshots("a", &["s"], false).unwrap_err();
    assert!(refused.to_string().contains("too: a@t."), "{refused}");
    store.delete_snapshots("a", &["t"], false).unwrap();
    assert!(clones("s").is_empty());
    store.delete_snapshots("a", &["s"], false).unwrap();
    settle(&store);
    assert_eq!(layers(&store), 1);
}

/// What can't go keeps all that are named with it, one checkpoint does for all, and what goes too holds up nothing.
#[test]
fn several_are_deleted_at_once_or_none() {
    let m = Machine::new(14, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    for name in ["s", "t", "u", "v"] {
        store.create_snapshot(&["a"], name).unwrap();
    }
    let names = || -> Vec<String> {
        let all = store.snapshots(Some("a")).unwrap();
        all.into_iter().map(|s| s.name).collect()
    };
    store.hold_snapshot("a", "v", "me").unwrap();
    for (with, why) in [("v", "held by me"), ("w", "no snapshot")] {
        let refused = store.delete_snapshots("a", &["s", with], true).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    assert_eq!(names(), ["s", "t", "u", "v"]);
    store.release_snapshot("a", "v", "me").unwrap();
    // Two branches over "t": "u" and "v", and what the vDisk goes on with.
    store.revert_vdisk("a", "t", None).unwrap();
    store.clone_vdisk("a", "s", "c").unwrap();
    assert!(store.delete_snapshots("a", &["t", "u"], false).is_err());
    let refused = store.delete_snapshots("a", &["s", "t", "u", "v"], false);
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("over snapshot s of vDisk a: c."),
        "{refused}"
    );
    let before = store.status().checkpoints;
    let gone = store
        .delete_snapshots("a", &["t", "v", "u", "t"], false)
        .unwrap();
    assert_eq!(
        (gone.deleted.as_slice(), gone.deferred.len()),
        (&["t", "v", "u"].map(String::from)[..], 0)
    );
    assert_eq!(store.status().checkpoints, before + 1);
    let gone = store.delete_snapshots("a", &["s"], true).unwrap();
    assert_eq!(gone.deferred, ["s"]);
    assert_eq!(names(), [""; 0]);
}

/// A revert that could not be made durable has not happened.
#[test]
fn a_revert_that_fails_changes_nothing() {
    let mut m = Machine::new(15, 64 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 500);
    store.create_snapshot(&["a"], "s").unwrap();
    let old = live.clone();
    write(&mut client, "a", &mut live, 2, 100, 500);
    store.resize_vdisk("a", 2 * SIZE).unwrap();
    // No checkpoint can hold this.
    let text = noise(1, 1 << 20)
        .into_iter()
        .map(|b| char::from(b % 90 + 32));
    store.core().state.lock().catalogue.rules = Some(text.collect());
    store.revert_vdisk("a", "s", None).unwrap_err();
    store.core().state.lock().catalogue.rules = None;
    assert_eq!(disk.size(), 2 * SIZE);
    let snapshots = BTreeMap::from([("s".to_owned(), old)]);
    settle(&store);
    verify_all(&store, &live, &snapshots, "failed");
    client.flush(&disk).unwrap();
    drop((client, store, disk));
    m.power_loss();
    let store = m.open();
    assert_eq!(store.vdisk("a").unwrap().size(), 2 * SIZE);
    verify_all(&store, &live, &snapshots, "after power loss");
    assert_eq!(layers(&store), 2);
}

/// A revert that was cut short has happened, size and all, or not at all.
#[test]
fn a_revert_brings_the_size_back() {
    let m = Machine::new(8, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    store.create_snapshot(&["a"], "s").unwrap();
    store.resize_vdisk("a", 2 * SIZE).unwrap();
    assert_eq!(store.open_snapshot("a", "s").unwrap().size(), SIZE);
    store.revert_vdisk("a", "s", Some("large")).unwrap();
    assert_eq!(store.vdisk("a").unwrap().size(), SIZE);
    store.revert_vdisk("a", "large", None).unwrap();
    assert_eq!(store.vdisk("a").unwrap().size(), 2 * SIZE);
}
