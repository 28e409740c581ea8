//! What a layer costs: the blocks that it has entries for, the bytes that these take, and what would come free without it.
//!
//! An extent's stored length, header and all, is shared out over those of its blocks that the layer's map still names; an extent
//! belongs to one layer and lies in one leaf, so that the shares of a leaf are a matter of that leaf alone. What overwritten
//! blocks of an extent take is thus counted to those that are left: it comes free with the last of them.
//!
//! What would come free is what nobody could read any more. Where one layer lies over this one, that is each block which that
//! layer has an entry of its own for; the others move up to it. Where several do, nothing: the layer stays, whatever
//! becomes of its name. Where none does, all of it.
//!
//! # Cost
//! One answer reads [`LEAVES`] leaves of the layer's map at most, and [`LEAVES_ABOVE`] of the map above it.

use super::entries::{end_of, entries, runs_of};
use super::tree::Above;
use crate::core::Core;
use crate::error::StoreError;
use crate::format::{Entry, Location, NODE_SLOTS};
use crate::map::Slots;
use crate::read::Sweep;
use serde::Serialize;
use std::ops::{ControlFlow, Range};

/// Leaves that one answer looks at: 2 MiB of memory.
const LEAVES: usize = 512;
/// Leaves above that one answer looks at.
const LEAVES_ABOVE: usize = 8192;

/// What a layer, or a part of it, costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Blocks that it has data for.
    pub data_blocks: u64,
    /// Blocks that it has as zeroes.
    pub zero_blocks: u64,
    /// Bytes that the data takes in segments.
    pub stored_bytes: u64,
    /// Blocks of data that would come free without it.
    pub exclusive_blocks: u64,
    /// Their share of the stored bytes.
    pub exclusive_bytes: u64,
}

/// What the layer costs within a range of blocks that begins with a leaf; and up to which block that was looked at.
pub fn usage(
    core: &Core,
    layer: u32,
    above: Above,
    within: Range<u64>,
) -> Result<(Usage, u64), StoreError> {
    let mut seen = Seen::default();
    let mut checked = within.end;
    entries(core, layer, &within, &mut |found| {
        seen.add(&found);
        if seen.leaves.len() < LEAVES {
            return ControlFlow::Continue(());
        }
        checked = end_of(&found).min(within.end);
        ControlFlow::Break(())
    })?;
    if let (Above::One(child), false) = (above, seen.leaves.is_empty()) {
        let mut leaves = 0;
        entries(core, child, &(within.start..checked), &mut |found| {
            seen.hide(&found);
            leaves += 1;
            if leaves < LEAVES_ABOVE {
                return ControlFlow::Continue(());
            }
            checked = end_of(&found).min(checked);
            ControlFlow::Break(())
        })?;
    }
    Ok((seen.count(above, checked), checked))
}

/// Leaves of a layer, in order of address.
#[derive(Default)]
struct Seen {
    /// First block, entries, and which of these are hidden.
    leaves: Vec<(u64, Box<Slots>, [bool; NODE_SLOTS])>,
    zeroes: Vec<Range<u64>>,
}

impl Seen {
    fn add(&mut self, found: &Sweep<'_>) {
        match found {
            Sweep::Leaf(first, slots) => {
                let slots = Box::new(**slots);
                self.leaves.push((*first, slots, [false; NODE_SLOTS]));
            }
            Sweep::Zeroes(range) => self.zeroes.push(range.clone()),
        }
    }

    /// The layer above has these.
    fn hide(&mut self, found: &Sweep<'_>) {
        for run in runs_of(found) {
            let end_of_leaf = |first: &u64| first + NODE_SLOTS as u64;
            let from = self
                .leaves
                .partition_point(|(first, ..)| end_of_leaf(first) <= run.start);
            let later = self.leaves.iter_mut().skip(from);
            for (first, _, hidden) in later.take_while(|(first, ..)| *first < run.end) {
                let inside = |block: &u64| run.contains(block);
                for (_, hidden) in (*first..).zip(hidden).filter(|(block, _)| inside(block)) {
                    *hidden = true;
                }
            }
        }
    }

    fn count(&self, above: Above, end: u64) -> Usage {
        let zeroes = self
            .zeroes
            .iter()
            .map(|z| z.end.min(end).saturating_sub(z.start));
        let mut usage = Usage {
            zero_blocks: zeroes.sum(),
            ..Usage::default()
        };
        let leaves = self.leaves.iter().take_while(|(first, ..)| *first < end);
        for (_, slots, hidden) in leaves {
            let free = |n: &bool| above == Above::Nothing || *n;
            count_leaf(&mut usage, slots.iter().zip(hidden.iter().map(free)));
        }
        usage
    }
}

/// Counts the entries of one leaf, each with whether it would come free.
fn count_leaf<'a>(usage: &mut Usage, entries: impl Iterator<Item = (&'a u64, bool)>) {
    let mut stored: Vec<(Location, bool)> = Vec::new();
    for (bits, free) in entries {
        match Entry::unpack(*bits) {
            Ok(Entry::Stored { at, .. }) => stored.push((at, free)),
            Ok(Entry::Zero) => usage.zero_blocks += 1,
            _ => {}
        }
    }
    stored.sort_unstable();
    for extent in stored.chunk_by(|a, b| a.0 == b.0) {
        let blocks = extent.len() as u64;
        let free = extent.iter().filter(|(_, free)| *free).count() as u64;
        let len = extent.first().map_or(0, |(at, _)| u64::from(at.len));
        usage.data_blocks += blocks;
        usage.stored_bytes += len;
        usage.exclusive_blocks += free;
        usage.exclusive_bytes += len * free / blocks.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(offset: u32, len: u32, index: u8) -> u64 {
        let at = Location {
            segment: 1,
            offset,
            len,
        };
        Entry::Stored { at, index }.pack()
    }

    /// An extent of which two of four blocks are left, one of one block, and zeroes.
    fn leaf() -> Slots {
        let mut slots = [0; NODE_SLOTS];
        slots[3] = stored(0, 1024, 0);
        slots[5] = stored(0, 1024, 2);
        slots[511] = stored(4096, 512, 0);
        slots[7] = Entry::Zero.pack();
        slots
    }

    #[test]
    fn an_extent_is_shared_out_over_what_is_left_of_it() {
        let mut seen = Seen::default();
        seen.add(&Sweep::Leaf(1024, &leaf()));
        seen.add(&Sweep::Zeroes(4096..8192));
        let all = Usage {
            data_blocks: 3,
            zero_blocks: 4097,
            stored_bytes: 1536,
            exclusive_blocks: 0,
            exclusive_bytes: 0,
        };
        assert_eq!(seen.count(Above::Several, 8192), all);
        assert_eq!(seen.count(Above::One(2), 8192), all);
        let free = Usage {
            exclusive_blocks: 3,
            exclusive_bytes: 1536,
            ..all
        };
        assert_eq!(seen.count(Above::Nothing, 8192), free);
        let mut above = [0; NODE_SLOTS];
        (above[4], above[5], above[7]) = (1 << 62, 1 << 62, 1 << 62);
        seen.hide(&Sweep::Leaf(512, &[1 << 62; NODE_SLOTS]));
        seen.hide(&Sweep::Leaf(1024, &above));
        let half = Usage {
            exclusive_blocks: 1,
            exclusive_bytes: 512,
            ..all
        };
        assert_eq!(seen.count(Above::One(2), 8192), half);
        seen.hide(&Sweep::Zeroes(1030..9000));
        let more = seen.count(Above::One(2), 8192);
        assert_eq!((more.exclusive_blocks, more.exclusive_bytes), (2, 1024));
        assert_eq!(seen.count(Above::One(2), 1024).data_blocks, 0);
        assert_eq!(seen.count(Above::One(2), 5000).zero_blocks, 1 + 904);
    }
}
