//! Snapshots, clones, reverts and merges on a simulated machine: what a sealed layer reads as never changes.

mod changes;
mod searches;
#[path = "../support/mod.rs"]
mod support;

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
        m.assert_sound("at last");
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
        m.assert_sound("at last");
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
    m.assert_sound(&format!("seed {seed}"));
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
    m.assert_sound(&format!("seed {seed}, alone"));
}
