//! Spot defragmentation: what a read finds scattered lies together afterwards, reads the same, and gives segments back.

mod support;

use block_store::compress::Rules;
use block_store::defrag::Spot;
use block_store::write::Packer;
use block_store::{Store, VDisk};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use support::{BLOCK, Client, Machine, content, step, vdisk};

const BLOCKS: u64 = 1024;
const SIZE: u64 = BLOCKS * BLOCK as u64;

/// An order in which no two neighbours follow each other.
fn scattered() -> impl Iterator<Item = u64> {
    (0..BLOCKS).map(|n| n * 389 % BLOCKS)
}

fn overwrite(client: &mut Client, disk: &Arc<VDisk>, version: u64) {
    for block in scattered() {
        let bytes = content(version, block, 1);
        client.write(disk, block * BLOCK as u64, &bytes).unwrap();
    }
}

fn fill(m: &Machine) -> (Arc<Store>, Arc<VDisk>, Client) {
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    for first in (0..BLOCKS).step_by(64) {
        let bytes = content(1, first, 64);
        client.write(&disk, first * BLOCK as u64, &bytes).unwrap();
    }
    (store, disk, client)
}

/// Everything in the segments' files, so that reads have to fetch it.
fn flush(client: &mut Client, disk: &Arc<VDisk>) {
    client.flush(disk).unwrap();
    while client.store.core().drain_step().unwrap() {}
}

fn coalesce(store: &Store) -> u64 {
    let mut packer = Packer::new().unwrap();
    store.core().allocate_ready().unwrap();
    while Spot::step(store.core(), &mut packer).unwrap().is_some() {
        store.core().allocate_ready().unwrap();
    }
    store.core().counters.coalesced_bytes.load(Relaxed)
}

/// Reads all of it, in large reads; how many reads that took of the disk.
fn read_all(m: &Machine, client: &mut Client, disk: &Arc<VDisk>, version: u64) -> u64 {
    let before = m.disk.counters().reads;
    for first in (0..BLOCKS).step_by(128) {
        let read = client
            .read(disk, first * BLOCK as u64, 128 * BLOCK)
            .unwrap();
        assert!(read == content(version, first, 128), "blocks from {first}");
    }
    m.disk.counters().reads - before
}

#[test]
fn what_a_read_finds_scattered_is_put_together() {
    let mut m = Machine::new(1, 256 << 20);
    let (store, disk, mut client) = fill(&m);
    flush(&mut client, &disk);
    let fresh = read_all(&m, &mut client, &disk, 1);
    assert_eq!(coalesce(&store), 0, "nothing is scattered");
    overwrite(&mut client, &disk, 2);
    flush(&mut client, &disk);
    let scattered = read_all(&m, &mut client, &disk, 2);
    assert!(
        scattered > 8 * fresh,
        "{scattered} reads, {fresh} when fresh"
    );
    assert_eq!(coalesce(&store), SIZE);
    flush(&mut client, &disk);
    let together = read_all(&m, &mut client, &disk, 2);
    assert!(
        together <= 2 * fresh,
        "{together} reads, {fresh} when fresh"
    );
    assert_eq!(coalesce(&store), SIZE, "there is no end to it");
    // Before a checkpoint it is as if nothing had happened.
    drop((client, store, disk));
    m.kill();
    let store = m.open();
    let (mut client, disk) = (Client::new(&store), store.vdisk("a").unwrap());
    read_all(&m, &mut client, &disk, 2);
    coalesce(&store);
    store.checkpoint().unwrap();
    flush(&mut client, &disk);
    drop((client, store, disk));
    m.power_loss();
    let store = m.open();
    let (mut client, disk) = (Client::new(&store), store.vdisk("a").unwrap());
    let after = read_all(&m, &mut client, &disk, 2);
    assert!(after <= 3 * fresh, "{after} reads after a crash");
    store.shutdown().unwrap();
    m.assert_sound("at last");
}

/// More than what may wait at a time: the rest is remembered, and read again.
#[test]
fn what_there_is_no_room_for_comes_later() {
    const SIZE: u64 = 20 << 20;
    let m = Machine::with_segments(6, 1 << 30, 1 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    for version in 0..2 {
        let blocks = SIZE / BLOCK as u64;
        for n in 0..blocks {
            let block = n * 389 % blocks;
            let bytes = content(version, block, 1);
            client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
        }
    }
    flush(&mut client, &disk);
    for offset in (0..SIZE).step_by(1 << 20) {
        client.read(&disk, offset, 1 << 20).unwrap();
    }
    assert_eq!(coalesce(&store), 8 << 20, "what may wait");
    let mut again = store.again();
    while let Some(range) = store.core().spot.next_later() {
        again.read(range);
        coalesce(&store);
    }
    assert_eq!(coalesce(&store), SIZE);
    let all = client.read(&disk, 0, SIZE as usize).unwrap();
    assert!(all == content(1, 0, SIZE / BLOCK as u64));
}

/// Small writes of four streams in turns: each is put together from what it has just written, without being read.
#[test]
fn streams_of_small_writes_are_put_together() {
    let mut m = Machine::new(8, 256 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let write_all = |client: &mut Client, version: u64| {
        for n in 0..256 {
            for block in (0..4).map(|stream| stream * 256 + n) {
                let bytes = content(version, block, 1);
                client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
            }
        }
    };
    store.core().cpu_headroom.store(79, Relaxed);
    write_all(&mut client, 0);
    assert_eq!(coalesce(&store), 0, "the host is busy");
    store.core().cpu_headroom.store(80, Relaxed);
    let before = m.disk.counters().reads;
    write_all(&mut client, 1);
    flush(&mut client, &disk);
    let together = coalesce(&store);
    assert!(together > SIZE * 9 / 10, "{together} bytes of {SIZE}");
    assert_eq!(m.disk.counters().reads, before, "nothing is read for it");
    flush(&mut client, &disk);
    let reads = read_all(&m, &mut client, &disk, 1);
    // The first stretch of each stream was too short.
    assert!(reads < 160, "{reads} reads");
    // A write after it was gathered wins.
    write_all(&mut client, 2);
    let bytes = content(3, 17, 1);
    client.write(&disk, 17 * BLOCK as u64, &bytes).unwrap();
    coalesce(&store);
    assert!(client.read(&disk, 17 * BLOCK as u64, BLOCK).unwrap() == bytes);
    store.checkpoint().unwrap();
    flush(&mut client, &disk);
    drop((client, store, disk));
    m.power_loss();
    let store = m.open();
    let (mut client, disk) = (Client::new(&store), store.vdisk("a").unwrap());
    for block in 0..BLOCKS {
        let version = if block == 17 { 3 } else { 2 };
        let read = client.read(&disk, block * BLOCK as u64, BLOCK).unwrap();
        assert!(read == content(version, block, 1), "block {block}");
    }
    store.shutdown().unwrap();
    m.assert_sound("at last");
}

/// Rules say whether, for each vDisk.
#[test]
fn a_vdisk_can_be_left_as_it_is() {
    let m = Machine::new(9, 256 << 20);
    let (store, disk, mut client) = fill(&m);
    let leave = Rules {
        coalesce: Vec::new(),
        ..Rules::default()
    };
    store.set_rules(Some("a"), leave).unwrap();
    overwrite(&mut client, &disk, 2);
    flush(&mut client, &disk);
    let scattered = read_all(&m, &mut client, &disk, 2);
    assert_eq!(coalesce(&store), 0);
    assert_eq!(read_all(&m, &mut client, &disk, 2), scattered);
    store.set_rules(Some("a"), Rules::default()).unwrap();
    read_all(&m, &mut client, &disk, 2);
    assert!(coalesce(&store) > SIZE * 9 / 10);
}

#[test]
fn random_reads_coalesce_nothing() {
    let m = Machine::new(2, 256 << 20);
    let (store, disk, mut client) = fill(&m);
    overwrite(&mut client, &disk, 2);
    flush(&mut client, &disk);
    for block in scattered() {
        client.read(&disk, block * BLOCK as u64, BLOCK).unwrap();
    }
    for first in (0..BLOCKS - 8).step_by(8) {
        client.read(&disk, first * BLOCK as u64, 8 * BLOCK).unwrap();
    }
    assert_eq!(coalesce(&store), 0);
}

#[test]
fn a_write_in_between_wins() {
    let mut m = Machine::new(3, 256 << 20);
    let (store, disk, mut client) = fill(&m);
    overwrite(&mut client, &disk, 2);
    flush(&mut client, &disk);
    let read = client.read(&disk, 0, 128 * BLOCK).unwrap();
    assert!(read == content(2, 0, 128));
    let newer = content(3, 40, 3);
    client.write(&disk, 40 * BLOCK as u64, &newer).unwrap();
    client
        .discard(&disk, 60 * BLOCK as u64, 2 * BLOCK as u64)
        .unwrap();
    assert!(coalesce(&store) > 0);
    let right = |client: &mut Client, disk: &Arc<VDisk>| {
        let read = client.read(disk, 0, 128 * BLOCK).unwrap();
        let mut want = content(2, 0, 128);
        want[40 * BLOCK..43 * BLOCK].copy_from_slice(&newer);
        want[60 * BLOCK..62 * BLOCK].fill(0);
        assert!(read == want);
    };
    right(&mut client, &disk);
    store.checkpoint().unwrap();
    drop((client, store, disk));
    m.kill();
    let store = m.open();
    let (mut client, disk) = (Client::new(&store), store.vdisk("a").unwrap());
    right(&mut client, &disk);
}

/// Segments that hold what snapshots have left behind empty as it is touched, and go.
#[test]
fn what_deleted_snapshots_leave_behind_is_put_together_and_removed() {
    let m = Machine::new(4, 256 << 20);
    let (store, disk, mut client) = fill(&m);
    // Each snapshot keeps a few blocks of every 64 KiB.
    for version in 2..=9 {
        for block in scattered().filter(|b| b % 8 == version % 8) {
            let bytes = content(version, block, 1);
            client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
        }
        store
            .create_snapshot(&["a"], &format!("s{version}"))
            .unwrap();
    }
    for version in 2..=9 {
        store
            .delete_snapshots("a", &[&format!("s{version}")], false)
            .unwrap();
    }
    for _ in 0..40 {
        step(&store, true);
    }
    assert_eq!(store.core().state.lock().catalogue.layers.len(), 1);
    flush(&mut client, &disk);
    let (before, segments) = (store.status().data_bytes, m.segments());
    let all = |client: &mut Client| {
        for first in (0..BLOCKS).step_by(128) {
            let read = client
                .read(&disk, first * BLOCK as u64, 128 * BLOCK)
                .unwrap();
            for (n, block) in (first..).zip(read.chunks_exact(BLOCK)) {
                let version = if n % 8 < 2 { 8 + n % 8 } else { n % 8 };
                assert!(block == content(version, n, 1), "block {n}");
            }
        }
    };
    all(&mut client);
    assert!(coalesce(&store) > 0);
    store.checkpoint().unwrap();
    store.checkpoint().unwrap();
    let gone = segments
        .iter()
        .filter(|s| !m.segments().contains(s))
        .count();
    assert!(gone >= 4, "{gone} of {segments:?} are gone");
    assert!(store.status().data_bytes < before);
    all(&mut client);
    store.shutdown().unwrap();
    m.assert_sound("at last");
}

/// Through sealed layers: what snapshots read as does not change, and what was resolved leads to the new places.
#[test]
fn sealed_layers_are_coalesced_in_place() {
    let m = Machine::new(5, 256 << 20);
    let (store, disk, mut client) = fill(&m);
    overwrite(&mut client, &disk, 2);
    store.create_snapshot(&["a"], "s").unwrap();
    flush(&mut client, &disk);
    let scattered = read_all(&m, &mut client, &disk, 2);
    assert!(coalesce(&store) > 0);
    flush(&mut client, &disk);
    // The old places are there still, but nobody is led there.
    let together = read_all(&m, &mut client, &disk, 2);
    assert!(4 * together < scattered, "{together} of {scattered} reads");
    overwrite(&mut client, &disk, 3);
    let view = store.open_snapshot("a", "s").unwrap();
    read_all(&m, &mut client, &view, 2);
    read_all(&m, &mut client, &disk, 3);
}
