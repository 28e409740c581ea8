//! Clones: promoted, made independent; beside guests, through crashes, and with nothing else changed.

mod support;

use block_store::io::sim::{Damage, Rng};
use block_store::snapshot::tidy;
use block_store::{Store, VDisk};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use support::{BLOCK, Client, Event, Machine, content, step, vdisk};

const BLOCKS: u64 = 2048;
const SIZE: u64 = BLOCKS * BLOCK as u64;

fn write(client: &mut Client, disk: &Arc<VDisk>, version: u64, blocks: impl Iterator<Item = u64>) {
    for block in blocks {
        let bytes = content(version, block, 1);
        client.write(disk, block * BLOCK as u64, &bytes).unwrap();
    }
}

fn all_is(client: &mut Client, disk: &Arc<VDisk>, version: impl Fn(u64) -> Option<u64>) {
    for block in 0..BLOCKS {
        let data = client.read(disk, block * BLOCK as u64, BLOCK).unwrap();
        let want = version(block).map_or(vec![0; BLOCK], |v| content(v, block, 1));
        assert!(data == want, "{}, block {block}", disk.name());
    }
}

fn upkeep(store: &Arc<Store>) {
    for _ in 0..60 {
        step(store, true);
    }
}

/// vDisk a with two snapshots, and clone c of the second, which has been written to.
fn cloned(m: &Machine) -> (Arc<Store>, Client) {
    let store = m.open();
    let a = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    write(&mut client, &a, 1, 0..BLOCKS / 2);
    store.create_snapshot(&["a"], "s1").unwrap();
    write(&mut client, &a, 2, (0..BLOCKS / 2).step_by(4));
    store.create_snapshot(&["a"], "s2").unwrap();
    let c = store.clone_vdisk("a", "s2", "c").unwrap();
    write(&mut client, &a, 3, (0..BLOCKS).step_by(5));
    write(&mut client, &c, 4, (1..BLOCKS).step_by(3));
    (store, client)
}

fn of_s2(block: u64) -> Option<u64> {
    (block < BLOCKS / 2).then_some(if block.is_multiple_of(4) { 2 } else { 1 })
}

fn of_c(block: u64) -> Option<u64> {
    if block % 3 == 1 {
        Some(4)
    } else {
        of_s2(block)
    }
}

fn of_a(block: u64) -> Option<u64> {
    if block.is_multiple_of(5) {
        Some(3)
    } else {
        of_s2(block)
    }
}

#[test]
fn an_independent_clone_needs_nothing_of_its_origin() {
    let mut m = Machine::new(1, 256 << 20);
    let (store, mut client) = cloned(&m);
    let c = store.vdisk("c").unwrap();
    store.create_snapshot(&["c"], "own").unwrap();
    // So that there are presence maps of its layers, and resolved leaves.
    all_is(&mut client, &c, of_c);
    upkeep(&store);
    assert!(
        store.delete_snapshots("a", &["s2"], false).is_err(),
        "cloned from"
    );
    store.flatten_vdisk("c").unwrap();
    assert_eq!(store.flattening(&c).unwrap().of_bytes, SIZE);
    upkeep(&store);
    assert_eq!(store.flattening(&c), None, "it is done");
    all_is(&mut client, &c, of_c);
    // Its own snapshot as well; the origin is as it was.
    let own = store.open_snapshot("c", "own").unwrap();
    all_is(&mut client, &own, of_c);
    drop(own);
    all_is(&mut client, &store.vdisk("a").unwrap(), of_a);
    let again = store.flatten_vdisk("c").unwrap_err().to_string();
    assert!(again.contains("shares nothing"), "{again}");
    store.delete_snapshots("a", &["s2"], false).unwrap();
    store.delete_snapshots("a", &["s1"], false).unwrap();
    store.delete_vdisk("a").unwrap();
    upkeep(&store);
    all_is(&mut client, &c, of_c);
    drop((client, c, store));
    m.power_loss();
    let store = m.open();
    let c = store.vdisk("c").unwrap();
    all_is(&mut Client::new(&store), &c, of_c);
    store.shutdown().unwrap();
    m.assert_sound("at last");
}

/// Guests write, read and discard, snapshots come and go, and the process dies at any moment of it.
#[test]
fn clones_become_independent_beside_guests_and_through_crashes() {
    for seed in 0..30 {
        let mut m = Machine::new(seed, 256 << 20);
        let (store, client) = cloned(&m);
        let mut model: Vec<Option<u64>> = (0..BLOCKS).map(of_c).collect();
        store.flatten_vdisk("c").unwrap();
        let (mut rng, mut version) = (Rng::new(seed), 10);
        let (mut store, mut client) = (store, client);
        for life in 0..4 {
            let c = store.vdisk("c").unwrap();
            for n in 0..60 {
                let block = rng.below(BLOCKS as usize) as u64;
                match rng.below(8) {
                    0..3 => {
                        version += 1;
                        write(&mut client, &c, version, std::iter::once(block));
                        model[block as usize] = Some(version);
                    }
                    3 => {
                        let len = rng.below(40) as u64 + 1;
                        let len = len.min(BLOCKS - block);
                        let (offset, bytes) = (block * BLOCK as u64, len * BLOCK as u64);
                        client.discard(&c, offset, bytes).unwrap();
                        model[block as usize..(block + len) as usize].fill(None);
                    }
                    4 => {
                        let data = client.read(&c, block * BLOCK as u64, BLOCK).unwrap();
                        let want = model[block as usize];
                        let want = want.map_or(vec![0; BLOCK], |v| content(v, block, 1));
                        assert!(data == want, "seed {seed}, block {block}");
                    }
                    5 if n % 20 == 7 => {
                        let name = format!("{life}-{n}");
                        store.create_snapshot(&["c"], &name).unwrap();
                        if rng.coin() {
                            store.delete_snapshots("c", &[&name], false).unwrap();
                        }
                    }
                    _ => step(&store, rng.below(4) == 0),
                }
            }
            client.flush(&c).unwrap();
            drop((client, c, store));
            match rng.coin() {
                true => m.power_loss(),
                false => m.kill(),
            }
            store = m.open();
            client = Client::new(&store);
        }
        upkeep(&store);
        let c = store.vdisk("c").unwrap();
        assert_eq!(store.flattening(&c), None, "seed {seed}");
        assert!(
            store.flatten_vdisk("c").is_err(),
            "seed {seed}: still a clone"
        );
        for snapshot in ["s2", "s1"] {
            store.delete_snapshots("a", &[snapshot], false).unwrap();
        }
        store.delete_vdisk("a").unwrap();
        upkeep(&store);
        all_is(&mut client, &c, |block| model[block as usize]);
        drop(client);
        store.shutdown().unwrap();
        m.assert_sound("at last");
    }
}

#[test]
fn a_promoted_clone_takes_over_what_it_was_made_from() {
    let mut m = Machine::new(2, 256 << 20);
    let (store, mut client) = cloned(&m);
    store.create_snapshot(&["a"], "later").unwrap();
    store.create_snapshot(&["c"], "s1").unwrap();
    let twice = store.promote_vdisk("c").unwrap_err().to_string();
    assert!(twice.contains("s1") && twice.contains("rename"), "{twice}");
    store.rename_snapshot("c", "s1", "mine").unwrap();
    store.promote_vdisk("c").unwrap();
    let names = |vdisk: &str| -> Vec<String> {
        let all = store.snapshots(Some(vdisk)).unwrap();
        all.into_iter().map(|s| s.name).collect()
    };
    assert_eq!(names("c"), ["s1", "s2", "mine"]);
    assert_eq!(names("a"), ["later"]);
    assert!(store.promote_vdisk("c").is_err(), "it is no clone any more");
    let refused = store.delete_snapshots("c", &["s2"], false).unwrap_err();
    assert!(refused.to_string().contains("vDisk c: a."), "{refused}");
    all_is(&mut client, &store.vdisk("a").unwrap(), of_a);
    // And so the origin can go.
    store.delete_snapshots("a", &["later"], false).unwrap();
    store.delete_vdisk("a").unwrap();
    upkeep(&store);
    drop((client, store));
    m.power_loss();
    let store = m.open();
    let mut client = Client::new(&store);
    all_is(&mut client, &store.vdisk("c").unwrap(), of_c);
    all_is(&mut client, &store.open_snapshot("c", "s2").unwrap(), of_s2);
    let back = store.promote_vdisk("c").unwrap_err().to_string();
    assert!(back.contains("shares nothing"), "{back}");
    drop(client);
    store.shutdown().unwrap();
    m.assert_sound("at last");
}

/// What can't be read can't be copied: the clone stays what it is, and says why.
#[test]
fn damage_keeps_a_clone_a_clone() {
    let mut m = Machine::new(3, 256 << 20);
    let (store, client) = cloned(&m);
    store.shutdown().unwrap();
    drop((client, store));
    m.kill();
    let (name, bad) = m
        .segments()
        .into_iter()
        .find_map(|name| {
            let records = m.records(&name).into_iter();
            let mut shared = records.filter(|r| r.header.layer == 1 && r.header.count > 0);
            // A block that the clone sees, and has not written.
            let bad = shared.find(|r| r.header.first % 12 == 6)?;
            Some((name, bad))
        })
        .unwrap();
    let rot = Damage::Rot {
        offset: u64::from(bad.offset) + 64,
        len: 8,
    };
    m.disk.damage(&name, rot).unwrap();
    let store = m.open();
    let c = store.vdisk("c").unwrap();
    store.flatten_vdisk("c").unwrap();
    upkeep(&store);
    let failed = store.flattening(&c).unwrap().failed.unwrap();
    assert!(failed.contains("reading at byte"), "{failed}");
    let mut client = Client::new(&store);
    for block in 0..BLOCKS {
        let read = client.read(&c, block * BLOCK as u64, BLOCK);
        match block == bad.header.first {
            true => assert!(read.is_err()),
            false => assert!(read.is_ok(), "block {block}"),
        }
    }
}

/// What the clone has copied moves on to the layer over it while that is merged: nobody may look for it below.
#[test]
fn a_clone_becomes_independent_in_the_middle_of_a_merge() {
    let m = Machine::new(40, 64 << 20);
    let (store, mut client) = cloned(&m);
    let c = store.vdisk("c").unwrap();
    store.create_snapshot(&["c"], "c1").unwrap();
    write(&mut client, &c, 5, (2..BLOCKS).step_by(7));
    store.create_snapshot(&["c"], "c2").unwrap();
    let want = |block: u64| match () {
        () if block % 7 == 2 => Some(5),
        () => of_c(block),
    };
    // By this the layers' presence maps are wanted, and built.
    all_is(&mut client, &c, want);
    upkeep(&store);
    assert!(store.status().presence_maps >= 2);
    store.flatten_vdisk("c").unwrap();
    let (busy, begun) = (Arc::clone(&store), AtomicBool::new(false));
    m.hooks.watch(move |event, _| {
        let c = busy.vdisk("c").unwrap();
        let done = busy.flattening(&c).map_or(0, |f| f.done_bytes);
        if event == Event::Read && done >= SIZE / 4 && !begun.swap(true, Relaxed) {
            busy.delete_snapshots("c", &["c1"], false).unwrap();
            assert!(tidy(busy.core(), 1).unwrap().more);
        }
    });
    // Merging goes on before flattening in each round: this one ends in the middle of it.
    store.upkeep().unwrap();
    assert_eq!(store.flattening(&c), None);
    m.hooks.watch(|_, _| ());
    // What is known of its leaves goes with the layers that it shared.
    for snapshot in ["s2", "s1"] {
        store.delete_snapshots("a", &[snapshot], false).unwrap();
    }
    store.delete_vdisk("a").unwrap();
    upkeep(&store);
    all_is(&mut client, &c, want);
}
