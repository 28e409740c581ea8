//! An import into the store: a hidden vDisk that is filled, made durable and published.
//!
//! # Full stores
//! Guests may wait for space for ever; a person who waits for an import may not. A write that has waited for some
//! seconds on a full store is cancelled, and the import fails.
//!
//! # Crash
//! Hidden vDisks vanish when the store is opened again. Until then dropping the import deletes it.

use super::explain::{request_error, store_error};
use super::store_target::Inner;
use super::target::ImportTarget;
use block_store::{Command, Lane, RequestError, VDisk as StoreVDisk, VDiskSpec};
use control_api::ApiError;
use control_api::types::{BeginImport, VDisk};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a write waits for space on a full store.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at a request that has not finished: most finish at once, the others wait for the disk.
const PAUSE: Duration = Duration::from_micros(200);
/// The same when patience is over, and asking is no longer cheap.
const PAUSE_LATE: Duration = Duration::from_millis(50);
/// Bytes of one command: guests' requests are not larger.
const COMMAND: usize = 1 << 20;

pub(super) struct StoreImport {
    inner: Arc<Inner>,
    vdisk: Arc<StoreVDisk>,
    lane: Lane<Vec<u8>>,
    published: bool,
}

impl StoreImport {
    /// Makes the hidden vDisk.
    pub fn begin(inner: Arc<Inner>, request: &BeginImport) -> Result<StoreImport, ApiError> {
        let lane = inner.store.lane(8).map_err(store_error)?;
        let spec = VDiskSpec {
            name: request.name.clone(),
            size: request.size,
            hidden: true,
        };
        let vdisk = {
            let _one = inner.changing.lock();
            inner.store.create_vdisk(&spec).map_err(store_error)?
        };
        Ok(StoreImport {
            inner,
            vdisk,
            lane,
            published: false,
        })
    }

    fn run(&mut self, command: Command<Vec<u8>>) -> Result<(), RequestError> {
        self.lane.submit(&self.vdisk, command, 0);
        let mut done = Vec::new();
        let began = Instant::now();
        loop {
            self.lane.poll(&mut done);
            if let Some(done) = done.pop() {
                return done.result;
            }
            if began.elapsed() < PATIENCE {
                std::thread::sleep(PAUSE);
                continue;
            }
            if self.inner.store.status().full {
                self.lane.cancel_stalled(&mut done, |_| true);
                if let Some(done) = done.pop() {
                    return done.result;
                }
            }
            std::thread::sleep(PAUSE_LATE);
        }
    }
}

impl ImportTarget for StoreImport {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), ApiError> {
        let mut at = offset;
        for piece in data.chunks(COMMAND) {
            let written = self.run(Command::Write {
                offset: at,
                from: piece.to_vec(),
            });
            written.map_err(|error| request_error(self.vdisk.name(), "write", at, error))?;
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<VDisk, ApiError> {
        let flushed = self.run(Command::Flush);
        flushed.map_err(|error| request_error(self.vdisk.name(), "flush", 0, error))?;
        let inner = Arc::clone(&self.inner);
        let _one = inner.changing.lock();
        inner
            .store
            .publish_vdisk(self.vdisk.name())
            .map_err(store_error)?;
        self.published = true;
        inner.open_or_delete(Arc::clone(&self.vdisk))
    }
}

impl Drop for StoreImport {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        let _one = self.inner.changing.lock();
        match self.inner.store.delete_vdisk(self.vdisk.name()) {
            Ok(()) => log::info!(
                "vDisk {}: its import was not finished; discarded",
                self.vdisk.name()
            ),
            Err(error) => log::warn!(
                "vDisk {}: its unfinished import can't be discarded: {error}; it goes when the backend is restarted",
                self.vdisk.name()
            ),
        }
    }
}
