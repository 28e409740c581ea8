//! One request of a guest, as the commands that the store carries out for it, one after the other.

use std::sync::Arc;

use crate::blk::request::DiskRange;
use crate::blk::token::Token;
use crate::engine::Command;
use crate::memory::{GuestMemory, GuestPayload, Segment, SegmentPool, cut};

/// Data per command, in bytes: a guest's larger request goes in parts, so that what the store holds for one
/// request is bounded. Linux' default of 1280 KiB fits in one.
const PART: usize = 4 << 20;

/// What is left to do for a request.
#[derive(Debug)]
pub enum Work {
    /// Move data.
    Transfer {
        /// To the disk, or from it.
        write: bool,
        /// Bytes from the start of the disk.
        offset: u64,
        /// The guest's buffers, all of them.
        segments: Vec<Segment>,
        /// Their length.
        len: usize,
        /// How much of it went to the store already.
        sent: usize,
        /// The snapshot that `segments` belong to.
        memory: Arc<GuestMemory>,
    },
    /// Discard or write zeroes.
    Ranges {
        /// Which of the two.
        zeroes: bool,
        /// All of them, the next one last.
        list: Vec<DiskRange>,
    },
    /// Flush.
    Flush,
    /// Nothing.
    Nothing,
}

/// A request that is in the store's hands.
#[derive(Debug)]
pub struct Pending {
    /// The queue it came from, by slot.
    pub slot: u32,
    /// The duty to answer it.
    pub token: Token,
    /// Its place in the avail ring, unless it came from the in-flight region.
    pub position: Option<u16>,
    /// What is left to do.
    pub work: Work,
    /// Whether a flush must follow, because the guest has no means to ask for one.
    pub then_flush: bool,
    /// Bytes that a successful end reports as written to the guest, without the status.
    pub written: u32,
    /// Pieces of memory that it keeps a list of.
    pub pieces: usize,
}

impl Pending {
    /// The next command, or nothing when all have been given.
    pub fn next_command(&mut self, pool: &mut SegmentPool) -> Option<Command<GuestPayload>> {
        match std::mem::replace(&mut self.work, Work::Nothing) {
            Work::Transfer {
                write,
                offset,
                segments,
                len,
                sent,
                memory,
            } => {
                let part = (len - sent).min(PART);
                let at = offset.saturating_add(sent as u64);
                if part == len {
                    return Some(transfer(write, at, GuestPayload::new(memory, segments)));
                }
                let mut piece = pool.take();
                cut(&segments, sent, part, &mut piece);
                let payload = GuestPayload::new(Arc::clone(&memory), piece);
                let sent = sent + part;
                if sent < len {
                    self.work = Work::Transfer {
                        write,
                        offset,
                        segments,
                        len,
                        sent,
                        memory,
                    };
                } else {
                    pool.put(segments);
                }
                Some(transfer(write, at, payload))
            }
            Work::Ranges { zeroes, mut list } => {
                let DiskRange { offset, len, unmap } = list.pop()?;
                if !list.is_empty() {
                    self.work = Work::Ranges { zeroes, list };
                }
                Some(if zeroes {
                    Command::WriteZeroes { offset, len, unmap }
                } else {
                    Command::Discard { offset, len }
                })
            }
            Work::Flush => Some(Command::Flush),
            Work::Nothing => {
                std::mem::replace(&mut self.then_flush, false).then_some(Command::Flush)
            }
        }
    }
}

fn transfer(write: bool, offset: u64, payload: GuestPayload) -> Command<GuestPayload> {
    if write {
        Command::Write {
            offset,
            from: payload,
        }
    } else {
        Command::Read {
            offset,
            into: payload,
        }
    }
}

/// Requests in the store's hands, by tag. A tag names a slot and how often that slot was used, so that a late or wrong
/// tag finds nothing instead of somebody else's request.
#[derive(Debug, Default)]
pub struct PendingTable {
    slots: Vec<(u32, Option<Pending>)>,
    free: Vec<u32>,
}

impl PendingTable {
    /// Whether the store has nothing to do for anybody.
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Files a request.
    pub fn insert(&mut self, pending: Pending) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            // Bounded by the sizes of all rings, far below 2^32.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        match self.slots.get_mut(slot as usize) {
            Some((generation, place)) => {
                *place = Some(pending);
                u64::from(*generation) << 32 | u64::from(slot)
            }
            None => u64::MAX,
        }
    }

    /// The request with this tag.
    pub fn get_mut(&mut self, tag: u64) -> Option<&mut Pending> {
        let (generation, pending) = self.slots.get_mut(slot_of(tag))?;
        (u64::from(*generation) == tag >> 32).then_some(pending.as_mut()?)
    }

    /// The queue that the request with this tag came from.
    pub fn queue_of(&self, tag: u64) -> Option<u32> {
        let (generation, pending) = self.slots.get(slot_of(tag))?;
        (u64::from(*generation) == tag >> 32).then_some(pending.as_ref()?.slot)
    }

    /// Takes the request with this tag out.
    pub fn remove(&mut self, tag: u64) -> Option<Pending> {
        let (generation, place) = self.slots.get_mut(slot_of(tag))?;
        if u64::from(*generation) != tag >> 32 {
            return None;
        }
        let pending = place.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(u32::try_from(slot_of(tag)).ok()?);
        Some(pending)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is the slot")]
fn slot_of(tag: u64) -> usize {
    tag as u32 as usize
}
