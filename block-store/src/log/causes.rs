//! What bytes are written for: whatever goes to the store's files is counted under one cause, so that the causes add up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Extents of guests' and imports' writes, as they are stored: compressed, header included.
    Guest = 0,
    /// Records of the log that hold no data: ranges of zeroes, commits, cuts.
    Log = 1,
    /// Extents that compaction moves.
    Compaction = 2,
    /// Extents that spot defragmentation puts together.
    Coalescing = 3,
    /// Block maps, segment tables and catalogues.
    Checkpoint = 4,
    /// What is skipped up to the next page.
    Padding = 5,
    /// Headers of new segments.
    Header = 6,
    /// Zeroes in segments whose space is written before it is used.
    Ahead = 7,
    /// Superblocks.
    Superblock = 8,
    /// Cold extents that compaction packs harder.
    Packing = 9,
    /// Copies for clones that become independent.
    Cloning = 10,
}

/// All causes.
pub const CAUSES: [Cause; 11] = [
    Cause::Guest,
    Cause::Log,
    Cause::Compaction,
    Cause::Coalescing,
    Cause::Checkpoint,
    Cause::Padding,
    Cause::Header,
    Cause::Ahead,
    Cause::Superblock,
    Cause::Packing,
    Cause::Cloning,
];

/// Bytes by cause since the store was opened. What goes through the log counts when it is appended: [`super::Log::waiting`] tells what
/// of it has not been written yet.
#[derive(Debug, Default)]
pub struct Written([AtomicU64; CAUSES.len()]);

impl Written {
    /// So many bytes more.
    pub fn add(&self, cause: Cause, bytes: u64) {
        if let Some(count) = self.0.get(cause as usize) {
            count.fetch_add(bytes, Relaxed);
        }
    }

    /// Those of one cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.0.get(cause as usize).map_or(0, |n| n.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_count() {
        let written = Written::default();
        for (n, cause) in (1..).zip(CAUSES) {
            assert_eq!(cause as u64, n - 1, "the list is in order");
            written.add(cause, n);
            written.add(cause, 100);
        }
        for (n, cause) in (1..).zip(CAUSES) {
            assert_eq!(written.of(cause), n + 100);
        }
    }
}
