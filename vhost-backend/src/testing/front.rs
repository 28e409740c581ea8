//! A front end, which says what QEMU says, in its order.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use vhost::vhost_user::message::{
    VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use crate::blk::config::Features;
use crate::engine::Disk;
use crate::session::{Attachments, FrontEnd, serve};
use crate::workers::Pool;

use super::guest::{Guest, MEMORY_AT, USER_AT};
use super::ram::{RamDisk, RamEngine};

/// How to connect.
#[derive(Default)]
pub struct Connect {
    /// Feature bits not to take.
    pub without: Vec<u32>,
    /// An in-flight region to hand over; without one, a new one is asked for.
    pub inflight: Option<(VhostUserInflight, File)>,
    /// No in-flight region at all.
    pub no_inflight: bool,
    /// Where the avail rings go on.
    pub bases: Vec<u16>,
    /// Who else is connected to the disk.
    pub among: Attachments,
}

/// A guest that is attached to a disk.
pub struct Attached {
    pub front: Frontend,
    pub kicks: Vec<EventFd>,
    pub calls: Vec<EventFd>,
    pub inflight: Option<(VhostUserInflight, File)>,
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

pub fn event() -> EventFd {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).unwrap()
}

/// A pool of two workers over disks in memory.
pub fn pool(disks: &[Arc<RamDisk>]) -> Arc<Pool<RamDisk>> {
    let disks = disks.to_vec();
    Arc::new(Pool::start(2, move || Ok(RamEngine::new(&disks))).unwrap())
}

/// Connects a front end and negotiates, without any queue.
pub fn shake_hands<D: Disk>(
    disk: &Arc<D>,
    pool: &Arc<Pool<D>>,
    without: &[u32],
) -> (Frontend, UnixStream, JoinHandle<()>) {
    shake_hands_among(&Attachments::default(), disk, pool, without)
}

/// The same beside other front ends of the same disk.
pub fn shake_hands_among<D: Disk>(
    attachments: &Attachments,
    disk: &Arc<D>,
    pool: &Arc<Pool<D>>,
    without: &[u32],
) -> (Frontend, UnixStream, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (disk, pool) = (Arc::clone(disk), Arc::clone(pool));
    let front_end = FrontEnd::of(&theirs).unwrap();
    let seat = attachments.admit(&theirs, front_end).unwrap();
    let thread = std::thread::spawn(move || serve(theirs, seat, disk, pool));
    let stream = ours.try_clone().unwrap();
    let mut front = Frontend::from_stream(ours, 64);
    let features = front.get_features().unwrap();
    let protocol = front.get_protocol_features().unwrap();
    front
        .set_protocol_features(protocol & !VhostUserProtocolFeatures::empty())
        .unwrap();
    front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    front.set_owner().unwrap();
    let logging = 1 << Features::LOG_ALL;
    let wanted = without
        .iter()
        .fold(features & !logging, |bits, bit| bits & !(1 << bit));
    front.set_features(wanted).unwrap();
    (front, stream, thread)
}

/// Connects a guest to a disk and starts its queues.
pub fn connect<D: Disk>(
    guest: &Guest,
    disk: &Arc<D>,
    pool: &Arc<Pool<D>>,
    how: Connect,
) -> Attached {
    let mut attached = prepare(guest, disk, pool, how);
    attached.enable().unwrap();
    attached
}

/// Connects a guest to a disk; its queues want nothing but to be enabled.
pub fn prepare<D: Disk>(
    guest: &Guest,
    disk: &Arc<D>,
    pool: &Arc<Pool<D>>,
    how: Connect,
) -> Attached {
    let (mut front, stream, thread) = shake_hands_among(&how.among, disk, pool, &how.without);
    let inflight = if how.no_inflight {
        None
    } else {
        let (region, file) = how.inflight.unwrap_or_else(|| {
            let want = VhostUserInflight {
                num_queues: guest.queues(),
                queue_size: guest.size(),
                ..Default::default()
            };
            front.get_inflight_fd(&want).unwrap()
        });
        front.set_inflight_fd(&region, file.as_raw_fd()).unwrap();
        Some((region, file))
    };
    let info = VhostUserMemoryRegionInfo {
        guest_phys_addr: MEMORY_AT,
        memory_size: guest.region().len,
        userspace_addr: USER_AT,
        mmap_offset: 0,
        mmap_handle: guest.file.as_raw_fd(),
    };
    front.set_mem_table(&[info]).unwrap();
    let (mut kicks, mut calls) = (Vec::new(), Vec::new());
    for queue in 0..guest.queues() {
        let index = usize::from(queue);
        front.set_vring_num(index, guest.size()).unwrap();
        front
            .set_vring_base(index, how.bases.get(index).copied().unwrap_or(0))
            .unwrap();
        front
            .set_vring_addr(index, &addresses(guest, queue, None))
            .unwrap();
        let (kick, call) = (event(), event());
        front.set_vring_kick(index, &kick).unwrap();
        front.set_vring_call(index, &call).unwrap();
        kicks.push(kick);
        calls.push(call);
    }
    Attached {
        front,
        kicks,
        calls,
        inflight,
        stream,
        thread: Some(thread),
    }
}

/// What SET_VRING_ADDR says of a queue.
pub fn addresses(guest: &Guest, queue: u16, log_addr: Option<u64>) -> VringConfigData {
    let [table, avail, used] = guest.rings(queue);
    VringConfigData {
        queue_max_size: guest.size(),
        queue_size: guest.size(),
        flags: u32::from(log_addr.is_some()),
        desc_table_addr: USER_AT + table,
        used_ring_addr: USER_AT + used,
        avail_ring_addr: USER_AT + avail,
        log_addr,
    }
}

impl Attached {
    /// Enables all queues.
    pub fn enable(&mut self) -> vhost::Result<()> {
        (0..self.kicks.len()).try_for_each(|index| self.front.set_vring_enable(index, true))
    }

    /// Whether the backend has closed the connection, or does soon.
    pub fn is_closed(&self) -> bool {
        self.front.get_features().is_err()
    }

    pub fn kick(&self, queue: u16) {
        self.kicks[usize::from(queue)].write(1).unwrap();
    }

    /// How often it was called since the last time.
    pub fn calls(&self, queue: u16) -> u64 {
        self.calls[usize::from(queue)].read().unwrap_or(0)
    }

    /// Hangs up and waits until the backend has let go; what the next connection needs.
    pub fn hang_up(mut self) -> Option<(VhostUserInflight, File)> {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
        self.thread.take().unwrap().join().unwrap();
        self.inflight.take()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        // A test that fails may leave requests held: waiting for those would hide what failed.
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            let _ = thread.join();
        }
    }
}
