//! Flushes and draining: what a flush waits for, and who waits for the drain.

mod support;

use block_store::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use support::{BLOCK, Client, Machine, content, vdisk};

const SIZE: u64 = 16 << 20;

/// A flush is about its own vDisk: what a neighbour streams at the same time is not written out for it, and is no less
/// durable for that when the neighbour flushes.
#[test]
fn a_flush_does_not_wait_for_a_neighbours_stream() {
    let mut m = Machine::new(1, 64 << 20);
    let store = m.open();
    let (small, stream) = (vdisk(&store, "a", 1 << 20), vdisk(&store, "b", 1 << 20));
    let core = Arc::clone(store.core());
    let written = |client: &mut Client| {
        // The lane alone: nothing is drained in between.
        let mut done = Vec::new();
        for _ in 0..100 {
            client.lane.poll(&mut done);
        }
        done.len()
    };
    let mut client = Client::new(&store);
    core.allocate_ready().unwrap();
    let from = content(1, 0, 32);
    let offset = 0;
    client
        .lane
        .submit(&stream, Command::Write { offset, from }, 1);
    let from = content(2, 0, 1);
    client
        .lane
        .submit(&small, Command::Write { offset, from }, 2);
    assert_eq!(written(&mut client), 2);
    client.lane.submit(&small, Command::Flush, 3);
    assert_eq!((written(&mut client), core.flushes_waiting()), (0, 1));
    assert_eq!(core.commit_flushes().unwrap(), 1);
    assert_eq!(written(&mut client), 1);
    let so_far = core.counters.log_bytes.load(Relaxed);
    assert!(so_far < 32 << 10, "{so_far} bytes were written for it");
    // Nothing of its own is left to flush, whatever the neighbour has.
    client.lane.submit(&small, Command::Flush, 4);
    assert_eq!(written(&mut client), 1);
    client.lane.submit(&stream, Command::Flush, 5);
    assert_eq!(written(&mut client), 0);
    assert_eq!(core.commit_flushes().unwrap(), 1);
    assert_eq!(written(&mut client), 1);
    drop((client, store, small, stream, core));
    m.power_loss();
    let store = m.open();
    let mut client = Client::new(&store);
    for (name, version, blocks) in [("a", 2, 1), ("b", 1, 32)] {
        let disk = store.vdisk(name).unwrap();
        let read = client.read(&disk, 0, blocks as usize * BLOCK).unwrap();
        assert!(read == content(version, 0, blocks), "vDisk {name}");
    }
}

/// A write that found the write buffer full goes on as soon as some of it has been written out, and not only when
/// something else happens to wake its lane.
#[test]
fn a_write_that_waits_for_room_goes_on_when_the_buffer_has_drained() {
    let m = Machine::with_segments(1, 64 << 20, 4 << 20);
    let store = m.try_open(|c| c.write_buffer = 1 << 20).unwrap();
    let disk = vdisk(&store, "a", SIZE);
    let core = Arc::clone(store.core());
    core.allocate_ready().unwrap();
    let mut client = Client::new(&store);
    let mut done = Vec::new();
    let waiting = (0..256).find(|tag| {
        let from = content(1, tag * 8, 8);
        let offset = tag * 8 * BLOCK as u64;
        client
            .lane
            .submit(&disk, Command::Write { offset, from }, *tag);
        client.lane.poll(&mut done);
        client.lane.in_flight() > 0
    });
    let waiting = waiting.expect("8 MiB don't fit 1 MiB");
    done.clear();
    client.lane.poll(&mut done);
    assert!(done.is_empty(), "nothing has drained yet");
    while core.drain_step().unwrap() {}
    for _ in 0..4 {
        client.lane.poll(&mut done);
    }
    let tags: Vec<u64> = done.iter().map(|d| d.tag).collect();
    assert_eq!(tags, [waiting]);
}
