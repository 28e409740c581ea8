//! Snapshots: what they are, how they are taken, kept and gone back to.

use super::{ByteRange, VDisk};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a vDisk was at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// The vDisk that it was taken of.
    pub vdisk: String,
    /// Its name, unique among the snapshots of its vDisk.
    pub name: String,
    /// Its identity, kept when it is renamed.
    pub uuid: Uuid,
    /// The vDisk's size in bytes at that instant.
    pub size: u64,
    /// The instant in the log: equal for all vDisks of a consistency group.
    pub lsn: u64,
    /// When it was taken, in seconds since 1970.
    pub created: u64,
    /// Who needs it: it can't be deleted before all of them have released it.
    pub holds: Vec<String>,
    /// What lies over it, where there are several branches: its clones, or, without any, the vDisk's own snapshots (`vdisk@name`)
    /// that do so beside the live branch, since it was reverted.
    pub clones: Vec<String>,
    /// The schedule that took it, if one did: while that is there, its rules decide when it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
}

/// Snapshots, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotList {
    /// The snapshots.
    pub snapshots: Vec<Snapshot>,
}

/// Takes a snapshot of one vDisk, or of several at the same instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// 1 to 64 characters of `[A-Za-z0-9._-]`, the first neither dot nor dash; not yet a snapshot's of any of the vDisks.
    pub name: String,
    /// The vDisks, 1 to 4096, each once: a consistency group.
    pub vdisks: Vec<String>,
    /// Who needs it, from its first moment on; a name as a snapshot's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
}

/// A snapshot that was taken, and is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedSnapshot {
    /// Its name.
    pub name: String,
    /// The vDisks that have it now.
    pub vdisks: Vec<String>,
    /// The instant in the log: the same for all of them.
    pub lsn: u64,
    /// For how long guests' requests were held up, in microseconds.
    pub stall_microseconds: u64,
    /// How long it took until everything up to the instant, and the snapshot itself, was durable, in microseconds. Guests went on
    /// meanwhile.
    pub durable_microseconds: u64,
}

/// Gives a snapshot another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameSnapshot {
    /// The new name.
    pub name: String,
}

/// Deletes some of a vDisk's snapshots, all at once or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteSnapshots {
    /// Their names.
    pub names: Vec<String>,
    /// Delete also what clones lie over: the names go now, the space when one branch is left.
    #[serde(default)]
    pub defer: bool,
}

/// Snapshots that were deleted. Their space comes back in the background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletedSnapshots {
    /// Their names.
    pub deleted: Vec<String>,
    /// Of these, those whose space comes back only when one of the branches over them is left.
    pub deferred: Vec<String>,
}

/// Makes a new vDisk that begins as the snapshot, and shares its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneSnapshot {
    /// The new vDisk's name.
    pub name: String,
}

/// Makes a vDisk what it was at a snapshot, size and all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevertVDisk {
    /// The snapshot to go back to.
    pub snapshot: String,
    /// Keep what the vDisk is now as a snapshot of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
    /// Must be true where nothing is kept: what was written since the last snapshot is lost.
    #[serde(default)]
    pub discard: bool,
}

/// A vDisk after it was reverted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reverted {
    /// The vDisk as it is now.
    pub vdisk: VDisk,
    /// What it went back to.
    pub snapshot: Snapshot,
    /// Its size before.
    pub old_size: u64,
    /// The snapshot that keeps what it was before, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// What has changed between two states of a vDisk: a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    /// Written, zeroed or discarded in between, in whole blocks of 4 KiB: ascending, apart from one another, within what was asked.
    pub ranges: Vec<ByteRange>,
    /// Ask on from here: the answer was cut to a bounded number of ranges or length. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// What a snapshot costs: a part of it. The counts of all parts add up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotUsage {
    /// Blocks of 4 KiB that its own layer has data for: written since the snapshot before, and not written again until it was taken.
    pub data_blocks: u64,
    /// Blocks that its layer has as zeroes.
    pub zero_blocks: u64,
    /// Bytes that the data takes in segments. What overwritten blocks of an extent take counts with those that are left of it.
    pub stored_bytes: u64,
    /// Blocks of data that deleting the snapshot would give back: nobody else reads them.
    pub exclusive_blocks: u64,
    /// Their share of `stored_bytes`.
    pub exclusive_bytes: u64,
    /// The presence map of its layer, if there is one now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_map: Option<PresenceMap>,
    /// Ask on from here: the answer was cut to a bounded part of the block map. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

impl SnapshotUsage {
    /// Adds the counts of another part; of presence maps the later one counts.
    pub fn add(&mut self, part: &SnapshotUsage) {
        for (to, more) in [
            (&mut self.data_blocks, part.data_blocks),
            (&mut self.zero_blocks, part.zero_blocks),
            (&mut self.stored_bytes, part.stored_bytes),
            (&mut self.exclusive_blocks, part.exclusive_blocks),
            (&mut self.exclusive_bytes, part.exclusive_bytes),
        ] {
            *to = to.saturating_add(more);
        }
        self.presence_map = part.presence_map;
    }
}

/// A presence map, in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresenceMap {
    /// Blocks that its layer has data or zeroes for.
    pub blocks: u64,
    /// Bytes of memory that it takes.
    pub bytes: u64,
}
