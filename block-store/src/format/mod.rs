//! Bytes <-> structs, and nothing else: no I/O, no locks, no clock.
//!
//! The normative text is `docs/disk-format.md`; the code holds offsets and names its section. Every decoder
//! takes hostile bytes: it checks lengths, ranges and checksums, and answers with a [`FormatError`].

mod alias;
mod bytes;
mod catalogue;
mod commit;
mod cut;
mod entry;
mod node;
mod record;
mod schedule;
mod segment;
mod superblock;
mod table;
mod write_buffer;

pub use alias::{Alias, Aliases};
pub use catalogue::{Catalogue, Dropped, LayerRow, SnapshotRow, UseRow, VDiskRow};
pub use commit::{CommitRecord, Prefix};
pub use cut::{CutRecord, CutRow, MAX_CUT_ROWS};
pub use entry::{Entry, Location};
pub use node::{NODE_SLOTS, pack_node, unpack_node};
pub use record::{RECORD_HEADER, RecordFlags, RecordHeader, RecordKind, Seed, units};
pub use schedule::{Keep, MAX_EVERY, MIN_EVERY, ScheduleRow};
pub use segment::{SEGMENT_DATA_START, SegmentHeader, segment_file_name, segment_id_of};
pub use superblock::{BufferName, Chain, SUPERBLOCK_SIZE, Superblock, newest};
pub use table::{SegmentRow, Temperature, decode_table, encode_table};
pub use write_buffer::{
    BUFFER_HEADER, BUFFER_LAYOUT_VERSION, BufferHeader, FAILURE_NOTE, SLOT_ROW, SlotRow,
    has_failed, note_failure,
};

/// A block of a vDisk's address space, in bytes: the unit of the block map.
pub const BLOCK: usize = 4096;
/// The page that a flush makes durable as a whole, in bytes: headers and padding keep to it.
pub const PAGE: usize = 4096;
/// Smallest unit of stored length and offset, in bytes.
pub const UNIT: usize = 64;
/// Blocks in one extent, at most.
pub const MAX_EXTENT_BLOCKS: usize = 32;
/// Stored bytes of one extent, header included, at most.
pub const MAX_STORED: usize = RECORD_HEADER + MAX_EXTENT_BLOCKS * BLOCK;
/// Blocks of the largest vDisk: 64 TiB.
pub const MAX_BLOCKS: u64 = 1 << 34;
/// LSNs and generations are below this: whoever counts on never overflows.
pub const MAX_NUMBER: u64 = 1 << 62;
/// Largest segment file in bytes: what a map entry's offset can name.
pub const MAX_SEGMENT: u32 = 64 << 20;
/// Version of the on-disk format that this code writes.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
#[non_exhaustive]
pub struct FormatError {
    /// The structure that was being decoded.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl FormatError {
    pub(crate) fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self {
            what,
            why: why.into(),
        }
    }
}
