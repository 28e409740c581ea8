//! The store behind the data path's traits.

use std::os::fd::RawFd;
use std::sync::Arc;

use block_store::{Lane, Store, VDisk};

use crate::engine::{Command, Disk, Done, Engine};
use crate::memory::GuestPayload;

/// Reads that one worker has in the kernel at a time.
const LANE_DEPTH: u32 = 256;

/// A vDisk together with the store that keeps its settings.
pub struct StoreDisk {
    store: Arc<Store>,
    vdisk: Arc<VDisk>,
}

impl StoreDisk {
    /// A vDisk of this store.
    pub fn new(store: Arc<Store>, vdisk: Arc<VDisk>) -> Arc<Self> {
        Arc::new(Self { store, vdisk })
    }
}

impl Disk for StoreDisk {
    fn name(&self) -> &str {
        self.vdisk.name()
    }

    fn size(&self) -> u64 {
        self.vdisk.size()
    }

    fn serial(&self) -> [u8; 20] {
        self.vdisk.serial()
    }

    fn read_only(&self) -> bool {
        self.vdisk.read_only()
    }

    fn write_cache(&self) -> bool {
        self.vdisk.write_cache()
    }

    fn set_write_cache(&self, on: bool) -> Result<(), String> {
        self.store
            .set_write_cache(self.vdisk.name(), on)
            .map_err(|e| e.to_string())
    }
}

/// A worker's lane.
pub struct StoreEngine {
    lane: Lane<GuestPayload>,
}

impl StoreEngine {
    /// A lane for the calling thread.
    pub fn new(store: &Arc<Store>) -> Result<Self, String> {
        let lane = store.lane(LANE_DEPTH).map_err(|e| e.to_string())?;
        Ok(Self { lane })
    }
}

impl Engine for StoreEngine {
    type Disk = StoreDisk;

    fn submit(&mut self, disk: &Arc<StoreDisk>, command: Command<GuestPayload>, tag: u64) {
        self.lane.submit(&disk.vdisk, command, tag);
    }

    fn poll(&mut self, done: &mut Vec<Done<GuestPayload>>) {
        self.lane.poll(done);
    }

    fn pollable(&self) -> Vec<RawFd> {
        self.lane.pollable()
    }

    fn cancel_stalled(&mut self, done: &mut Vec<Done<GuestPayload>>, which: &dyn Fn(u64) -> bool) {
        self.lane.cancel_stalled(done, which);
    }
}

#[cfg(test)]
mod tests;
