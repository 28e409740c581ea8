//! Layers that nothing names go: dropped, or merged into what lies over them.
//!
//! # Crash
//! Only maps and catalogue change, and both go into the same checkpoints: each step leaves a store that reads the same, and
//! the next process goes on from the one that the last checkpoint has. The alias that lets an heir read what was written
//! for the merged layer is set before the first entry moves. What a step lets go of is removed from the disk only by a
//! checkpoint that no longer names it.

use super::tree::{Task, next_task};
use crate::core::Core;
use crate::error::StoreError;
use crate::format::Alias;
use crate::state::{Blocked, State};

/// Entries that move in one critical section, about: some ten microseconds.
const STEP: usize = 1024;
/// Layers in a row are merged this much of the address space at a time, in blocks (1 GiB): what the heir's map changes
/// there is in memory, and is written once and not once per layer.
const STRETCH: u64 = 512 * 512;

/// How a round has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tidied {
    /// Critical sections that have changed something.
    pub steps: usize,
    /// Whether there is more to do.
    pub more: bool,
}

/// One round of at most `limit` critical sections. Ends earlier when a checkpoint is due.
pub fn tidy(core: &Core, limit: usize) -> Result<Tidied, StoreError> {
    // One at a time: layers in a row must be merged in their order.
    let Some(_one) = core.tidying.try_lock() else {
        return Ok(Tidied {
            steps: 0,
            more: false,
        });
    };
    let mut steps = 0;
    while steps < limit {
        let task = {
            let mut state = core.state.lock();
            let pinned = state.pinned();
            next_task(&state.catalogue, &|layer| pinned.contains(&layer))
        };
        let more = match task {
            None => return Ok(Tidied { steps, more: false }),
            Some(Task::Drop { layer }) => {
                drop_layer(&mut core.state.lock(), layer);
                steps += 1;
                true
            }
            Some(Task::Merge { from, to }) => {
                let merged = merge(core, &from, to, limit, &mut steps);
                merged.or_else(|error| give_up(core, &from, error))?
            }
        };
        if !more || core.wants_checkpoint(&core.state.lock()) {
            break;
        }
    }
    Ok(Tidied { steps, more: true })
}

/// Damage to a map keeps its layer from being merged, and nothing else from going on.
fn give_up(core: &Core, from: &[u32], error: StoreError) -> Result<bool, StoreError> {
    let StoreError::Damaged { .. } = error else {
        return Err(error);
    };
    log::error!(
        "layers {from:?} of deleted snapshots can't be merged, and keep their space: {error}"
    );
    core.state.lock().stuck.extend(from);
    Ok(true)
}

/// Forgets a layer that nothing lies over.
pub fn drop_layer(state: &mut State, layer: u32) {
    let mut freed = Vec::new();
    state.map.drop_layer(layer, &mut |f| freed.push(f));
    state.catalogue.layers.remove(&layer);
    state.presence.forget(layer);
    for f in freed {
        state.release(f);
    }
    let until = state.segments.next_generation;
    state.catalogue.aliases.finish(layer, until);
}

/// Merges layers in a row, stretch by stretch: of each all that it has, the nearest to the heir first. `false`: a checkpoint
/// has to come first, or the steps are used up.
fn merge(
    core: &Core,
    from: &[u32],
    to: u32,
    limit: usize,
    steps: &mut usize,
) -> Result<bool, StoreError> {
    begin(&mut core.state.lock(), from, to);
    loop {
        let mut first = None;
        for layer in from {
            let found = core.with_nodes(|state| {
                state.map.make_room();
                state.map.first_block(*layer).map_err(Blocked::Node)
            })?;
            let found = found.unwrap_or(None);
            first = [first, found].into_iter().flatten().min();
        }
        let Some(first) = first else { break };
        // A single one moves whole subtrees; of several the nearest must come first everywhere.
        let end = match from {
            [_] => u64::MAX,
            _ => (first / STRETCH + 1) * STRETCH,
        };
        for layer in from {
            loop {
                if *steps >= limit || core.wants_checkpoint(&core.state.lock()) {
                    return Ok(false);
                }
                *steps += 1;
                let done = core.with_nodes(|state| step(state, *layer, to, end))?;
                match done {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(_) => return Ok(false),
                }
            }
        }
    }
    let mut state = core.state.lock();
    for layer in from {
        finish(&mut state, *layer);
    }
    *steps += 1;
    Ok(true)
}

/// Before the first entry moves.
fn begin(state: &mut State, from: &[u32], to: u32) {
    for layer in from {
        let Some(row) = state.catalogue.layers.get(layer) else {
            continue;
        };
        let since = row.since;
        let known = state.catalogue.aliases.get(*layer).map(|alias| alias.to);
        // An heir of before that is on its way out itself hands on what it inherits.
        if known.is_none() {
            state.catalogue.aliases.insert(Alias {
                from: *layer,
                to,
                since,
                until: None,
            });
        }
        // What the heir's map says must hold while entries come, one by one; also of an heir that the alias leads past: a layer of
        // the row that is pinned for a while, into which the one below is merged then.
        if known != Some(to) {
            state.presence.merge(*layer, to);
        }
    }
}

fn step(state: &mut State, from: u32, to: u32, end: u64) -> Result<bool, Blocked> {
    let layers = &state.catalogue.layers;
    if !layers.contains_key(&from) || !layers.contains_key(&to) {
        // Its vDisk was deleted meanwhile: there is another task now.
        return Err(Blocked::Checkpoint);
    }
    state.map.make_room();
    if state.map.is_full() {
        return Err(Blocked::Checkpoint);
    }
    let mut freed = Vec::new();
    let done = state
        .map
        .merge_step(from, to, end, STEP, &mut |f| freed.push(f));
    for f in freed {
        state.release(f);
    }
    done.map_err(Blocked::Node)
}

/// An emptied layer leaves the tree.
fn finish(state: &mut State, layer: u32) {
    let Some(row) = state.catalogue.layers.get(&layer) else {
        return;
    };
    let parent = row.parent;
    let layers = state.catalogue.layers.values_mut();
    for over in layers.filter(|l| l.parent == Some(layer)) {
        over.parent = parent;
    }
    drop_layer(state, layer);
}
