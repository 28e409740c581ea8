//! Small writes that go on from one another: gathered as they are written, to be put together where they lie scattered.
//!
//! Several guests that each write a file in small pieces leave their pieces in turns. Each stream's are remembered here, with
//! what the map says of them, until there are [`STRETCH`] blocks; then the vDisk's rules decide.

use crate::compress::{Touch, Touching};
use crate::defrag::Pieces;
use crate::format::{BLOCK, Entry};
use crate::io::PAGE;
use std::collections::VecDeque;

/// Blocks that are put together at a time: 64 KiB, aligned.
const STRETCH: u64 = 16;
/// Streams that are followed at a time; memory of a lane: 1 MiB at most.
const STREAMS: usize = 16;

/// A stretch of blocks, as it was written.
#[derive(Debug)]
pub(super) struct Stretch {
    vdisk: u32,
    /// The layer.
    pub layer: u32,
    /// First block.
    pub first: u64,
    /// The blocks.
    pub data: Vec<u8>,
    /// Packed entry of each.
    pub seen: Vec<u64>,
}

/// The streams, the one that went on last at the end.
#[derive(Debug, Default)]
pub(super) struct Joins(VecDeque<Stretch>);

impl Joins {
    /// Blocks that were written to a layer, and their packed entries. A stretch that is complete comes back.
    pub fn add(
        &mut self,
        (vdisk, layer, first): (u32, u32, u64),
        data: &[u8],
        seen: &[u64],
    ) -> Option<Stretch> {
        let goes_on = |s: &Stretch| {
            (s.vdisk, s.layer, s.first + s.seen.len() as u64) == (vdisk, layer, first)
        };
        let end = first + seen.len() as u64;
        let nothing = Stretch {
            vdisk,
            layer,
            first: end,
            data: Vec::new(),
            seen: Vec::new(),
        };
        let known = self.0.iter().position(goes_on);
        let Some(mut stretch) = known.and_then(|n| self.0.remove(n)) else {
            // The first of a stream, or one of many at random: only where it ends is remembered.
            self.remember(nothing);
            return None;
        };
        stretch.data.extend_from_slice(data);
        stretch.seen.extend_from_slice(seen);
        if end.is_multiple_of(STRETCH) || stretch.seen.len() as u64 >= STRETCH {
            self.remember(nothing);
            return Some(stretch);
        }
        self.remember(stretch);
        None
    }

    fn remember(&mut self, stretch: Stretch) {
        if self.0.len() >= STREAMS {
            self.0.pop_front();
        }
        self.0.push_back(stretch);
    }
}

impl Stretch {
    /// As the rules see it.
    pub fn touch<'a>(&self, tag: Option<&'a str>, cpu_headroom: u8) -> Touch<'a> {
        let pieces = pieces(&self.seen);
        Touch {
            command: Touching::Write,
            bytes: pieces.blocks * BLOCK as u64,
            tag,
            reads: pieces.reads,
            together: pieces.side_by_side(),
            cpu_headroom,
        }
    }
}

/// How scattered blocks lie, by their entries.
fn pieces(seen: &[u64]) -> Pieces {
    let (mut pieces, mut last) = (Pieces::default(), None);
    for bits in seen {
        let Ok(Entry::Stored { at, .. }) = Entry::unpack(*bits) else {
            continue;
        };
        pieces.blocks += 1;
        if last == Some(at) {
            continue;
        }
        pieces.stored += u64::from(at.len);
        // Less than a page apart they are read together.
        let near = last.is_some_and(|l| {
            l.segment == at.segment && (l.end()..l.end() + PAGE as u32).contains(&at.offset)
        });
        pieces.reads += u64::from(!near);
        last = Some(at);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Location;

    fn at(offset: u32) -> u64 {
        let at = Location {
            segment: 1,
            offset,
            len: 2048,
        };
        Entry::Stored { at, index: 0 }.pack()
    }

    fn write(joins: &mut Joins, vdisk: u32, block: u64, offset: u32) -> Option<Stretch> {
        joins.add((vdisk, 7, block), &[block as u8; BLOCK], &[at(offset)])
    }

    #[test]
    fn a_stream_is_told_from_those_beside_it() {
        let mut joins = Joins::default();
        for n in 0..15 {
            assert!(write(&mut joins, 1, 32 + n, n as u32 * 4096).is_none());
            assert!(write(&mut joins, 2, 64 + n, n as u32 * 4096 + 2048).is_none());
        }
        // By the first one of a stream alone nobody knows that it is one.
        let stretch = write(&mut joins, 1, 47, 15 * 4096).unwrap();
        assert_eq!((stretch.layer, stretch.first), (7, 33));
        assert_eq!(stretch.seen.len(), 15);
        assert_eq!(stretch.data[14 * BLOCK], 47);
        assert_eq!(stretch.touch(None, 0).bytes, 60 << 10);
        let other = write(&mut joins, 2, 79, 15 * 4096 + 2048).unwrap();
        assert_eq!(other.first, 65);
        // What comes next is a stretch of its own, and whole.
        for n in 0..15 {
            assert!(write(&mut joins, 1, 48 + n, n as u32 * 4096).is_none());
        }
        let next = write(&mut joins, 1, 63, 15 * 4096).unwrap();
        assert_eq!((next.first, next.seen.len()), (48, 16));
    }

    #[test]
    fn streams_that_do_not_go_on_are_forgotten() {
        let mut joins = Joins::default();
        for n in 0..1000 {
            assert!(write(&mut joins, 1, n * 32, 0).is_none());
        }
        assert_eq!(joins.0.len(), STREAMS);
        assert!(joins.0.iter().all(|s| s.data.capacity() == 0));
    }

    #[test]
    fn neighbours_in_the_log_are_one_piece() {
        let alone: Vec<u64> = (0..16).map(|n| at(4096 + n * 2048)).collect();
        assert_eq!(pieces(&alone).reads, 1);
        let apart: Vec<u64> = (0..16).map(|n| at(4096 + n * 8192)).collect();
        assert_eq!(pieces(&apart).reads, 16);
        assert_eq!(pieces(&apart).stored, 16 * 2048);
    }
}
