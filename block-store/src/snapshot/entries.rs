//! What one layer has entries for: of a sealed one that rests read off the disk in bulk, of any other node by node.

use crate::core::Core;
use crate::error::StoreError;
use crate::format::NODE_SLOTS;
use crate::map::Piece;
use crate::read::{Sweep, sweep};
use crate::state::Blocked;
use std::ops::{ControlFlow, Range};

/// Shows what a layer has within a range of blocks, in order of address, until it is told to stop. Leaves are shown whole. What
/// is written to a live layer meanwhile may be seen or not.
pub fn entries(
    core: &Core,
    layer: u32,
    within: &Range<u64>,
    show: &mut dyn FnMut(Sweep<'_>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut at = within.start;
    let rests = sweep(core, layer, within, |found| {
        at = end_of(&found);
        show(found)
    })?;
    if rests {
        return Ok(());
    }
    // Whatever is not written yet is in memory; and the lock is free between two leaves.
    while at < within.end {
        let next = core.with_nodes(|state| {
            state.map.make_room();
            state.map.next_piece(layer, at).map_err(Blocked::Node)
        })?;
        let piece = next.unwrap_or(None);
        let found = match &piece {
            Some(Piece::Leaf(first, slots)) if *first < within.end => Sweep::Leaf(*first, slots),
            Some(Piece::Zeroes(range)) if range.start < within.end => {
                Sweep::Zeroes(range.start..range.end.min(within.end))
            }
            _ => break,
        };
        at = end_of(&found);
        if show(found).is_break() {
            break;
        }
    }
    Ok(())
}

/// The first block behind it.
pub fn end_of(found: &Sweep<'_>) -> u64 {
    match found {
        Sweep::Leaf(first, _) => first + NODE_SLOTS as u64,
        Sweep::Zeroes(range) => range.end,
    }
}

/// The runs of blocks that there are entries for.
pub fn runs_of<'a>(found: &'a Sweep<'_>) -> impl Iterator<Item = Range<u64>> + use<'a> {
    let (mut whole, first, slots) = match found {
        Sweep::Zeroes(range) => (Some(range.clone()), 0, [].as_slice()),
        Sweep::Leaf(first, slots) => (None, *first, slots.as_slice()),
    };
    let mut entries = (first..).zip(slots).peekable();
    std::iter::from_fn(move || {
        if let Some(range) = whole.take() {
            return Some(range);
        }
        let (from, _) = entries.find(|(_, bits)| **bits != 0)?;
        let mut end = from + 1;
        while entries.next_if(|(_, bits)| **bits != 0).is_some() {
            end += 1;
        }
        Some(from..end)
    })
}

/// Runs of blocks in order, none of which touches the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs(Vec<Range<u64>>);

impl Runs {
    /// Adds a run that begins behind all that are there, or at the end of the last one, or within it.
    pub fn push(&mut self, run: Range<u64>) {
        match self.0.last_mut() {
            _ if run.is_empty() => {}
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => self.0.push(run),
        }
    }

    /// Those of both.
    pub fn union(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut all = Self::default();
        loop {
            let next = match (ours.peek(), theirs.peek()) {
                (Some(a), Some(b)) if a.start <= b.start => ours.next(),
                (_, Some(_)) => theirs.next(),
                (_, None) => ours.next(),
            };
            match next {
                Some(run) => all.push(run.clone()),
                None => return all,
            }
        }
    }

    /// Leaves out what lies behind the first `count` runs; returns the block at which that begins.
    pub fn truncate(&mut self, count: usize) -> Option<u64> {
        let behind = self.0.get(count).map(|run| run.start);
        self.0.truncate(count);
        behind
    }

    /// Leaves out all from a block on.
    pub fn cut(&mut self, end: u64) {
        self.0.retain(|run| run.start < end);
        if let Some(last) = self.0.last_mut() {
            last.end = last.end.min(end);
        }
    }

    /// All of them, in order.
    pub fn all(&self) -> &[Range<u64>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn runs(blocks: &BTreeSet<u64>) -> Runs {
        let mut runs = Runs::default();
        blocks.iter().for_each(|b| runs.push(*b..b + 1));
        runs
    }

    proptest! {
        #[test]
        fn runs_are_sets_of_blocks(
            a in proptest::collection::btree_set(0u64..60, 0..40),
            b in proptest::collection::btree_set(0u64..60, 0..40),
            end in 0u64..70,
            count in 0usize..12,
        ) {
            let both = runs(&a).union(&runs(&b));
            prop_assert_eq!(&both, &runs(&a.union(&b).copied().collect()));
            let mut cut = both.clone();
            cut.cut(end);
            let blocks = a.union(&b).copied().filter(|block| *block < end).collect();
            prop_assert_eq!(&cut, &runs(&blocks));
            let mut some = both.clone();
            let behind = some.truncate(count);
            prop_assert_eq!(behind, both.all().get(count).map(|run| run.start));
            prop_assert_eq!(some.all(), &both.all()[..count.min(both.all().len())]);
        }

        #[test]
        fn runs_of_a_leaf(there in proptest::collection::btree_set(0u64..512, 0..500)) {
            let mut slots = [0; NODE_SLOTS];
            there.iter().for_each(|n| slots[*n as usize] = 1 << 62);
            let found: BTreeSet<u64> = runs_of(&Sweep::Leaf(1024, &slots)).flatten().collect();
            prop_assert!(found.iter().map(|block| block - 1024).eq(there.iter().copied()));
        }
    }
}
