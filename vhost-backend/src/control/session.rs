//! What one connection holds: the imports that were begun on it, and the snapshots that it reads.
//!
//! # Consistency
//! A snapshot that was read on a connection stays readable on it until it ends, whatever becomes of its name: an export is
//! many requests, and so is a comparison of two. Where the name has come to mean another snapshot, further reads are refused, so that nobody gets a mixture.
//!
//! # Crash
//! An import lives exactly as long as its connection. Whatever ends the connection (commit aside) drops it,
//! and dropping it discards what it wrote: a client that is killed leaves nothing, and nothing can go stale.

use super::target::{Comparison, ImportTarget, SnapshotReader};
use control_api::{ApiError, ErrorKind};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Imports that one connection may hold at once.
const IMPORTS_MAX: usize = 16;

/// Snapshots that one connection may read: each keeps its layer from being merged.
const READERS_MAX: usize = 64;

/// Comparisons that one connection may have begun: likewise.
const COMPARISONS_MAX: usize = 32;

/// An import, shared with the blocking task that writes to it.
pub(super) type SharedImport = Arc<Mutex<Box<dyn ImportTarget>>>;

/// vDisk, snapshot, and what it is compared with.
type Compared = (String, String, Option<String>);

/// State of one connection, shared with the requests on it.
#[derive(Default)]
pub(super) struct Session {
    imports: Mutex<BTreeMap<String, SharedImport>>,
    /// By vDisk and name.
    readers: Mutex<BTreeMap<(String, String), Arc<dyn SnapshotReader>>>,
    comparisons: Mutex<BTreeMap<Compared, Arc<dyn Comparison>>>,
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
        let key = (vdisk.to_owned(), name.to_owned());
        keep(&self.readers, key, opened, READERS_MAX, |begun, now| {
            begun.uuid() == now.uuid()
        })
        .map_err(|why| why.explain(vdisk, name, "snapshots", READERS_MAX))
    }

    /// The same for two states that are compared.
    pub(super) fn comparison(
        &self,
        vdisk: &str,
        name: &str,
        to: Option<&str>,
        opened: Result<Arc<dyn Comparison>, ApiError>,
    ) -> Result<Arc<dyn Comparison>, ApiError> {
        let key = (vdisk.to_owned(), name.to_owned(), to.map(str::to_owned));
        keep(
            &self.comparisons,
            key,
            opened,
            COMPARISONS_MAX,
            |begun, now| begun.uuids() == now.uuids(),
        )
        .map_err(|why| match to {
            Some(to) => why.explain(
                vdisk,
                &format!("{name} or {to}"),
                "comparisons",
                COMPARISONS_MAX,
            ),
            None => why.explain(vdisk, name, "comparisons", COMPARISONS_MAX),
        })
    }
}

/// Why something is not read on.
enum NotKept {
    /// The name means something else now.
    Another,
    /// The connection has too much already.
    TooMany,
    /// It is not there.
    Failed(ApiError),
}

impl NotKept {
    fn explain(self, vdisk: &str, name: &str, what: &str, max: usize) -> ApiError {
        match self {
            NotKept::Another => ApiError::new(
                ErrorKind::Busy,
                format!(
                    "snapshot {name:?} of vDisk {vdisk:?} is not the one that this connection has begun to read"
                ),
            )
            .hint("read the new one on a new connection"),
            NotKept::TooMany => ApiError::new(
                ErrorKind::Busy,
                format!("this connection reads {max} {what} already"),
            )
            .hint("read others on another connection"),
            NotKept::Failed(error) => error,
        }
    }
}

/// What this connection has begun to read under the key, or else what was `opened` just now, which it reads from now on.
fn keep<K: Ord, T: ?Sized>(
    table: &Mutex<BTreeMap<K, Arc<T>>>,
    key: K,
    opened: Result<Arc<T>, ApiError>,
    max: usize,
    is_it: impl Fn(&Arc<T>, &Arc<T>) -> bool,
) -> Result<Arc<T>, NotKept> {
    let mut table = table.lock();
    match (table.get(&key), opened) {
        (Some(begun), Ok(now)) if !is_it(begun, &now) => Err(NotKept::Another),
        (Some(begun), _) => Ok(Arc::clone(begun)),
        (None, Ok(_)) if table.len() >= max => Err(NotKept::TooMany),
        (None, opened) => {
            let opened = opened.map_err(NotKept::Failed)?;
            table.insert(key, Arc::clone(&opened));
            Ok(opened)
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
