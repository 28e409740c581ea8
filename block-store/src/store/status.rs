//! What a store tells of itself.

use super::Store;
use super::scrub::ScrubBrief;
use crate::alloc::Phase;
use crate::defrag::bytes_moved;
use serde::Serialize;
use std::sync::atomic::Ordering::Relaxed;

/// How the last opening went.
#[derive(Debug, Clone, Serialize)]
pub struct Recovery {
    /// What was found of the write buffer.
    pub buffer: String,
    /// Bytes of log that were scanned.
    pub scanned_bytes: u64,
    /// Records that were applied.
    pub applied_records: u64,
    /// How long it took until requests could be served.
    pub milliseconds: u64,
}

/// A store's state at one moment. Sizes in bytes.
#[derive(Debug, Clone, Serialize)]
pub struct StoreStatus {
    /// UUID.
    pub uuid: String,
    /// Directory.
    pub dir: String,
    /// Seconds since 1970 at which it was made.
    pub created: u64,
    /// Why it takes no more writes, if so.
    pub failed: Option<String>,
    /// No space for another segment.
    pub full: bool,
    /// Size of the filesystem.
    pub filesystem_bytes: u64,
    /// Free space on it.
    pub free_bytes: u64,
    /// Segments with data or maps.
    pub segments: u64,
    /// Allocated and still empty.
    pub spare_segments: u64,
    /// Used by data.
    pub data_bytes: u64,
    /// Used by maps.
    pub meta_bytes: u64,
    /// Blocks that live vDisks hold, times 4096.
    pub live_bytes: u64,
    /// Share of stored blocks that nothing names any more, in per cent.
    pub garbage_percent: u64,
    /// Number of vDisks.
    pub vdisks: u64,
    /// Sum of their sizes.
    pub provisioned_bytes: u64,
    /// Number of snapshots.
    pub snapshots: u64,
    /// Number of schedules.
    pub schedules: u64,
    /// Of these, those that can't be kept at the moment.
    pub late_schedules: u64,
    /// Number of layers, live ones and those that are being merged included.
    pub layers: u64,
    /// Presence maps in memory.
    pub presence_maps: u64,
    /// Memory of these.
    pub presence_memory_bytes: u64,
    /// Resolved leaves in memory.
    pub resolved_leaves: u64,
    /// Memory of these.
    pub resolved_memory_bytes: u64,
    /// The last LSN.
    pub lsn: u64,
    /// Log since the last checkpoint.
    pub log_bytes: u64,
    /// Waiting in the write buffer.
    pub buffered_bytes: u64,
    /// Map nodes in memory.
    pub map_nodes: u64,
    /// Of these, changed since the last checkpoint.
    pub dirty_map_nodes: u64,
    /// Memory of map nodes.
    pub map_memory_bytes: u64,
    /// Group commits since start.
    pub commits: u64,
    /// Checkpoints since start.
    pub checkpoints: u64,
    /// Time that these took.
    pub checkpoint_milliseconds: u64,
    /// Written to data segments since start.
    pub log_written_bytes: u64,
    /// Written for maps since start.
    pub meta_written_bytes: u64,
    /// Moved by compaction since start.
    pub relocated_bytes: u64,
    /// How checking what is stored is getting on.
    pub scrub: ScrubBrief,
    /// How the opening went.
    pub recovery: Recovery,
}

impl Store {
    /// The state at this moment.
    pub fn status(&self) -> StoreStatus {
        let space = self.core.disk.space().ok();
        let schedules = self.count_schedules();
        let scrub = self.scrub_brief();
        let state = self.core.state.lock();
        let counters = &self.core.counters;
        let presence = state.presence.size();
        let mut status = StoreStatus {
            uuid: self.core.store.to_string(),
            dir: self.config.dir.display().to_string(),
            created: self.created,
            failed: state.failed.as_ref().map(ToString::to_string),
            full: state.full,
            filesystem_bytes: space.map_or(0, |s| s.total),
            free_bytes: space.map_or(0, |s| s.free),
            segments: 0,
            spare_segments: state.segments.spares() as u64,
            data_bytes: 0,
            meta_bytes: 0,
            live_bytes: 0,
            garbage_percent: 0,
            vdisks: state.catalogue.vdisks.len() as u64,
            provisioned_bytes: state.catalogue.vdisks.iter().map(|v| v.size).sum(),
            snapshots: state.catalogue.snapshots.len() as u64,
            schedules: schedules.0,
            late_schedules: schedules.1,
            layers: state.catalogue.layers.len() as u64,
            presence_maps: presence.0 as u64,
            presence_memory_bytes: presence.1 as u64,
            resolved_leaves: state.resolved.len() as u64,
            resolved_memory_bytes: (state.resolved.len() * crate::map::RESOLVED_MEMORY) as u64,
            lsn: state.log.last_lsn(),
            log_bytes: self.core.log_since_checkpoint(&state),
            buffered_bytes: state.log.undrained() as u64,
            map_nodes: state.map.resident() as u64,
            dirty_map_nodes: state.map.dirty() as u64,
            map_memory_bytes: (state.map.resident() * crate::map::NODE_MEMORY) as u64,
            commits: counters.commits.load(Relaxed),
            checkpoints: counters.checkpoints.load(Relaxed),
            checkpoint_milliseconds: counters.checkpoint_milliseconds.load(Relaxed),
            log_written_bytes: counters.log_bytes.load(Relaxed),
            meta_written_bytes: counters.meta_bytes.load(Relaxed),
            relocated_bytes: bytes_moved(&self.core),
            scrub,
            recovery: self.recovered.clone(),
        };
        let (mut live, mut total) = (0u64, 0u64);
        for (_, segment) in state
            .segments
            .iter()
            .filter(|(_, s)| s.phase != Phase::Spare)
        {
            status.segments += 1;
            match segment.content {
                crate::alloc::Content::Data => {
                    status.data_bytes += u64::from(segment.used);
                    live += u64::from(segment.live);
                    total += u64::from(segment.total);
                }
                crate::alloc::Content::Meta => status.meta_bytes += u64::from(segment.used),
            }
        }
        status.live_bytes = live * crate::format::BLOCK as u64;
        status.garbage_percent = total.saturating_sub(live) * 100 / total.max(1);
        status
    }
}
