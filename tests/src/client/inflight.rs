//! The in-flight region, as the specification lays it out for split queues.
//!
//! ```text
//! queue 0                     queue 1 ...            each queue begins at a multiple of 64
//! | header | state | state | ...        |
//!
//! header  0 features u64                   state  0 inflight u8
//!         8 version u16  (1)                      6 next u16
//!        10 desc_num u16                          8 counter u64
//!        12 last_batch_head u16
//!        14 used_idx u16
//! ```
//!
//! Between two backends a test may put the region into any state that the first could have died in.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use super::shm::SharedMemory;

const HEADER: usize = 16;
const STATE: usize = 16;

/// The region a backend gave. It belongs to the device, not to the connection: the next backend gets the
/// same one.
#[derive(Debug)]
pub struct Inflight {
    /// The file that the backend made.
    pub fd: OwnedFd,
    /// Length of the region in bytes.
    pub mmap_size: u64,
    /// Where in the file it begins.
    pub mmap_offset: u64,
    /// Queues it covers.
    pub num_queues: u16,
    /// Descriptors per queue.
    pub queue_size: u16,
}

impl Inflight {
    /// Maps one queue's part.
    ///
    /// # Panics
    /// When the region does not cover the queue.
    pub fn queue(&self, index: u16) -> io::Result<QueueInflight> {
        let stride = (HEADER + STATE * usize::from(self.queue_size)).next_multiple_of(64);
        let base = stride * usize::from(index);
        assert!(
            base + stride <= self.mmap_size as usize,
            "the region is too small for queue {index}"
        );
        let memory = SharedMemory::map(
            self.fd.try_clone()?,
            self.mmap_size as usize,
            self.mmap_offset,
        )?;
        Ok(QueueInflight {
            memory,
            base,
            size: self.queue_size,
        })
    }
}

/// One queue's part of the region.
#[derive(Debug)]
pub struct QueueInflight {
    memory: SharedMemory,
    base: usize,
    size: u16,
}

impl QueueInflight {
    /// Version of the layout; 0 before a backend has used the region.
    pub fn version(&self) -> u16 {
        self.memory.u16(self.base + 8).load(Ordering::Acquire)
    }

    /// Descriptors of the ring it was written for.
    pub fn desc_num(&self) -> u16 {
        self.memory.u16(self.base + 10).load(Ordering::Acquire)
    }

    /// The used index up to which everything is settled.
    pub fn used_idx(&self) -> u16 {
        self.memory.u16(self.base + 14).load(Ordering::Acquire)
    }

    /// Sets what [`QueueInflight::used_idx`] returns.
    pub fn set_used_idx(&self, used: u16) {
        self.memory
            .u16(self.base + 14)
            .store(used, Ordering::Release);
    }

    /// Begins the list of the batch published last.
    pub fn set_last_batch_head(&self, head: u16) {
        self.memory
            .u16(self.base + 12)
            .store(head, Ordering::Release);
    }

    /// Heads marked as in flight.
    pub fn marked(&self) -> Vec<u16> {
        let mut byte = [0];
        let mut heads: Vec<u16> = (0..self.size).collect();
        heads.retain(|&head| {
            self.memory.read(self.state(head), &mut byte);
            byte[0] != 0
        });
        heads
    }

    /// Marks a head as in flight, or not.
    pub fn mark(&self, head: u16, inflight: bool) {
        self.memory.write(self.state(head), &[u8::from(inflight)]);
    }

    /// Links a head to the next of its batch.
    pub fn set_next(&self, head: u16, next: u16) {
        self.memory
            .u16(self.state(head) + 6)
            .store(next, Ordering::Release);
    }

    /// Sets a head's place in the order of taking.
    pub fn set_counter(&self, head: u16, counter: u64) {
        self.memory
            .u64(self.state(head) + 8)
            .store(counter, Ordering::Release);
    }

    fn state(&self, head: u16) -> usize {
        self.base + HEADER + STATE * usize::from(head)
    }
}
