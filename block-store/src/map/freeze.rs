//! What a checkpoint takes out of the map, and how the map learns where it was written.

use super::{Map, NodeKey, Slots, index};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A node as of a checkpoint's cut.
#[derive(Debug)]
pub struct Frozen {
    /// Its entries. Inner nodes get their children's new places written in before they are packed.
    pub slots: Arc<Slots>,
    /// Packed entry of the record that the new one takes the place of; 0 if there is none.
    pub replaces: u64,
    stamp: u64,
}

/// What has become of a frozen node's old record in the map of today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The new record is the node's place now.
    Adopted,
    /// The node was dropped since the cut: the new record belongs to the checkpoint alone.
    Gone,
}

impl Map {
    /// Takes all dirty nodes, ordered by level (leaves first): the map as of now. They stay in memory until they
    /// are settled.
    pub fn freeze(&mut self) -> BTreeMap<(u8, NodeKey), Frozen> {
        let mut out = BTreeMap::new();
        for (key, node) in self.nodes.iter_mut().filter(|(_, n)| n.dirty) {
            node.dirty = false;
            node.writing = true;
            let frozen = Frozen {
                slots: Arc::clone(&node.slots),
                replaces: node.at,
                stamp: node.stamp,
            };
            out.insert((key.level(), *key), frozen);
        }
        self.dirty = 0;
        out
    }

    /// The frozen node now has a record at `at`.
    pub fn settle(&mut self, key: NodeKey, frozen: &Frozen, at: u64) -> Settled {
        match self.nodes.get_mut(&key) {
            Some(node) if node.stamp == frozen.stamp => {
                node.at = at;
                node.writing = false;
            }
            _ => return Settled::Gone,
        }
        match key.parent() {
            None => {
                self.roots.insert(key.layer(), at);
            }
            Some(parent) => {
                if let Some(node) = self.nodes.get_mut(&parent)
                    && let Some(place) = Arc::make_mut(&mut node.slots).get_mut(index(key.number()))
                {
                    *place = at;
                }
            }
        }
        Settled::Adopted
    }

    /// A checkpoint failed: what was frozen is dirty again.
    pub fn thaw(&mut self, frozen: &BTreeMap<(u8, NodeKey), Frozen>) {
        for ((_, key), f) in frozen {
            if let Some(node) = self.nodes.get_mut(key)
                && node.stamp == f.stamp
            {
                node.writing = false;
                self.mark_dirty(*key);
            }
        }
    }
}

impl Frozen {
    /// Writes a child's new place into an inner node.
    pub fn set_child(&mut self, number: u64, at: u64) {
        if let Some(place) = Arc::make_mut(&mut self.slots).get_mut(index(number)) {
            *place = at;
        }
    }
}
