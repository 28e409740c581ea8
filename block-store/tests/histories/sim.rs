//! A simulated machine.

use block_store::Host;
use block_store::io::sim::SimDisk;
use block_store::io::{Disk, Runtime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

pub struct SimHost {
    disk: SimDisk,
    hooked: Arc<dyn Disk>,
    uuids: Arc<AtomicU64>,
    clock: Arc<AtomicU64>,
}

impl SimHost {
    pub fn new(
        hooked: Arc<dyn Disk>,
        disk: SimDisk,
        uuids: &Arc<AtomicU64>,
        clock: &Arc<AtomicU64>,
    ) -> Self {
        Self {
            hooked,
            disk,
            uuids: Arc::clone(uuids),
            clock: Arc::clone(clock),
        }
    }
}

impl Host for SimHost {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.hooked)
    }

    fn runtime(&self) -> &dyn Runtime {
        &self.disk
    }

    fn run_dir(&self) -> &str {
        "/run/firn"
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn new_uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.uuids.fetch_add(1, Ordering::Relaxed)) | 1 << 100)
    }
}
