//! Memory that somebody else owns: the guest's, the in-flight region, the dirty log.
//!
//! All of it may change under our hands and all of it is described by a peer that may lie. So a [`Mapping`] is
//! made only after its file was found long enough, every access is bounds-checked, and values are moved by
//! volatile or atomic accesses of `vm-memory`; no reference to the bytes is ever formed. The one thing `vm-memory` doesn't
//! do is to survive a file that is shortened later: [`fault`] does, and has this crate's only unsafe code.
//!
//! | type | is |
//! |---|---|
//! | [`Mapping`] | one shared file mapping of a peer's file |
//! | [`GuestMemory`] | an immutable snapshot of all regions of one guest; a change makes a new one |
//! | [`Place`] | a checked range inside one region of one snapshot |
//! | [`GuestPayload`] | the data part of a request: pieces of guest memory, as the store sees them |
//! | [`DirtyLog`] | the bitmap of pages written, for migration |

mod dirty;
pub mod fault;
mod guest;
mod mapping;
mod payload;

pub use dirty::{DirtyLog, View};
pub use guest::{GuestMemory, Place, RegionSpec};
pub use mapping::{MapError, Mapping};
pub use payload::{GuestPayload, Segment, SegmentPool, cut};
