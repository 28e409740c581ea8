//! What happens between the phases of a checkpoint, of compaction, of a change to the catalogue.
//!
//! In reality guests' threads, the log's and the allocator's go on while upkeep writes a checkpoint. Here everything is one
//! thread; before each read and write of upkeep others take a few steps of theirs, if the history's dice say so. Steps that
//! would wait, in reality, for a lock that upkeep holds just then are left out.

use crate::hook::Event;
use crate::run::{History, background};
use block_store::alloc::Content;
use block_store::format::segment_id_of;
use block_store::snapshot::{build_one, tidy};
use parking_lot::Mutex;
use rand::Rng;

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing but requests.
    Idle,
    Checkpoint,
    Upkeep,
    Create,
    Delete,
    /// A clone becomes independent, or rather is to.
    Flatten,
    Revert,
    Snapshot,
    /// Deletion of a snapshot.
    Forget,
    /// A schedule's turn.
    Tend,
    /// Rules for the snapshots that no schedule has taken.
    Prune,
}

/// Something is about to happen to a file: others may have their turn.
pub fn turn(h: &Mutex<History>, event: Event, file: &str) {
    // Taken: it is one of their own steps.
    let Some(mut now) = h.try_lock() else { return };
    if now.phase == Phase::Idle || now.disk.is_crashed() {
        return;
    }
    let nest = now.nest;
    if !now.rng.random_bool(nest) {
        return;
    }
    let log_is_locked = log_is_locked(&now, event, file);
    now.tell(|| format!("  before {event:?} of {file:?}"));
    for _ in 0..now.rng.random_range(1..8) {
        if now.disk.is_crashed() {
            return;
        }
        now.totals.between += 1;
        let core = now.store().core().clone();
        match now.rng.random_range(0..42) {
            0..20 => now.submit(),
            20..30 => now.poll(),
            30 => now.delete_meanwhile(),
            31..34 if !log_is_locked => drop(core.drain_step()),
            35 if !log_is_locked => drop(core.commit()),
            34 if !log_is_locked => drop((core.allocate_ready(), core.give_back_step())),
            39 => drop(build_one(&core, &|| true)),
            36 if !log_is_locked => now.coalesce(),
            40..42 => now.scrub_data(),
            // While somebody's checkpoint is written, upkeep merges.
            37 if now.phase != Phase::Upkeep => drop(tidy(&core, 2)),
            // While compaction reads it holds nothing: the control API may change the catalogue.
            38 if now.phase == Phase::Upkeep && event == Event::Read => {
                drop(now);
                background(h, Phase::Checkpoint);
                return;
            }
            _ => {}
        }
    }
}

/// Whether who is about to write or sync this file holds the lock of draining and committing: these two write to data
/// segments, and nobody else does.
fn log_is_locked(now: &History, event: Event, file: &str) -> bool {
    let Some(id) = segment_id_of(file) else {
        return false;
    };
    let store = now.store();
    let state = store.core().state.lock();
    let data = state.segments.get(id).map(|s| s.content) == Some(Content::Data);
    data && matches!(event, Event::Write | Event::Sync)
}
