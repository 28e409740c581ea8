//! The vDisks' sockets, as far as the control API changes them.

use crate::exports::{self, ExportError, Exports};
use crate::store_engine::StoreDisk;
use block_store::{Store, VDisk};
use control_api::types::Attachment;
use control_api::{ApiError, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Sockets that vDisks are attached through.
pub trait Sockets: Send + Sync + 'static {
    /// Where the vDisk's socket is, or would be.
    fn path(&self, name: &str) -> PathBuf;
    /// Who is attached.
    fn attached(&self, name: &str) -> Option<Attachment>;
    /// Who is connected, too.
    fn waiting(&self, _name: &str) -> Option<Attachment> {
        None
    }
    /// Opens a vDisk's socket; it listens when this returns.
    fn open(&self, vdisk: Arc<VDisk>) -> Result<(), ApiError>;
    /// Closes a vDisk's socket, unless somebody is attached: then [`ErrorKind::Busy`]. Nobody can attach afterwards.
    fn close(&self, name: &str) -> Result<(), ApiError>;
}

/// The backend's own.
pub struct ExportedSockets {
    /// The store of the vDisks.
    pub store: Arc<Store>,
    /// All sockets.
    pub exports: Exports<StoreDisk>,
    /// The runtime directory.
    pub run: PathBuf,
}

impl Sockets for ExportedSockets {
    fn path(&self, name: &str) -> PathBuf {
        let open = self.exports.get(name).map(|export| export.socket);
        let path = open.unwrap_or_else(|| self.run.join(format!("{name}.sock")));
        // For libvirt, which has another working directory.
        std::path::absolute(&path).unwrap_or(path)
    }

    fn attached(&self, name: &str) -> Option<Attachment> {
        self.exports.get(name)?.attached.map(view)
    }

    fn waiting(&self, name: &str) -> Option<Attachment> {
        self.exports.get(name)?.waiting.map(view)
    }

    fn open(&self, vdisk: Arc<VDisk>) -> Result<(), ApiError> {
        let disk = StoreDisk::new(Arc::clone(&self.store), vdisk);
        self.exports.add(disk).map(drop).map_err(explain)
    }

    fn close(&self, name: &str) -> Result<(), ApiError> {
        match self.exports.remove(name) {
            // What is not there is closed.
            Ok(()) | Err(ExportError::NotFound(_)) => Ok(()),
            Err(error) => Err(explain(error)),
        }
    }
}

fn view(attachment: exports::Attachment) -> Attachment {
    let since = attachment.since.duration_since(UNIX_EPOCH);
    Attachment {
        pid: attachment.front_end.pid.try_into().unwrap_or(0),
        uid: attachment.front_end.uid,
        since: since.map_or(0, |since| since.as_secs()),
    }
}

fn explain(error: ExportError) -> ApiError {
    let kind = match &error {
        ExportError::Attached { .. } => ErrorKind::Busy,
        ExportError::Exists(_) => ErrorKind::AlreadyExists,
        ExportError::Closing => ErrorKind::Unavailable,
        ExportError::Socket(_) => ErrorKind::Refused,
        _ => ErrorKind::Internal,
    };
    ApiError::new(kind, error.to_string())
}
