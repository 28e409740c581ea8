//! Reclamation: what deleted data leaves behind is found, sparse segments are compacted, dead ones go.
//!
//! A segment without a live entry is removed by the next checkpoint. Everything here runs on the upkeep thread in
//! small steps, outside of the lock but for short critical sections, and can stop anywhere: what has not taken
//! effect by a checkpoint is done again.

mod compact;
mod dropped;
mod relocate;
mod spot;

pub use compact::owners;
pub use spot::{Gather, Later, Pieces, Spot};

use crate::alloc::{Content, choose_victim};
use crate::core::Core;
use crate::error::StoreError;
use crate::snapshot::tidy;
use compact::{Compaction, Outcome};

/// Nodes of deleted maps that are walked between two checkpoints, at most.
const WALK: usize = 1000;
/// Steps of merging layers between two checkpoints, at most.
const TIDY: usize = 4096;
/// Segments compacted between two checkpoints, at most.
const ROUND: usize = 4;

/// How hard to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pressure {
    /// Data segments with at most this share of live entries, in per cent.
    data: u32,
    /// Metadata segments, likewise.
    meta: u32,
}

/// Compaction costs writes: data is only compacted when space runs short. Maps are small and rewritten anyway.
fn pressure(free_percent: u64, low: u32, full: bool) -> Pressure {
    match () {
        () if full => Pressure { data: 95, meta: 75 },
        () if free_percent < u64::from(low) => Pressure { data: 75, meta: 50 },
        () => Pressure { data: 0, meta: 25 },
    }
}

/// One round of reclamation; `checkpoint` makes its effects durable and removes segments.
pub fn reclaim(
    core: &Core,
    low_space_percent: u32,
    mut checkpoint: impl FnMut() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let tidied = tidy(core, TIDY)?;
    if tidied.steps > 0 {
        checkpoint()?;
    }
    let walk = dropped::walk(core, WALK)?;
    if walk.nodes > 0 {
        checkpoint()?;
    }
    if walk.more || tidied.more {
        core.upkeep_bell.ring();
        return Ok(());
    }
    let space = core
        .disk
        .space()
        .map_err(StoreError::io("asking for free space"))?;
    let free_percent = space.free.saturating_mul(100) / space.total.max(1);
    let full = core.state.lock().full;
    if !full && free_percent < u64::from(low_space_percent) {
        log::warn!(
            "the store's filesystem has {free_percent} % free space left; compacting sparse segments"
        );
    }
    let pressure = pressure(free_percent, low_space_percent, full);
    // Segments that can't be emptied, or that the log still has to write out, are passed over in this round.
    let mut tried = core.state.lock().log.segments();
    let mut progress = false;
    for _ in 0..ROUND {
        let victim = {
            let segments = &core.state.lock().segments;
            choose_victim(segments, Content::Data, pressure.data, &tried)
                .or_else(|| choose_victim(segments, Content::Meta, pressure.meta, &tried))
        };
        let Some(victim) = victim else { break };
        tried.push(victim.id);
        match Compaction::of(core, victim.id)?.run(core, victim.content)? {
            Outcome::Moved => progress = true,
            Outcome::NoRoom => break,
        }
        if core.wants_checkpoint(&core.state.lock()) {
            break;
        }
    }
    if progress { checkpoint() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacts_data_only_when_space_runs_short() {
        assert_eq!(pressure(50, 10, false).data, 0);
        assert_eq!(pressure(9, 10, false).data, 75);
        assert_eq!(pressure(50, 10, true).data, 95);
    }
}
