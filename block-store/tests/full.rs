//! A full store: guests wait (or are told), everything else goes on, nothing is lost, and space that is given back is used.

mod support;

use block_store::alloc::Phase;
use block_store::io::Disk;
use block_store::{Command, Done, Lane, OnFull, RequestError, Store, StoreError, VDisk};
use std::sync::Arc;
use support::{BLOCK, Client, Machine, SEGMENT, content, noise, step, vdisk};

const SIZE: u64 = 64 << 20;

/// Fills a disk of 4 MiB with random data until a write stalls. Returns how many blocks were acknowledged; the write that waits is
/// still in the client's lane.
fn fill(client: &mut Client, disk: &Arc<VDisk>) -> u64 {
    for block in 0..4096 {
        let from = noise(block, BLOCK);
        let offset = block * BLOCK as u64;
        client.lane.submit(disk, Command::Write { offset, from }, 0);
        match client.wait(40) {
            Some(done) => done.result.unwrap(),
            None => return block,
        }
    }
    panic!("the disk does not fill up");
}

fn small() -> (Machine, Arc<Store>, Arc<VDisk>, Client) {
    let m = Machine::new(3, 4 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let client = Client::new(&store);
    (m, store, disk, client)
}

fn check(client: &mut Client, disk: &Arc<VDisk>, blocks: std::ops::Range<u64>) {
    for block in blocks {
        let data = client.read(disk, block * BLOCK as u64, BLOCK).unwrap();
        assert!(data == noise(block, BLOCK), "block {block}");
    }
}

#[test]
fn stalled_writes_complete_when_the_disk_grows_and_nothing_is_lost() {
    let (mut m, store, disk, mut client) = small();
    let blocks = fill(&mut client, &disk);
    assert!(blocks > 256, "only {blocks} blocks found room");
    assert!(store.status().full);
    // Reads, flushes and checkpoints work, from another lane.
    let mut other = Client::new(&store);
    check(&mut other, &disk, 0..blocks);
    other.flush(&disk).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(client.lane.in_flight(), 1);
    m.disk.set_capacity(16 << 20);
    client.wait(200).expect("still stalled").result.unwrap();
    check(&mut client, &disk, 0..blocks + 1);
    client.flush(&disk).unwrap();
    drop((client, other, store, disk));
    m.power_loss();
    let store = m.open();
    let disk = store.vdisk("a").unwrap();
    check(&mut Client::new(&store), &disk, 0..blocks + 1);
}

#[test]
fn a_full_store_survives_power_loss_and_opens() {
    let (mut m, store, disk, mut client) = small();
    let blocks = fill(&mut client, &disk);
    Client::new(&store).flush(&disk).unwrap();
    drop((client, store, disk));
    m.power_loss();
    let store = m.open();
    let disk = store.vdisk("a").unwrap();
    check(&mut Client::new(&store), &disk, 0..blocks);
}

#[test]
fn deleting_a_vdisk_lets_the_others_go_on() {
    let (_m, store, disk, mut client) = small();
    let other = vdisk(&store, "b", SIZE);
    for n in 0..8 {
        let offset = n * 32 * BLOCK as u64;
        let bytes = noise(n, 32 * BLOCK);
        client.write(&other, offset, &bytes).unwrap();
    }
    client.flush(&other).unwrap();
    let blocks = fill(&mut client, &disk);
    drop(other);
    store.delete_vdisk("b").unwrap();
    client.wait(200).expect("still stalled").result.unwrap();
    check(&mut client, &disk, 0..blocks + 1);
}

#[test]
fn a_discard_lets_stalled_writes_go_on() {
    let (_m, store, disk, mut client) = small();
    let blocks = fill(&mut client, &disk);
    let mut other = Client::new(&store);
    // The request of the full store itself must find room.
    other
        .discard(&disk, 0, blocks / 2 * BLOCK as u64)
        .expect("a discard on a full store");
    client.wait(200).expect("still stalled").result.unwrap();
    check(&mut client, &disk, blocks / 2..blocks + 1);
    let gone = client.read(&disk, 0, BLOCK).unwrap();
    assert!(gone.iter().all(|b| *b == 0));
}

/// A write of a part of a block that waits for space keeps none itself: the segment in which it found the rest.
#[test]
fn what_waits_for_space_keeps_none() {
    let (_m, store, disk, mut client) = small();
    fill(&mut client, &disk);
    let mut other = Client::new(&store);
    let part = Command::Write {
        offset: 0,
        from: vec![7; 512],
    };
    other.lane.submit(&disk, part, 0);
    assert!(other.wait(40).is_none());
    let state = store.core().state.lock();
    let sealed = state.segments.iter();
    let sealed = sealed.filter(|(_, s)| s.phase == Phase::Sealed);
    for (id, segment) in sealed {
        assert_eq!(Arc::strong_count(&segment.file), 1, "segment {id:x}");
    }
}

/// A segment that is removed while somebody reads it gives its space back when he is done, without another checkpoint.
#[test]
fn what_is_read_gives_its_space_back_later() {
    let (m, store, disk, mut client) = small();
    let blocks = fill(&mut client, &disk);
    let read: Vec<_> = {
        let state = store.core().state.lock();
        let files = state.segments.iter().map(|(_, s)| Arc::clone(&s.file));
        files.collect()
    };
    let all = (blocks + 1) * BLOCK as u64;
    Client::new(&store).discard(&disk, 0, all).unwrap();
    for _ in 0..40 {
        step(&store, true);
    }
    assert!(!store.core().removed.lock().is_empty());
    let before = m.disk.space().unwrap().free;
    drop(read);
    step(&store, false);
    assert!(store.core().removed.lock().is_empty());
    let free = m.disk.space().unwrap().free;
    assert!(free > before, "{free} bytes, {before} before");
}

/// Three quarters of every segment are overwritten: only moving the rest together gives space back.
#[test]
fn compaction_gives_space_back() {
    let (_m, store, disk, mut client) = small();
    // The disk holds twelve segments or so. Ten times its size goes through a few hot blocks among cold ones.
    for block in 0..400 {
        let offset = block * BLOCK as u64;
        let bytes = noise(block, BLOCK);
        client.write(&disk, offset, &bytes).unwrap();
    }
    for round in 1..40 {
        for block in (0..400).filter(|b| b % 4 != 0) {
            let bytes = noise(round << 32 | block, BLOCK);
            let offset = block * BLOCK as u64;
            client.write(&disk, offset, &bytes).unwrap();
        }
    }
    assert!(store.status().relocated_bytes > 0, "{:?}", store.status());
    for block in 0..400 {
        let data = client.read(&disk, block * BLOCK as u64, BLOCK).unwrap();
        let want = if block % 4 == 0 {
            block
        } else {
            39 << 32 | block
        };
        assert!(data == noise(want, BLOCK), "block {block}");
    }
}

#[test]
fn a_store_that_is_set_to_says_that_it_is_full() {
    let m = Machine::new(3, 4 << 20);
    let store = m.try_open(|c| c.on_full = OnFull::Error).unwrap();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut blocks = 0;
    let refused = loop {
        let bytes = noise(blocks, BLOCK);
        match client.write(&disk, blocks * BLOCK as u64, &bytes) {
            Ok(()) => blocks += 1,
            Err(error) => break error,
        }
        assert!(blocks < 4096, "the disk does not fill up");
    };
    assert_eq!(refused, RequestError::NoSpace);
    check(&mut client, &disk, 0..blocks);
    client.flush(&disk).unwrap();
    store.checkpoint().unwrap();
    assert!(m.disk.counters().bytes_written > 0);
    m.disk.set_capacity(16 << 20);
    step(&store, true);
    client
        .write(&disk, blocks * BLOCK as u64, &noise(blocks, BLOCK))
        .unwrap();
    check(&mut client, &disk, 0..blocks + 1);
}

/// Guests can't use up what checkpoints and relocation need: on a store filled to the brim with garbage a hundred
/// checkpoints and rounds of upkeep still work.
#[test]
fn the_reserves_hold() {
    let (m, store, disk, mut client) = small();
    let blocks = fill(&mut client, &disk);
    let mut other = Client::new(&store);
    for _ in 0..100 {
        store.upkeep().unwrap();
        store.checkpoint().unwrap();
        store.core().allocate_ready().unwrap();
    }
    assert!(store.status().spare_segments >= 1, "{:?}", store.status());
    // Changes of the catalogue, too.
    let twin = vdisk(&store, "b", 1 << 20);
    store.resize_vdisk("b", 2 << 20).unwrap();
    drop(twin);
    store.delete_vdisk("b").unwrap();
    check(&mut other, &disk, 0..blocks);
    assert!(m.segments().len() as u64 * u64::from(SEGMENT) <= 5 << 20);
}

#[test]
fn a_stalled_write_can_be_taken_back() {
    let (m, store, disk, mut client) = small();
    let blocks = fill(&mut client, &disk);
    let mut done: Vec<Done<Vec<u8>>> = Vec::new();
    client.lane.cancel_stalled(&mut done, |_| true);
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].result, Err(RequestError::Cancelled));
    assert_eq!(client.lane.in_flight(), 0);
    m.disk.set_capacity(16 << 20);
    step(&store, true);
    let data = client.read(&disk, blocks * BLOCK as u64, BLOCK).unwrap();
    assert!(data.iter().all(|b| *b == 0));
}

/// What waited for space while its vDisk was deleted fails, and its space is not lost.
#[test]
fn a_write_that_waits_while_its_vdisk_goes_leaves_nothing() {
    let (m, store, disk, mut client) = small();
    fill(&mut client, &disk);
    let mut second: Lane<Vec<u8>> = store.lane(4).unwrap();
    let from = content(1, 0, 32);
    second.submit(&disk, Command::Write { offset: 0, from }, 1);
    store.delete_vdisk("a").unwrap();
    m.disk.set_capacity(64 << 20);
    let done = client.wait(200).expect("still stalled");
    assert_eq!(done.result, Err(RequestError::Io));
    let mut done = Vec::new();
    for _ in 0..100 {
        second.poll(&mut done);
        step(&store, true);
    }
    assert_eq!(done.len(), 1);
    let mut client = Client::new(&store);
    let other = vdisk(&store, "b", SIZE);
    for n in 0..64 {
        let offset = n * 32 * BLOCK as u64;
        client.write(&other, offset, &noise(n, 32 * BLOCK)).unwrap();
        client.discard(&other, offset, 32 * BLOCK as u64).unwrap();
    }
    for _ in 0..4 {
        store.upkeep().unwrap();
        store.checkpoint().unwrap();
    }
    assert_eq!(store.status().live_bytes, 0, "{:?}", store.status());
}

#[test]
fn a_disk_too_small_for_a_store_is_a_clear_error() {
    let m = Machine::new(1, 512 << 10);
    let outcome = m.try_open(|_| {}).and_then(|store| {
        let spec = block_store::VDiskSpec {
            name: "a".into(),
            size: 1 << 20,
            hidden: false,
        };
        store.create_vdisk(&spec).map(drop)
    });
    if let Err(error) = outcome {
        assert!(matches!(error, StoreError::NoSpace(_)), "{error}");
    }
}

/// Writes of parts of a block that wait behind a write of that block have to read it anew once that one is through. They are
/// not left behind, though nothing else happens that would wake them.
#[test]
fn writes_that_read_their_block_anew_are_not_left_waiting() {
    let (m, store, disk, mut client) = small();
    let blocks = fill(&mut client, &disk);
    let at = blocks * BLOCK as u64;
    for part in 0..3u8 {
        let offset = at + 512 * u64::from(part);
        let from = vec![part + 1; 512];
        client
            .lane
            .submit(&disk, Command::Write { offset, from }, 1);
    }
    let (offset, from) = (at + BLOCK as u64, noise(blocks + 1, BLOCK));
    client
        .lane
        .submit(&disk, Command::Write { offset, from }, 1);
    let mut done = Vec::new();
    client.lane.poll(&mut done);
    assert!(done.is_empty(), "the store is full");
    m.disk.set_capacity(16 << 20);
    store.core().allocate_ready().unwrap();
    for _ in 0..50 {
        client.lane.poll(&mut done);
    }
    assert_eq!(done.len(), 5, "{} wait", client.lane.in_flight());
    assert!(done.iter().all(|d| d.result.is_ok()));
    let mut expected = noise(blocks, BLOCK);
    for part in 0..3u8 {
        expected[512 * usize::from(part)..][..512].fill(part + 1);
    }
    assert!(client.read(&disk, at, BLOCK).unwrap() == expected);
}
