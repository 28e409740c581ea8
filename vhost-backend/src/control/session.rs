//! What one connection holds: the imports that were begun on it, and the snapshots that it reads.
//!
//! # Consistency
//! A snapshot that was read on a connection stays readable on it until it ends, whatever becomes of its name: an export is
//! many requests. Where the name has come to mean another snapshot, further reads are refused, so that nobody gets a mixture.
//!
//! # Crash
//! An import lives exactly as long as its connection. Whatever ends the connection (commit aside) drops it,
//! and dropping it discards what it wrote: a client that is killed leaves nothing, and nothing can go stale.

use super::target::{ImportTarget, SnapshotReader};
use control_api::{ApiError, ErrorKind};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Imports that one connection may hold at once.
const IMPORTS_MAX: usize = 16;

/// Snapshots that one connection may read: each keeps its layer from being merged.
const READERS_MAX: usize = 64;

/// An import, shared with the blocking task that writes to it.
pub(super) type SharedImport = Arc<Mutex<Box<dyn ImportTarget>>>;

/// State of one connection, shared with the requests on it.
#[derive(Default)]
pub(super) struct Session {
    imports: Mutex<BTreeMap<String, SharedImport>>,
    /// By vDisk and name.
    readers: Mutex<BTreeMap<(String, String), Arc<dyn SnapshotReader>>>,
}

impl Session {
    /// Whether another import may begin.
    pub(super) fn has_room(&self) -> Result<(), ApiError> {
        match self.imports.lock().len() < IMPORTS_MAX {
            true => Ok(()),
            false => Err(ApiError::new(
                ErrorKind::Busy,
                format!("this connection holds {IMPORTS_MAX} imports already"),
            )
            .hint("commit or abort one of them, or use another connection")),
        }
    }

    /// Takes an import in.
    pub(super) fn insert(&self, name: String, import: Box<dyn ImportTarget>) {
        self.imports
            .lock()
            .insert(name, Arc::new(Mutex::new(import)));
    }

    /// The import called `name`.
    pub(super) fn get(&self, name: &str) -> Result<SharedImport, ApiError> {
        self.imports
            .lock()
            .get(name)
            .cloned()
            .ok_or_else(|| missing(name))
    }

    /// Takes the import called `name` out: it ends now.
    pub(super) fn remove(&self, name: &str) -> Result<SharedImport, ApiError> {
        self.imports
            .lock()
            .remove(name)
            .ok_or_else(|| missing(name))
    }

    /// The snapshot to read from: the one that this connection has begun to read, or else the one that was `opened` just now.
    pub(super) fn reader(
        &self,
        vdisk: &str,
        name: &str,
        opened: Result<Arc<dyn SnapshotReader>, ApiError>,
    ) -> Result<Arc<dyn SnapshotReader>, ApiError> {
        let mut readers = self.readers.lock();
        let key = (vdisk.to_owned(), name.to_owned());
        match (readers.get(&key), opened) {
            (Some(begun), Ok(now)) if begun.uuid() != now.uuid() => Err(ApiError::new(
                ErrorKind::Busy,
                format!(
                    "snapshot {name:?} of vDisk {vdisk:?} is not the one that this connection has begun to read"
                ),
            )
            .hint("read the new one on a new connection")),
            (Some(begun), _) => Ok(Arc::clone(begun)),
            (None, Ok(_)) if readers.len() >= READERS_MAX => Err(ApiError::new(
                ErrorKind::Busy,
                format!("this connection reads {READERS_MAX} snapshots already"),
            )
            .hint("read others on another connection")),
            (None, opened) => {
                let reader = opened?;
                readers.insert(key, Arc::clone(&reader));
                Ok(reader)
            }
        }
    }
}

fn missing(name: &str) -> ApiError {
    ApiError::new(
        ErrorKind::NotFound,
        format!("no import of {name:?} was begun on this connection"),
    )
    .hint("begin one with POST /v1/imports; it ends with the connection it was begun on")
}

impl Drop for Session {
    fn drop(&mut self) {
        let imports = std::mem::take(self.imports.get_mut());
        if imports.is_empty() {
            return;
        }
        log::info!(
            "control API: a connection ended with {} unfinished import(s): discarding",
            imports.len()
        );
        // Discarding waits for the store: not in the thread that serves the other connections.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(imports))),
            Err(_) => drop(imports),
        }
    }
}
