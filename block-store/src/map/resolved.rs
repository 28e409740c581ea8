//! Resolved leaves: what the blocks of a leaf read as through a sealed layer and all below it.
//!
//! Sealed layers don't change, so what was found once stays true: with these, the number of layers costs nothing where
//! reads are hot. What moves is where data lies: compaction takes an extent elsewhere, a merge makes a layer its heir. So who
//! uses an answer looks whether its layer and its segment are still there, and else searches anew.

use crate::format::NODE_SLOTS;
use std::collections::{HashMap, VecDeque};

/// A block's entry was not looked for.
const UNKNOWN: u64 = u64::MAX;

/// What each block of a leaf reads as, as far as that is known.
#[derive(Debug, Clone)]
pub struct ResolvedLeaf {
    bits: [u64; NODE_SLOTS],
    layers: [u32; NODE_SLOTS],
}

/// Memory that one of these takes, in bytes, its bookkeeping included.
pub const RESOLVED_MEMORY: usize = size_of::<ResolvedLeaf>() + 64;

fn place(block: u64) -> usize {
    (block % NODE_SLOTS as u64) as usize
}

impl Default for ResolvedLeaf {
    fn default() -> Self {
        Self {
            bits: [UNKNOWN; NODE_SLOTS],
            layers: [0; NODE_SLOTS],
        }
    }
}

impl ResolvedLeaf {
    /// Layer and packed entry of a block, if they are known.
    pub fn get(&self, block: u64) -> Option<(u32, u64)> {
        let n = place(block);
        match (self.layers.get(n), self.bits.get(n)) {
            (Some(layer), Some(bits)) if *bits != UNKNOWN => Some((*layer, *bits)),
            _ => None,
        }
    }

    /// The blocks that are known, by their place in the leaf.
    pub fn blocks(&self) -> impl Iterator<Item = u64> {
        (0..)
            .zip(&self.bits)
            .filter(|(_, bits)| **bits != UNKNOWN)
            .map(|(n, _)| n)
    }

    /// A block has to be looked for again.
    pub fn forget(&mut self, block: u64) {
        self.set(block, 0, UNKNOWN);
    }

    /// A block was found.
    pub fn set(&mut self, block: u64, layer: u32, bits: u64) {
        let n = place(block);
        if let (Some(l), Some(b)) = (self.layers.get_mut(n), self.bits.get_mut(n)) {
            (*l, *b) = (layer, bits);
        }
    }
}

/// A set of a leaf's blocks.
#[derive(Debug, Clone, Copy)]
pub struct Open([u64; NODE_SLOTS / 64]);

impl Open {
    /// All of them.
    pub fn all() -> Self {
        Self([u64::MAX; NODE_SLOTS / 64])
    }

    /// Those that are not known.
    pub fn but_for(known: Option<&ResolvedLeaf>) -> Self {
        let mut open = Self::all();
        for block in known.iter().flat_map(|leaf| leaf.blocks()) {
            open.remove(block);
        }
        open
    }

    /// Whether a block is in it.
    pub fn has(&self, block: u64) -> bool {
        let n = block as usize % NODE_SLOTS;
        self.0
            .get(n / 64)
            .is_some_and(|word| word >> (n % 64) & 1 != 0)
    }

    /// Takes a block out.
    pub fn remove(&mut self, block: u64) {
        let n = block as usize % NODE_SLOTS;
        if let Some(word) = self.0.get_mut(n / 64) {
            *word &= !(1 << (n % 64));
        }
    }

    /// Its blocks within the leaf, from 0.
    pub fn blocks(self) -> impl Iterator<Item = u64> {
        (0..).step_by(64).zip(self.0).flat_map(|(base, mut word)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| u64::from(word.trailing_zeros()))?;
                word &= word - 1;
                Some(base + bit)
            })
        })
    }
}

/// Resolved leaves by sealed layer and number of the leaf, within a budget.
#[derive(Debug)]
pub struct Resolved {
    leaves: HashMap<(u32, u64), (Box<ResolvedLeaf>, bool)>,
    clock: VecDeque<(u32, u64)>,
    budget: usize,
}

impl Resolved {
    /// At most so many leaves.
    pub fn new(budget: usize) -> Self {
        Self {
            leaves: HashMap::new(),
            clock: VecDeque::new(),
            budget: budget.max(2),
        }
    }

    /// What is known of a leaf.
    pub fn get(&mut self, layer: u32, leaf: u64) -> Option<&mut ResolvedLeaf> {
        let (found, used) = self.leaves.get_mut(&(layer, leaf))?;
        *used = true;
        Some(found)
    }

    /// Adds what was found out about a leaf. Others give way for it, with a second chance for those that were used since they
    /// were passed last.
    pub fn add(&mut self, layer: u32, leaf: u64, found: Box<ResolvedLeaf>) {
        if let Some((known, used)) = self.leaves.get_mut(&(layer, leaf)) {
            *used = true;
            for block in found.blocks() {
                if let Some((layer, bits)) = found.get(block) {
                    known.set(block, layer, bits);
                }
            }
            return;
        }
        while self.leaves.len() >= self.budget {
            let Some(key) = self.clock.pop_front() else {
                return;
            };
            match self.leaves.get_mut(&key) {
                Some((_, used)) if *used => {
                    *used = false;
                    self.clock.push_back(key);
                }
                _ => drop(self.leaves.remove(&key)),
            }
        }
        self.leaves.insert((layer, leaf), (found, true));
        self.clock.push_back((layer, leaf));
    }

    /// How many can be added before others have to give way.
    pub fn room(&self) -> usize {
        self.budget.saturating_sub(self.leaves.len())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_blocks_are_those_that_nobody_knows() {
        let mut known = ResolvedLeaf::default();
        for block in [0, 63, 64, 511] {
            known.set(block, 1, 0);
        }
        let mut open = Open::but_for(Some(&known));
        open.remove(512 + 5);
        let all: Vec<u64> = open.blocks().collect();
        let taken = [0, 5, 63, 64, 511];
        let want: Vec<u64> = (0..512).filter(|b| !taken.contains(b)).collect();
        assert_eq!(all, want);
        assert!(open.has(1) && !open.has(5) && !open.has(1024 + 511));
    }

    #[test]
    fn keeps_to_its_budget_and_to_what_is_used() {
        let mut resolved = Resolved::new(3);
        for leaf in 0..3 {
            let mut known = ResolvedLeaf::default();
            known.set(leaf * 512 + 5, 7, leaf);
            resolved.add(1, leaf, Box::new(known));
        }
        let known = resolved.get(1, 1).unwrap();
        assert_eq!((known.get(517), known.get(518)), (Some((7, 1)), None));
        for leaf in 3..100 {
            resolved.add(1, leaf, Box::default());
            assert!(resolved.get(1, 1).is_some(), "leaf {leaf}");
            assert!(resolved.len() == 3 && resolved.clock.len() == 3);
        }
        let mut more = ResolvedLeaf::default();
        more.set(518, 8, 9);
        resolved.add(1, 1, Box::new(more));
        let known = resolved.get(1, 1).unwrap();
        assert_eq!(
            (known.get(517), known.get(518)),
            (Some((7, 1)), Some((8, 9)))
        );
    }
}
