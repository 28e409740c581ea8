//! The avail and used rings of one queue.
//!
//! Memory ordering, per virtio 2.7: the avail index is loaded with acquire before its entries are read; used
//! elements are written before the used index is stored with release; and a full fence stands between "I publish"
//! and "does the other side want to be told", on both sides, or both could go to sleep.

use std::sync::atomic::{Ordering, fence};

use crate::memory::{GuestMemory, Place, View};

const AVAIL_FLAGS: usize = 0;
const AVAIL_INDEX: usize = 2;
const AVAIL_RING: usize = 4;
const USED_FLAGS: usize = 0;
const USED_INDEX: usize = 2;
const USED_RING: usize = 4;
/// Bytes of an entry of the used ring: id and length.
const USED_ELEMENT: usize = 8;
/// In avail.flags: the driver wants no interrupts.
const NO_INTERRUPT: u16 = 1;
/// In used.flags: the device wants no kicks.
const NO_NOTIFY: u16 = 1;

/// Bytes of a descriptor table of `size` descriptors.
pub fn descriptor_table_len(size: u16) -> usize {
    usize::from(size) * 16
}

/// Bytes of an avail ring of `size` entries, used_event included.
pub fn avail_len(size: u16) -> usize {
    AVAIL_RING + usize::from(size) * 2 + 2
}

/// Bytes of a used ring of `size` entries, avail_event included.
pub fn used_len(size: u16) -> usize {
    USED_RING + usize::from(size) * USED_ELEMENT + 2
}

/// Why a ring can't be served any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The ring is not where it was said to be.
    #[error("the ring is not in the guest's memory, or is misaligned")]
    Memory,
    /// The avail index went further than the ring is long.
    #[error("the avail index {avail} is {ahead} ahead of {next}, more than the ring holds")]
    AvailIndex {
        /// As the guest wrote it.
        avail: u16,
        /// What is to be taken next.
        next: u16,
        /// Their distance.
        ahead: u16,
    },
    /// A head that isn't a descriptor.
    #[error("head {0} is outside the descriptor table")]
    Head(u16),
    /// The guest offered a head again that is still in flight.
    #[error("head {0} was offered again while it is in flight")]
    HeadTwice(u16),
}

/// Where the three parts of a ring lie in one snapshot of guest memory.
#[derive(Debug, Clone, Copy)]
pub struct RingPlaces {
    /// Descriptor table.
    pub table: Place,
    /// Avail ring.
    pub avail: Place,
    /// Used ring.
    pub used: Place,
    /// Guest address at which writes to the used ring are noted in the dirty log, if they are.
    pub used_log: Option<u64>,
}

/// One queue's rings and the device's position in them.
#[derive(Debug)]
pub struct Ring {
    size: u16,
    event_idx: bool,
    /// The next entry of the avail ring to take.
    next_avail: u16,
    /// The used index that the guest sees.
    used: u16,
    /// Elements written behind `used` and not yet published.
    pending: u16,
    /// The used index at the last decision whether to signal.
    signalled: u16,
}

impl Ring {
    /// A ring of `size` entries (1..=32768), positioned at `next_avail` and the used index found in memory.
    pub fn new(size: u16, event_idx: bool, next_avail: u16, used: u16) -> Self {
        Self {
            size,
            event_idx,
            next_avail,
            used,
            pending: 0,
            signalled: used,
        }
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The next entry of the avail ring to take: what the front end is told when the ring stops.
    pub fn next_avail(&self) -> u16 {
        self.next_avail
    }

    /// Gives the last `count` entries back untaken.
    pub fn rewind(&mut self, count: u16) {
        self.next_avail = self.next_avail.wrapping_sub(count);
    }

    /// The published used index.
    pub fn used_index(&self) -> u16 {
        self.used
    }

    /// Takes the next head, if there is one.
    #[inline]
    pub fn pop(
        &mut self,
        memory: &GuestMemory,
        places: &RingPlaces,
    ) -> Result<Option<u16>, RingError> {
        if self.available(memory, places)? == 0 {
            return Ok(None);
        }
        let slot = usize::from(self.next_avail % self.size);
        let head: u16 = memory
            .load(places.avail, AVAIL_RING + slot * 2, Ordering::Relaxed)
            .map(u16::from_le)
            .ok_or(RingError::Memory)?;
        if head >= self.size {
            return Err(RingError::Head(head));
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        Ok(Some(head))
    }

    /// How many heads wait.
    #[inline]
    pub fn available(&self, memory: &GuestMemory, places: &RingPlaces) -> Result<u16, RingError> {
        let avail = avail_index(memory, places)?;
        let ahead = avail.wrapping_sub(self.next_avail);
        if ahead > self.size {
            return Err(RingError::AvailIndex {
                avail,
                next: self.next_avail,
                ahead,
            });
        }
        Ok(ahead)
    }

    /// Writes the next used element; the guest doesn't see it before [`Ring::publish`].
    #[inline]
    pub fn put_used(
        &mut self,
        view: View<'_>,
        places: &RingPlaces,
        head: u16,
        len: u32,
    ) -> Result<(), RingError> {
        let slot = usize::from(self.used.wrapping_add(self.pending) % self.size);
        let at = USED_RING + slot * USED_ELEMENT;
        let id = u32::from(head).to_le();
        view.memory
            .store(places.used, at, id, Ordering::Relaxed)
            .ok_or(RingError::Memory)?;
        view.memory
            .store(places.used, at + 4, len.to_le(), Ordering::Relaxed)
            .ok_or(RingError::Memory)?;
        if let Some(log) = places.used_log {
            view.mark(log.wrapping_add(at as u64), USED_ELEMENT as u64);
        }
        self.pending = self.pending.wrapping_add(1);
        Ok(())
    }

    /// Publishes all elements written since the last time.
    #[inline]
    pub fn publish(&mut self, view: View<'_>, places: &RingPlaces) -> Result<(), RingError> {
        let used = self.used.wrapping_add(self.pending);
        view.memory
            .store(places.used, USED_INDEX, used.to_le(), Ordering::Release)
            .ok_or(RingError::Memory)?;
        if let Some(log) = places.used_log {
            view.mark(log.wrapping_add(USED_INDEX as u64), 2);
        }
        self.used = used;
        self.pending = 0;
        Ok(())
    }

    /// Whether the guest wants to be told of what was published since this was asked last.
    #[inline]
    pub fn needs_signal(
        &mut self,
        memory: &GuestMemory,
        places: &RingPlaces,
    ) -> Result<bool, RingError> {
        let (new, old) = (self.used, self.signalled);
        if new == old {
            return Ok(false);
        }
        self.signalled = new;
        fence(Ordering::SeqCst);
        if self.event_idx {
            let at = AVAIL_RING + usize::from(self.size) * 2;
            let event: u16 = memory
                .load(places.avail, at, Ordering::Relaxed)
                .map(u16::from_le)
                .ok_or(RingError::Memory)?;
            return Ok(crossed(event, new, old));
        }
        let flags: u16 = memory
            .load(places.avail, AVAIL_FLAGS, Ordering::Relaxed)
            .map(u16::from_le)
            .ok_or(RingError::Memory)?;
        Ok(flags & NO_INTERRUPT == 0)
    }

    /// Asks for kicks, and tells whether something came in meanwhile, for which none will come.
    pub fn enable_kicks(&self, view: View<'_>, places: &RingPlaces) -> Result<bool, RingError> {
        if self.event_idx {
            let at = USED_RING + usize::from(self.size) * USED_ELEMENT;
            self.store_used(view, places, at, self.next_avail)?;
        } else {
            self.store_used(view, places, USED_FLAGS, 0)?;
        }
        fence(Ordering::SeqCst);
        Ok(self.available(view.memory, places)? > 0)
    }

    /// Asks for no kicks while the ring is being looked at anyway. With EVENT_IDX nothing needs saying: an event
    /// index that isn't moved on asks for none.
    pub fn disable_kicks(&self, view: View<'_>, places: &RingPlaces) -> Result<(), RingError> {
        if self.event_idx {
            return Ok(());
        }
        self.store_used(view, places, USED_FLAGS, NO_NOTIFY)
    }

    fn store_used(
        &self,
        view: View<'_>,
        places: &RingPlaces,
        at: usize,
        value: u16,
    ) -> Result<(), RingError> {
        view.memory
            .store(places.used, at, value.to_le(), Ordering::Relaxed)
            .ok_or(RingError::Memory)?;
        if let Some(log) = places.used_log {
            view.mark(log.wrapping_add(at as u64), 2);
        }
        Ok(())
    }
}

/// The used index as it stands in memory.
pub fn used_index(memory: &GuestMemory, places: &RingPlaces) -> Result<u16, RingError> {
    memory
        .load(places.used, USED_INDEX, Ordering::Acquire)
        .map(u16::from_le)
        .ok_or(RingError::Memory)
}

/// The avail index as it stands in memory.
pub fn avail_index(memory: &GuestMemory, places: &RingPlaces) -> Result<u16, RingError> {
    memory
        .load(places.avail, AVAIL_INDEX, Ordering::Acquire)
        .map(u16::from_le)
        .ok_or(RingError::Memory)
}

/// Whether going from `old` to `new` passes `event` (virtio 2.7.10, vring_need_event).
fn crossed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests;
