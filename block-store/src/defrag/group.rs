//! What of the pieces that are alive is packed anew together: pure decisions.

use std::ops::Range;

/// Longest stretch that is packed at a time, in blocks: 256 KiB.
const MOST: u64 = 64;

/// Blocks of one extent that are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The layer whose they are.
    pub layer: u32,
    /// First block.
    pub first: u64,
    /// Blocks.
    pub blocks: u64,
    /// All of its extent is alive and compressed: it can move as it is.
    pub whole: bool,
}

/// Cuts pieces, in order of layer and block, into stretches without a gap.
pub fn stretches(shapes: impl Iterator<Item = Shape>) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    let mut last: Option<(Shape, u64)> = None;
    for (n, shape) in shapes.enumerate() {
        let goes_on = last.is_some_and(|(before, length)| {
            before.layer == shape.layer
                && before.first + before.blocks == shape.first
                && length + shape.blocks <= MOST
        });
        match out.last_mut() {
            Some(range) if goes_on => range.end = n + 1,
            _ => out.push(n..n + 1),
        }
        let length = last.filter(|_| goes_on).map_or(0, |(_, length)| length);
        last = Some((shape, length + shape.blocks));
    }
    out
}

/// Whether a stretch gains by being packed anew in extents of `extent_blocks`: pieces of extents have to be, whole ones
/// where there would be markedly fewer.
pub fn pays(stretch: &[Shape], extent_blocks: u64) -> bool {
    let blocks: u64 = stretch.iter().map(|s| s.blocks).sum();
    let fewest = blocks.div_ceil(extent_blocks.max(1)) + 1;
    stretch.iter().any(|s| !s.whole) || stretch.len() as u64 > fewest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(first: u64, blocks: u64) -> Shape {
        Shape {
            layer: 1,
            first,
            blocks,
            whole: true,
        }
    }

    #[test]
    fn neighbours_make_a_stretch() {
        let other = Shape {
            layer: 2,
            ..shape(6, 1)
        };
        let all = [shape(0, 2), shape(2, 1), shape(4, 2), other, shape(7, 1)];
        assert_eq!(stretches(all.into_iter()), [0..2, 2..3, 3..4, 4..5]);
        let long = (0..5).map(|n| shape(n * 32, 32));
        assert_eq!(stretches(long), [0..2, 2..4, 4..5]);
    }

    #[test]
    fn only_what_gets_better_is_packed_anew() {
        assert!(!pays(&[shape(0, 2)], 2));
        assert!(!pays(&[shape(0, 1), shape(1, 1)], 2));
        assert!(pays(&[shape(0, 1), shape(1, 1), shape(2, 1)], 4));
        let half = Shape {
            whole: false,
            ..shape(0, 1)
        };
        assert!(pays(&[half], 2));
        // Extents that are longer already.
        assert!(!pays(&[shape(0, 16), shape(16, 16)], 2));
    }

    proptest! {
        /// Every piece is in one stretch, in order, and no stretch has a gap.
        #[test]
        fn stretches_cover_all(sizes in proptest::collection::vec((1..33u64, 0..3u64), 0..60)) {
            let mut at = 0;
            let all: Vec<Shape> = sizes.iter().map(|(blocks, gap)| {
                let s = shape(at + gap / 2, *blocks);
                at = s.first + blocks;
                s
            }).collect();
            let ranges = stretches(all.iter().copied());
            prop_assert_eq!(ranges.iter().cloned().flatten().collect::<Vec<_>>(), (0..all.len()).collect::<Vec<_>>());
            for range in ranges {
                let stretch = &all[range];
                prop_assert!(stretch.windows(2).all(|w| w[0].first + w[0].blocks == w[1].first));
                let blocks: u64 = stretch.iter().map(|s| s.blocks).sum();
                prop_assert!(blocks <= MOST || stretch.len() == 1);
            }
        }
    }
}
