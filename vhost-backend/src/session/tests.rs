use std::fs::File;
use std::os::fd::AsRawFd;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserInflight};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo};

use crate::blk::config::Features;
use crate::testing::*;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const ZEROES: u32 = 13;

const SIZE: usize = 8 << 20;

/// Offers a write of `data` at `sector`; the head and the status byte's address.
fn write(guest: &mut Guest, queue: u16, sector: u64, data: &[u8]) -> (u16, u64) {
    let (header, from, status) = (
        guest.header(OUT, sector),
        guest.filled(data),
        guest.filled(&[9]),
    );
    let chain = [
        seg_out(header, 16),
        seg_out(from, data.len() as u32),
        seg_in(status, 1),
    ];
    (guest.send(queue, &chain), status)
}

/// Offers a read; the head, the buffer's and the status byte's address.
fn read(guest: &mut Guest, queue: u16, sector: u64, len: u32) -> (u16, u64, u64) {
    let (header, into) = (guest.header(IN, sector), guest.buffer(u64::from(len)));
    let status = guest.filled(&[9]);
    let chain = [seg_out(header, 16), seg_in(into, len), seg_in(status, 1)];
    (guest.send(queue, &chain), into, status)
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed)
        .collect()
}

fn status(guest: &Guest, at: u64) -> u8 {
    guest.read(at, 1)[0]
}

fn memory_info(guest: &Guest) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: MEMORY_AT,
        memory_size: guest.region().len,
        userspace_addr: USER_AT,
        mmap_offset: 0,
        mmap_handle: guest.file.as_raw_fd(),
    }
}

#[test]
fn reads_return_what_writes_wrote_and_lengths_are_right() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(2, 64);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    let data = pattern(12 * 512, 1);
    let (head, ok) = write(&mut guest, 1, 7, &data);
    attached.kick(1);
    assert_eq!(guest.wait(1, 1), [(head, 1)]);
    assert_eq!(status(&guest, ok), 0);
    let (head, into, ok) = read(&mut guest, 0, 7, 12 * 512);
    attached.kick(0);
    assert_eq!(guest.wait(0, 1), [(head, 12 * 512 + 1)]);
    assert_eq!(status(&guest, ok), 0);
    assert_eq!(guest.read(into, 12 * 512), data);
    eventually("a call on each queue", || {
        attached.calls(0) + attached.calls(1) > 0
    });
}

#[test]
fn descriptors_may_be_cut_anywhere() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    let data = pattern(1024, 3);
    // Header and data in one buffer; and the header itself in three.
    let mut whole = vec![0u8; 16];
    whole[0] = OUT as u8;
    whole[8] = 5;
    whole.extend(&data);
    let at = guest.filled(&whole);
    let ok = guest.filled(&[9]);
    let cuts = [(0, 3), (3, 9), (12, 4 + 100), (116, 924)];
    let mut chain: Vec<_> = cuts.iter().map(|&(o, l)| seg_out(at + o, l)).collect();
    chain.push(seg_in(ok, 1));
    let first = guest.send(0, &chain);
    // Data and status in one buffer, by an indirect table.
    let header = guest.header(IN, 5);
    let into = guest.filled(&vec![9; 1025]);
    let buffers = [
        seg_out(header, 16),
        seg_in(into, 700),
        seg_in(into + 700, 325),
    ];
    let head = guest.indirect_chain(0, &buffers);
    attached.kick(0);
    assert_eq!(guest.wait(0, 1), [(first, 1)]);
    guest.offer(0, head);
    attached.kick(0);
    assert_eq!(guest.wait(0, 1), [(head, 1025)]);
    let mut want = data.clone();
    want.push(0);
    assert_eq!(guest.read(into, 1025), want);
}

#[test]
fn every_kind_of_refusal_has_its_status() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 128);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    let mut ask = |kind: u32, sector: u64, out: &[u8], into: u32| {
        let (header, ok) = (guest.header(kind, sector), guest.filled(&[9]));
        let mut chain = vec![seg_out(header, 16)];
        if !out.is_empty() {
            let at = guest.filled(out);
            chain.push(seg_out(at, out.len() as u32));
        }
        if into > 0 {
            let at = guest.buffer(into.into());
            chain.push(seg_in(at, into));
        }
        chain.push(seg_in(ok, 1));
        guest.send(0, &chain);
        attached.kick(0);
        let used = guest.wait(0, 1);
        (status(&guest, ok), used[0].1)
    };
    let range = |sector: u64, count: u32, flags: u32| {
        let mut raw = sector.to_le_bytes().to_vec();
        raw.extend(count.to_le_bytes());
        raw.extend(flags.to_le_bytes());
        raw
    };
    let end = SIZE as u64 / 512;
    assert_eq!(ask(IN, end - 1, &[], 1024), (1, 1), "past the end");
    assert_eq!(ask(IN, u64::MAX / 2, &[], 512), (1, 1), "overflowing");
    assert_eq!(ask(OUT, end, &[0; 512], 0), (1, 1), "past the end");
    assert_eq!(ask(IN, 0, &[], 100), (1, 1), "not whole sectors");
    assert_eq!(ask(77, 0, &[], 512), (2, 1), "unknown");
    assert_eq!(ask(14, 0, &range(0, 8, 0), 0), (2, 1), "secure erase");
    assert_eq!(ask(FLUSH, 0, &[], 0), (0, 1));
    assert_eq!(ask(GET_ID, 0, &[], 20), (0, 21));
    assert_eq!(ask(GET_ID, 0, &[], 7), (0, 8));
    assert_eq!(
        ask(DISCARD, 0, &range(0, 8, 1), 0),
        (2, 1),
        "unmap in a discard"
    );
    assert_eq!(
        ask(ZEROES, 0, &range(0, 8, 2), 0),
        (2, 1),
        "an unknown flag"
    );
    assert_eq!(
        ask(DISCARD, 0, &range(end, 1, 0), 0),
        (1, 1),
        "past the end"
    );
    assert_eq!(ask(DISCARD, 0, &[0; 15], 0), (1, 1), "half a range");
    assert_eq!(
        ask(DISCARD, 0, &vec![0; 65 * 16], 0),
        (1, 1),
        "too many ranges"
    );
    let two = [range(8, 8, 0), range(64, 16, 1)].concat();
    disk.seen.lock().clear();
    assert_eq!(ask(ZEROES, 0, &two, 0), (0, 1));
    let mut seen = disk.seen();
    seen.sort_by_key(|s| format!("{s:?}"));
    let want = [
        Seen::WriteZeroes(32768, 8192, true),
        Seen::WriteZeroes(4096, 4096, false),
    ];
    assert_eq!(seen, want);
    // One bad range, and nothing of the request is done.
    disk.seen.lock().clear();
    assert_eq!(
        ask(ZEROES, 0, &[range(8, 8, 0), range(end, 1, 0)].concat(), 0),
        (1, 1)
    );
    assert_eq!(disk.seen(), []);
    disk.play(Trick::Fail);
    assert_eq!(ask(IN, 0, &[], 512), (1, 1));
    assert_eq!(ask(FLUSH, 0, &[], 0), (1, 1));
}

#[test]
fn a_read_only_disk_says_so_and_refuses() {
    let disk = RamDisk::read_only("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 16);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    let features = attached.front.get_features().unwrap();
    assert!(Features(features).has(Features::RO));
    let (_, ok) = write(&mut guest, 0, 0, &[1; 512]);
    attached.kick(0);
    guest.wait(0, 1);
    assert_eq!(status(&guest, ok), 1);
    assert_eq!(disk.seen(), []);
}

#[test]
fn malformed_requests_are_given_back_and_the_queue_goes_on() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 32);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    let header = guest.header(IN, 0);
    let ok = guest.filled(&[9]);
    let bad: [&[(u64, u32, bool)]; 6] = [
        &[seg_out(header, 16)],
        &[seg_in(ok, 1), seg_out(header, 16)],
        &[seg_out(header, 16), seg_in(0x10, 512), seg_in(ok, 1)],
        &[
            seg_out(header, 16),
            seg_in(u64::MAX - 3, 512),
            seg_in(ok, 1),
        ],
        &[seg_out(header, 9), seg_in(ok, 1)],
        &[
            seg_out(header, 16),
            seg_in(header, 512),
            seg_in(u64::MAX, 1),
        ],
    ];
    for (i, chain) in bad.iter().enumerate() {
        let head = guest.send(0, chain);
        attached.kick(0);
        let [(used, len)] = guest.wait(0, 1)[..] else {
            panic!()
        };
        assert_eq!(used, head);
        assert!(len <= 1, "chain {i}");
    }
    let (_, ok) = write(&mut guest, 0, 0, &[1; 512]);
    attached.kick(0);
    guest.wait(0, 1);
    assert_eq!(status(&guest, ok), 0);
}

#[test]
fn requests_complete_out_of_order_and_a_big_one_in_parts() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    disk.play(Trick::Hold);
    let heads: Vec<_> = (0..4)
        .map(|i| write(&mut guest, 0, i, &[i as u8; 512]).0)
        .collect();
    attached.kick(0);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(guest.used_index(0), 0);
    disk.play(Trick::Reverse);
    let used: Vec<_> = guest.wait(0, 4).iter().map(|u| u.0).collect();
    assert_eq!(used, heads.into_iter().rev().collect::<Vec<_>>());
    disk.play(Trick::None);
    disk.seen.lock().clear();
    let data = pattern(6 << 20, 5);
    write(&mut guest, 0, 16, &data);
    attached.kick(0);
    guest.wait(0, 1);
    assert_eq!(
        disk.seen(),
        [
            Seen::Write(8192, 4 << 20),
            Seen::Write(8192 + (4 << 20), 2 << 20)
        ]
    );
    assert!(disk.data.lock()[8192..8192 + data.len()] == data);
}

#[test]
fn event_idx_suppresses_calls_until_the_guest_wants_one() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    eventually("the unconditional call at the start", || {
        attached.calls(0) == 1
    });
    guest.set_used_event(0, 2);
    for i in 0..3u16 {
        write(&mut guest, 0, 0, &[1; 512]);
        attached.kick(0);
        guest.wait(0, 1);
        let wanted = u64::from(i == 2);
        eventually("the queue asks for kicks again", || {
            guest.avail_event(0) == i + 1
        });
        assert_eq!(attached.calls(0), wanted, "after request {i}");
    }
}

#[test]
fn without_event_idx_flags_decide() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let how = Connect {
        without: vec![Features::EVENT_IDX],
        ..Default::default()
    };
    let attached = connect(&guest, &disk, &pool, how);
    eventually("the unconditional call at the start", || {
        attached.calls(0) == 1
    });
    let avail = MEMORY_AT + guest.rings(0)[1];
    guest.write(avail, &1u16.to_le_bytes());
    write(&mut guest, 0, 0, &[1; 512]);
    attached.kick(0);
    guest.wait(0, 1);
    eventually("the queue asks for kicks again", || {
        guest.used_flags(0) == 0
    });
    assert_eq!(attached.calls(0), 0);
    guest.write(avail, &0u16.to_le_bytes());
    write(&mut guest, 0, 0, &[1; 512]);
    attached.kick(0);
    guest.wait(0, 1);
    eventually("a call", || attached.calls(0) == 1);
}

#[test]
fn a_driver_without_flush_gets_write_through() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let how = Connect {
        without: vec![Features::FLUSH, Features::CONFIG_WCE],
        ..Default::default()
    };
    let attached = connect(&guest, &disk, &pool, how);
    write(&mut guest, 0, 0, &[1; 512]);
    attached.kick(0);
    guest.wait(0, 1);
    assert_eq!(disk.seen(), [Seen::Write(0, 512), Seen::Flush]);
}

#[test]
fn the_write_cache_is_switched_through_the_configuration() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let guest = Guest::new(1, 64);
    let mut attached = connect(&guest, &disk, &pool, Connect::default());
    let flags = VhostUserConfigFlags::empty();
    let get = |front: &mut vhost::vhost_user::Frontend| {
        front
            .get_config(0, 60, VhostUserConfigFlags::empty(), &[0; 60])
            .unwrap()
            .1
    };
    let config = get(&mut attached.front);
    assert_eq!(
        u64::from_le_bytes(*config.first_chunk().unwrap()),
        SIZE as u64 / 512
    );
    assert_eq!(config[32], 1);
    attached.front.set_config(32, flags, &[0]).unwrap();
    assert!(!crate::engine::Disk::write_cache(&*disk));
    assert_eq!(get(&mut attached.front)[32], 0);
    // Not writable: ignored, as virtio says.
    attached.front.set_config(0, flags, &[0; 8]).unwrap();
    assert_eq!(get(&mut attached.front)[..8], config[..8]);
}

#[test]
fn get_vring_base_waits_for_what_is_in_flight() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    disk.play(Trick::Hold);
    write(&mut guest, 0, 0, &[1; 512]);
    attached.kick(0);
    eventually("it is taken", || guest.avail_event(0) == 1);
    let front = attached.front.clone();
    let waiting = std::thread::spawn(move || front.get_vring_base(0).unwrap());
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!waiting.is_finished());
    disk.play(Trick::None);
    assert_eq!(waiting.join().unwrap(), 1);
    assert_eq!(guest.reap(0).len(), 1, "published before the answer");
}

#[test]
fn requests_that_wait_for_space_do_not_hold_a_stop_up() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    disk.play(Trick::Full);
    // The last two taken: the avail ring is wound back over them.
    read(&mut guest, 0, 0, 512);
    write(&mut guest, 0, 0, &[1; 512]);
    write(&mut guest, 0, 1, &[2; 512]);
    attached.kick(0);
    guest.wait(0, 1);
    assert_eq!(attached.front.get_vring_base(0).unwrap(), 1);
    disk.play(Trick::None);
    let inflight = attached.hang_up();
    let how = Connect {
        inflight,
        bases: vec![1],
        ..Default::default()
    };
    let attached = connect(&guest, &disk, &pool, how);
    assert_eq!(guest.wait(0, 2).len(), 2);
    assert_eq!(disk.data.lock()[..1024], [[1; 512], [2; 512]].concat());
    disk.play(Trick::Full);
    // Not the last: it stays marked.
    write(&mut guest, 0, 4, &[4; 512]);
    read(&mut guest, 0, 0, 512);
    attached.kick(0);
    guest.wait(0, 1);
    assert_eq!(attached.front.get_vring_base(0).unwrap(), 5);
    disk.play(Trick::None);
    let inflight = attached.hang_up();
    // QEMU says the used index where it doesn't know better; the region knows.
    let how = Connect {
        inflight,
        bases: vec![guest.used_index(0)],
        ..Default::default()
    };
    let _attached = connect(&guest, &disk, &pool, how);
    guest.wait(0, 1);
    assert_eq!(disk.data.lock()[2048..2560], [4; 512]);
}

#[test]
fn a_write_that_waits_only_for_a_moment_is_not_taken_back() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    disk.play(Trick::Full);
    let (_, ok) = write(&mut guest, 0, 4, &[4; 512]);
    attached.kick(0);
    eventually("it is taken", || guest.avail_event(0) == 1);
    let front = attached.front.clone();
    let waiting = std::thread::spawn(move || front.get_vring_base(0).unwrap());
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!waiting.is_finished());
    disk.play(Trick::None);
    assert_eq!(waiting.join().unwrap(), 1);
    guest.wait(0, 1);
    assert_eq!(status(&guest, ok), 0);
}

#[test]
fn without_a_region_a_stalled_request_that_is_not_the_last_fails() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let how = Connect {
        no_inflight: true,
        ..Default::default()
    };
    let attached = connect(&guest, &disk, &pool, how);
    disk.play(Trick::Full);
    let (_, bad) = write(&mut guest, 0, 4, &[4; 512]);
    read(&mut guest, 0, 0, 512);
    attached.kick(0);
    guest.wait(0, 1);
    assert_eq!(attached.front.get_vring_base(0).unwrap(), 2);
    guest.wait(0, 1);
    assert_eq!(status(&guest, bad), 1);
}

/// A copy of a region as a SIGKILL at this moment would leave it.
fn frozen(inflight: &(VhostUserInflight, File)) -> (VhostUserInflight, File) {
    let (region, file) = inflight;
    let mut raw = vec![0; region.mmap_size as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut raw, 0).unwrap();
    let copy = rustix::fs::memfd_create("frozen", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let copy = File::from(copy);
    std::os::unix::fs::FileExt::write_all_at(&copy, &raw, 0).unwrap();
    (*region, copy)
}

#[test]
fn what_was_in_flight_is_executed_again_in_order_and_nothing_else_is() {
    let disk = RamDisk::new("d", SIZE);
    let first = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let attached = connect(&guest, &disk, &first, Connect::default());
    write(&mut guest, 0, 0, &[1; 512]);
    attached.kick(0);
    guest.wait(0, 1);
    disk.play(Trick::Hold);
    for i in 2..6u8 {
        write(&mut guest, 0, u64::from(i), &[i; 512]);
    }
    attached.kick(0);
    let inflight = attached.inflight.as_ref().unwrap();
    eventually("all are taken", || {
        let region = crate::inflight::InflightRegion::attach(
            inflight.1.try_clone().unwrap(),
            0,
            inflight.0.mmap_size,
            1,
            64,
        )
        .unwrap();
        let queue = region.queue(0).unwrap();
        (0..64).filter(|&head| queue.inflight(head)).count() == 4
    });
    // "Dead" at this moment: another backend takes over the memory as it is, with an empty store behind it.
    let region = frozen(inflight);
    let other = RamDisk::new("other", SIZE);
    let second = pool(std::slice::from_ref(&other));
    write(&mut guest, 0, 9, &[9; 512]);
    let bases = vec![guest.used_index(0)];
    let how = Connect {
        inflight: Some(region),
        bases,
        ..Default::default()
    };
    let after = connect(&guest, &other, &second, how);
    guest.wait(0, 5);
    let want: Vec<_> = [2u64, 3, 4, 5, 9]
        .iter()
        .map(|s| Seen::Write(s * 512, 512))
        .collect();
    assert_eq!(other.seen(), want, "no kick was needed");
    // The used ring is published first and the signal follows.
    eventually("the guest is called", || after.calls(0) >= 1);
    drop(after);
    // The first backend, which in truth lives, must not write to the guest any more: it is held for ever.
    std::mem::forget(attached);
}

#[test]
fn a_head_that_is_offered_twice_breaks_its_queue_and_no_other() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(2, 64);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    disk.play(Trick::Hold);
    let err = event();
    attached.front.set_vring_err(0, &err).unwrap();
    let (head, _) = write(&mut guest, 0, 0, &[1; 512]);
    guest.offer(0, head);
    attached.kick(0);
    eventually("the error is told", || err.read().is_ok());
    write(&mut guest, 1, 3, &[3; 512]);
    attached.kick(1);
    disk.play(Trick::None);
    guest.wait(1, 1);
    guest.wait(0, 1);
    assert_eq!(attached.front.get_vring_base(0).unwrap(), 2);
}

#[test]
fn an_avail_index_from_nowhere_breaks_its_queue() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let guest = Guest::new(1, 64);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    let err = event();
    attached.front.set_vring_err(0, &err).unwrap();
    guest.set_avail_index(0, 500);
    attached.kick(0);
    eventually("the error is told", || err.read().is_ok());
    assert_eq!(attached.front.get_vring_base(0).unwrap(), 0);
}

#[test]
fn a_disabled_queue_waits() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let mut attached = connect(&guest, &disk, &pool, Connect::default());
    attached.front.set_vring_enable(0, false).unwrap();
    write(&mut guest, 0, 0, &[1; 512]);
    attached.kick(0);
    std::thread::sleep(std::time::Duration::from_millis(30));
    assert_eq!(guest.used_index(0), 0);
    attached.front.set_vring_enable(0, true).unwrap();
    guest.wait(0, 1);
}

#[test]
fn memory_that_lies_is_refused() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let guest = Guest::new(1, 64);
    let info = memory_info(&guest);
    let long = VhostUserMemoryRegionInfo {
        memory_size: info.memory_size + 4096,
        ..info
    };
    let second = VhostUserMemoryRegionInfo {
        guest_phys_addr: info.guest_phys_addr + info.memory_size - 4096,
        ..info
    };
    let tables = [vec![long], vec![info, second]];
    for table in tables {
        let (front, ..) = shake_hands(&disk, &pool, &[]);
        assert!(front.set_mem_table(&table).is_err());
        assert!(
            front.get_features().is_err(),
            "and the connection is closed"
        );
    }
    let (mut front, ..) = shake_hands(&disk, &pool, &[]);
    front.set_mem_table(&[info]).unwrap();
    assert!(front.add_mem_region(&second).is_err());
}

#[test]
fn regions_come_and_go_while_a_queue_runs() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let mut attached = connect(&guest, &disk, &pool, Connect::default());
    let more = Guest::new(1, 64);
    let info = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0x4000_0000,
        userspace_addr: USER_AT + (1 << 32),
        ..memory_info(&more)
    };
    attached.front.add_mem_region(&info).unwrap();
    let (header, ok) = (guest.header(IN, 0), guest.filled(&[9]));
    disk.data.lock()[..512].fill(7);
    let chain = [seg_out(header, 16), seg_in(0x4000_0000, 512), seg_in(ok, 1)];
    guest.send(0, &chain);
    attached.kick(0);
    guest.wait(0, 1);
    assert_eq!(more.read(MEMORY_AT, 512), [7; 512]);
    attached.front.remove_mem_region(&info).unwrap();
    guest.send(0, &chain);
    attached.kick(0);
    guest.wait(0, 1);
    assert_eq!(status(&guest, ok), 1, "it is gone");
    assert!(
        attached
            .front
            .remove_mem_region(&memory_info(&guest))
            .is_err(),
        "the rings are there"
    );
}

#[test]
fn written_pages_are_noted_while_logging() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(1, 64);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    let log = File::from(rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    log.set_len(4096).unwrap();
    let region = VhostUserDirtyLogRegion {
        mmap_size: 4096,
        mmap_offset: 0,
        mmap_handle: log.as_raw_fd(),
    };
    let dirty = || {
        let mut raw = vec![0; 4096];
        std::os::unix::fs::FileExt::read_exact_at(&log, &mut raw, 0).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&log, &[0; 4096], 0).unwrap();
        let bit = |page: &u64| raw[(page / 8) as usize] & (1 << (page % 8)) != 0;
        (0..4096 * 8).filter(bit).collect::<Vec<u64>>()
    };
    let front = &attached.front;
    // A buffer at a page's start, so that it is known which pages there are.
    let fill = guest.buffer(0);
    guest.buffer(4096 - fill % 4096);
    let (_, into, ok) = read(&mut guest, 0, 0, 8192);
    attached.kick(0);
    guest.wait(0, 1);
    assert_eq!(dirty(), [0u64; 0]);
    front.set_log_base(0, Some(region)).unwrap();
    let features = front.get_features().unwrap();
    front.set_features(features).unwrap();
    let used_at = MEMORY_AT + guest.rings(0)[2];
    front
        .set_vring_addr(0, &addresses(&guest, 0, Some(used_at)))
        .unwrap();
    let header = guest.header(IN, 0);
    guest.send(0, &[seg_out(header, 16), seg_in(into, 8192), seg_in(ok, 1)]);
    attached.kick(0);
    guest.wait(0, 1);
    let page = |at: u64| at >> 12;
    let mut want = vec![
        page(used_at),
        page(into),
        page(into + 4096),
        page(into + 8191),
        page(ok),
    ];
    want.sort_unstable();
    want.dedup();
    eventually("the used index is noted", || {
        let mut raw = [0];
        let byte = page(used_at) / 8;
        std::os::unix::fs::FileExt::read_exact_at(&log, &mut raw, byte).unwrap();
        raw[0] & (1 << (page(used_at) % 8)) != 0
    });
    assert_eq!(dirty(), want);
    // Switched off again.
    front
        .set_features(features & !(1 << Features::LOG_ALL))
        .unwrap();
    dirty();
    read(&mut guest, 0, 0, 512);
    attached.kick(0);
    guest.wait(0, 1);
    assert_eq!(dirty(), [0u64; 0]);
}

#[test]
fn descriptors_that_are_no_eventfds_and_odd_sizes_are_refused() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let (front, ..) = shake_hands(&disk, &pool, &[]);
    assert!(front.set_vring_num(0, 100).is_err());
    let (front, ..) = shake_hands(&disk, &pool, &[]);
    assert!(front.set_vring_num(0, 2048).is_err());
    let (mut front, ..) = shake_hands(&disk, &pool, &[]);
    let want = VhostUserInflight {
        num_queues: 65,
        queue_size: 64,
        ..Default::default()
    };
    assert!(front.get_inflight_fd(&want).is_err());
}

#[test]
fn an_idle_backend_uses_no_cpu() {
    let disk = RamDisk::new("d", SIZE);
    let pool = pool(std::slice::from_ref(&disk));
    let mut guest = Guest::new(4, 64);
    let attached = connect(&guest, &disk, &pool, Connect::default());
    for queue in 0..4 {
        write(&mut guest, queue, 0, &[1; 512]);
        attached.kick(queue);
        guest.wait(queue, 1);
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    let waits = disk.polls();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(disk.polls(), waits, "no round was made");
}
