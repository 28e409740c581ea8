//! Removal of segments in which nothing is alive.

use crate::alloc::Phase;
use crate::core::Core;
use crate::counters::count;
use crate::format::{SegmentRow, segment_file_name};
use std::io;

/// Step 6: segments without a live entry, neither in the checkpoint nor since, that were sealed at the cut. In any
/// other there may be flushed data, overwritten since and not flushed again, or ranges, of which no entry tells.
///
/// The checkpoint counts already: what can't be removed is left to the next one, and by then to recovery.
pub(super) fn remove_dead(core: &Core, rows: &[SegmentRow]) {
    let dead: Vec<u32> = {
        let state = core.state.lock();
        let is_dead = |row: &&SegmentRow| {
            let now = state.segments.get(row.id);
            row.live == 0
                && !row.open
                && now.is_some_and(|s| {
                    s.live == 0 && s.phase == Phase::Sealed && s.generation == row.generation
                })
        };
        rows.iter().filter(is_dead).map(|r| r.id).collect()
    };
    let mut removed = false;
    for id in &dead {
        match core.disk.remove(&segment_file_name(*id)) {
            Ok(()) => {
                let segment = core.state.lock().segments.remove(*id);
                if let Some(segment) = segment {
                    core.removed.lock().add(segment.file);
                }
                count(&core.counters.segments_removed);
                removed = true;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                core.state.lock().segments.remove(*id);
            }
            Err(e) => log::warn!(
                "removing segment {id:x}, which holds nothing any more: {e}; the next checkpoint tries again"
            ),
        }
    }
    if removed {
        if let Err(e) = core.disk.sync_dir() {
            log::warn!(
                "removing segments: {e}; they may come back after loss of power, and go again"
            );
        }
        core.state.lock().full = false;
        core.alloc_bell.ring();
    }
}
