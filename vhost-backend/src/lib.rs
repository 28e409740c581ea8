//! `firn-vhost-backend`: the vDisks of a Firn store, served as vhost-user-blk devices.
//!
//! The way of a request, and the module that has it at each step:
//!
//! ```text
//!  guest ── kick ──> workers ── head ──> virtq::chain ── spans ──> blk::request ── command ──> engine (the store)
//!    ^                                                                                             │
//!    └── call ── virtq::ring <── inflight (what is in flight, over our death) <── blk::token <──────┘
//! ```
//!
//! | module | is |
//! |---|---|
//! | [`session`] | one front end's connection: vhost-user's messages |
//! | [`exports`] | sockets and who is connected to them |
//! | [`workers`] | threads, queues, requests |
//! | [`virtq`] | split virtqueues |
//! | [`inflight`] | the in-flight region, and why a restart is exact |
//! | [`blk`] | virtio-blk |
//! | [`memory`] | guest memory and other shared memory |
//! | [`engine`] | the store, as the data path sees it; [`store_engine`] is the real one |
//! | [`settings`], [`daemon`] | the command line, and the process from start to end |
//! | [`control`] | the control API |
//! | `systemd` | what it is told, and what it keeps for us |
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

pub mod blk;
pub mod control;
pub mod daemon;
pub mod engine;
pub mod exports;
pub mod inflight;
pub mod memory;
pub mod session;
pub mod settings;
pub mod store_engine;
mod systemd;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
#[allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "for tests"
)]
pub mod testing;
pub mod virtq;
pub mod workers;
