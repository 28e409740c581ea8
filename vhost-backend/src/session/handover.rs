//! Two front ends of one vDisk: whose queues run, and when that changes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::{VhostBackend, VhostUserDirtyLogRegion};

use crate::blk::config::Features;
use crate::engine::Disk;
use crate::testing::*;
use crate::workers::Pool;

use super::Attachments;

const SIZE: usize = 1 << 20;

struct Scene {
    disk: Arc<RamDisk>,
    pool: Arc<Pool<RamDisk>>,
    among: Attachments,
}

/// A front end and its guest.
struct Side {
    guest: Guest,
    it: Attached,
}

impl Scene {
    fn new() -> Self {
        let disk = RamDisk::new("d", SIZE);
        let pool = pool(std::slice::from_ref(&disk));
        let among = Attachments::default();
        Self { disk, pool, among }
    }

    /// One that has negotiated and said all of its two queues, but that they may run.
    fn waiting(&self) -> Side {
        let guest = Guest::new(2, 64);
        let how = Connect {
            among: self.among.clone(),
            ..Connect::default()
        };
        let it = prepare(&guest, &self.disk, &self.pool, how);
        Side { guest, it }
    }

    /// Whether one more front end would be admitted.
    fn has_room(&self) -> bool {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let front_end = super::FrontEnd::of(&ours).unwrap();
        self.among.admit(&ours, front_end).is_ok()
    }

    fn running(&self) -> Side {
        let mut side = self.waiting();
        side.it.enable().unwrap();
        side
    }
}

impl Side {
    /// Has writes noted, as QEMU does while it copies the guest's memory.
    fn log(&self) {
        let log = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let log = File::from(log);
        log.set_len(4096).unwrap();
        let region = VhostUserDirtyLogRegion {
            mmap_size: 4096,
            mmap_offset: 0,
            mmap_handle: log.as_raw_fd(),
        };
        let front = &self.it.front;
        front.set_log_base(0, Some(region)).unwrap();
        let features = front.get_features().unwrap();
        assert!(features & (1 << Features::LOG_ALL) != 0);
        front.set_features(features).unwrap();
    }

    fn stop(&mut self) {
        for queue in 0..2 {
            self.it.front.set_vring_enable(queue, false).unwrap();
            self.it.front.get_vring_base(queue).unwrap();
        }
    }

    /// What starts queues that were stopped; whether the backend takes it.
    fn start(&mut self) -> bool {
        let base = self.guest.used_index(0);
        self.it.front.set_vring_base(0, base).unwrap();
        let kicks = [0, 1].map(|queue| {
            let kick = &self.it.kicks[queue];
            self.it.front.set_vring_kick(queue, kick)
        });
        kicks.iter().all(Result::is_ok) && self.it.enable().is_ok()
    }

    fn offer(&mut self, kind: u32, data: &[u8]) -> u64 {
        let header = self.guest.header(kind, 0);
        let (at, status) = (self.guest.filled(data), self.guest.filled(&[9]));
        let len = data.len() as u32;
        let data = match kind {
            0 => seg_in(at, len),
            _ => seg_out(at, len),
        };
        self.guest
            .send(0, &[seg_out(header, 16), data, seg_in(status, 1)]);
        self.it.kick(0);
        at
    }

    fn write(&mut self, byte: u8) {
        self.offer(1, &[byte; 512]);
        self.guest.wait(0, 1);
    }

    fn read(&mut self) -> u8 {
        let at = self.offer(0, &[0xee; 512]);
        self.guest.wait(0, 1);
        self.guest.read(at, 1)[0]
    }

    /// Whether nothing is answered for a while.
    fn is_quiet(&mut self) -> bool {
        std::thread::sleep(Duration::from_millis(50));
        self.guest.reap(0).is_empty()
    }
}

#[test]
fn the_second_starts_nothing_while_the_first_one_runs() {
    let scene = Scene::new();
    let mut first = scene.running();
    let mut second = scene.waiting();
    first.write(1);
    second.offer(1, &[2; 512]);
    assert!(second.it.enable().is_err());
    assert!(second.it.is_closed());
    assert_eq!(first.read(), 1);
    assert!(second.guest.reap(0).is_empty());
    // While it is logged neither.
    first.log();
    let mut second = scene.waiting();
    assert!(second.it.enable().is_err());
    // Its place is free for the one that is right.
    drop(second);
    let mut third = scene.waiting();
    first.stop();
    third.it.enable().unwrap();
    assert_eq!(third.read(), 1);
}

#[test]
fn it_is_handed_over_when_the_last_request_is_through() {
    let scene = Scene::new();
    let mut first = scene.running();
    let mut second = scene.waiting();
    first.write(1);
    first.log();
    scene.disk.play(Trick::Hold);
    first.offer(1, &[2; 512]);
    eventually("it is taken", || first.guest.avail_event(0) == 2);
    // Of its two queues the one that is idle stops at once.
    first.it.front.get_vring_base(1).unwrap();
    let front = first.it.front.clone();
    let stop = std::thread::spawn(move || front.get_vring_base(0).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!stop.is_finished());
    assert!(!scene.has_room());
    scene.disk.play(Trick::None);
    assert_eq!(stop.join().unwrap(), 2);
    assert_eq!(first.guest.reap(0).len(), 1, "published before the answer");

    second.it.enable().unwrap();
    assert_eq!(second.read(), 2);
    second.write(3);
    // The old one is too late, and closed when it tries.
    assert!(!first.start());
    assert!(first.it.is_closed());
    drop(first);
    assert_eq!(second.read(), 3);
    // And back, to a third.
    second.log();
    let mut third = scene.waiting();
    second.stop();
    third.it.enable().unwrap();
    assert_eq!(third.read(), 3);
}

#[test]
fn when_it_fails_the_first_one_goes_on() {
    let scene = Scene::new();
    let mut first = scene.running();
    let mut second = scene.waiting();
    first.write(1);
    first.log();
    first.stop();
    assert!(first.start());
    first.write(2);
    assert!(second.it.enable().is_err());
    drop(second);
    // It fails when the new one has started: that one is ended, with a request under way.
    let mut second = scene.waiting();
    first.stop();
    second.it.enable().unwrap();
    scene.disk.play(Trick::Hold);
    second.offer(1, &[3; 512]);
    eventually("it is taken", || second.guest.avail_event(0) == 1);
    let ended = std::thread::spawn(move || second.it.hang_up());
    std::thread::sleep(Duration::from_millis(50));
    assert!(first.start(), "it waits");
    first.offer(0, &[9; 512]);
    assert!(first.is_quiet(), "the other one's request is not through");
    scene.disk.play(Trick::None);
    ended.join().unwrap();
    first.guest.wait(0, 1);
    assert_eq!(first.read(), 3);
}

#[test]
fn a_reboot_hands_nothing_over() {
    let scene = Scene::new();
    let mut first = scene.running();
    let mut second = scene.waiting();
    first.write(1);
    first.stop();
    // It is answered as if it were served.
    second.it.enable().unwrap();
    second.offer(1, &[2; 512]);
    assert!(second.is_quiet());
    assert!(!second.it.is_closed());
    assert!(first.start());
    eventually("it is closed", || second.it.is_closed());
    assert_eq!(first.read(), 1);
    assert!(second.guest.reap(0).is_empty());
}

#[test]
fn a_paused_guest_goes_on_when_its_old_front_end_has_gone() {
    let scene = Scene::new();
    let mut first = scene.running();
    let mut second = scene.waiting();
    first.write(1);
    first.stop();
    second.it.enable().unwrap();
    let at = second.offer(0, &[9; 512]);
    assert!(second.is_quiet());
    first.it.hang_up();
    second.guest.wait(0, 1);
    assert_eq!(second.guest.read(at, 1), [1]);
    // It has it for good.
    let mut third = scene.waiting();
    assert!(third.it.enable().is_err());
    assert_eq!(second.read(), 1);
}

#[test]
fn one_that_stops_waiting_gets_nothing() {
    let scene = Scene::new();
    let mut first = scene.running();
    let mut second = scene.waiting();
    first.write(1);
    first.stop();
    second.it.enable().unwrap();
    second.stop();
    second.offer(1, &[2; 512]);
    first.it.hang_up();
    assert!(second.is_quiet());
    assert!(second.start());
    second.guest.wait(0, 1);
    assert_eq!(second.read(), 2);
}

#[test]
fn the_write_cache_is_the_holders() {
    let scene = Scene::new();
    let mut first = scene.running();
    let mut second = scene.waiting();
    let flags = VhostUserConfigFlags::empty();
    first.it.front.set_config(32, flags, &[0]).unwrap();
    let config = second.it.front.get_config(0, 60, flags, &[0; 60]);
    assert_eq!(config.unwrap().1[32], 0);
    first.it.front.set_config(32, flags, &[1]).unwrap();
    first.log();
    first.stop();
    // Its QEMU goes on saying what it has read, and its guest may take that for the truth.
    second.it.enable().unwrap();
    assert!(!scene.disk.write_cache());
    second.it.front.set_config(32, flags, &[1]).unwrap();
    assert!(scene.disk.write_cache());
    // Not another one's, which only waits.
    assert!(!scene.has_room());
    drop(first);
    let mut third = scene.waiting();
    assert!(third.it.front.set_config(32, flags, &[0]).is_err());
    assert!(scene.disk.write_cache());
    assert_eq!(second.read(), 0);
}
