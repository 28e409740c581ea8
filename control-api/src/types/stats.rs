//! How the store's data lies, and what keeping it costs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Space by temperature, and what was done since the backend started. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreStats {
    /// Length of a segment's file.
    pub segment_bytes: u64,
    /// Segments by what they were opened for: one row for each temperature, spare ones included.
    pub space: Vec<SpaceOf>,
    /// What was written to the store's files, by cause.
    pub writes: WriteStats,
    /// Spot defragmentation.
    pub coalescing: CoalescingStats,
    /// Compaction.
    pub compaction: CompactionStats,
}

/// What a segment was opened for: data of unlike lifetime goes to segments of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Temperature {
    /// Small writes.
    Fresh,
    /// Large writes: 64 KiB and more.
    Streaming,
    /// What compaction and spot defragmentation have moved.
    Cold,
    /// Data of which this is not known: opened since the last checkpoint before a crash, or by an older backend.
    Unknown,
    /// Block maps, segment tables, catalogues.
    Metadata,
    /// Ready for use, and empty.
    Spare,
}

/// The segments of one temperature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpaceOf {
    /// The temperature.
    pub temperature: Temperature,
    /// How many there are.
    pub segments: u64,
    /// Bytes of their files, at full length.
    pub file_bytes: u64,
    /// Bytes appended to them, headers included.
    pub used_bytes: u64,
    /// Of these alive, reckoned by the share of the blocks ever appended that a block map names still.
    pub live_bytes: u64,
    /// How many have which share of their blocks alive: nothing, up to 10 %, up to 20 %, and so on up to 100 %: 11 counts. Spare ones are
    /// not among them.
    pub by_live_share: Vec<u64>,
}

/// Bytes written to the store's files since the backend started, by cause; what opening the store has written is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WriteStats {
    /// What guests and imports have written, as they have sent it. Zeroes and discards without data are not in it.
    pub requested_bytes: u64,
    /// What was stored of that: extents, compressed, with their headers.
    pub guest_bytes: u64,
    /// Records of the log that hold no data: ranges of zeroes, commits, cuts.
    pub log_bytes: u64,
    /// Extents that compaction has moved.
    pub compaction_bytes: u64,
    /// Extents that spot defragmentation has put together.
    pub coalescing_bytes: u64,
    /// Cold extents that compaction has packed harder.
    pub packing_bytes: u64,
    /// Copies for clones that become independent.
    pub cloning_bytes: u64,
    /// Block maps, segment tables, catalogues.
    pub checkpoint_bytes: u64,
    /// Skipped up to the next page, by commits and checkpoints.
    pub padding_bytes: u64,
    /// Headers of new segments.
    pub header_bytes: u64,
    /// Zeroes in segments whose space was written ahead, for frequent flushes.
    pub ahead_bytes: u64,
    /// Superblocks.
    pub superblock_bytes: u64,
    /// The sum of the causes.
    pub total_bytes: u64,
    /// Of this sum, still in the write buffer: the rest is what the files were given.
    pub waiting_bytes: u64,
}

/// What has become of reads since the backend started. Of those that were found scattered each was gathered, put off or dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoalescingStats {
    /// Reads that had something to fetch from segments, the store's own included.
    pub looked_at: u64,
    /// Of these, found scattered.
    pub scattered: u64,
    /// Of these, gathered: their data was handed over to be put together.
    pub gathered: u64,
    /// Put off: there was no room for their data, and their range was remembered.
    pub put_off: u64,
    /// Dropped: there was no room for the range either, it was a snapshot's, or nothing is put together at all.
    pub dropped: u64,
    /// Ranges that were put off and then read again, by the store itself. These reads count above, and in no vDisk's counters.
    pub read_again: u64,
    /// Blocks that were put together, in bytes before compression.
    pub switched_bytes: u64,
    /// Blocks that were stored anew in vain, since they had changed meanwhile.
    pub skipped_bytes: u64,
}

/// What compaction has done since the backend started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CompactionStats {
    /// Segments that it has emptied.
    pub segments: u64,
    /// Bytes of extents that it has moved out of them.
    pub moved_bytes: u64,
    /// Segments in which nothing was alive, by whatever cause, and whose files were removed.
    pub removed_segments: u64,
}

/// Whose a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayerKind {
    /// The live one of a vDisk.
    Live,
    /// A snapshot's.
    Snapshot,
    /// That of an import under way.
    Import,
    /// Nothing names it: a deleted snapshot's, which is being merged or waits for what lies over it.
    Unnamed,
}

/// A layer: the changes of a vDisk between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Layer {
    /// Its number, never given out again.
    pub id: u32,
    /// Its identity.
    pub uuid: Uuid,
    /// The number of the layer below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// Whose it is.
    pub kind: LayerKind,
    /// The vDisk, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vdisk: Option<String>,
    /// The snapshot, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// All layers, by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LayerList {
    /// The layers.
    pub layers: Vec<Layer>,
}

/// How fragmented a vDisk is: a part of it. The counts of all parts add up; the fragmentation index is `reads` divided by `side_by_side`
/// of the sums, 1.0 where there is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fragmentation {
    /// Spans of 1 MiB that have data in segments.
    pub spans: u64,
    /// Blocks of 4 KiB that these have.
    pub blocks: u64,
    /// Bytes of the extents that these blocks are in.
    pub stored_bytes: u64,
    /// Reads of the disk that it takes to read the spans, each at once.
    pub reads: u64,
    /// Reads that it would take if what belongs to a span lay side by side.
    pub side_by_side: u64,
    /// Ask on from here: the answer was cut to a bounded part of the address space. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

impl Fragmentation {
    /// Adds the counts of another part.
    pub fn add(&mut self, part: &Fragmentation) {
        for (to, more) in [
            (&mut self.spans, part.spans),
            (&mut self.blocks, part.blocks),
            (&mut self.stored_bytes, part.stored_bytes),
            (&mut self.reads, part.reads),
            (&mut self.side_by_side, part.side_by_side),
        ] {
            *to = to.saturating_add(more);
        }
    }

    /// The fragmentation index: 1.0 for what lies as if written in order, N for N times the reads.
    pub fn index(&self) -> f64 {
        match self.side_by_side {
            0 => 1.0,
            least => self.reads as f64 / least as f64,
        }
    }
}
