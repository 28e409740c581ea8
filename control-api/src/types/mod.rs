//! Requests and answers. Sizes, offsets and lengths are in bytes throughout.

mod error;
mod rules;
mod store;
mod vdisk;

pub use error::{ApiError, ErrorKind};
pub use rules::{
    Class, Condition, ExplainRequest, ExplainedRule, Explanation, Rule, Rules, Treatment,
};
pub use store::{Health, Recovery, StoreStatus};
pub use vdisk::{
    Allocated, Attachment, BeginImport, ByteRange, CreateVDisk, Import, ResizeVDisk, Resized,
    VDisk, VDiskList, VDiskStats,
};
