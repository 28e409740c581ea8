//! The types that Firn's processes speak over their control sockets, and a small client.
//!
//! HTTP/1.1 with JSON bodies over a Unix socket; bulk data travels as plain binary bodies of at most
//! [`DATA_MAX`] bytes. Every type is defined here once: the backend serves them, the command line and the
//! hooks ask for them, and the OpenAPI document is generated from them.
//!
//! # Versions
//! The API's version is the `/v1` in every path, [`types::Health::api`] and [`API_VERSION`]. Fields may be added to
//! answers within a version, so readers ignore what they do not know; requests refuse unknown fields, so that
//! a misspelt one is not silently without effect.

pub mod client;
pub mod limits;
pub mod types;

pub use client::{Client, ClientError, Orchestrator};
/// Bulk data, shared without copies.
pub use hyper::body::Bytes;
pub use limits::{LimitError, check_name, check_size, check_snapshot_name};
pub use types::{ApiError, ErrorKind};

/// Version of the API that this crate describes.
pub const API_VERSION: u32 = 1;

/// File name of the control socket inside the runtime directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// File name of the orchestrator's socket inside the runtime directory.
pub const ORCHESTRATOR_SOCKET: &str = "orchestrator.sock";

/// The runtime directory where nothing else is said.
pub const DEFAULT_RUN: &str = "/run/firn";

/// Bytes that one data request or answer carries at most.
pub const DATA_MAX: u64 = 4 << 20;

/// Path of the control socket in the runtime directory `run`.
pub fn control_socket(run: &std::path::Path) -> std::path::PathBuf {
    run.join(CONTROL_SOCKET)
}
