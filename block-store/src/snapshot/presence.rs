//! Building presence maps: separately from the snapshot, and only when a read had to pass its layer.
//!
//! Where many layers in a row are without one, all of them are swept from the top down, and what is seen of their entries on the
//! way resolves leaves too: one pass over the maps as they lie on the disk, where searches would read node by node.

use super::entries::runs_of;
use super::tree::{ancestors, top_of_row};
use crate::core::Core;
use crate::error::StoreError;
use crate::format::{Entry, MAX_BLOCKS, NODE_SLOTS};
use crate::map::{Blocks, Open, ResolvedLeaf};
use crate::read::{Sweep, sweep};
use crate::state::State;
use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

/// Layers in a row that want maps from which on all that lies below is swept.
const MANY: usize = 8;

/// Builds the map of one layer for which one is wanted, or those of a whole row, for as long as it may go on. `false`: none is wanted.
pub fn build_one(core: &Core, go_on: &dyn Fn() -> bool) -> Result<bool, StoreError> {
    let (layer, row, room) = {
        let mut state = core.state.lock();
        let Some(layer) = state.presence.next() else {
            return Ok(false);
        };
        let top = top_of_row(&state.catalogue, layer);
        let row: Vec<u32> = ancestors(&state.catalogue, top).collect();
        let many = state.presence.wanted_of(&row) >= MANY && !state.presence.has_given_up(&row);
        let room = if many { state.resolved.room() } else { 0 };
        // Should its row not be at rest, nobody tries again before a read asks for it again.
        state.presence.forget(layer);
        (layer, row, room)
    };
    if room > 0 {
        resolve_row(core, &row, room, go_on)?;
    } else {
        build(core, layer, &mut |_| {})?;
    }
    Ok(true)
}

/// Sweeps one layer: its presence map is kept, if it is wanted, and `show` sees all entries. `false`: it is not at rest.
fn build(core: &Core, layer: u32, show: &mut dyn FnMut(&Sweep<'_>)) -> Result<bool, StoreError> {
    if !begin(&mut core.state.lock(), layer) {
        return Ok(false);
    }
    let swept = blocks_of(core, layer, show);
    let mut state = core.state.lock();
    match swept {
        Ok(Some(blocks)) => {
            state.presence.finish(layer, blocks);
            Ok(true)
        }
        Ok(None) => {
            state.presence.forget(layer);
            Ok(false)
        }
        Err(error) => {
            state.presence.give_up(layer);
            Err(error)
        }
    }
}

/// Whether nothing is being merged into the layer; then its map is being built from now on. Into one that is itself on its way up
/// something may be merged whose alias leads past it.
fn begin(state: &mut State, layer: u32) -> bool {
    let aliases = &state.catalogue.aliases;
    let rests = state.catalogue.layers.contains_key(&layer)
        && !aliases
            .under_way()
            .any(|from| from == layer || aliases.heir(from) == layer);
    match rests {
        true => state.presence.begin(layer),
        false => state.presence.forget(layer),
    }
    rests
}

/// The blocks that a sealed layer has entries for, from its map; `show` sees these. `None`: it is not at rest.
pub fn blocks_of(
    core: &Core,
    layer: u32,
    show: &mut dyn FnMut(&Sweep<'_>),
) -> Result<Option<Blocks>, StoreError> {
    let mut blocks = Blocks::default();
    let all = sweep(core, layer, &(0..MAX_BLOCKS), |found| {
        show(&found);
        runs_of(&found).for_each(|run| blocks.insert(run));
        ControlFlow::Continue(())
    })?;
    Ok(all.then_some(blocks))
}

/// Leaves as they are seen from the top of a row of layers, while it is swept downwards.
struct Row {
    leaves: BTreeMap<u64, (Box<ResolvedLeaf>, Open)>,
    room: usize,
    /// What layers so far have as zeroes, whole subtrees at a time: leaves in there are left to searches.
    zeroes: Vec<Range<u64>>,
}

impl Row {
    fn see(&mut self, layer: u32, found: &Sweep<'_>) {
        match found {
            Sweep::Zeroes(range) => {
                for (number, (known, open)) in self.leaves.range_mut(leaves_of(range)) {
                    fill(*number, known, open, |block| {
                        range
                            .contains(&block)
                            .then_some((layer, Entry::Zero.pack()))
                    });
                }
                self.zeroes.push(range.clone());
            }
            Sweep::Leaf(first, slots) => {
                let number = first / NODE_SLOTS as u64;
                if !self.leaves.contains_key(&number) && !self.may_add(*first) {
                    return;
                }
                let (known, open) = self
                    .leaves
                    .entry(number)
                    .or_insert_with(|| (Box::default(), Open::all()));
                fill(number, known, open, |block| {
                    let bits = slots.get((block - first) as usize).copied();
                    bits.filter(|bits| *bits != 0).map(|bits| (layer, bits))
                });
            }
        }
    }

    /// Whether a leaf that no layer so far had may be taken in.
    fn may_add(&self, first: u64) -> bool {
        self.leaves.len() < self.room && !self.zeroes.iter().any(|range| range.contains(&first))
    }
}

fn leaves_of(range: &Range<u64>) -> Range<u64> {
    range.start / NODE_SLOTS as u64..range.end.div_ceil(NODE_SLOTS as u64)
}

/// Asks for each block that is still open.
fn fill(
    number: u64,
    known: &mut ResolvedLeaf,
    open: &mut Open,
    entry: impl Fn(u64) -> Option<(u32, u64)>,
) {
    let first = number * NODE_SLOTS as u64;
    for n in open.blocks() {
        if let Some((layer, bits)) = entry(first + n) {
            known.set(first + n, layer, bits);
            open.remove(first + n);
        }
    }
}

/// Builds the maps of a row of layers, the first on top, and resolves `room` leaves as seen from there. When something of the
/// row moves meanwhile, the leaves are forgotten.
fn resolve_row(
    core: &Core,
    row: &[u32],
    room: usize,
    go_on: &dyn Fn() -> bool,
) -> Result<(), StoreError> {
    let (Some(top), Some(bottom)) = (row.first(), row.last()) else {
        return Ok(());
    };
    let begun = core.state.lock().map.moment();
    let mut seen = Row {
        leaves: BTreeMap::new(),
        room,
        zeroes: Vec::new(),
    };
    for layer in row {
        if !go_on() || !build(core, *layer, &mut |found| seen.see(*layer, found))? {
            return Ok(());
        }
    }
    for (number, (known, open)) in &mut seen.leaves {
        fill(*number, known, open, |_| Some((*bottom, 0)));
    }
    for (number, (known, _)) in seen.leaves {
        let mut state = core.state.lock();
        // A search could not have missed what a merge moves; this could.
        if state.map.moment() != begun {
            return Ok(());
        }
        state.resolved.add(*top, number, known);
    }
    Ok(())
}
