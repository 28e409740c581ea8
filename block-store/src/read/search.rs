//! The search for the layers that blocks' data is in: from the live layer down, until each block has an entry.
//!
//! Each layer's map may have to be read, and a search must not begin anew with every node that comes: with many layers, what
//! it has read first would be gone from the cache before it is through. So it goes down once for all blocks of a leaf, and
//! remembers where it has got to. What it has passed stays passed: sealed layers don't change, and a write to the live
//! one is as if it came after this read. Only a merge may move an entry up past it; then it begins anew.

use crate::format::{Entry, NODE_SLOTS};
use crate::state::{Blocked, State};

/// A search for some blocks of one leaf; reused from one to the next.
#[derive(Debug, Default)]
pub struct Search {
    /// Of each block: the layer (0: none yet) and its packed entry.
    found: Vec<(u32, u64)>,
    /// Blocks without.
    left: usize,
    /// The layer to be looked into next.
    next: u32,
    /// Since when the ones above have been passed.
    since: u64,
    /// Segments that had been removed when it began.
    removals: u64,
}

impl Search {
    /// Forgets what was found.
    pub fn clear(&mut self) {
        self.found.clear();
    }

    /// What `blocks` blocks from `first`, all of one leaf, read as: for each the first layer from `layer` down that has an
    /// entry for it, and that packed entry; the lowest layer and 0 where none has. When blocked, the same call goes on from there;
    /// clear it before it is asked for other blocks.
    pub fn run(
        &mut self,
        state: &mut State,
        layer: u32,
        first: u64,
        blocks: u64,
    ) -> Result<&[(u32, u64)], Blocked> {
        debug_assert!(first % NODE_SLOTS as u64 + blocks <= NODE_SLOTS as u64);
        loop {
            let passed = state.catalogue.layers.contains_key(&self.next)
                && !state.map.moved(first, self.since);
            if self.found.is_empty() || !passed {
                self.begin(state, layer, blocks);
            }
            self.go_on(state, first)?;
            if self.is_still_there(state) {
                return Ok(&self.found);
            }
            self.found.clear();
        }
    }

    fn begin(&mut self, state: &State, layer: u32, blocks: u64) {
        self.found.clear();
        self.found.resize(blocks as usize, (0, 0));
        self.left = self.found.len();
        (self.next, self.since) = (layer, state.map.moment());
        self.removals = state.segments.removals();
    }

    fn go_on(&mut self, state: &mut State, first: u64) -> Result<(), Blocked> {
        while self.left > 0 {
            let leaf = state.map.leaf(self.next, first).map_err(Blocked::Node)?;
            for (n, found) in self.found.iter_mut().enumerate().filter(|(_, f)| f.0 == 0) {
                let bits = leaf.entry(first + n as u64);
                if bits != 0 {
                    *found = (self.next, bits);
                    self.left -= 1;
                }
            }
            if self.left == 0 {
                break;
            }
            match state
                .catalogue
                .layers
                .get(&self.next)
                .and_then(|l| l.parent)
            {
                Some(parent) => self.next = parent,
                None => {
                    for found in self.found.iter_mut().filter(|f| f.0 == 0) {
                        *found = (self.next, 0);
                    }
                    self.left = 0;
                }
            }
        }
        Ok(())
    }

    /// Whether what was found first has not been overwritten, or moved by compaction, so long ago that its segment is gone.
    fn is_still_there(&self, state: &State) -> bool {
        state.segments.removals() == self.removals
            || self
                .found
                .iter()
                .all(|(_, bits)| match Entry::unpack(*bits) {
                    Ok(Entry::Stored { at, .. }) => state.segments.get(at.segment).is_some(),
                    _ => true,
                })
    }
}
