//! Compaction: space comes back, neighbours meet, cold data is packed harder, damage stays where it is and keeps nobody else.

mod support;

use block_store::compress::{Codec, Rules};
use block_store::io::Disk;
use block_store::io::sim::{Damage, Rng};
use block_store::{Store, VDisk};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use support::{BLOCK, Client, Machine, content, noise, step, vdisk};

const SIZE: u64 = 8 << 20;
const BLOCKS: u64 = SIZE / BLOCK as u64;
const DAY: u64 = 24 * 3600;

/// Codecs of all extents that files hold, by how many blocks they have.
fn codecs(m: &Machine) -> std::collections::BTreeMap<u8, u64> {
    let mut out = std::collections::BTreeMap::new();
    for name in m.segments() {
        for r in m.records(&name) {
            if r.header.kind == block_store::format::RecordKind::Extent {
                *out.entry(r.header.codec).or_default() += r.header.count;
            }
        }
    }
    out
}

fn upkeep(store: &Arc<Store>) {
    for _ in 0..40 {
        step(store, true);
    }
}

fn all_is(client: &mut Client, disk: &Arc<VDisk>, versions: &[u64]) {
    for (block, version) in (0..).zip(versions) {
        let data = client.read(disk, block * BLOCK as u64, BLOCK).unwrap();
        assert!(data == content(*version, block, 1), "block {block}");
    }
}

/// Writes all blocks in an order that puts no neighbours side by side.
fn scatter(client: &mut Client, disk: &Arc<VDisk>, version: u64) {
    for n in 0..BLOCKS {
        let block = n * 389 % BLOCKS;
        let bytes = content(version, block, 1);
        client.write(disk, block * BLOCK as u64, &bytes).unwrap();
    }
    client.flush(disk).unwrap();
}

#[test]
fn idle_stores_give_back_what_is_half_dead_and_neighbours_meet() {
    let m = Machine::with_segments(1, 1 << 30, 1 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut versions = vec![0; BLOCKS as usize];
    scatter(&mut client, &disk, 0);
    let grown = |store: &Store| store.status().segments - store.status().spare_segments;
    let full = grown(&store);
    // Of the first segments nothing but what is not written now stays alive.
    for (block, version) in (0..).zip(&mut versions) {
        if block % 32 < 20 {
            *version = 1;
            let bytes = content(1, block, 1);
            client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
        }
    }
    client.flush(&disk).unwrap();
    let before = grown(&store);
    store.core().cpu_headroom.store(10, Relaxed);
    upkeep(&store);
    assert_eq!(store.status().relocated_bytes, 0, "the host is busy");
    store.core().cpu_headroom.store(100, Relaxed);
    let read = m.disk.counters().bytes_read;
    upkeep(&store);
    let (after, moved) = (grown(&store), store.status().relocated_bytes);
    let read = m.disk.counters().bytes_read - read;
    assert!(read < 8 * SIZE, "{read} bytes read to move {moved}");
    assert!(
        after <= full + 1 && after < before,
        "{full}, {before}, then {after} segments"
    );
    assert!(0 < moved && moved < SIZE / 2, "{moved} bytes moved");
    all_is(&mut client, &disk, &versions);
    // Twelve neighbours were twelve extents in as many places.
    let reads = |m: &Machine| m.disk.counters().reads;
    let before = reads(&m);
    client.read(&disk, 20 * BLOCK as u64, 12 * BLOCK).unwrap();
    assert!(reads(&m) - before <= 4, "{} reads", reads(&m) - before);
    drop(client);
    store.shutdown().unwrap();
    m.assert_sound("at last");
}

#[test]
fn what_nobody_touches_is_packed_harder_once() {
    let mut m = Machine::with_segments(2, 1 << 30, 1 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    scatter(&mut client, &disk, 0);
    let versions = vec![0; BLOCKS as usize];
    let (lz4, zstd) = (Codec::Lz4.byte(), Codec::Zstd(3).byte());
    m.clock.fetch_add(DAY - 1, Relaxed);
    upkeep(&store);
    assert_eq!(codecs(&m).get(&zstd), None, "not yet cold");
    // What is read is not cold.
    m.clock.fetch_add(1, Relaxed);
    store.core().cpu_headroom.store(0, Relaxed);
    upkeep(&store);
    assert_eq!(codecs(&m).get(&zstd), None, "the host is busy");
    all_is(&mut client, &disk, &versions);
    store.core().cpu_headroom.store(100, Relaxed);
    upkeep(&store);
    assert_eq!(codecs(&m).get(&zstd), None, "it has just been read");
    m.clock.fetch_add(DAY, Relaxed);
    upkeep(&store);
    let found = codecs(&m);
    assert!(found[&zstd] > BLOCKS * 8 / 10, "{found:?}");
    let moved = store.status().relocated_bytes;
    m.clock.fetch_add(DAY, Relaxed);
    upkeep(&store);
    assert_eq!(store.status().relocated_bytes, moved, "once is enough");
    all_is(&mut client, &disk, &versions);
    store.checkpoint().unwrap();
    drop((client, disk, store));
    // What was open then is left to the next process; the one after that knows that there is nothing to be looked for.
    let mut looked = Vec::new();
    for life in 0..3 {
        m.power_loss();
        let store = m.open();
        let before = m.disk.counters().reads;
        m.clock.fetch_add(DAY, Relaxed);
        upkeep(&store);
        m.clock.fetch_add(DAY, Relaxed);
        upkeep(&store);
        looked.push(m.disk.counters().reads - before);
        let moved = store.status().relocated_bytes;
        assert!(
            moved < SIZE / 10 && (life == 0 || moved == 0),
            "{moved} bytes packed again"
        );
        let (mut client, disk) = (Client::new(&store), store.vdisk("a").unwrap());
        all_is(&mut client, &disk, &versions);
        store.checkpoint().unwrap();
    }
    assert_eq!(looked[2], 0, "{looked:?}");
    assert!(codecs(&m).get(&lz4).is_none_or(|n| *n < BLOCKS / 10));
    let store = m.open();
    store.shutdown().unwrap();
    m.assert_sound("at last");
}

/// Data that was told to be compressed later; and a vDisk whose rules ask for nothing.
#[test]
fn each_vdisk_is_packed_by_its_own_rules() {
    let m = Machine::with_segments(3, 1 << 30, 1 << 20);
    let store = m.open();
    let (a, b) = (vdisk(&store, "a", SIZE), vdisk(&store, "b", SIZE));
    let mut plain = Rules::default();
    plain.rules.retain(|r| r.name != "cold");
    store.set_rules(Some("b"), plain).unwrap();
    let mut client = Client::new(&store);
    scatter(&mut client, &a, 0);
    scatter(&mut client, &b, 1);
    m.clock.fetch_add(DAY, Relaxed);
    store.core().cpu_headroom.store(90, Relaxed);
    upkeep(&store);
    let found = codecs(&m);
    let (lz4, zstd) = (Codec::Lz4.byte(), Codec::Zstd(3).byte());
    assert!(found[&zstd] >= BLOCKS * 8 / 10, "{found:?}");
    assert!(found[&zstd] <= BLOCKS && found[&lz4] >= BLOCKS, "{found:?}");
    all_is(&mut client, &a, &vec![0; BLOCKS as usize]);
    all_is(&mut client, &b, &vec![1; BLOCKS as usize]);
}

/// Flipped bits in something alive: it stays, and reads as an error; all else moves, and the segment is not tried for ever.
#[test]
fn damage_stays_where_it_is_and_keeps_nobody_else() {
    let mut m = Machine::with_segments(4, 1 << 30, 1 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    scatter(&mut client, &disk, 0);
    store.shutdown().unwrap();
    drop((client, disk, store));
    m.kill();
    let full = m.segments();
    let (name, bad) = full
        .iter()
        .find_map(|name| {
            let mut records = m.records(name);
            records.retain(|r| r.header.kind == block_store::format::RecordKind::Extent);
            let n = records.iter().position(|r| r.header.first % 2 == 1)?;
            Some((name.clone(), records.swap_remove(n)))
        })
        .unwrap();
    let rot = Damage::Rot {
        offset: u64::from(bad.offset) + 64,
        len: 8,
    };
    m.disk.damage(&name, rot).unwrap();
    let store = m.open();
    let (mut client, disk) = (Client::new(&store), store.vdisk("a").unwrap());
    // Every other block is overwritten: all segments are half dead.
    for block in (0..BLOCKS).step_by(2) {
        let bytes = content(1, block, 1);
        client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
    }
    upkeep(&store);
    let compaction = store.stats().compaction;
    upkeep(&store);
    assert_eq!(store.stats().compaction, compaction, "tried for ever");
    for block in 0..BLOCKS {
        let read = client.read(&disk, block * BLOCK as u64, BLOCK);
        if block == bad.header.first {
            assert!(read.is_err(), "block {block} is damaged");
        } else {
            assert!(read.unwrap() == content(1 - block % 2, block, 1));
        }
    }
    let left: Vec<_> = m
        .segments()
        .into_iter()
        .filter(|n| full.contains(n))
        .collect();
    assert!(left.contains(&name), "{left:?}");
    assert!(
        left.len() <= 3,
        "of {} segments {left:?} are left",
        full.len()
    );
}

/// Nodes that can't be read keep their segment; upkeep does not go round and round for them.
#[test]
fn damaged_nodes_are_not_rewritten_for_ever() {
    // Of a damaged header a scan of the segment sees nothing more; of damage behind it only who reads the node does.
    for at in [0, block_store::format::RECORD_HEADER] {
        damaged_nodes(at as u64);
    }
}

fn damaged_nodes(at: u64) {
    const LEAF: u64 = 2 << 20;
    let mut m = Machine::with_segments(6, 1 << 30, 1 << 20);
    let one_in_each = |m: &Machine, version: u64, leaves: u64| {
        let store = m.open();
        let disk = store
            .vdisk("a")
            .unwrap_or_else(|_| vdisk(&store, "a", 64 * LEAF));
        let mut client = Client::new(&store);
        for leaf in 0..leaves {
            let bytes = content(version, leaf * 512, 1);
            client.write(&disk, leaf * LEAF, &bytes).unwrap();
        }
        store.checkpoint().unwrap();
    };
    one_in_each(&m, 0, 64);
    m.kill();
    // Most of the nodes of the first process lie elsewhere then.
    one_in_each(&m, 1, 60);
    m.kill();
    let is_leaf = |r: &block_store::recover::Scanned| {
        r.header.kind == block_store::format::RecordKind::Node && r.header.layer > 0
    };
    let segments = m.segments().into_iter();
    let first = segments.filter(|s| m.records(s).iter().any(is_leaf)).min();
    let first = first.unwrap();
    for record in m.records(&first) {
        let rot = Damage::Rot {
            offset: u64::from(record.offset) + at,
            len: 8,
        };
        m.disk.damage(&first, rot).unwrap();
    }
    let store = m.open();
    let checkpoints = |store: &Store| store.status().checkpoints;
    let before = checkpoints(&store);
    for _ in 0..20 {
        store.upkeep().unwrap();
    }
    let taken = checkpoints(&store) - before;
    assert!((1..=5).contains(&taken), "{taken} checkpoints");
    assert!(m.segments().contains(&first), "what is damaged stays");
}

/// Compaction goes by what the catalogue says: new rules that no checkpoint has are not in it.
#[test]
fn rules_that_can_not_be_made_durable_hold_for_nobody() {
    let m = Machine::new(7, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let (core, before) = (Arc::clone(store.core()), Rules::default());
    store.set_rules(None, before.clone()).unwrap();
    let rules = || core.state.lock().catalogue.rules.clone();
    let known = rules();
    // No checkpoint can hold this.
    let tag: String = noise(1, 1 << 20)
        .iter()
        .map(|b| char::from(b % 90 + 32))
        .collect();
    core.state.lock().catalogue.vdisks[0].tag = tag;
    let none = Rules {
        coalesce: Vec::new(),
        ..before
    };
    store.set_rules(None, none.clone()).unwrap_err();
    assert!(known.is_some() && rules() == known);
    core.state.lock().catalogue.vdisks[0].tag.clear();
    store.set_rules(None, none).unwrap();
    assert_ne!(rules(), known);
}

/// Random overwrites, four fifths of the disk alive: what is written beyond what guests write, and what space is taken.
#[test]
fn steady_overwrites_of_a_full_disk_cost_a_bounded_number_of_writes() {
    const CAPACITY: u64 = 128 << 20;
    let m = Machine::with_segments(5, CAPACITY, 1 << 20);
    let store = m.open();
    store.core().cpu_headroom.store(0, Relaxed);
    let disk = vdisk(&store, "a", 1 << 30);
    let mut client = Client::new(&store);
    let mut blocks = 0;
    while store.status().data_bytes < CAPACITY * 8 / 10 {
        let bytes = content(0, blocks, 1);
        client.write(&disk, blocks * BLOCK as u64, &bytes).unwrap();
        blocks += 1;
    }
    let mut versions = vec![0; blocks as usize];
    let mut rng = Rng::new(5);
    let (mut written, mut moved, mut last) = (0, 0, 0.0);
    for round in 1..=3 {
        let before = store.status();
        for _ in 0..blocks {
            let block = rng.below(blocks as usize) as u64;
            versions[block as usize] = round;
            let bytes = content(round, block, 1);
            client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
        }
        let after = store.status();
        (written, moved) = (
            after.log_written_bytes - before.log_written_bytes,
            after.relocated_bytes - before.relocated_bytes,
        );
        last = written as f64 / (written - moved) as f64;
        println!("round {round}: {written} bytes written, {moved} of them moved: {last:.2}");
    }
    assert!(last < 4.0, "{written} bytes written, {moved} moved");
    all_is(&mut client, &disk, &versions);
    drop(client);
    store.shutdown().unwrap();
    m.assert_sound("at last");
}

/// Nothing is dead, and 5 % of the disk are free: guests go on, deleted snapshots are merged, and what was discarded comes back.
#[test]
fn a_nearly_full_store_serves_merges_and_compacts() {
    const CAPACITY: u64 = 128 << 20;
    let m = Machine::with_segments(6, CAPACITY, 256 << 10);
    let store = m.open();
    store.core().cpu_headroom.store(0, Relaxed);
    let disk = vdisk(&store, "a", 1 << 30);
    let mut client = Client::new(&store);
    let mut blocks = 0;
    while m.disk.space().unwrap().free > CAPACITY * 5 / 100 {
        let bytes = content(0, blocks, 1);
        client.write(&disk, blocks * BLOCK as u64, &bytes).unwrap();
        blocks += 1;
    }
    let mut versions = vec![0; blocks as usize];
    let mut rng = Rng::new(6);
    let before = store.status();
    for version in 1..=8 {
        let name = format!("s{version}");
        store.create_snapshot(&["a"], &name).unwrap();
        for _ in 0..blocks / 64 {
            let block = rng.below(blocks as usize) as u64;
            versions[block as usize] = version;
            let bytes = content(version, block, 1);
            client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
        }
        client.flush(&disk).unwrap();
        store.delete_snapshots("a", &[&name], false).unwrap();
        upkeep(&store);
        assert_eq!(store.status().layers, 1, "round {version}");
    }
    let after = store.status();
    let written = after.log_written_bytes - before.log_written_bytes;
    let moved = after.relocated_bytes - before.relocated_bytes;
    let cost = written as f64 / (written - moved) as f64;
    println!("{written} bytes written, {moved} of them moved: {cost:.2}");
    assert!(moved > 0 && cost < 16.0);
    all_is(&mut client, &disk, &versions);
    let half = blocks / 2;
    client.discard(&disk, 0, half * BLOCK as u64).unwrap();
    client.flush(&disk).unwrap();
    upkeep(&store);
    upkeep(&store);
    let left = store.status();
    assert!(left.segments < after.segments * 3 / 4, "{left:?}");
    drop(client);
    store.shutdown().unwrap();
    m.assert_sound("at last");
}
