//! What one connection holds: the imports that were begun on it.
//!
//! # Crash
//! An import lives exactly as long as its connection. Whatever ends the connection (commit aside) drops it,
//! and dropping it discards what it wrote: a client that is killed leaves nothing, and nothing can go stale.

use super::target::ImportTarget;
use control_api::{ApiError, ErrorKind};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Imports that one connection may hold at once.
const IMPORTS_MAX: usize = 16;

/// An import, shared with the blocking task that writes to it.
pub(super) type SharedImport = Arc<Mutex<Box<dyn ImportTarget>>>;

/// State of one connection, shared with the requests on it.
#[derive(Default)]
pub(super) struct Session {
    imports: Mutex<BTreeMap<String, SharedImport>>,
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
