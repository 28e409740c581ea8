//! Requests and answers. Sizes, offsets and lengths are in bytes throughout.

mod error;
mod orchestrator;
mod retention;
mod rules;
mod schedule;
mod scrub;
mod snapshot;
mod stats;
mod store;
mod vdisk;

pub use error::{ApiError, ErrorKind};
pub use orchestrator::{
    AttachDisk, CloneDomain, DiskChanged, DomainCloned, DomainDisk, DomainReverted,
    DomainSnapshotTaken, DomainStatus, Link, OrchestratorStatus, RevertDomain, SnapshotDomain,
    TaskStatus,
};
pub use retention::{Keep, KeptBy, PruneSnapshots, Pruned, SnapshotFate};
pub use rules::{
    Class, Coalesce, CoalesceRule, Condition, ExplainRequest, ExplainedRule, Explanation, Rule,
    Rules, Touched, Touching, Treatment,
};
pub use schedule::{CreateSchedule, Schedule, ScheduleList};
pub use scrub::{
    Finding, ScrubBrief, ScrubChanged, ScrubOutcome, ScrubPass, ScrubStatus, StartScrub,
};
pub use snapshot::{
    Changes, CloneSnapshot, CreateSnapshot, CreatedSnapshot, DeleteSnapshots, DeletedSnapshots,
    PresenceMap, RenameSnapshot, RevertVDisk, Reverted, Snapshot, SnapshotList, SnapshotUsage,
};
pub use stats::{
    CoalescingStats, CompactionStats, Fragmentation, Layer, LayerKind, LayerList, SpaceOf,
    StoreStats, Temperature, WriteStats,
};
pub use store::{Health, Recovery, StoreStatus};
pub use vdisk::{
    Allocated, Attachment, BeginImport, ByteRange, CreateVDisk, DomainState, DomainUse, Flattening,
    Import, RecordDomain, ResizeVDisk, Resized, VDisk, VDiskList, VDiskStats,
};
