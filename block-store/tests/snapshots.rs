//! Snapshots, clones, reverts and merges on a simulated machine: what a sealed layer reads as never changes.

mod support;

use block_store::check::{CheckOptions, check};
use block_store::io::sim::Rng;
use block_store::read::Search;
use block_store::recover::load_node;
use block_store::snapshot::{next_task, tidy};
use block_store::state::Blocked;
use block_store::{Command, RequestError, Store, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{BLOCK, Client, Machine, content, noise, step, vdisk};

/// Blocks of a vDisk: two leaves of its map, and a bit of a third.
const BLOCKS: u64 = 1100;
const SIZE: u64 = BLOCKS * BLOCK as u64;

/// Version of every block; 0: zeroes.
type Image = Vec<u64>;

fn write(
    client: &mut Client,
    disk: &str,
    image: &mut Image,
    version: u64,
    first: u64,
    blocks: u64,
) {
    let disk = client.store.vdisk(disk).unwrap();
    let bytes = content(version, first, blocks);
    client.write(&disk, first * BLOCK as u64, &bytes).unwrap();
    image[first as usize..(first + blocks) as usize].fill(version);
}

fn verify(store: &Arc<Store>, disk: &Arc<block_store::VDisk>, image: &Image, what: &str) {
    let mut client = Client::new(store);
    for first in (0..BLOCKS).step_by(100) {
        let bytes = client
            .read(disk, first * BLOCK as u64, 100 * BLOCK)
            .unwrap_or_else(|e| panic!("{what}, blocks from {first}: {e}"));
        for (n, block) in bytes.chunks_exact(BLOCK).enumerate() {
            let n = first + n as u64;
            let right = match image[n as usize] {
                0 => block.iter().all(|b| *b == 0),
                version => block == content(version, n, 1),
            };
            assert!(
                right,
                "{what}: block {n} is not version {}",
                image[n as usize]
            );
        }
    }
}

fn verify_all(store: &Arc<Store>, live: &Image, snapshots: &BTreeMap<String, Image>, what: &str) {
    verify(store, &store.vdisk("a").unwrap(), live, what);
    for (name, image) in snapshots {
        let view = store.open_snapshot("a", name).unwrap();
        verify(store, &view, image, &format!("{what}: snapshot {name}"));
    }
}

/// Nothing is wrong on the disk, live counts included.
fn assert_sound(m: &Machine, what: &str) {
    let options = CheckOptions {
        decode: true,
        ..CheckOptions::default()
    };
    let report = check(&m.disk, &options, &mut ()).unwrap();
    assert_eq!(report.damage, 0, "{what}: {:#?}", report.findings);
}

/// Upkeep until nothing is left to be done.
fn settle(store: &Arc<Store>) {
    for round in 0..2000 {
        step(store, true);
        let mut state = store.core().state.lock();
        let pinned = state.pinned();
        let task = next_task(&state.catalogue, &|layer| pinned.contains(&layer));
        if round >= 20 && task.is_none() && state.catalogue.dropped.is_empty() {
            return;
        }
    }
}

fn layers(store: &Store) -> usize {
    store.core().state.lock().catalogue.layers.len()
}

#[test]
fn a_snapshot_reads_as_what_was_there_at_the_cut() {
    for power in [false, true] {
        let mut m = Machine::new(1, 64 << 20);
        let store = m.open();
        vdisk(&store, "a", SIZE);
        let mut client = Client::new(&store);
        let mut live = vec![0; BLOCKS as usize];
        write(&mut client, "a", &mut live, 1, 0, 600);
        let made = store.create_snapshot(&["a"], "s").unwrap();
        assert!(made.lsn > 0 && made.stall < made.durable);
        let snapshots = BTreeMap::from([("s".to_owned(), live.clone())]);
        write(&mut client, "a", &mut live, 2, 100, 50);
        let disk = store.vdisk("a").unwrap();
        client
            .discard(&disk, 200 * BLOCK as u64, 20 * BLOCK as u64)
            .unwrap();
        live[200..220].fill(0);
        client.flush(&disk).unwrap();
        verify_all(&store, &live, &snapshots, "before");
        let view = store.open_snapshot("a", "s").unwrap();
        let refused = client.write(&view, 0, &[1; BLOCK]);
        assert_eq!(refused, Err(RequestError::ReadOnly));
        drop((client, store, disk, view));
        if power {
            m.power_loss()
        } else {
            m.kill()
        }
        let store = m.open();
        verify_all(&store, &live, &snapshots, "after");
        settle(&store);
        verify_all(&store, &live, &snapshots, "later");
        store.shutdown().unwrap();
        assert_sound(&m, "at last");
    }
}

/// What was cut and not completed is no snapshot, and loses nothing that was written before or after.
#[test]
fn a_cut_that_was_not_completed_leaves_nothing() {
    for power in [false, true] {
        let mut m = Machine::new(2, 64 << 20);
        let store = m.open();
        vdisk(&store, "a", SIZE);
        let mut client = Client::new(&store);
        let mut live = vec![0; BLOCKS as usize];
        write(&mut client, "a", &mut live, 1, 0, 300);
        let cut = store.cut_snapshot(&["a"], "s").unwrap();
        write(&mut client, "a", &mut live, 2, 100, 300);
        let disk = store.vdisk("a").unwrap();
        client.flush(&disk).unwrap();
        assert!(store.snapshots(None).unwrap().is_empty());
        drop((client, store, disk, cut));
        if power {
            m.power_loss()
        } else {
            m.kill()
        }
        let store = m.open();
        assert_eq!(layers(&store), 2, "the cut was rolled forward");
        assert!(store.snapshots(None).unwrap().is_empty());
        verify_all(&store, &live, &BTreeMap::new(), "after");
        settle(&store);
        assert_eq!(layers(&store), 1, "merged");
        verify_all(&store, &live, &BTreeMap::new(), "merged");
        // The name is free.
        store.create_snapshot(&["a"], "s").unwrap();
        store.shutdown().unwrap();
        assert_sound(&m, "at last");
    }
}

#[test]
fn while_it_waits_to_be_completed_a_cut_is_kept() {
    let m = Machine::new(3, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 30);
    let cut = store.cut_snapshot(&["a"], "s").unwrap();
    let snapshots = BTreeMap::from([("s".to_owned(), live.clone())]);
    write(&mut client, "a", &mut live, 2, 10, 30);
    settle(&store);
    assert_eq!(layers(&store), 2);
    store.complete_snapshot(cut).unwrap();
    verify_all(&store, &live, &snapshots, "completed");
}

/// Two vDisks whose writes go hand in hand: no snapshot of both shows one ahead of the other by more than what was in flight.
#[test]
fn a_group_is_cut_at_one_instant() {
    let m = Machine::new(4, 64 << 20);
    let store = m.open();
    let (a, b) = (vdisk(&store, "a", SIZE), vdisk(&store, "b", SIZE));
    let mut client = Client::new(&store);
    for version in 1..20 {
        let bytes = content(version, 5, 1);
        client.write(&a, 5 * BLOCK as u64, &bytes).unwrap();
        if version % 5 == 0 {
            let name = format!("s{version}");
            store.create_snapshot(&["a", "b"], &name).unwrap();
            let both = ["a", "b"].map(|v| store.open_snapshot(v, &name).unwrap());
            let read = both.map(|v| client.read(&v, 5 * BLOCK as u64, BLOCK).unwrap());
            assert_eq!(read, [content(version, 5, 1), content(version - 1, 5, 1)]);
        }
        client.write(&b, 5 * BLOCK as u64, &bytes).unwrap();
    }
    let lsns = |v| store.snapshots(Some(v)).unwrap().into_iter().map(|s| s.lsn);
    assert!(lsns("a").eq(lsns("b")) && lsns("a").count() == 3);
}

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
    assert_sound(&m, "at last");
    // Written anew, nothing is left of the old layers, nor any need to know them.
    let store = m.open();
    let mut client = Client::new(&store);
    for version in 11..14 {
        write(&mut client, "a", &mut live, version, 0, 1000);
        settle(&store);
    }
    assert!(store.core().state.lock().catalogue.aliases.is_empty());
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
    assert_sound(&m, "at last");
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

/// Whoever reads a snapshot reads on when its name goes.
#[test]
fn a_reader_keeps_what_it_reads() {
    let m = Machine::new(9, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 500);
    store.create_snapshot(&["a"], "s").unwrap();
    let (view, old) = (store.open_snapshot("a", "s").unwrap(), live.clone());
    write(&mut client, "a", &mut live, 2, 0, 700);
    store.delete_snapshots("a", &["s"], false).unwrap();
    settle(&store);
    verify(&store, &view, &old, "the view");
    drop(view);
    settle(&store);
    assert_eq!(layers(&store), 1);
    verify_all(&store, &live, &BTreeMap::new(), "at last");
}

/// A search that has passed a layer must not miss what a merge moves up into that layer while it waits for a node.
#[test]
fn a_merge_in_the_middle_of_a_search_is_not_missed() {
    let mut m = Machine::new(10, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 10);
    store.create_snapshot(&["a"], "s").unwrap();
    write(&mut client, "a", &mut live, 2, 5, 1);
    store.create_snapshot(&["a"], "t").unwrap();
    drop((client, store));
    m.kill();
    let store = m.open();
    let core = store.core();
    let live_layer = core.state.lock().catalogue.vdisks[0].layer;
    let mut search = Search::default();
    let mut passed = Vec::new();
    // Until it is stopped in front of the lowest layer.
    while passed.last() != Some(&1) {
        let mut state = core.state.lock();
        match search.run(&mut state, live_layer, 3, 1) {
            Err(Blocked::Node(missing)) => {
                passed.push(missing.key.layer());
                if missing.key.layer() != 1 {
                    load_node(&mut state, missing).unwrap();
                }
            }
            other => panic!("{other:?} after {passed:?}"),
        }
    }
    store.delete_snapshots("a", &["s"], false).unwrap();
    // Some entries only, as a step of a merge does it that is at its end in the middle of a leaf.
    let mut none = |freed| panic!("{freed:?}");
    let done = core.with_nodes(|state| {
        let step = state.map.merge_step(1, 2, u64::MAX, 8, &mut none);
        step.map_err(Blocked::Node)
    });
    assert_eq!(done.unwrap(), Ok(false));
    let left = core.with_nodes(|state| state.map.lookup(1, 3).map_err(Blocked::Node));
    assert_eq!(left.unwrap(), Ok(0), "it has moved");
    let found = core.with_nodes(|state| search.run(state, live_layer, 3, 1).map(|f| f[0]));
    let (layer, bits) = found.unwrap().unwrap();
    assert!(layer == 2 && bits != 0, "found {bits:x} in layer {layer}");
    settle(&store);
    verify_all(&store, &live, &BTreeMap::new(), "after");
}

/// What was resolved once stays right when the data moves away, and layers are merged.
#[test]
fn resolved_leaves_follow_what_moves() {
    let m = Machine::new(11, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let (mut live, mut snapshots) = (vec![0; BLOCKS as usize], BTreeMap::new());
    for version in 1..=6 {
        for first in (version..1000).step_by(7) {
            // Half of what is stored is garbage.
            write(&mut client, "a", &mut live, 99, first, 1);
            write(&mut client, "a", &mut live, version, first, 1);
        }
        let name = format!("s{version}");
        store.create_snapshot(&["a"], &name).unwrap();
        snapshots.insert(name, live.clone());
    }
    verify_all(&store, &live, &snapshots, "resolved");
    let status = store.status();
    let known = status.resolved_leaves;
    assert!(known >= 3 * 6, "{known} leaves are resolved");
    assert_eq!((status.snapshots, status.layers), (6, 7));
    let each = block_store::map::RESOLVED_MEMORY as u64;
    assert_eq!(status.resolved_memory_bytes, known * each);
    // All segments are rewritten, as far as they are alive, and removed.
    let before = m.segments();
    for _ in 0..20 {
        store.core().state.lock().full = true;
        let _ = store.upkeep();
        store.core().state.lock().full = false;
        step(&store, true);
        verify_all(&store, &live, &snapshots, "compacted");
    }
    let left = m.segments().into_iter().filter(|s| before.contains(s));
    assert!(left.count() < before.len(), "nothing was compacted");
    for version in [2, 5, 3] {
        let name = format!("s{version}");
        store.delete_snapshots("a", &[&name], false).unwrap();
        snapshots.remove(&name);
        settle(&store);
        verify_all(&store, &live, &snapshots, "merged");
    }
}

/// Presence maps come when a read has had to pass a layer, and not before; then layers are passed without a look into their maps.
#[test]
fn presence_maps_are_built_lazily_and_spare_reads() {
    const LAYERS: u64 = 40;
    let mut m = Machine::new(12, 256 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 1000);
    for version in 2..LAYERS {
        write(&mut client, "a", &mut live, version, version * 3, 1);
        store
            .create_snapshot(&["a"], &format!("s{version}"))
            .unwrap();
    }
    assert_eq!(store.core().state.lock().presence.size().0, 0);
    store.shutdown().unwrap();
    drop((client, store));
    m.kill();
    let cost = |resolved: usize, first: u64, passes: u64| {
        let store = m.try_open(|c| c.resolved_memory = resolved).unwrap();
        let disk = store.vdisk("a").unwrap();
        let mut client = Client::new(&store);
        let mut costs = Vec::new();
        for pass in 0..passes {
            let block = first + pass;
            let before = m.disk.counters().reads;
            let read = client.read(&disk, block * BLOCK as u64, BLOCK).unwrap();
            assert!(read == content(live[block as usize], block, 1));
            costs.push(m.disk.counters().reads - before);
            while block_store::snapshot::build_one(store.core(), &|| true).unwrap() {}
        }
        let status = store.status();
        let maps = (status.presence_maps, status.presence_memory_bytes);
        store.shutdown().unwrap();
        (costs, maps)
    };
    // Block 700 was written first and never again: the search goes down to the lowest layer.
    let (costs, (maps, bytes)) = cost(0, 700, 2);
    assert!(
        costs[0] > 2 * LAYERS,
        "the first read looks into all maps: {costs:?}"
    );
    assert_eq!(maps, LAYERS - 2, "one for each layer that was passed");
    assert!(bytes < 40 * 1024, "{bytes}");
    assert!(costs[1] <= 2, "{costs:?}");
    // Another leaf of the map: only of the lowest layer's there is something to be read.
    let (costs, _) = cost(0, 511, 2);
    assert!(costs[1] <= 6, "{costs:?}");
    // While so many maps were built, all leaves were resolved: what is left to be read is the data.
    let (costs, _) = cost(1 << 20, 511, 2);
    assert_eq!(costs[1], 1, "{costs:?}");
}

/// A layer that is not at rest keeps nobody busy: its map waits until a read asks for it again.
#[test]
fn maps_that_can_not_be_built_now_are_not_tried_for_ever() {
    let mut m = Machine::new(14, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    for version in 1..=12 {
        write(&mut client, "a", &mut live, version, version, 1);
        let name = format!("s{version}");
        store.create_snapshot(&["a"], &name).unwrap();
    }
    drop((client, store));
    m.kill();
    let store = m.open();
    let mut client = Client::new(&store);
    // The highest sealed layer waits for a checkpoint.
    write(&mut client, "a", &mut live, 13, 20, 1);
    let cut = store.cut_snapshot(&["a"], "t").unwrap();
    let core = store.core();
    let top = core.state.lock().catalogue.vdisks[0].layer;
    let mut search = Search::default();
    let found = core.with_nodes(|state| search.run(state, top, 700, 1).map(|f| f[0]));
    assert_eq!(found.unwrap().unwrap().1, 0);
    assert!(core.state.lock().presence.is_wanted());
    let builds = (0..100).take_while(|_| block_store::snapshot::build_one(core, &|| true).unwrap());
    assert!(builds.count() < 20, "it goes on and on");
    drop(cut);
}

/// Random everything, with restarts; tight budgets for the map as well, so that merges work on what is not in memory.
#[test]
fn random_trees() {
    for seed in 0..60 {
        random_tree(seed);
    }
}

fn random_tree(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut m = Machine::new(seed, 256 << 20);
    let map_memory = if seed.is_multiple_of(2) { 1 } else { 4 << 20 };
    let open = |m: &Machine| m.try_open(|c| c.map_memory = map_memory).unwrap();
    let mut store = open(&m);
    vdisk(&store, "a", SIZE);
    let (mut live, mut snapshots) = (vec![0; BLOCKS as usize], BTreeMap::new());
    for version in 1..120u64 {
        let mut client = Client::new(&store);
        let what = format!("seed {seed}, step {version}");
        let names: Vec<String> = snapshots.keys().cloned().collect();
        let some = (!names.is_empty()).then(|| names[rng.below(names.len())].clone());
        match (rng.below(20), some) {
            (0..9, _) => {
                let blocks = [1, 1, 7, 64, 400][rng.below(5)];
                let first = rng.below((BLOCKS - blocks) as usize) as u64;
                write(&mut client, "a", &mut live, version, first, blocks);
            }
            (9, _) => {
                let disk = store.vdisk("a").unwrap();
                let blocks = [3, 700][rng.below(2)];
                let first = rng.below((BLOCKS - blocks) as usize) as u64;
                client
                    .discard(&disk, first * BLOCK as u64, blocks * BLOCK as u64)
                    .unwrap();
                live[first as usize..(first + blocks) as usize].fill(0);
            }
            (10..13, _) => {
                let name = format!("s{version}");
                store.create_snapshot(&["a"], &name).unwrap();
                snapshots.insert(name, live.clone());
            }
            (13..16, Some(name)) => {
                store.delete_snapshots("a", &[&name], true).unwrap();
                snapshots.remove(&name);
            }
            (16, Some(name)) => {
                store.revert_vdisk("a", &name, None).unwrap();
                live.clone_from(&snapshots[&name]);
            }
            (17, _) => {
                let disk = store.vdisk("a").unwrap();
                client.flush(&disk).unwrap();
                drop((client, disk, store));
                if rng.below(2) == 0 {
                    m.kill()
                } else {
                    m.power_loss()
                }
                store = open(&m);
                verify_all(&store, &live, &snapshots, &what);
            }
            _ => {
                let _ = tidy(store.core(), rng.below(4));
                if rng.below(2) == 0 {
                    store.upkeep().unwrap();
                }
            }
        }
        if version % 20 == 0 {
            verify_all(&store, &live, &snapshots, &what);
        }
    }
    settle(&store);
    verify_all(&store, &live, &snapshots, &format!("seed {seed} at last"));
    store.shutdown().unwrap();
    assert_sound(&m, &format!("seed {seed}"));
    drop(store);
    let store = open(&m);
    for name in snapshots.keys() {
        store.delete_snapshots("a", &[name], true).unwrap();
    }
    settle(&store);
    assert_eq!(layers(&store), 1, "seed {seed}");
    verify_all(
        &store,
        &live,
        &BTreeMap::new(),
        &format!("seed {seed}, alone"),
    );
    store.shutdown().unwrap();
    assert_sound(&m, &format!("seed {seed}, alone"));
}

/// A write of a part of a block reads the rest from a layer that is merged meanwhile, and then the block is discarded: the live layer
/// says the same as before, and yet what was read is out of date.
#[test]
fn a_discard_after_a_merge_is_seen_by_writes_of_parts() {
    let m = Machine::new(16, 64 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    client.write(&disk, 0, &content(1, 0, 4)).unwrap();
    store.create_snapshot(&["a"], "s").unwrap();
    store.delete_snapshots("a", &["s"], false).unwrap();
    // Its data is written out, so that it has to be read.
    client.flush(&disk).unwrap();
    step(&store, false);
    let mut slow = Client::new(&store);
    let part = Command::Write {
        offset: 512,
        from: vec![7; 512],
    };
    slow.lane.submit(&disk, part, 0);
    while tidy(store.core(), 1000).unwrap().more {}
    assert_eq!(layers(&store), 1);
    client.discard(&disk, 0, BLOCK as u64).unwrap();
    slow.wait(200).unwrap().result.unwrap();
    let mut wanted = vec![0; BLOCK];
    wanted[512..1024].fill(7);
    let found = client.read(&disk, 0, BLOCK).unwrap();
    assert!(found == wanted, "{:?}", &found[..16]);
}
