//! Firn's block store: vDisks on a log of compressed, checksummed extents.
//!
//! The folders are the data path: [`write`] and [`read`] stand on [`map`] (where a block is), [`mod@log`] (what is
//! being appended) and [`alloc`] (segments), these on [`format`] (bytes <-> structs) and [`io`] (the operating system, or a
//! simulation of it). [`checkpoint`], [`recover`], [`defrag`] and [`check`] compose the same parts; [`store`] is what users see.
//! `docs/architecture.md` draws it.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod alloc;
pub mod bell;
pub mod check;
pub mod checkpoint;
pub mod compress;
pub mod core;
pub mod counters;
pub mod defrag;
pub mod error;
pub mod format;
mod host;
pub mod io;
pub mod log;
pub mod map;
mod payload;
pub mod read;
pub mod recover;
pub mod snapshot;
pub mod state;
pub mod store;
pub mod write;

pub use compress::Rules;
pub use error::{RequestError, StoreError};
pub use format::Keep;
pub use host::{Host, RealHost};
pub use payload::{Payload, PayloadError};
pub use store::{
    Allocated, BlockClient, Changed, Command, Created, Cut, Deleted, Done, Fate, InitOptions, Lane,
    MAX_SNAPSHOTS, OnFull, OpenConfig, Pruned, ScheduleInfo, ScheduleSpec, ScheduledCuts,
    ScrubBrief, ScrubOptions, ScrubPass, ScrubStatus, SnapshotInfo, Store, StoreStats, StoreStatus,
    Tended, VDisk, VDiskSpec, VDiskStats,
};
