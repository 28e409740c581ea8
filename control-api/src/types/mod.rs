//! Requests and answers. Sizes, offsets and lengths are in bytes throughout.

mod error;
mod rules;
mod scrub;
mod snapshot;
mod store;
mod vdisk;

pub use error::{ApiError, ErrorKind};
pub use rules::{
    Class, Condition, ExplainRequest, ExplainedRule, Explanation, Rule, Rules, Treatment,
};
pub use scrub::{
    Finding, ScrubBrief, ScrubChanged, ScrubOutcome, ScrubPass, ScrubStatus, StartScrub,
};
pub use snapshot::{
    Changes, CloneSnapshot, CreateSnapshot, CreatedSnapshot, PresenceMap, RenameSnapshot,
    RevertVDisk, Reverted, Snapshot, SnapshotList, SnapshotUsage,
};
pub use store::{Health, Recovery, StoreStatus};
pub use vdisk::{
    Allocated, Attachment, BeginImport, ByteRange, CreateVDisk, Import, ResizeVDisk, Resized,
    VDisk, VDiskList, VDiskStats,
};
