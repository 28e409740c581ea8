//! Checking what is stored while it is served.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Begins to check everything that is stored, or goes on with what was begun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartScrub {
    /// Bytes a second that are read at most; 0: as many as guests leave. Left out: what the backend was started with.
    #[serde(default)]
    pub rate: Option<u64>,
    /// Decompress every extent too, and don't only verify its checksums.
    #[serde(default)]
    pub decode: bool,
    /// From the beginning, also if there is a pass that could go on.
    #[serde(default)]
    pub again: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScrubOutcome {
    /// A pass has begun.
    Started,
    /// One that was stopped goes on.
    Continued,
    /// One was running already, and goes on with these options.
    Running,
    /// It was stopped, and can go on.
    Stopped,
    /// None was running.
    NotRunning,
}

/// What became of a request, and how it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubChanged {
    /// What became of it.
    pub outcome: ScrubOutcome,
    /// How it is now.
    pub scrub: ScrubStatus,
}

/// How checking is getting on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubStatus {
    /// The pass that runs, or was stopped half-way.
    pub pass: Option<ScrubPass>,
    /// The last one that came to its end.
    pub last: Option<ScrubPass>,
    /// So many seconds after the beginning of the last one the next begins by itself.
    pub every_seconds: Option<u64>,
}

/// One pass over the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubPass {
    /// It goes on at this moment.
    pub running: bool,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// When it came to its end.
    pub ended: Option<u64>,
    /// When somebody stopped it.
    pub stopped: Option<u64>,
    /// Bytes a second that it reads at most; 0: as many as guests leave.
    pub rate: u64,
    /// Extents are decompressed too.
    pub decode: bool,
    /// What it looks at: `roots` (superblocks, segment table, catalogue), `segments` (their files), `data` (maps and extents).
    pub stage: String,
    /// About how many bytes there are to verify.
    pub total_bytes: u64,
    /// How many have been.
    pub verified_bytes: u64,
    /// About how long it will still take, where that can be told.
    pub seconds_left: Option<u64>,
    /// Segments' files looked at.
    pub segments: u64,
    /// Nodes of block maps verified.
    pub nodes: u64,
    /// Extents verified.
    pub extents: u64,
    /// Blocks that the maps hold in them.
    pub blocks: u64,
    /// Findings that are damage.
    pub damage: u64,
    /// Findings that are notes.
    pub notes: u64,
    /// The first 256 findings.
    pub findings: Vec<Finding>,
}

/// The same in brief.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScrubBrief {
    /// A pass goes on.
    pub running: bool,
    /// One was stopped half-way.
    pub stopped: bool,
    /// About how many bytes that one has to verify.
    pub total_bytes: u64,
    /// How many it has.
    pub verified_bytes: u64,
    /// Damage that it has found so far.
    pub damage: u64,
    /// When the last one came to its end, in seconds since 1970.
    pub last_ended: Option<u64>,
    /// Damage that the last one has found.
    pub last_damage: u64,
}

/// One thing that was found, as `firn store check` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// What kind of thing: `superblock`, `table`, `catalogue`, `segment-header`, `segment`, `node`, `extent`.
    pub kind: String,
    /// Whether it counts as damage; a note else.
    pub damage: bool,
    /// Segment number.
    pub segment: Option<u32>,
    /// Offset in the segment, or in the superblock's file, in bytes.
    pub offset: Option<u64>,
    /// The vDisk whose data it concerns.
    pub vdisk: Option<String>,
    /// The snapshot, where it is one's own data.
    pub snapshot: Option<String>,
    /// Number of the layer.
    pub layer: Option<u32>,
    /// First block (4 KiB) of the vDisk that is affected.
    pub first_block: Option<u64>,
    /// Number of blocks.
    pub blocks: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What can be done about it.
    pub way_out: String,
}
