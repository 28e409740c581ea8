//! Building presence maps: separately from the snapshot, and only when a read had to pass its layer.

use crate::core::Core;
use crate::error::StoreError;
use crate::map::Blocks;
use crate::read::{Sweep, sweep};
use crate::state::State;

/// Builds the map of one layer for which one is wanted. `false`: none is.
pub fn build_one(core: &Core) -> Result<bool, StoreError> {
    let layer = {
        let mut state = core.state.lock();
        let Some(layer) = state.presence.begin() else {
            return Ok(false);
        };
        if !at_rest(&state, layer) {
            state.presence.forget(layer);
            return Ok(true);
        }
        layer
    };
    let swept = blocks_of(core, layer);
    let mut state = core.state.lock();
    match swept {
        Ok(Some(blocks)) => state.presence.finish(layer, blocks),
        Ok(None) => state.presence.forget(layer),
        Err(error) => {
            state.presence.give_up(layer);
            return Err(error);
        }
    }
    Ok(true)
}

/// Whether nothing is being merged into a layer.
fn at_rest(state: &State, layer: u32) -> bool {
    let aliases = &state.catalogue.aliases;
    state.catalogue.layers.contains_key(&layer)
        && !aliases.under_way().any(|from| aliases.heir(from) == layer)
}

/// The blocks that a sealed layer has entries for, from its map. `None`: it is not at rest.
pub fn blocks_of(core: &Core, layer: u32) -> Result<Option<Blocks>, StoreError> {
    let mut blocks = Blocks::default();
    let all = sweep(core, layer, |found| match found {
        Sweep::Zeroes(range) => blocks.insert(range),
        Sweep::Leaf(first, slots) => {
            let mut at = 0;
            while let Some(rest) = slots.get(at..).filter(|r| !r.is_empty()) {
                let absent = rest.iter().take_while(|bits| **bits == 0).count();
                let there = rest
                    .iter()
                    .skip(absent)
                    .take_while(|bits| **bits != 0)
                    .count();
                let from = first + (at + absent) as u64;
                blocks.insert(from..from + there as u64);
                at += absent + there;
            }
        }
    })?;
    Ok(all.then_some(blocks))
}
