//! The store as its users see it: open, vDisks, lanes, status.

mod again;
mod branches;
mod client;
mod clones;
mod compare;
mod config;
mod keeper;
mod lane;
mod lifecycle;
mod open;
mod prune;
mod schedules;
mod scrub;
mod snapshots;
mod stats;
mod status;
mod tend;
mod threads;
mod upkeep;
mod vdisk;

pub use again::Again;
pub use branches::SnapshotInfo;
pub use client::BlockClient;
pub use clones::Flattening;
pub use compare::{Changed, PresenceMap, SnapshotUsage};
pub use config::{
    InitOptions, MAX_SNAPSHOTS, MAX_VDISK, MIN_VDISK, OnFull, OpenConfig, VDiskSpec, check_name,
    check_size,
};
pub use lane::{Command, Done, Lane};
pub use prune::{Fate, Pruned};
pub use schedules::{ScheduleInfo, ScheduleSpec};
pub use scrub::{ScrubBrief, ScrubOptions, ScrubPass, ScrubStatus};
pub use snapshots::{Created, Cut, Deleted};
pub use stats::{
    CoalescingStats, CompactionStats, Layer, LayerKind, StoreStats, VDiskFragmentation, WriteStats,
};
pub use status::StoreStatus;
pub use tend::{ScheduledCuts, Tended};
pub use vdisk::{VDisk, VDiskStats};

use crate::compress::Rules;
use crate::core::Core;
use crate::defrag::Pace;
use crate::error::StoreError;
use crate::host::Host;
use crate::io::real::Lock;
use crate::payload::Payload;
use crate::read::Search;
use keeper::Keeper;
use lane::Load;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use upkeep::Upkeep;
use uuid::Uuid;

/// vDisks by name.
type VDisks = RwLock<BTreeMap<String, Arc<VDisk>>>;

/// An open store, owned exclusively by this process.
pub struct Store {
    core: Arc<Core>,
    host: Arc<dyn Host>,
    config: OpenConfig,
    created: u64,
    upkeep: Arc<Upkeep>,
    scrubber: Arc<scrub::Scrubber>,
    vdisks: Arc<VDisks>,
    rules: RwLock<Arc<Rules>>,
    /// One change of the catalogue at a time.
    changing: Arc<Mutex<()>>,
    healths: Arc<Mutex<schedules::Healths>>,
    threads: threads::Threads,
    recovered: status::Recovery,
    /// Held for as long as the store is open; none in simulation.
    _lock: Option<Lock>,
}

/// Requests of all vDisks that have completed.
fn requests(vdisks: &VDisks) -> u64 {
    let vdisks = vdisks.read();
    let stats = vdisks.values().map(|v| v.stats());
    stats.map(|s| s.reads + s.writes + s.flushes).sum()
}

impl Store {
    /// UUID of the store.
    pub fn uuid(&self) -> Uuid {
        self.core.store
    }

    /// A lane for the use of one thread, with at most `depth` reads in the kernel at a time.
    pub fn lane<P: Payload>(&self, depth: u32) -> Result<Lane<P>, StoreError> {
        // In simulation the clock has no say: a seed is a history.
        self.new_lane(depth, self.threads.running().then(Load::new))
    }

    fn new_lane<P: Payload>(&self, depth: u32, load: Option<Load>) -> Result<Lane<P>, StoreError> {
        Lane::new(Arc::clone(&self.core), self.config.on_full, depth, load)
            .map_err(StoreError::io("making a lane"))
    }

    /// Blocking access, for imports, exports and tools.
    pub fn client(&self) -> Result<BlockClient, StoreError> {
        // Bulk work is always busy, and nobody waits for its single requests: only the host's load counts.
        Ok(BlockClient::new(self.new_lane(32, None)?))
    }

    /// The vDisks that are visible, by name.
    pub fn vdisks(&self) -> Vec<Arc<VDisk>> {
        let hidden = self.hidden();
        self.vdisks
            .read()
            .values()
            .filter(|v| !hidden.contains(&v.id()))
            .cloned()
            .collect()
    }

    /// The vDisk with this name, hidden or not.
    pub fn vdisk(&self, name: &str) -> Result<Arc<VDisk>, StoreError> {
        self.vdisks
            .read()
            .get(name)
            .cloned()
            .ok_or_else(|| StoreError::NotFound(name.into()))
    }

    fn hidden(&self) -> Vec<u32> {
        self.core
            .state
            .lock()
            .catalogue
            .vdisks
            .iter()
            .filter(|v| v.hidden)
            .map(|v| v.id)
            .collect()
    }

    /// What it takes to take and delete snapshots.
    fn keeper(&self) -> Keeper {
        Keeper {
            core: Arc::clone(&self.core),
            host: Arc::clone(&self.host),
            upkeep: Arc::clone(&self.upkeep),
            vdisks: Arc::clone(&self.vdisks),
        }
    }

    /// Takes a checkpoint now.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.upkeep.checkpoint()
    }

    /// One round of upkeep: a checkpoint if there is reason for one, then reclamation as far as it is called for.
    pub fn upkeep(&self) -> Result<(), StoreError> {
        self.upkeep.round(&mut Pace::default())
    }

    /// The parts, for whoever drives the store step by step.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Makes everything acknowledged durable.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.core.commit()
    }

    /// Byte ranges of `offset..offset + len` that hold data, in whole blocks, in order. Looks at no more than the first
    /// 1 GiB; `checked` in the answer tells how far it has looked.
    pub fn allocated(&self, vdisk: &VDisk, offset: u64, len: u64) -> Result<Allocated, StoreError> {
        let block = crate::format::BLOCK as u64;
        let end = offset.saturating_add(len.min(1 << 30)).min(vdisk.size());
        let (mut at, last) = (offset / block, end.div_ceil(block));
        let mut ranges: Vec<Range<u64>> = Vec::new();
        while at < last {
            // A leaf at a time: the lock is held for microseconds.
            let stop = (at / 512 + 1).saturating_mul(512).min(last);
            let mut search = Search::default();
            let all = self.core.with_nodes(|state| {
                let found = search.run(state, vdisk.layer(), at, stop - at)?;
                Ok(found.iter().map(|(_, bits)| bits >> 62 == 2).collect())
            })?;
            let all: Vec<bool> = all.unwrap_or_default();
            for (n, stored) in all.into_iter().enumerate() {
                let from = (at + n as u64) * block;
                match ranges.last_mut() {
                    Some(last) if stored && last.end == from => last.end += block,
                    _ if stored => ranges.push(from..from + block),
                    _ => {}
                }
            }
            at = stop;
        }
        for range in &mut ranges {
            range.end = range.end.min(vdisk.size());
        }
        Ok(Allocated {
            ranges,
            checked: end,
        })
    }
}

/// Which parts of a vDisk hold data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocated {
    /// Byte ranges, in order.
    pub ranges: Vec<Range<u64>>,
    /// Everything from the start asked for up to here was looked at.
    pub checked: u64,
}
