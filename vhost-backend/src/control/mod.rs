//! The control API: HTTP+JSON on `RUN/control.sock`, for the command line, the hooks and other tools.
//!
//! It runs in a thread of its own with a single-threaded runtime and never on the data path: what touches
//! the store goes through blocking tasks, and only root and the backend's own user get an answer.
//!
//! ```text
//!  server    socket, lock, thread; who may come in           peer     credentials of a connection
//!  routes    path -> handler, OpenAPI                        session  what one connection holds (imports, what it reads)
//!  handlers  HTTP <-> control_api types                      extract  bodies and queries, errors as ApiError
//!  target    what handlers ask of the store: traits          store_target  the store behind these traits, with
//!  sockets   the vDisks' sockets, likewise                     store_snapshots, store_stats, import (hidden vDisks), explain (errors)
//! ```

mod explain;
mod extract;
mod handlers;
mod import;
mod peer;
mod routes;
mod server;
mod session;
mod sockets;
mod store_snapshots;
mod store_stats;
mod store_target;
mod target;

#[cfg(test)]
mod tests;

pub use routes::{for_connection, openapi, router};
pub use server::{ControlServer, RunDir, StartError};
pub use sockets::{ExportedSockets, Sockets};
pub use store_target::StoreTarget;
pub use target::{
    Comparison, ControlTarget, ImportTarget, SnapshotReader, SnapshotTarget, StatsTarget,
};
