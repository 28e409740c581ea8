//! Ranges of blocks that become zero or absent at once.

use super::{Map, Missing, NodeKey, ROOT_LEVEL, Slots, index, is_stored, slot};
use crate::format::NODE_SLOTS;
use std::sync::Arc;

/// Something that the map no longer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freed {
    /// A block's entry, or the record of a node that was in memory: packed.
    Entry(u64),
    /// A subtree that is not in memory: its entries have to be walked to know what they free.
    Subtree {
        /// Its top node.
        top: NodeKey,
        /// Packed entry of the top node's record.
        at: u64,
    },
}

impl Map {
    /// Reads in nothing: the first node on the range's edges that has to be in memory before [`Map::set_range`].
    pub fn prepare_range(&mut self, layer: u32, first: u64, count: u64) -> Result<(), Missing> {
        for (level, number, _) in steps(first, count) {
            self.make_resident(NodeKey::new(layer, level, number))?;
        }
        Ok(())
    }

    /// Gives all blocks of a range the entry `bits` (absent or zero) and tells what that frees. The nodes on its
    /// edges must be in memory, see [`Map::prepare_range`].
    pub fn set_range(
        &mut self,
        layer: u32,
        first: u64,
        count: u64,
        bits: u64,
        freed: &mut dyn FnMut(Freed),
    ) {
        for (level, number, slots) in steps(first, count) {
            let key = NodeKey::new(layer, level, number);
            self.mark_dirty(key);
            for n in slots {
                if let Some(child) = key.child(n) {
                    self.drop_subtree(child, freed);
                }
                let Some(node) = self.nodes.get_mut(&key) else {
                    continue;
                };
                if let Some(place) = Arc::make_mut(&mut node.slots).get_mut(index(n)) {
                    let old = std::mem::replace(place, bits);
                    if level == 0 && is_stored(old) {
                        freed(Freed::Entry(old));
                    }
                }
            }
        }
    }

    /// Forgets a whole layer and tells what that frees.
    pub fn drop_layer(&mut self, layer: u32, freed: &mut dyn FnMut(Freed)) {
        self.drop_subtree(NodeKey::new(layer, ROOT_LEVEL, 0), freed);
        self.roots.remove(&layer);
    }

    /// Frees what is below and at `key`; the parent's entry is the caller's to change.
    pub(super) fn drop_subtree(&mut self, key: NodeKey, freed: &mut dyn FnMut(Freed)) {
        let Some(node) = self.nodes.get(&key) else {
            // Not in memory; if its parent is, its entry tells whether there is anything at all.
            if let Err(Missing { key: found, at }) = self.above(key)
                && found == key
            {
                freed(Freed::Subtree { top: key, at });
            }
            return;
        };
        let (slots, at) = (Arc::clone(&node.slots), node.at);
        if at != 0 && self.is_clean(key) && self.lacks_several(key, &slots) {
            self.forget(key);
            freed(Freed::Subtree { top: key, at });
            return;
        }
        for (n, bits) in slots.iter().enumerate() {
            match key.child(n as u64) {
                None if is_stored(*bits) => freed(Freed::Entry(*bits)),
                None => {}
                // A child that was never written has no entry of its own in the parent yet.
                Some(child) => self.drop_subtree(child, freed),
            }
        }
        if let Some(node) = self.take(key)
            && node.at != 0
        {
            freed(Freed::Entry(node.at));
        }
    }

    /// Whether more than one of a node's children are on the disk alone. Each would be a subtree of its own, of which large vDisks that are
    /// read at random have 512 for each node above leaves; the node's own record names all of them. Where children are in memory,
    /// what they free is known at once, without reading.
    fn lacks_several(&self, key: NodeKey, slots: &Slots) -> bool {
        let children = (0..).zip(slots).filter(|(_, bits)| is_stored(**bits));
        let children = children.filter_map(|(n, _)| key.child(n));
        let mut absent = children.filter(|child| !self.nodes.contains_key(child));
        absent.nth(1).is_some()
    }

    /// What frees a subtree's node once it was read: its entries, or the subtrees below it.
    pub fn freed_by(top: NodeKey, slots: &Slots, freed: &mut dyn FnMut(Freed)) {
        for n in 0..NODE_SLOTS as u64 {
            let bits = slot(slots, n);
            if is_stored(bits) {
                match top.child(n) {
                    None => freed(Freed::Entry(bits)),
                    Some(child) => freed(Freed::Subtree {
                        top: child,
                        at: bits,
                    }),
                }
            }
        }
    }
}

/// The nodes that a range touches: level, number, and which of its entries are covered as a whole. Greedy from the
/// left with the largest aligned pieces: at most 511 entries per level on either edge.
fn steps(first: u64, count: u64) -> impl Iterator<Item = (u8, u64, std::ops::Range<u64>)> {
    let end = first.saturating_add(count);
    let mut at = first;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let level = (0..=ROOT_LEVEL)
            .rev()
            .find(|l| {
                let span = NodeKey::blocks_per_slot(*l);
                at.is_multiple_of(span) && at + span <= end
            })
            .unwrap_or(0);
        let span = NodeKey::blocks_per_slot(level);
        let number = at / span / NODE_SLOTS as u64;
        let from = at / span;
        // Up to the end of this node, and no further than whole entries go.
        let to = (end / span).min((number + 1) * NODE_SLOTS as u64);
        at = to * span;
        Some((level, number, from..to))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_exactly_and_are_few() {
        for (first, count) in [
            (0, 1),
            (5, 512),
            (0, 512),
            (511, 2),
            (1000, 1 << 30),
            (0, 1 << 34),
            (513, (1 << 34) - 513),
        ] {
            let mut at = first;
            let mut n = 0;
            for (level, number, slots) in steps(first, count) {
                let span = NodeKey::blocks_per_slot(level);
                assert_eq!(slots.start * span, at);
                assert_eq!(slots.start / 512, number);
                assert_eq!((slots.end - 1) / 512, number);
                at = slots.end * span;
                n += 1;
            }
            assert_eq!(at, first + count);
            assert!(n <= 7, "{n} nodes");
        }
    }
}
