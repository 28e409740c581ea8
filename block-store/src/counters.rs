//! Counters since the store was opened: relaxed atomics, each added to where the thing is done.

use crate::log::Written;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What an open store has done.
#[derive(Debug, Default)]
pub struct Counters {
    /// Group commits.
    pub commits: AtomicU64,
    /// Bytes written to data segments by draining.
    pub log_bytes: AtomicU64,
    /// Bytes written for maps, tables and catalogues.
    pub meta_bytes: AtomicU64,
    /// Checkpoints.
    pub checkpoints: AtomicU64,
    /// Milliseconds that these took.
    pub checkpoint_milliseconds: AtomicU64,
    /// Bytes of all write requests that have completed, as guests and imports have sent them.
    pub requested_bytes: AtomicU64,
    /// Bytes written by cause; the log's too.
    pub written: Arc<Written>,
    /// Bytes of blocks that spot defragmentation has put together: their entries were switched.
    pub coalesced_bytes: AtomicU64,
    /// What else spot defragmentation has done.
    pub coalescing: Coalescing,
    /// Segments that compaction has emptied.
    pub segments_compacted: AtomicU64,
    /// Segments in which nothing was left, and whose files were removed.
    pub segments_removed: AtomicU64,
}

/// What has become of reads that spot defragmentation has looked at: what was found scattered was gathered, put off or dropped.
#[derive(Debug, Default)]
pub struct Coalescing {
    /// Reads that had something to fetch from segments.
    pub looked_at: AtomicU64,
    /// Of these, found scattered.
    pub scattered: AtomicU64,
    /// Of these, gathered and handed over.
    pub gathered: AtomicU64,
    /// There was no room for their data, so that their range was remembered.
    pub put_off: AtomicU64,
    /// There was no room for that either, or nothing is to be put together.
    pub dropped: AtomicU64,
    /// Reads of remembered ranges, which count above as any read does.
    pub read_again: AtomicU64,
    /// Bytes of blocks that were stored anew in vain: they had changed meanwhile.
    pub skipped_bytes: AtomicU64,
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
