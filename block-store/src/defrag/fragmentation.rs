//! The fragmentation index: how many reads of the disk it takes to read a vDisk in order, against how many it would take if what
//! belongs together lay side by side.
//!
//! ```text
//! index = reads that all spans take / reads that they would take side by side        1.0: laid out as if written in order
//! ```
//!
//! A span is 1 MiB of the address space, read at once. Both counts are those by which reads are looked at ([`Pieces`]): the index
//! tells what spot defragmentation sees. What has no data in segments (zeroes, what was never written, what waits in the write buffer)
//! takes no reads and counts for neither.

use super::Pieces;
use serde::Serialize;

/// Blocks of a span.
pub const SPAN: u64 = 256;

/// The measure of some spans. Those of several parts of a vDisk add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Fragmentation {
    /// Spans that have data in segments.
    pub spans: u64,
    /// Blocks of data that these have.
    pub blocks: u64,
    /// Bytes of the extents that these blocks are in.
    pub stored_bytes: u64,
    /// Reads that they take.
    pub reads: u64,
    /// Reads that they would take side by side; never more than they take.
    pub side_by_side: u64,
}

impl Fragmentation {
    /// Adds a span.
    pub fn add(&mut self, span: &Pieces) {
        if span.reads == 0 {
            return;
        }
        self.spans += 1;
        self.blocks += span.blocks;
        self.stored_bytes += span.stored;
        self.reads += span.reads;
        self.side_by_side += span.side_by_side().min(span.reads);
    }

    /// The index: from 1.0, which is also that of what has no data, up to 128.0, where each block of next to nothing takes a read.
    pub fn index(&self) -> f64 {
        match self.side_by_side {
            0 => 1.0,
            least => self.reads as f64 / least as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{BLOCK, Location};
    use crate::io::sim::SimDisk;
    use crate::io::{Disk, DiskFile};
    use crate::read::{Run, Source, page_reads};
    use proptest::prelude::*;
    use std::sync::Arc;

    /// Runs of one block each from block 0 on, by their extents' places: segment, offset and length in units of 64 bytes.
    fn runs(file: &Arc<dyn DiskFile>, places: &[(u32, u32, u32)]) -> Vec<Run> {
        let run = |(first, (segment, offset, len)): (u64, &(u32, u32, u32))| Run {
            first,
            blocks: 1,
            layer: 1,
            at: Location {
                segment: *segment,
                offset: offset * 64,
                len: len * 64,
            },
            index: 0,
            generation: 1,
            source: Source::File {
                file: Arc::clone(file),
            },
        };
        (0..).zip(places).map(run).collect()
    }

    fn measure(file: &Arc<dyn DiskFile>, places: &[(u32, u32, u32)]) -> Fragmentation {
        let mut sum = Fragmentation::default();
        for (n, span) in places.chunks(SPAN as usize).enumerate() {
            let mut runs = runs(file, span);
            runs.iter_mut().for_each(|r| r.first += n as u64 * SPAN);
            let mut reads = Vec::new();
            page_reads(&runs, &mut reads);
            sum.add(&Pieces::of(&runs, &reads));
        }
        sum
    }

    fn file() -> Arc<dyn DiskFile> {
        SimDisk::new(1, 1 << 30).create("f", BLOCK as u64).unwrap()
    }

    /// Extents of these lengths side by side, from one segment into the next.
    fn in_order(lens: &[u32]) -> Vec<(u32, u32, u32)> {
        let (mut segment, mut at) = (1, 64);
        let place = |len: &u32| {
            if at + len > (64 << 20) / 64 {
                (segment, at) = (segment + 1, 64);
            }
            let place = (segment, at, *len);
            at += len;
            place
        };
        lens.iter().map(place).collect()
    }

    proptest! {
        /// What lies as it was written in order has 1.0, whatever it compresses to; in any other order it has no less, and what its
        /// blocks take in bytes does not change.
        #[test]
        fn order_is_one_and_disorder_is_more(
            lens in proptest::collection::vec(2..=65u32, 1..700),
            seed in any::<u64>(),
        ) {
            let file = file();
            let ordered = in_order(&lens);
            let best = measure(&file, &ordered);
            prop_assert_eq!(best.index(), 1.0);
            let mut shuffled = ordered.clone();
            let mut x = seed | 1;
            for n in (1..shuffled.len()).rev() {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                shuffled.swap(n, (x % (n as u64 + 1)) as usize);
            }
            let worse = measure(&file, &shuffled);
            prop_assert!(worse.index() >= 1.0 && worse.index() <= SPAN as f64 / 2.0);
            prop_assert_eq!(worse.blocks, best.blocks);
            prop_assert_eq!(worse.stored_bytes, best.stored_bytes);
        }

        /// The index of a whole lies between those of its parts, and one more read never makes it smaller.
        #[test]
        fn parts_add_up(
            spans in proptest::collection::vec((1..=256u64, 1..=3_000_000u64, 0..=256u64), 1..50),
            more in 1..100u64,
        ) {
            let pieces = |(blocks, stored, reads): (u64, u64, u64)| Pieces { blocks, stored, reads };
            let mut whole = Fragmentation::default();
            let (mut least, mut most) = (f64::MAX, 1.0_f64);
            for span in &spans {
                let mut part = Fragmentation::default();
                part.add(&pieces(*span));
                whole.add(&pieces(*span));
                (least, most) = (least.min(part.index()), most.max(part.index()));
                let mut worse = Fragmentation::default();
                worse.add(&pieces((span.0, span.1, span.2 + more)));
                prop_assert!(worse.index() >= part.index());
            }
            prop_assert!(whole.index() >= least - 1e-9 && whole.index() <= most + 1e-9);
        }
    }

    #[test]
    fn a_read_for_each_block_and_none_at_all() {
        let file = file();
        // Every second extent of a stream of twice the length.
        let apart: Vec<_> = (0..256).map(|n| (1, 64 + n * 200, 34)).collect();
        let one = measure(&file, &apart);
        assert_eq!((one.reads, one.side_by_side), (256, 6));
        assert_eq!(Fragmentation::default().index(), 1.0);
        assert_eq!(measure(&file, &[]), Fragmentation::default());
    }
}
