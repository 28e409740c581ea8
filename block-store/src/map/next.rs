//! Going through what a layer has, whatever of it is in memory and whatever is changing.

use super::{Map, Missing, NodeKey, ROOT_LEVEL, Slots, is_stored, slot};
use crate::format::{Entry, NODE_SLOTS};
use std::ops::Range;
use std::sync::Arc;

/// A part of what a layer has.
#[derive(Debug, Clone)]
pub enum Piece {
    /// The entries of a leaf, from its first block on.
    Leaf(u64, Arc<Slots>),
    /// A range of zeroes that the map has as one entry, from the block on that was asked for.
    Zeroes(Range<u64>),
}

impl Map {
    /// The block up to which, from `block` on, the layer has no data, as far as the nodes above its leaves tell; `block` itself
    /// where a leaf has to be looked at.
    pub fn bare_until(&mut self, layer: u32, block: u64) -> Result<u64, Missing> {
        let mut key = NodeKey::new(layer, ROOT_LEVEL, 0);
        loop {
            match self.nodes.get_mut(&key) {
                Some(node) => node.used = true,
                None => match self.above(key) {
                    Ok(_) => {
                        let blocks = NODE_SLOTS as u64 * NodeKey::blocks_per_slot(key.level());
                        return Ok((key.number() + 1) * blocks);
                    }
                    Err(_) if key.level() == 0 => return Ok(block),
                    Err(missing) => return Err(missing),
                },
            }
            let span = NodeKey::blocks_per_slot(key.level());
            match key.child(block / span) {
                Some(child) => key = child,
                None => return Ok(block),
            }
        }
    }

    /// The first piece of what the layer has at block `from` or behind it. `None`: nothing there.
    pub fn next_piece(&mut self, layer: u32, from: u64) -> Result<Option<Piece>, Missing> {
        self.next_below(NodeKey::new(layer, ROOT_LEVEL, 0), from)
    }

    fn next_below(&mut self, key: NodeKey, from: u64) -> Result<Option<Piece>, Missing> {
        if !self.nodes.contains_key(&key) && self.above(key) == Ok(0) {
            return Ok(None);
        }
        self.make_resident(key)?;
        let Some(slots) = self.nodes.get(&key).map(|node| Arc::clone(&node.slots)) else {
            return Ok(None);
        };
        let span = NodeKey::blocks_per_slot(key.level());
        let first = key.number() * NODE_SLOTS as u64 * span;
        let passed = from.saturating_sub(first) / span;
        for n in passed..NODE_SLOTS as u64 {
            let bits = slot(&slots, n);
            match key.child(n) {
                // A child that was never written has no entry in its parent, and is in memory.
                Some(child) if self.nodes.contains_key(&child) || is_stored(bits) => {
                    if let Some(found) = self.next_below(child, from)? {
                        return Ok(Some(found));
                    }
                }
                None if bits != 0 => return Ok(Some(Piece::Leaf(first, slots))),
                Some(_) if bits == Entry::Zero.pack() => {
                    let at = first + n * span;
                    return Ok(Some(Piece::Zeroes(at.max(from)..at + span)));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}
