//! Reading the map of a sealed layer, or a part of it, past the cache: in the order in which it lies on the disk, many nodes at a time.

use super::NodeRead;
use crate::core::Core;
use crate::error::StoreError;
use crate::format::{Entry, FormatError, NODE_SLOTS};
use crate::io::AlignedBuf;
use crate::map::{Missing, NodeKey, ROOT_LEVEL, Slots};
use std::ops::{ControlFlow, Range};

/// Longest single read in bytes.
const MAX_READ: usize = 1 << 20;
/// Bytes between two nodes that are read along rather than skipped.
const GAP: usize = 32 << 10;

/// What a sweep finds.
#[derive(Debug)]
pub enum Sweep<'a> {
    /// The entries of a leaf, from its first block on.
    Leaf(u64, &'a Slots),
    /// A range of zeroes that the map has as one entry.
    Zeroes(Range<u64>),
}

/// Shows what a layer's map holds within a range of blocks, in order of address, until it is told to stop. Leaves are shown whole.
/// `false`: the layer is not at rest (gone, being written, or its nodes moved away just now); another time, from where it has got to.
pub fn sweep(
    core: &Core,
    layer: u32,
    within: &Range<u64>,
    mut show: impl FnMut(Sweep<'_>) -> ControlFlow<()>,
) -> Result<bool, StoreError> {
    let root = {
        let state = core.state.lock();
        let known = state.catalogue.layers.contains_key(&layer);
        known.then(|| state.map.settled_root(layer)).flatten()
    };
    let Some(root) = root else {
        return Ok(false);
    };
    let root = vec![(NodeKey::new(layer, ROOT_LEVEL, 0), root)];
    let ended = below(core, root, within, &mut show)?;
    Ok(ended != ControlFlow::Break(End::Moved))
}

/// Why a sweep ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody wants more.
    Told,
    /// A segment is gone.
    Moved,
}

/// The nodes with these packed entries, all of one level, and all below them.
fn below(
    core: &Core,
    nodes: Vec<(NodeKey, u64)>,
    within: &Range<u64>,
    show: &mut dyn FnMut(Sweep<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<End>, StoreError> {
    let Some(plans) = plan(core, nodes) else {
        return Ok(ControlFlow::Break(End::Moved));
    };
    for (key, slots) in read(core, &plans)? {
        if key.level() == 0 {
            let leaf = Sweep::Leaf(key.number() * NODE_SLOTS as u64, &slots);
            if show(leaf).is_break() {
                return Ok(ControlFlow::Break(End::Told));
            }
            continue;
        }
        let span = NodeKey::blocks_per_slot(key.level());
        let mut children = Vec::new();
        for (n, bits) in (0..).zip(slots.iter()) {
            let first = (key.number() * NODE_SLOTS as u64 + n) * span;
            let part = first.max(within.start)..(first + span).min(within.end);
            if part.is_empty() {
                continue;
            }
            match (Entry::unpack(*bits), key.child(n)) {
                (Ok(Entry::Stored { .. }), Some(child)) => children.push((child, *bits)),
                (Ok(Entry::Zero), _) => {
                    let before = std::mem::take(&mut children);
                    let ended = below(core, before, within, show)?;
                    if ended.is_break() {
                        return Ok(ended);
                    }
                    if show(Sweep::Zeroes(part)).is_break() {
                        return Ok(ControlFlow::Break(End::Told));
                    }
                }
                _ => {}
            }
        }
        let ended = below(core, children, within, show)?;
        if ended.is_break() {
            return Ok(ended);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// `None`: a segment is gone.
fn plan(core: &Core, nodes: Vec<(NodeKey, u64)>) -> Option<Vec<NodeRead>> {
    let state = core.state.lock();
    let stored = nodes.into_iter().filter(|(_, at)| *at != 0);
    stored
        .map(|(key, at)| NodeRead::plan(&state, Missing { key, at }).ok())
        .collect()
}

/// Reads nodes; those that lie together are read together.
fn read(core: &Core, plans: &[NodeRead]) -> Result<Vec<(NodeKey, Box<Slots>)>, StoreError> {
    let damaged = |why| {
        StoreError::damaged("a block map")(FormatError {
            what: "map node",
            why,
        })
    };
    let mut order: Vec<usize> = (0..plans.len()).collect();
    let place = |n: &usize| plans.get(*n).map(|p| (p.at.segment, p.at.offset));
    order.sort_unstable_by_key(place);
    let mut found: Vec<Option<Box<Slots>>> = vec![None; plans.len()];
    let mut is_heir = |o, l| core.state.lock().is_heir(o, l);
    let mut rest = order.as_slice();
    while let Some(first) = rest.first().and_then(|n| plans.get(*n)) {
        let (from, len) = first.pages();
        let mut end = from as usize + len;
        let together = rest.iter().take_while(|n| {
            let Some(next) = plans.get(**n).filter(|p| p.at.segment == first.at.segment) else {
                return false;
            };
            let (at, len) = next.pages();
            let near = at as usize <= end + GAP && at as usize + len <= from as usize + MAX_READ;
            end = end.max(at as usize + len);
            near
        });
        let count = together.count().max(1);
        let (now, later) = rest.split_at(count);
        let last = now.iter().filter_map(|n| plans.get(*n)).map(|p| {
            let (at, len) = p.pages();
            at as usize + len
        });
        let len = last.max().unwrap_or(0) - from as usize;
        let context = || StoreError::io(format!("reading segment {:x}", first.at.segment));
        let mut pages = AlignedBuf::zeroed(len).map_err(context())?;
        first.file.read_at(&mut pages, from).map_err(context())?;
        for n in now {
            if let (Some(plan), Some(to)) = (plans.get(*n), found.get_mut(*n)) {
                let at = plan.at.offset as usize - from as usize;
                let slots = plan.finish_at(&pages, at, &mut is_heir);
                *to = Some(slots.map_err(damaged)?);
            }
        }
        rest = later;
    }
    let keys = plans.iter().map(|p| p.missing.key);
    Ok(keys.zip(found).filter_map(|(k, s)| Some((k, s?))).collect())
}
