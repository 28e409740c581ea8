//! The region's bytes.
//!
//! Layout (vhost-user specification, "Inflight I/O tracking", split virtqueue; little-endian):
//!
//! ```text
//! queue 0                     queue 1 ...            each queue begins at a multiple of 64
//! +--------+----------------------------+
//! | header | state | state | ...        |
//! +--------+----------------------------+
//!
//! header  0 features u64       (0)         state  0 inflight u8
//!         8 version u16        (1)                1 padding [u8; 5]
//!        10 desc_num u16                          6 next u16
//!        12 last_batch_head u16                   8 counter u64
//!        14 used_idx u16
//! ```
//!
//! `vhost`'s own `QueueRegionSplit` holds its states behind a pointer and is not laid out like this, so the offsets are
//! written out here.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::memory::{MapError, Mapping};

const VERSION_AT: usize = 8;
const DESC_NUM_AT: usize = 10;
const LAST_BATCH_HEAD_AT: usize = 12;
const USED_IDX_AT: usize = 14;
const HEADER_LEN: usize = 16;
const STATE_LEN: usize = 16;
const INFLIGHT_AT: usize = 0;
const NEXT_AT: usize = 6;
const COUNTER_AT: usize = 8;
const QUEUE_ALIGN: usize = 64;
const VERSION: u16 = 1;

/// Why a region can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InflightError {
    /// It could not be mapped or made.
    #[error(transparent)]
    Map(#[from] MapError),
    /// It could not be created.
    #[error("in-flight region: {0}")]
    Create(#[from] rustix::io::Errno),
    /// It is smaller than its queues need.
    #[error("in-flight region: {len} bytes are too few for {queues} queues of {queue_size}")]
    TooSmall {
        /// Its length.
        len: u64,
        /// Queues.
        queues: u16,
        /// Descriptors per queue.
        queue_size: u16,
    },
    /// A version of the layout that isn't known.
    #[error("in-flight region: version {0} is not known, only {VERSION} is")]
    Version(u16),
    /// The ring is longer than the region has room for.
    #[error("in-flight region: made for queues of {region}, but this one has {ring} descriptors")]
    QueueSize {
        /// What the region was made for.
        region: u16,
        /// The ring's size.
        ring: u16,
    },
}

/// The region of all queues of one device.
#[derive(Debug)]
pub struct InflightRegion {
    map: Mapping,
    queues: u16,
    queue_size: u16,
}

impl InflightRegion {
    /// Bytes of a region for so many queues.
    pub fn len_for(queues: u16, queue_size: u16) -> u64 {
        queue_stride(queue_size) as u64 * u64::from(queues)
    }

    /// A new, zeroed region in memory of its own.
    pub fn create(queues: u16, queue_size: u16) -> Result<File, InflightError> {
        use rustix::fs::MemfdFlags;
        let fd = rustix::fs::memfd_create(
            "firn-inflight",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        rustix::fs::ftruncate(&fd, Self::len_for(queues, queue_size))?;
        Ok(File::from(fd))
    }

    /// Maps a region that a front end hands over.
    pub fn attach(
        file: File,
        offset: u64,
        len: u64,
        queues: u16,
        queue_size: u16,
    ) -> Result<Arc<Self>, InflightError> {
        let need = Self::len_for(queues, queue_size);
        if len < need {
            return Err(InflightError::TooSmall {
                len,
                queues,
                queue_size,
            });
        }
        let map = Mapping::new(file, offset, need, "in-flight region")?;
        Ok(Arc::new(Self {
            map,
            queues,
            queue_size,
        }))
    }

    /// One queue's part, if the region has one for it.
    pub fn queue(self: &Arc<Self>, index: u16) -> Option<QueueRegion> {
        (index < self.queues).then(|| QueueRegion {
            region: Arc::clone(self),
            base: queue_stride(self.queue_size) * usize::from(index),
        })
    }
}

fn queue_stride(queue_size: u16) -> usize {
    (HEADER_LEN + STATE_LEN * usize::from(queue_size)).next_multiple_of(QUEUE_ALIGN)
}

/// One queue's part of the region.
///
/// Accesses can't fail: offsets are computed from the size that was mapped. If one did, it would read as zero
/// and write nothing.
#[derive(Debug)]
pub struct QueueRegion {
    region: Arc<InflightRegion>,
    base: usize,
}

/// What a ring starts with.
#[derive(Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Heads to execute again, in this order.
    pub heads: Vec<u16>,
    /// Where to go on in the avail ring.
    pub next_avail: u16,
    /// The counter of the next request.
    pub counter: u64,
    /// Why what the region held was not believed.
    pub discarded: Option<&'static str>,
}

impl QueueRegion {
    fn state(&self, head: u16, field: usize) -> usize {
        self.base + HEADER_LEN + STATE_LEN * usize::from(head) + field
    }

    fn load_u16(&self, at: usize) -> u16 {
        self.region.map.load(at, Acquire).map_or(0, u16::from_le)
    }

    fn store_u16(&self, at: usize, value: u16) {
        let _ = self.region.map.store(at, value.to_le(), Release);
    }

    /// Whether a head is marked.
    pub fn inflight(&self, head: u16) -> bool {
        self.region
            .map
            .load::<u8>(self.state(head, INFLIGHT_AT), Acquire)
            == Some(1)
    }

    /// Marks a head, or clears it.
    pub fn set_inflight(&self, head: u16, inflight: bool) {
        let _ = self
            .region
            .map
            .store(self.state(head, INFLIGHT_AT), u8::from(inflight), Release);
    }

    /// A head's place in the order of taking.
    pub fn counter(&self, head: u16) -> u64 {
        self.region
            .map
            .load(self.state(head, COUNTER_AT), Acquire)
            .map_or(0, u64::from_le)
    }

    /// Stores a head's place in the order of taking.
    pub fn set_counter(&self, head: u16, counter: u64) {
        let _ = self
            .region
            .map
            .store(self.state(head, COUNTER_AT), counter.to_le(), Release);
    }

    fn next(&self, head: u16) -> u16 {
        self.load_u16(self.state(head, NEXT_AT))
    }

    /// Puts a head in front of the list of the batch that is about to be published.
    pub fn push_batch(&self, head: u16) {
        let last = self.load_u16(self.base + LAST_BATCH_HEAD_AT);
        self.store_u16(self.state(head, NEXT_AT), last);
        self.store_u16(self.base + LAST_BATCH_HEAD_AT, head);
    }

    /// Notes the used index up to which everything is settled.
    pub fn set_used_idx(&self, used: u16) {
        self.store_u16(self.base + USED_IDX_AT, used);
    }

    /// The used index up to which everything is settled.
    pub fn used_idx(&self) -> u16 {
        self.load_u16(self.base + USED_IDX_AT)
    }

    /// Finds out what was in flight, for a ring of `size` descriptors whose indices stand at `used` and `avail`.
    /// `base` is where the front end says that the avail ring goes on; it counts only for a region without history.
    pub fn recover(
        &self,
        size: u16,
        used: u16,
        avail: u16,
        base: u16,
    ) -> Result<Recovery, InflightError> {
        if size > self.region.queue_size {
            return Err(InflightError::QueueSize {
                region: self.region.queue_size,
                ring: size,
            });
        }
        match self.load_u16(self.base + VERSION_AT) {
            0 => return Ok(self.start_afresh(size, used, base, None)),
            VERSION => (),
            other => return Err(InflightError::Version(other)),
        }
        if self.load_u16(self.base + DESC_NUM_AT) != size {
            let why = "it was written for a ring of another size";
            return Ok(self.start_afresh(size, used, base, Some(why)));
        }
        let unsettled = used.wrapping_sub(self.used_idx());
        if unsettled > size {
            let why = "its used index is not one that this ring can have had";
            return Ok(self.start_afresh(size, used, base, Some(why)));
        }
        let mut head = self.load_u16(self.base + LAST_BATCH_HEAD_AT);
        for _ in 0..unsettled {
            if head >= size {
                let why = "its list of the last batch leaves the ring";
                return Ok(self.start_afresh(size, used, base, Some(why)));
            }
            self.set_inflight(head, false);
            head = self.next(head);
        }
        self.set_used_idx(used);

        let mut found: Vec<(u64, u16)> = (0..size)
            .filter(|&head| self.inflight(head))
            .map(|head| (self.counter(head), head))
            .collect();
        found.sort_unstable();
        // Never more than `size`, which is at most 32768.
        let count = u16::try_from(found.len()).unwrap_or(u16::MAX);
        if avail.wrapping_sub(used) < count {
            let why = "it has more in flight than the guest has offered";
            return Ok(self.start_afresh(size, used, base, Some(why)));
        }
        Ok(Recovery {
            next_avail: used.wrapping_add(count),
            counter: found
                .last()
                .map_or(0, |(counter, _)| counter.wrapping_add(1)),
            heads: found.into_iter().map(|(_, head)| head).collect(),
            discarded: None,
        })
    }

    fn start_afresh(
        &self,
        size: u16,
        used: u16,
        base: u16,
        discarded: Option<&'static str>,
    ) -> Recovery {
        for head in 0..size {
            self.set_inflight(head, false);
        }
        self.store_u16(self.base + DESC_NUM_AT, size);
        self.set_used_idx(used);
        // Last: before it, a death finds a region without history, which is what it still is.
        self.store_u16(self.base + VERSION_AT, VERSION);
        Recovery {
            heads: Vec::new(),
            next_avail: base,
            counter: 0,
            discarded,
        }
    }
}

#[cfg(test)]
mod tests;
