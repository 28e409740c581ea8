//! Looking at the map without touching it: who goes through all of it must not drive out what guests use.

use super::{LEVELS, Map, NodeKey, ROOT_LEVEL, Slots, is_stored, slot};
use crate::format::NODE_SLOTS;
use std::sync::Arc;

/// Nodes that are passed in one look, at most: some ten microseconds.
const STRIDE: usize = 64;

/// A node that was met.
#[derive(Debug, Clone)]
pub struct Met {
    /// Which one.
    pub key: NodeKey,
    /// Packed entry of its record; 0: it was never written.
    pub at: u64,
    /// Its entries, if it is in memory.
    pub slots: Option<Arc<Slots>>,
}

/// An inner node that was met, the entry of its record, and what it holds. `None`: it can't be read.
type Passed = (NodeKey, u64, Option<Arc<Slots>>);

/// The way down to where a walk has got to: inner nodes that were met, by level.
#[derive(Debug, Default)]
pub struct Trail([Option<Passed>; LEVELS]);

impl Trail {
    /// An inner node that is not in memory was read. `None`: it can't be.
    pub fn read(&mut self, key: NodeKey, at: u64, slots: Option<Arc<Slots>>) {
        if let Some(place) = self.0.get_mut(usize::from(key.level())) {
            *place = Some((key, at, slots));
        }
    }

    fn has(&self, key: NodeKey, at: u64) -> Option<Option<Arc<Slots>>> {
        let (known, place, slots) = self.0.get(usize::from(key.level()))?.as_ref()?;
        ((*known, *place) == (key, at)).then(|| slots.clone())
    }
}

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// There is more; look again.
    More,
    /// The last node met must be read, and shown to the trail, before there is more.
    Read,
    /// The layer has nothing behind this.
    End,
}

/// Where a node is.
enum Where {
    Here(Arc<Slots>, u64),
    Disk(u64),
    Nowhere,
}

impl Map {
    /// The nodes of a layer from block `from` on, in order of address, inner ones before what is below them; `from` moves behind
    /// what was met. At most `room` of them.
    pub fn look(
        &self,
        layer: u32,
        from: &mut u64,
        trail: &mut Trail,
        room: usize,
        met: &mut Vec<Met>,
    ) -> Look {
        let end = end_of(NodeKey::new(layer, ROOT_LEVEL, 0));
        for _ in 0..STRIDE {
            if *from >= end {
                return Look::End;
            }
            if met.len() >= room {
                break;
            }
            if self.descend(layer, from, trail, met) {
                return Look::Read;
            }
        }
        Look::More
    }

    /// One way down from the root. `true`: the node met last has to be read.
    fn descend(&self, layer: u32, from: &mut u64, trail: &mut Trail, met: &mut Vec<Met>) -> bool {
        let mut key = NodeKey::new(layer, ROOT_LEVEL, 0);
        let mut place = self.place_of(key, None);
        loop {
            let (slots, at) = match place {
                Where::Nowhere => break,
                Where::Here(slots, at) => (Some(slots), at),
                Where::Disk(at) => (None, at),
            };
            let resident = slots.is_some();
            if key.level() == 0 {
                met.push(Met { key, at, slots });
                break;
            }
            let slots = match (trail.has(key, at), slots) {
                (Some(_), Some(slots)) => slots,
                (Some(Some(slots)), None) => slots,
                // It can't be read.
                (Some(None), None) => break,
                (None, Some(slots)) => {
                    if at != 0 {
                        let slots = Some(Arc::clone(&slots));
                        met.push(Met { key, at, slots });
                    }
                    // If it is changed, it is not evicted before it has another record.
                    trail.read(key, at, Some(Arc::clone(&slots)));
                    slots
                }
                (None, None) => {
                    let slots = None;
                    met.push(Met { key, at, slots });
                    return true;
                }
            };
            let span = NodeKey::blocks_per_slot(key.level());
            let first = first_of(key);
            let passed = from.saturating_sub(first) / span;
            let child = (passed..NODE_SLOTS as u64).find_map(|n| {
                let child = key.child(n)?;
                let bits = slot(&slots, n);
                match self.place_of(child, Some((resident, bits))) {
                    Where::Nowhere => None,
                    place => Some((n, child, place)),
                }
            });
            let Some((n, child, below)) = child else {
                break;
            };
            *from = (*from).max(first + n * span);
            (key, place) = (child, below);
        }
        *from = end_of(key);
        false
    }

    /// `above`: whether its parent is in memory, and the entry in there.
    fn place_of(&self, key: NodeKey, above: Option<(bool, u64)>) -> Where {
        if above.is_none_or(|(resident, _)| resident)
            && let Some(node) = self.nodes.get(&key)
        {
            return Where::Here(Arc::clone(&node.slots), node.at);
        }
        let bits = above.map_or_else(|| self.root(key.layer()), |(_, bits)| bits);
        match is_stored(bits) {
            true => Where::Disk(bits),
            false => Where::Nowhere,
        }
    }
}

fn first_of(key: NodeKey) -> u64 {
    key.number() * NODE_SLOTS as u64 * NodeKey::blocks_per_slot(key.level())
}

fn end_of(key: NodeKey) -> u64 {
    first_of(key) + NODE_SLOTS as u64 * NodeKey::blocks_per_slot(key.level())
}
