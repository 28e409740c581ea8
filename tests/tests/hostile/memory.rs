//! Memory that comes, goes, shrinks, or is more than there can be.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use firn_tests::client::message::Code;
use firn_tests::client::raw::{NEXT, Raw, Region, WRITE};
use firn_tests::client::{ClientError, SharedMemory};
use firn_tests::rig::PATIENCE;

use crate::scene::{Scene, good};

const HEADER: usize = Raw::DATA;
const STATUS: usize = Raw::DATA + 0x100;
/// Where a second region appears.
const SECOND: u64 = 0x40_0000_0000;

/// Offers a read of 64 KiB into the second region, as head 0 of queue 0.
fn read_into_second(raw: &mut Raw, offset: u64) {
    raw.header(HEADER, 0, 0);
    raw.memory.fill(STATUS, 1, 9);
    raw.put(0, 0, (raw.guest(HEADER), 16, NEXT, 1));
    raw.put(0, 1, (SECOND + offset, 64 << 10, NEXT | WRITE, 2));
    raw.put(0, 2, (raw.guest(STATUS), 1, WRITE, 0));
    raw.offer(0, 0);
    raw.kick(0);
}

fn second(len: u64) -> Region {
    Region {
        guest: SECOND,
        len,
        user: 0x6000_0000_0000,
        offset: 0,
    }
}

#[test]
fn regions_come_and_go_under_io() {
    let mut scene = Scene::new();
    let mut raw = scene.running(2);
    let more = SharedMemory::new("more", 1 << 20).unwrap();
    let mut statuses = [0; 2];
    for round in 0..200u16 {
        let there = round % 2 == 0;
        if there {
            raw.add_region(second(1 << 20), &[more.fd()]).unwrap();
        }
        let offered = raw.used(0).wrapping_add(1);
        read_into_second(&mut raw, u64::from(round) << 10);
        if there {
            // While it is in flight, or just before it is taken.
            raw.remove_region(second(1 << 20)).unwrap();
        }
        assert!(raw.wait_used(0, offered, PATIENCE), "round {round}");
        let mut status = [9];
        raw.memory.read(STATUS, &mut status);
        statuses[usize::from(status[0])] += 1;
        assert!(
            there || status[0] == 1,
            "round {round}: memory that isn't there was read into"
        );
    }
    assert!(statuses[1] >= 100, "{statuses:?}");
    assert!(good(&mut raw, 1));
    scene.says(
        "a region that has gone",
        "a buffer is not in the guest's memory",
    );
    scene.end();
}

/// A file in memory that can't be sealed against it, as guests with file-backed memory have.
fn plain(len: u64) -> OwnedFd {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    file.into()
}

#[test]
fn a_file_that_is_shortened_under_io_costs_its_own_session() {
    let mut scene = Scene::new();
    let mut raw = scene.running(1);
    let file = plain(16 << 20);
    raw.add_region(second(16 << 20), &[file.as_fd()]).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let shrinker = {
        let (file, ended) = (file.try_clone().unwrap(), Arc::clone(&ended));
        std::thread::spawn(move || {
            let file = std::fs::File::from(file);
            while !ended.load(Ordering::Relaxed) {
                file.set_len(0).unwrap();
                file.set_len(16 << 20).unwrap();
            }
        })
    };
    for round in 0..300u64 {
        let offered = raw.used(0).wrapping_add(1);
        read_into_second(&mut raw, (round << 16) % (15 << 20));
        assert!(raw.wait_used(0, offered, PATIENCE), "round {round}");
    }
    ended.store(true, Ordering::Relaxed);
    shrinker.join().unwrap();
    std::fs::File::from(file).set_len(0).unwrap();
    read_into_second(&mut raw, 0);
    scene.says(
        "memory",
        "a front end has shortened memory that it shares with us",
    );
    drop(raw);
    assert!(good(&mut scene.running(1), 0), "the next front end");
    scene.end();
}

#[test]
fn rings_that_are_shortened_come_to_rest() {
    let mut scene = Scene::new();
    let mut raw = scene.raw();
    let file = plain(Raw::LEN as u64);
    raw.memory = SharedMemory::map(file.try_clone().unwrap(), Raw::LEN, 0).unwrap();
    raw.start(1).unwrap();
    assert!(good(&mut raw, 0));
    std::fs::File::from(file).set_len(0).unwrap();
    // From here on this process must not look at it either.
    raw.kick(0);
    scene.says(
        "rings",
        "a front end has shortened memory that it shares with us",
    );
    drop(raw);
    assert!(good(&mut scene.running(1), 0), "the next front end");
    scene.end();
}

#[test]
fn an_in_flight_region_that_is_shortened_hurts_nobody_else() {
    let mut scene = Scene::new();
    let mut raw = scene.raw();
    raw.shake_hands().unwrap();
    let file = plain(1 << 20);
    let mut body = [1u64 << 20, 0].map(u64::to_ne_bytes).concat();
    body.extend([1, raw.size, 0, 0].map(u16::to_ne_bytes).concat());
    raw.link
        .command(Code::SetInflightFd, &body, &[file.as_fd()])
        .unwrap();
    raw.add_region(raw.region(), &[raw.memory.fd()]).unwrap();
    raw.start_queue(0).unwrap();
    assert!(good(&mut raw, 0));
    std::fs::File::from(file).set_len(0).unwrap();
    assert!(good(&mut raw, 0), "zeroes will do");
    scene.says(
        "in-flight region",
        "a front end has shortened memory that it shares with us",
    );
    scene.end();
}

/// Address space is finite: 128 TiB for all that a process maps.
#[test]
fn memory_without_end_is_refused() {
    let mut scene = Scene::new();
    const HUGE: u64 = 1 << 46;
    let file = rustix::fs::memfd_create("huge", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, HUGE).unwrap();
    let mut raw = scene.raw();
    raw.shake_hands().unwrap();
    let refused = raw.add_region(
        Region {
            guest: 0,
            ..second(HUGE)
        },
        &[file.as_fd()],
    );
    assert!(
        matches!(refused, Err(ClientError::Refused { .. })),
        "{refused:?}"
    );
    scene.says("64 TiB", "memory region: 70368744177664 bytes are too much");
    // In parts, and by way of the dirty log and the in-flight region, which are mapped too.
    let mut raw = scene.raw();
    raw.shake_hands().unwrap();
    let part = |at: u64| Region {
        guest: at << 40,
        len: 1 << 40,
        user: at << 40,
        offset: 0,
    };
    let granted = (0..64)
        .take_while(|&at| raw.add_region(part(at), &[file.as_fd()]).is_ok())
        .count();
    assert_eq!(granted, 16);
    scene.says(
        "TiB by TiB",
        "1099511627776 bytes are too much: front ends have 17592186044416 mapped",
    );
    drop(raw);
    // What they had is free again.
    assert!(good(&mut scene.running(1), 0));
    scene.end();
}
