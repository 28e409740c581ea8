//! Block maps: per layer a radix tree of nodes with 512 entries, paged in within a memory budget.
//!
//! A leaf (level 0) covers 2 MiB, a node of level 1 covers 1 GiB, level 2 512 GiB, the root (level 3) 256 TiB.
//! An entry of an inner node is absent (nothing below), zero (all below reads as zeroes) or names the child's record, so
//! that a discard of any size touches only the nodes along its two edges.
//!
//! The map does no I/O. What is not in memory is reported as [`Missing`]; the caller reads the record and hands it
//! to [`Map::install`]. The cache is inclusive: a node in memory has its ancestors in memory.
//!
//! # Checkpoints
//! [`Map::freeze`] takes all dirty nodes by reference count; later changes copy the node they touch. A changed
//! leaf makes its ancestors dirty, since their entries for it will change when it is written.

mod freeze;
mod key;
mod merge;
#[cfg(test)]
mod model;
mod moved;
mod next;
mod peek;
mod presence;
mod range;
mod resolved;

use crate::format::NODE_SLOTS;
pub use freeze::{Frozen, Settled};
pub use key::{LEVELS, NodeKey, ROOT_LEVEL};
pub use next::Piece;
pub use peek::{Look, Met, Trail};
pub use presence::{Blocks, Presence};
pub use range::Freed;
pub use resolved::{Open, RESOLVED_MEMORY, Resolved, ResolvedLeaf};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Entries of one node.
pub type Slots = [u64; NODE_SLOTS];

/// Memory that one cached node takes, in bytes, its bookkeeping included.
pub const NODE_MEMORY: usize = NODE_SLOTS * 8 + 128;

/// Steps of the clock's hand per call.
const EVICTION_STEPS: usize = 16;

/// A node that has to be read before the map can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Which node.
    pub key: NodeKey,
    /// Packed entry of its record.
    pub at: u64,
}

/// What a layer says of a leaf's blocks.
#[derive(Debug, Clone, Copy)]
pub enum Leaf<'a> {
    /// The same of all of them.
    Whole(u64),
    /// Each of its own.
    Entries(&'a Slots),
}

impl Leaf<'_> {
    /// The packed entry of a block, which is one of the leaf's.
    pub fn entry(&self, block: u64) -> u64 {
        match self {
            Leaf::Whole(bits) => *bits,
            Leaf::Entries(slots) => slot(slots, block),
        }
    }
}

#[derive(Debug)]
struct Node {
    slots: Arc<Slots>,
    /// Packed entry of the record it was read from or last written to; 0 if never.
    at: u64,
    /// Tells this node from a later one in the same place.
    stamp: u64,
    dirty: bool,
    /// Part of a checkpoint that is being written.
    writing: bool,
    /// Touched since the clock hand last passed.
    used: bool,
    /// Children in memory.
    children: u32,
}

/// The block maps of all layers.
#[derive(Debug)]
pub struct Map {
    nodes: HashMap<NodeKey, Node, key::KeyHash>,
    roots: HashMap<u32, u64, key::KeyHash>,
    /// Nodes with their stamps, in the order in which the hand passes them.
    clock: VecDeque<(NodeKey, u64)>,
    budget: usize,
    dirty: usize,
    next_stamp: u64,
    moved: moved::Moved,
}

impl Map {
    /// An empty map that keeps at most `budget` nodes in memory, as far as they are clean.
    pub fn new(budget: usize) -> Self {
        Self {
            nodes: HashMap::default(),
            roots: HashMap::default(),
            clock: VecDeque::new(),
            budget: budget.max(4 * LEVELS),
            dirty: 0,
            next_stamp: 1,
            moved: moved::Moved::default(),
        }
    }

    /// Makes a layer known by the packed entry of its root (0: empty).
    pub fn add_layer(&mut self, layer: u32, root: u64) {
        self.roots.insert(layer, root);
    }

    /// Packed entry of the layer's root as last written.
    pub fn root(&self, layer: u32) -> u64 {
        self.roots.get(&layer).copied().unwrap_or(0)
    }

    /// The same, if what was last written is all that the layer has: nothing of it waits for a checkpoint.
    pub fn settled_root(&self, layer: u32) -> Option<u64> {
        match self.nodes.get(&NodeKey::new(layer, ROOT_LEVEL, 0)) {
            Some(root) => (!root.dirty && !root.writing).then_some(root.at),
            None => Some(self.root(layer)),
        }
    }

    /// Nodes that are kept in memory, as far as they are clean.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Nodes in memory.
    pub fn resident(&self) -> usize {
        self.nodes.len()
    }

    /// Nodes changed since they were last frozen.
    pub fn dirty(&self) -> usize {
        self.dirty
    }

    /// Whether so many nodes are dirty that a checkpoint should run.
    pub fn wants_checkpoint(&self) -> bool {
        self.dirty > self.budget / 2
    }

    /// Makes room for the nodes that the next change may need.
    pub fn make_room(&mut self) {
        self.evict();
    }

    /// Whether changes must wait for a checkpoint, because what can't be evicted fills the budget.
    pub fn is_full(&self) -> bool {
        self.dirty > self.budget && self.nodes.len() > 2 * self.budget
    }

    /// What the layer itself says of the blocks of a leaf, of which `block` is one.
    pub fn leaf(&mut self, layer: u32, block: u64) -> Result<Leaf<'_>, Missing> {
        let key = NodeKey::leaf(layer, block);
        // The borrow checker does not see that the first answer has been given by then.
        if !self.nodes.contains_key(&key) {
            return self.above(key).map(Leaf::Whole);
        }
        match self.nodes.get_mut(&key) {
            Some(node) => {
                node.used = true;
                Ok(Leaf::Entries(&node.slots))
            }
            None => Ok(Leaf::Whole(0)),
        }
    }

    /// What the layer itself says of a block.
    pub fn lookup(&mut self, layer: u32, block: u64) -> Result<u64, Missing> {
        let leaf = NodeKey::leaf(layer, block);
        if let Some(node) = self.nodes.get_mut(&leaf) {
            node.used = true;
            return Ok(slot(&node.slots, block));
        }
        self.above(leaf)
    }

    /// A moment, see [`Map::moved`].
    pub fn moment(&self) -> u64 {
        self.moved.now()
    }

    /// Whether an entry for this block may have moved from one layer to another since that moment.
    pub fn moved(&self, block: u64, since: u64) -> bool {
        self.moved.since(since, block / NODE_SLOTS as u64)
    }

    /// The entry that stands for the whole of a node that is not in memory, or which node to read to know more.
    fn above(&self, key: NodeKey) -> Result<u64, Missing> {
        let bits = match key.parent() {
            None => self.root(key.layer()),
            Some(parent) => match self.nodes.get(&parent) {
                Some(node) => slot(&node.slots, key.number()),
                None => self.above(parent)?,
            },
        };
        // What `above(parent)` answers stands for the parent as a whole: absent or zero below too.
        if is_stored(bits) {
            Err(Missing { key, at: bits })
        } else {
            Ok(bits)
        }
    }

    /// Whether all of a node's path is in memory or may be made there without reading.
    pub fn make_resident(&mut self, key: NodeKey) -> Result<(), Missing> {
        if let Some(node) = self.nodes.get_mut(&key) {
            node.used = true;
            return Ok(());
        }
        let whole = self.above(key)?;
        if let Some(parent) = key.parent() {
            self.make_resident(parent)?;
        }
        self.put(key, 0, Arc::new([whole; NODE_SLOTS]));
        Ok(())
    }

    /// Changes one block's entry; returns the one before. Its leaf must be in memory, see [`Map::make_resident`].
    pub fn set(&mut self, layer: u32, block: u64, bits: u64) -> u64 {
        let key = NodeKey::leaf(layer, block);
        self.mark_dirty(key);
        let Some(node) = self.nodes.get_mut(&key) else {
            debug_assert!(false, "{key:?} is not resident");
            return 0;
        };
        match Arc::make_mut(&mut node.slots).get_mut(index(block)) {
            Some(place) => std::mem::replace(place, bits),
            None => 0,
        }
    }

    /// Takes in a node that was read from `missing.at`. Nothing happens if the map has moved on meanwhile.
    pub fn install(&mut self, missing: Missing, slots: Box<Slots>) {
        // First make room: that may evict the node's own parent, and then the caller has to begin there.
        self.evict();
        self.install_anyway(missing, slots);
    }

    /// The same without making room: for who needs several nodes at once, and would drive out one with the other.
    pub fn install_anyway(&mut self, missing: Missing, slots: Box<Slots>) {
        if !self.still_misses(missing) {
            return;
        }
        self.put(missing.key, missing.at, Arc::from(slots));
    }

    /// Whether this node is what has to be read still.
    pub fn still_misses(&self, missing: Missing) -> bool {
        !self.nodes.contains_key(&missing.key) && self.above(missing.key) == Err(missing)
    }

    /// Whether the map of today still names the node record at `at`, in memory or not.
    pub fn names_node(&self, key: NodeKey, at: u64) -> Result<bool, Missing> {
        match self.nodes.get(&key) {
            Some(node) => Ok(node.at == at),
            None => match self.above(key) {
                Err(missing) if missing.key == key => Ok(missing.at == at),
                Err(missing) => Err(missing),
                Ok(_) => Ok(false),
            },
        }
    }

    /// Makes a node dirty, so that the next checkpoint writes it to another place. It must be in memory.
    pub fn mark_dirty(&mut self, key: NodeKey) {
        let mut next = Some(key);
        while let Some(key) = next {
            let Some(node) = self.nodes.get_mut(&key) else {
                return;
            };
            node.used = true;
            if std::mem::replace(&mut node.dirty, true) {
                return;
            }
            self.dirty += 1;
            next = key.parent();
        }
    }

    fn put(&mut self, key: NodeKey, at: u64, slots: Arc<Slots>) {
        if let Some(parent) = key.parent() {
            let parent = self.nodes.get_mut(&parent);
            debug_assert!(parent.is_some(), "{key:?} comes without its parent");
            if let Some(parent) = parent {
                parent.children += 1;
            }
        }
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        self.nodes.insert(
            key,
            Node {
                slots,
                at,
                stamp,
                dirty: false,
                writing: false,
                used: true,
                children: 0,
            },
        );
        self.clock.push_back((key, stamp));
    }

    /// Takes a node out, wherever it is in a checkpoint.
    fn take(&mut self, key: NodeKey) -> Option<Node> {
        let node = self.nodes.remove(&key)?;
        if let Some(parent) = key.parent().and_then(|p| self.nodes.get_mut(&p)) {
            parent.children = parent.children.saturating_sub(1);
        }
        if node.dirty {
            self.dirty -= 1;
        }
        Some(node)
    }

    /// Whether a node in memory is what its record says, and all below it: what is dirty has dirty ancestors, and a checkpoint that writes a
    /// node writes these, too. One that was never written is what its parent's entry says.
    fn is_clean(&self, key: NodeKey) -> bool {
        let node = self.nodes.get(&key);
        node.is_some_and(|node| !node.dirty && !node.writing)
    }

    /// Takes clean nodes out of memory: whoever has their records has all that they hold.
    fn forget(&mut self, key: NodeKey) {
        let Some(node) = self.nodes.get(&key) else {
            return;
        };
        let children = node.children;
        debug_assert!(self.is_clean(key), "{key:?} has no record of what it holds");
        if children > 0 {
            for child in (0..NODE_SLOTS as u64).filter_map(|n| key.child(n)) {
                self.forget(child);
            }
        }
        self.take(key);
    }

    /// Second-chance eviction (the clock algorithm) of clean nodes until the budget holds; a few steps per call,
    /// so that the cost is spread over the calls that cause it.
    fn evict(&mut self) {
        for _ in 0..EVICTION_STEPS {
            if self.nodes.len() < self.budget && self.clock.len() <= 2 * self.budget {
                return;
            }
            let Some((key, stamp)) = self.clock.pop_front() else {
                return;
            };
            // A node that was dropped leaves its place on the clock behind.
            let Some(node) = self.nodes.get_mut(&key).filter(|n| n.stamp == stamp) else {
                continue;
            };
            let used = std::mem::take(&mut node.used);
            if used
                || node.dirty
                || node.writing
                || node.children > 0
                || self.nodes.len() < self.budget
            {
                self.clock.push_back((key, stamp));
            } else {
                self.take(key);
            }
        }
    }
}

fn index(number: u64) -> usize {
    (number % NODE_SLOTS as u64) as usize
}

fn slot(slots: &Slots, number: u64) -> u64 {
    slots.get(index(number)).copied().unwrap_or(0)
}

fn is_stored(bits: u64) -> bool {
    bits >> 62 == 2
}
