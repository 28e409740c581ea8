//! More than anybody can carry, and nobody to take it.

use std::os::fd::AsFd;
use std::time::Duration;

use firn_tests::client::ClientError;
use firn_tests::client::message::Code;
use firn_tests::client::raw::{INDIRECT, NEXT, Raw, Region, WRITE};
use firn_tests::measure::memory;
use firn_tests::rig::PATIENCE;
use rustix::event::{EventfdFlags, eventfd};

use crate::scene::{Scene, good};

const QUEUES: u16 = 16;
const TABLE: usize = Raw::DATA;
const HEADER: usize = Raw::DATA + 0x10_0000;
const STATUS: usize = HEADER + 0x100;
const BUFFER: usize = Raw::DATA + 0x20_0000;

/// Makes every head of every queue the same indirect table of `count` descriptors, and offers them all.
fn flood(raw: &mut Raw, count: u32) {
    for queue in 0..QUEUES {
        for head in 0..raw.size {
            raw.put(queue, head, (raw.guest(TABLE), 16 * count, INDIRECT, 0));
            raw.offer(queue, head);
        }
        raw.kick(queue);
    }
}

/// 4,096 requests for 126 MiB each: half a tebibyte. Others have their turn all the same, memory is bounded, and a
/// hang-up doesn't wait for the end of it.
#[test]
fn a_flood_of_huge_reads_is_its_own_senders_trouble() {
    let scene = Scene::new();
    let mut raw = scene.running(QUEUES);
    raw.header(HEADER, 0, 0);
    raw.put_at(TABLE, 0, (raw.guest(HEADER), 16, NEXT, 1));
    for i in 1..127 {
        raw.put_at(TABLE, i, (raw.guest(BUFFER), 1 << 20, NEXT | WRITE, i + 1));
    }
    raw.put_at(TABLE, 127, (raw.guest(STATUS), 1, WRITE, 0));
    flood(&mut raw, 128);
    std::thread::sleep(Duration::from_secs(1));
    drop(raw);
    assert!(good(&mut scene.running(1), 0), "the next front end");
    let peak = memory(scene.rig.server.pid()).unwrap().peak;
    assert!(peak < 512 << 20, "{} MiB", peak >> 20);
    scene.end();
}

/// Regions of one byte: a list of what a request touches would be half a million entries long.
#[test]
fn requests_in_a_thousand_pieces_are_refused() {
    let mut scene = Scene::new();
    let mut raw = scene.running(QUEUES);
    let bytes = 256;
    for i in 0..bytes {
        let region = Region {
            guest: 0x40_0000_0000 + i,
            len: 1,
            user: 0x6000_0000_0000 + i,
            offset: i,
        };
        raw.add_region(region, &[raw.memory.fd()]).unwrap();
    }
    raw.header(HEADER, 0, 0);
    raw.put_at(TABLE, 0, (raw.guest(HEADER), 16, NEXT, 1));
    for i in 1..255 {
        raw.put_at(
            TABLE,
            i,
            (0x40_0000_0000, bytes as u32, NEXT | WRITE, i + 1),
        );
    }
    raw.put_at(TABLE, 255, (raw.guest(STATUS), 1, WRITE, 0));
    // 254 times 256 bytes: whole sectors, or the length would be refused before anything else.
    flood(&mut raw, 256);
    for queue in 0..QUEUES {
        assert!(raw.wait_used(queue, raw.size, PATIENCE), "queue {queue}");
    }
    scene.says(
        "pieces",
        "a buffer is not in the guest's memory, or in too many pieces of it",
    );
    let peak = memory(scene.rig.server.pid()).unwrap().peak;
    assert!(peak < 512 << 20, "{} MiB", peak >> 20);
    scene.end();
}

#[test]
fn a_client_that_reads_no_answers_holds_up_nobody() {
    let mut scene = Scene::new();
    let mut raw = scene.running(1);
    let short = Some(Duration::from_millis(300));
    raw.link.stream().set_write_timeout(short).unwrap();
    let sent = (0..1_000_000)
        .take_while(|_| raw.link.send(Code::GetFeatures as u32, 0, &[], &[]).is_ok())
        .count();
    assert!(sent < 1_000_000, "the backend reads on and on");
    // Its queues are served as before, its used ring unread too, and it still holds the vDisk.
    for _ in 0..1000 {
        assert!(good(&mut raw, 0));
    }
    let mut second = scene.raw();
    assert!(second.start(1).is_err());
    assert!(second.is_closed(PATIENCE));
    scene.says("a second", "the vDisk is attached by");
    // The backend ends in good order with the connection as it is.
    scene.end();
}

#[test]
fn a_call_that_nobody_takes_stops_no_worker() {
    let scene = Scene::new();
    let mut raw = scene.running(1);
    let full = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    for code in [Code::SetVringCall, Code::SetVringErr] {
        raw.link.command(code, &[0; 8], &[full.as_fd()]).unwrap();
    }
    for _ in 0..100 {
        assert!(good(&mut raw, 0));
    }
    raw.set_avail(0, 0x7000);
    raw.kick(0);
    assert!(raw.link.ask_u64(Code::GetFeatures).is_ok());
    scene.end();
}

/// Kicks without a reason, and connections that say nothing.
#[test]
fn noise_is_borne() {
    let scene = Scene::new();
    let mut raw = scene.running(1);
    for _ in 0..100_000 {
        raw.kick(0);
    }
    let _second = scene.raw();
    for _ in 0..200 {
        let third = scene.raw();
        assert!(matches!(
            third.link.ask_u64(Code::GetFeatures),
            Err(ClientError::Closed | ClientError::Io { .. })
        ));
    }
    assert!(good(&mut raw, 0));
    scene.end();
}
