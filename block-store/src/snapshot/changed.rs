//! What has changed between two states of a vDisk, from metadata alone: the union of what the layers between them have.
//!
//! A block in the answer was written, zeroed or discarded in between; it may hold the same again. One that is not in the answer
//! has not changed.
//!
//! # Cost
//! An answer reads of each layer no more than the maps of [`LEAVES`] leaves, and has no more than [`RANGES`] ranges; where a layer
//! stops early, those after it need not look further either. Presence maps that are there spare all reading.
//!
//! # Consistency
//! Who asks has pinned the layers: then no entry leaves them, and those that a merge had begun to move up are still in one of
//! them. What was moving just then has come to rest when the pin is seen by all; see [`crate::core::Core::tidying`].

use super::entries::{Runs, end_of, entries, runs_of};
use crate::core::Core;
use crate::error::StoreError;
use std::ops::{ControlFlow, Range};

/// Leaves of one layer that one answer looks at: 16 GiB of the address space where all of it has changed.
pub const LEAVES: usize = 8192;
/// Ranges that one answer has at most.
pub const RANGES: usize = 4096;

/// A part of the answer, in blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What has changed, in order.
    pub runs: Runs,
    /// Everything from the start asked for up to here was looked at.
    pub checked: u64,
}

/// The blocks within a range that any of these layers has an entry for.
pub fn changed(core: &Core, layers: &[u32], within: Range<u64>) -> Result<Part, StoreError> {
    let mut runs = Runs::default();
    let mut end = within.end;
    for layer in layers {
        let (found, checked) = of_layer(core, *layer, within.start..end)?;
        end = checked;
        runs.cut(end);
        runs = runs.union(&found);
        end = runs.truncate(RANGES).unwrap_or(end);
    }
    Ok(Part { runs, checked: end })
}

/// What one layer has, and how far it was looked at.
fn of_layer(core: &Core, layer: u32, within: Range<u64>) -> Result<(Runs, u64), StoreError> {
    let mut runs = Runs::default();
    let mut checked = within.end;
    let map = core.state.lock().presence.share(layer);
    if let Some(map) = map {
        let there = map.runs_from(within.start);
        for run in there
            .take_while(|run| run.start < within.end)
            .take(2 * RANGES)
        {
            runs.push(run);
        }
    } else {
        let mut leaves = 0;
        entries(core, layer, &within, &mut |found| {
            for run in runs_of(&found) {
                runs.push(run.start.max(within.start)..run.end);
            }
            leaves += 1;
            if leaves < LEAVES && runs.all().len() <= RANGES {
                return ControlFlow::Continue(());
            }
            checked = end_of(&found).min(within.end);
            ControlFlow::Break(())
        })?;
    }
    checked = runs.truncate(RANGES).unwrap_or(checked);
    runs.cut(checked);
    Ok((runs, checked))
}
