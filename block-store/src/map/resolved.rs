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

    /// Takes out what is known of a leaf.
    pub fn take(&mut self, layer: u32, leaf: u64) -> Option<Box<ResolvedLeaf>> {
        self.leaves.remove(&(layer, leaf)).map(|(found, _)| found)
    }

    /// Keeps what is known of a leaf; others give way, second chance for those used since they were passed last.
    pub fn put(&mut self, layer: u32, leaf: u64, known: Box<ResolvedLeaf>) {
        if self.leaves.insert((layer, leaf), (known, true)).is_none() {
            self.clock.push_back((layer, leaf));
        }
        // What was taken out leaves its place on the clock behind.
        while self.leaves.len() > self.budget || self.clock.len() > 2 * self.budget {
            let Some(key) = self.clock.pop_front() else {
                return;
            };
            match self.leaves.get_mut(&key) {
                Some((_, used)) if *used => {
                    *used = false;
                    self.clock.push_back(key);
                }
                Some(_) => drop(self.leaves.remove(&key)),
                None => {}
            }
        }
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
    fn keeps_to_its_budget_and_to_what_is_used() {
        let mut resolved = Resolved::new(3);
        for leaf in 0..3 {
            let mut known = ResolvedLeaf::default();
            known.set(leaf * 512 + 5, 7, leaf);
            resolved.put(1, leaf, Box::new(known));
        }
        let known = resolved.get(1, 1).unwrap();
        assert_eq!((known.get(517), known.get(518)), (Some((7, 1)), None));
        for leaf in 3..100 {
            resolved.put(1, leaf, Box::default());
            assert!(resolved.get(1, 1).is_some(), "leaf {leaf}");
            assert!(resolved.len() <= 3 && resolved.clock.len() <= 6);
        }
        assert!(resolved.take(1, 1).is_some() && resolved.get(1, 1).is_none());
    }
}
