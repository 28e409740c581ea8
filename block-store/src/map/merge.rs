//! Merging one layer's map into another's: what the younger layer lacks moves to it, the rest is let go.
//!
//! At every moment the two maps together say the same, looked up in the younger and then in the older one. So a merge is
//! its own progress: it can stop anywhere, be written by any checkpoint, and go on. A subtree that only the older layer
//! has moves by its pointer, unread: the cost follows the smaller of the two maps.

use super::{Freed, Map, Missing, NodeKey, ROOT_LEVEL, Slots, index, is_stored};
use crate::format::{Entry, NODE_SLOTS};
use std::sync::Arc;

impl Map {
    /// The first block, at the precision of a leaf, from which on the layer has entries. `None`: it has none.
    pub fn first_block(&mut self, layer: u32) -> Result<Option<u64>, Missing> {
        self.first_below(NodeKey::new(layer, ROOT_LEVEL, 0))
    }

    fn first_below(&mut self, key: NodeKey) -> Result<Option<u64>, Missing> {
        if !self.nodes.contains_key(&key) && self.above(key) == Ok(0) {
            return Ok(None);
        }
        self.make_resident(key)?;
        let Some(slots) = self.slots_of(key) else {
            return Ok(None);
        };
        for n in 0..NODE_SLOTS as u64 {
            let bits = slots.get(index(n)).copied().unwrap_or(0);
            let at = (key.number() * NODE_SLOTS as u64 + n) * NodeKey::blocks_per_slot(key.level());
            match key.child(n) {
                // A child that was never written has no entry in its parent. Of a node that has one, all may have gone since;
                // a leaf is not read for that.
                Some(child)
                    if self.nodes.contains_key(&child) || child.level() > 0 && is_stored(bits) =>
                {
                    if let Some(first) = self.first_below(child)? {
                        return Ok(Some(first));
                    }
                }
                _ if bits != 0 => return Ok(Some(at)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Moves what `from` has below block `end` to the younger layer `to`, or lets it go where `to` has something of its own,
    /// which `freed` is told. Stops after about `work` entries; whether `from` has nothing below `end` any more.
    pub fn merge_step(
        &mut self,
        from: u32,
        to: u32,
        end: u64,
        work: usize,
        freed: &mut dyn FnMut(Freed),
    ) -> Result<bool, Missing> {
        let (from, to) = (
            NodeKey::new(from, ROOT_LEVEL, 0),
            NodeKey::new(to, ROOT_LEVEL, 0),
        );
        let mut work = work;
        self.merge_below(from, to, end, &mut work, freed)
    }

    fn merge_below(
        &mut self,
        from: NodeKey,
        to: NodeKey,
        end: u64,
        work: &mut usize,
        freed: &mut dyn FnMut(Freed),
    ) -> Result<bool, Missing> {
        if !self.nodes.contains_key(&from) && self.above(from) == Ok(0) {
            return Ok(true);
        }
        self.make_resident(from)?;
        self.make_resident(to)?;
        let span = NodeKey::blocks_per_slot(from.level());
        let first = from.number() * NODE_SLOTS as u64 * span;
        let wanted = end.saturating_sub(first).div_ceil(span);
        let before = self.nodes.get(&from).map(|n| (*n.slots, n.children));
        let (slots, children) = before.unwrap_or(([0; NODE_SLOTS], 0));
        for n in 0..(NODE_SLOTS as u64).min(wanted) {
            if super::slot(&slots, n) == 0 && children == 0 {
                continue;
            }
            if *work == 0 {
                return Ok(false);
            }
            let whole = first + (n + 1) * span <= end;
            let done = match (from.child(n), to.child(n)) {
                (Some(below), Some(into)) => {
                    self.merge_child((from, below), (to, into), n, whole, end, work, freed)?
                }
                _ => {
                    self.merge_block(from, to, n, work, freed);
                    true
                }
            };
            if !done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn merge_block(
        &mut self,
        from: NodeKey,
        to: NodeKey,
        n: u64,
        work: &mut usize,
        freed: &mut dyn FnMut(Freed),
    ) {
        let bits = self.slot_of(from, n);
        if bits == 0 {
            return;
        }
        *work = work.saturating_sub(1);
        self.moved.note(from.number());
        self.set_slot(from, n, 0);
        if self.slot_of(to, n) == 0 {
            self.set_slot(to, n, bits);
        } else if is_stored(bits) {
            freed(Freed::Entry(bits));
        }
    }

    /// One entry of an inner node; whether nothing of it is left (below `end`).
    #[expect(
        clippy::too_many_arguments,
        reason = "a step of one recursion, whose places it takes apart"
    )]
    fn merge_child(
        &mut self,
        (from, below): (NodeKey, NodeKey),
        (to, into): (NodeKey, NodeKey),
        n: u64,
        whole: bool,
        end: u64,
        work: &mut usize,
        freed: &mut dyn FnMut(Freed),
    ) -> Result<bool, Missing> {
        let bits = self.slot_of(from, n);
        let resident = self.nodes.contains_key(&below);
        if bits == 0 && !resident {
            return Ok(true);
        }
        *work = work.saturating_sub(1);
        let theirs = self.slot_of(to, n);
        let has_node = self.nodes.contains_key(&into);
        if whole && !has_node && theirs == Entry::Zero.pack() {
            // Zeroes hide all of it.
            self.drop_subtree(below, freed);
            self.clear_slot(from, n);
            return Ok(true);
        }
        // What a dirty node holds, or one that a checkpoint is writing just now, is in no record that is named yet: its
        // entries move one by one.
        if whole && !has_node && theirs == 0 && (!resident || self.is_clean(below)) {
            match from.level() {
                1 => self.moved.note(below.number()),
                _ => self.moved.note_everywhere(),
            }
            self.forget(below);
            self.set_slot(from, n, 0);
            self.set_slot(to, n, bits);
            return Ok(true);
        }
        if !self.merge_below(below, into, end, work, freed)? {
            return Ok(false);
        }
        if whole {
            if let Some(node) = self.take(below)
                && node.at != 0
            {
                freed(Freed::Entry(node.at));
            }
            self.clear_slot(from, n);
        }
        Ok(true)
    }

    fn slots_of(&self, key: NodeKey) -> Option<Arc<Slots>> {
        self.nodes.get(&key).map(|node| Arc::clone(&node.slots))
    }

    fn slot_of(&self, key: NodeKey, n: u64) -> u64 {
        self.nodes
            .get(&key)
            .map_or(0, |node| super::slot(&node.slots, n))
    }

    /// A child is gone. If a checkpoint is writing it for the first time just now, there is no entry of it yet, but there will be one in
    /// the parent's record, which the parent must not be taken for: it is changed.
    fn clear_slot(&mut self, key: NodeKey, n: u64) {
        self.mark_dirty(key);
        self.set_slot(key, n, 0);
    }

    /// Changes one entry of a node in memory.
    fn set_slot(&mut self, key: NodeKey, n: u64, bits: u64) {
        if self.slot_of(key, n) == bits {
            return;
        }
        self.mark_dirty(key);
        if let Some(node) = self.nodes.get_mut(&key)
            && let Some(place) = Arc::make_mut(&mut node.slots).get_mut(index(n))
        {
            *place = bits;
        }
    }
}
