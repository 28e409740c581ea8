//! The store and the process that serves it.

use super::ScrubBrief;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Version of the backend's program.
    pub version: String,
    /// Version of the API: [`crate::API_VERSION`].
    pub api: u32,
    /// The backend's process id.
    pub pid: u32,
    /// Directory of the store that it serves.
    pub store: String,
    /// Its runtime directory.
    pub run: String,
    /// Seconds since it started to serve.
    pub uptime_seconds: u64,
}

/// The store's state at one moment. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    /// The store's identity.
    pub uuid: String,
    /// Its directory.
    pub dir: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Why it takes no more writes, if it does not.
    pub failed: Option<String>,
    /// There is no space for another segment: writes stall or fail.
    pub full: bool,
    /// Size of the filesystem.
    pub filesystem_bytes: u64,
    /// Free space on it.
    pub free_bytes: u64,
    /// Segments with data or maps.
    pub segments: u64,
    /// Segments that are allocated and still empty.
    pub spare_segments: u64,
    /// Used by data.
    pub data_bytes: u64,
    /// Used by block maps.
    pub meta_bytes: u64,
    /// Content that vDisks hold, before compression.
    pub live_bytes: u64,
    /// Share of stored blocks that nothing names any more, in per cent.
    pub garbage_percent: u64,
    /// Number of vDisks.
    pub vdisks: u64,
    /// Sum of their sizes.
    pub provisioned_bytes: u64,
    /// Number of snapshots.
    pub snapshots: u64,
    /// Number of schedules of snapshots.
    pub schedules: u64,
    /// Of these, those whose last attempt failed, or that can't keep up.
    pub late_schedules: u64,
    /// Number of layers: one for each vDisk and snapshot, and those of deleted snapshots that are still to be merged.
    pub layers: u64,
    /// Presence maps in memory.
    pub presence_maps: u64,
    /// Memory that they take.
    pub presence_memory_bytes: u64,
    /// Resolved leaves in memory.
    pub resolved_leaves: u64,
    /// Memory that they take.
    pub resolved_memory_bytes: u64,
    /// The last sequence number of the log.
    pub lsn: u64,
    /// Log since the last checkpoint.
    pub log_bytes: u64,
    /// Waiting in the write buffer.
    pub buffered_bytes: u64,
    /// Nodes of block maps in memory.
    pub map_nodes: u64,
    /// Of these, changed since the last checkpoint.
    pub dirty_map_nodes: u64,
    /// Memory that they take.
    pub map_memory_bytes: u64,
    /// Group commits since the start.
    pub commits: u64,
    /// Checkpoints since the start.
    pub checkpoints: u64,
    /// Time that these took.
    pub checkpoint_milliseconds: u64,
    /// Written to data segments since the start.
    pub log_written_bytes: u64,
    /// Written for block maps since the start.
    pub meta_written_bytes: u64,
    /// Moved by compaction since the start.
    pub relocated_bytes: u64,
    /// How checking what is stored is getting on.
    pub scrub: ScrubBrief,
    /// How the last opening went.
    pub recovery: Recovery,
}

/// How a store was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
