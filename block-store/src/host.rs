//! What a store needs of the machine: one real and one simulated implementation.

use crate::io::real::{RealDisk, RealRuntime};
use crate::io::{Disk, Runtime};
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Name of the file that the owner of a store holds locked.
pub const LOCK_FILE: &str = "lock";

/// The machine.
pub trait Host: Send + Sync {
    /// The store's directory.
    fn disk(&self) -> Arc<dyn Disk>;
    /// The runtime directory.
    fn runtime(&self) -> &dyn Runtime;
    /// Path of the runtime directory, by which the superblock names the write buffer.
    fn run_dir(&self) -> &str;
    /// Seconds since 1970.
    fn now(&self) -> u64;
    /// A new UUID.
    fn new_uuid(&self) -> Uuid;
}

/// CPU time of the calling thread.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// How long it is until a moment, given in seconds since 1970.
pub fn until(moment: u64) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Duration::from_secs(moment).saturating_sub(now.unwrap_or_default())
}

/// The machine we run on.
pub struct RealHost {
    disk: Arc<RealDisk>,
    runtime: RealRuntime,
    run_dir: String,
}

impl RealHost {
    /// A store on `disk`, with its write buffer in `run_dir`.
    pub fn new(disk: RealDisk, run_dir: &Path) -> Self {
        let path = run_dir
            .canonicalize()
            .unwrap_or_else(|_| run_dir.to_path_buf());
        Self {
            disk: Arc::new(disk),
            runtime: RealRuntime::new(run_dir),
            run_dir: path.to_string_lossy().into_owned(),
        }
    }
}

impl Host for RealHost {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk) as Arc<dyn Disk>
    }

    fn runtime(&self) -> &dyn Runtime {
        &self.runtime
    }

    fn run_dir(&self) -> &str {
        &self.run_dir
    }

    fn now(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs())
    }

    fn new_uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
}
