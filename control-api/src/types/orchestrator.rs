//! What `firn-orchestrator` says and does: domains and their vDisks. It is served on `RUN/orchestrator.sock`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// How the orchestrator, and what it stands on, is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrchestratorStatus {
    /// Version of its program.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// libvirt.
    pub libvirt: Link,
    /// The backend.
    pub backend: Link,
    /// All domains that have vDisks of the backend's, by name.
    pub domains: Vec<DomainStatus>,
    /// What is under way, or waits for something, oldest first.
    pub tasks: Vec<TaskStatus>,
}

/// A connection to somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// Where.
    pub place: String,
    /// Whether it answers.
    pub up: bool,
    /// Since when it does, or does not, in seconds since 1970.
    pub since: u64,
    /// What it said when it last did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A domain that has vDisks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainStatus {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// What it does: `running`, `paused`, `paused for a snapshot` or `off`.
    pub state: String,
    /// Its disks that are vDisks.
    pub disks: Vec<DomainDisk>,
    /// Its snapshots that have its memory too, oldest first.
    pub checkpoints: Vec<String>,
    /// What is wrong with it, where something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A disk of a domain that is a vDisk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainDisk {
    /// The guest's name for it.
    pub target: String,
    /// The vDisk.
    pub vdisk: String,
}

/// Something that takes several steps, and survives the orchestrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskStatus {
    /// What it is, in words.
    pub what: String,
    /// The domain.
    pub domain: String,
    /// When it was begun, in seconds since 1970.
    pub begun: u64,
    /// Why it can't go on at the moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// Takes a snapshot of all vDisks of a domain at one instant, running or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotDomain {
    /// As a snapshot's name; not yet one of any of the vDisks.
    pub name: String,
    /// Have the guest's agent freeze its filesystems for the instant: they need no repair then.
    #[serde(default)]
    pub quiesce: bool,
}

/// A snapshot that was taken of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainSnapshotTaken {
    /// The domain.
    pub domain: String,
    /// The snapshot.
    pub name: String,
    /// The vDisks that have it.
    pub vdisks: Vec<String>,
    /// How many filesystems were frozen for it; 0 where none were to be.
    pub frozen: u32,
    /// For how long they were, in microseconds.
    pub frozen_microseconds: u64,
}

/// Makes a domain what it was at a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevertDomain {
    /// The snapshot to go back to, which all of its vDisks must have.
    pub snapshot: String,
    /// With its memory, as `virsh snapshot-create-as --memspec` has saved it: it goes on where it was. Without this it is started anew, if it
    /// runs now.
    #[serde(default)]
    pub memory: bool,
    /// Keep what the vDisks are now as a snapshot of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
    /// Must be true where nothing is kept: what was written since the last snapshot is lost.
    #[serde(default)]
    pub discard: bool,
}

/// A domain that was reverted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainReverted {
    /// The domain.
    pub domain: String,
    /// What it went back to.
    pub snapshot: String,
    /// The vDisks.
    pub vdisks: Vec<String>,
    /// Whether its memory was restored.
    pub memory: bool,
    /// Whether it runs now.
    pub runs: bool,
}

/// Makes a new domain of another one's snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloneDomain {
    /// The snapshot, which all of its vDisks must have.
    pub snapshot: String,
    /// The new domain's name. Its vDisks are called so too, with the guest's name for the disk where there are several.
    pub name: String,
    /// Start it.
    #[serde(default)]
    pub start: bool,
}

/// A new domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainCloned {
    /// Its name.
    pub domain: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its vDisks.
    pub vdisks: Vec<String>,
    /// Whether it was started.
    pub started: bool,
}

/// Attaches a vDisk to a domain, where it runs and at its next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachDisk {
    /// The vDisk.
    pub vdisk: String,
    /// The guest's name for it: `vd` and letters. Without it, the first that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Number of queues. Without it, one for each virtual processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// Boot from it first.
    #[serde(default)]
    pub boot: bool,
}

/// A vDisk that was attached to, or detached from, a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskChanged {
    /// The domain.
    pub domain: String,
    /// The vDisk.
    pub vdisk: String,
    /// The guest's name for it.
    pub target: String,
    /// Whether the running domain has changed.
    pub live: bool,
    /// Whether it is so at its next start.
    pub persistent: bool,
    /// What a person has to know or do, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
