//! A store in memory behind [`ControlTarget`].

use super::snapshots::Copy;
use crate::control::{ControlTarget, ImportTarget, StatsTarget};
use control_api::types::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Default)]
pub struct MemoryTarget {
    pub(super) disks: Arc<Mutex<BTreeMap<String, Disk>>>,
    rules: Mutex<Rules>,
    counter: AtomicU64,
    /// Every import write fails with NoSpace.
    pub full: AtomicBool,
    /// Every `status` panics.
    pub panics: AtomicBool,
}

#[derive(Clone)]
pub(super) struct Disk {
    pub size: u64,
    hidden: bool,
    attached: bool,
    domain: Option<DomainUse>,
    pub data: BTreeMap<u64, Vec<u8>>,
    pub snapshots: Vec<Copy>,
}

impl MemoryTarget {
    pub fn attach(&self, name: &str) {
        self.disks.lock().get_mut(name).unwrap().attached = true;
    }

    /// Names, hidden ones included.
    pub fn names(&self) -> Vec<String> {
        self.disks.lock().keys().cloned().collect()
    }

    /// A number that has not been there before.
    pub(super) fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn with<T>(
        &self,
        name: &str,
        f: impl FnOnce(&mut Disk) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        match self.disks.lock().get_mut(name) {
            Some(disk) if !disk.hidden => f(disk),
            _ => Err(ApiError::new(
                ErrorKind::NotFound,
                format!("no vDisk is called {name:?}"),
            )),
        }
    }

    pub(super) fn insert(&self, name: &str, size: u64, hidden: bool) -> Result<VDisk, ApiError> {
        let disk = Disk {
            size,
            hidden,
            attached: false,
            domain: None,
            data: BTreeMap::new(),
            snapshots: Vec::new(),
        };
        let view = view(name, &disk);
        let mut disks = self.disks.lock();
        match disks.contains_key(name) {
            true => Err(ApiError::new(
                ErrorKind::AlreadyExists,
                format!("there is a vDisk {name:?}"),
            )),
            false => {
                disks.insert(name.into(), disk);
                Ok(view)
            }
        }
    }
}

pub(super) fn view(name: &str, disk: &Disk) -> VDisk {
    VDisk {
        name: name.into(),
        uuid: uuid::Uuid::nil(),
        serial: "firn".into(),
        size: disk.size,
        created: 0,
        tag: None,
        write_cache: true,
        read_only: false,
        socket: format!("/run/firn/{name}.sock"),
        attached: disk.attached.then_some(Attachment {
            pid: 1,
            uid: 0,
            since: 1,
        }),
        waiting: None,
        domain: disk.domain.clone(),
        flattening: None,
    }
}

/// One range at a time, so that clients have to ask on.
pub(super) fn first_range(data: &BTreeMap<u64, Vec<u8>>, offset: u64) -> Allocated {
    let mut ranges = data
        .range(offset..)
        .map(|(at, data)| (*at, data.len() as u64));
    let first = ranges
        .next()
        .map(|(offset, length)| ByteRange { offset, length });
    Allocated {
        ranges: first.into_iter().collect(),
        next: ranges.next().map(|(at, _)| at),
    }
}

pub(super) fn read(data: &BTreeMap<u64, Vec<u8>>, offset: u64, length: u64) -> Vec<u8> {
    let mut out = vec![0; length as usize];
    for (at, data) in data {
        for (i, byte) in data.iter().enumerate() {
            if let Some(slot) = (at + i as u64)
                .checked_sub(offset)
                .and_then(|i| out.get_mut(i as usize))
            {
                *slot = *byte;
            }
        }
    }
    out
}

impl ControlTarget for MemoryTarget {
    fn health(&self) -> Health {
        Health {
            version: "0".into(),
            api: control_api::API_VERSION,
            pid: std::process::id(),
            store: "memory".into(),
            run: "memory".into(),
            uptime_seconds: 0,
        }
    }

    fn status(&self) -> Result<StoreStatus, ApiError> {
        assert!(!self.panics.load(Ordering::Relaxed), "asked to panic");
        Err(ApiError::new(ErrorKind::Unavailable, "not in memory"))
    }

    fn vdisks(&self) -> Result<Vec<VDisk>, ApiError> {
        let disks = self.disks.lock();
        Ok(disks
            .iter()
            .filter(|(_, disk)| !disk.hidden)
            .map(|(name, disk)| view(name, disk))
            .collect())
    }

    fn vdisk(&self, name: &str) -> Result<VDisk, ApiError> {
        self.with(name, |disk| Ok(view(name, disk)))
    }

    fn create(&self, request: &CreateVDisk) -> Result<VDisk, ApiError> {
        self.insert(&request.name, request.size, false)
    }

    fn delete(&self, name: &str) -> Result<(), ApiError> {
        self.vdisk(name)?;
        self.disks.lock().remove(name);
        Ok(())
    }

    fn resize(&self, name: &str, request: &ResizeVDisk) -> Result<Resized, ApiError> {
        self.with(name, |disk| {
            let old_size = std::mem::replace(&mut disk.size, request.size);
            Ok(Resized {
                vdisk: view(name, disk),
                old_size,
                note: None,
            })
        })
    }

    fn record_domain(&self, name: &str, request: &RecordDomain) -> Result<VDisk, ApiError> {
        self.with(name, |disk| {
            disk.domain = Some(DomainUse {
                name: request.name.clone(),
                uuid: request.uuid,
                state: request.state,
                reason: request.reason.clone(),
                since: 1,
            });
            Ok(view(name, disk))
        })
    }

    fn stats(&self, name: &str) -> Result<VDiskStats, ApiError> {
        self.with(name, |_| Err(ApiError::new(ErrorKind::Unavailable, name)))
    }

    fn allocated(&self, name: &str, offset: u64) -> Result<Allocated, ApiError> {
        self.with(name, |disk| Ok(first_range(&disk.data, offset)))
    }

    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, ApiError> {
        self.with(name, |disk| Ok(read(&disk.data, offset, length)))
    }

    fn begin_import(&self, request: &BeginImport) -> Result<Box<dyn ImportTarget>, ApiError> {
        self.insert(&request.name, request.size, true)?;
        let full = self.full.load(Ordering::Relaxed);
        Ok(Box::new(MemoryImport {
            disks: self.disks.clone(),
            name: request.name.clone(),
            published: false,
            full,
        }))
    }

    fn rules(&self, _vdisk: Option<&str>) -> Result<Rules, ApiError> {
        Ok(self.rules.lock().clone())
    }

    fn set_rules(&self, _vdisk: Option<&str>, rules: &Rules) -> Result<(), ApiError> {
        *self.rules.lock() = rules.clone();
        Ok(())
    }

    fn scrub(&self) -> Result<ScrubStatus, ApiError> {
        Ok(ScrubStatus {
            pass: None,
            last: None,
            every_seconds: None,
        })
    }

    fn start_scrub(&self, _request: &StartScrub) -> Result<ScrubChanged, ApiError> {
        Ok(ScrubChanged {
            outcome: ScrubOutcome::Started,
            scrub: self.scrub()?,
        })
    }

    fn stop_scrub(&self) -> Result<ScrubChanged, ApiError> {
        Ok(ScrubChanged {
            outcome: ScrubOutcome::NotRunning,
            scrub: self.scrub()?,
        })
    }

    fn explain(&self, _request: &ExplainRequest) -> Result<Explanation, ApiError> {
        Err(ApiError::new(ErrorKind::Unavailable, "not in memory"))
    }
}

/// Of vDisks the spans that hold data, one in an answer.
impl StatsTarget for MemoryTarget {
    fn store_stats(&self) -> Result<StoreStats, ApiError> {
        Err(ApiError::new(ErrorKind::Unavailable, "not in memory"))
    }

    fn layers(&self) -> Result<Vec<Layer>, ApiError> {
        Ok(Vec::new())
    }

    fn layer_usage(&self, layer: u32, _offset: u64) -> Result<SnapshotUsage, ApiError> {
        let text = format!("there is no layer {layer}");
        Err(ApiError::new(ErrorKind::NotFound, text))
    }

    fn fragmentation(&self, name: &str, offset: u64) -> Result<Fragmentation, ApiError> {
        self.with(name, |disk| {
            let found = first_range(&disk.data, offset);
            Ok(Fragmentation {
                spans: found.ranges.len() as u64,
                next: found.next,
                ..Fragmentation::default()
            })
        })
    }
}

struct MemoryImport {
    disks: Arc<Mutex<BTreeMap<String, Disk>>>,
    name: String,
    published: bool,
    full: bool,
}

impl ImportTarget for MemoryImport {
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), ApiError> {
        if self.full {
            return Err(ApiError::new(ErrorKind::NoSpace, "the store is full"));
        }
        self.disks
            .lock()
            .get_mut(&self.name)
            .unwrap()
            .data
            .insert(offset, data.into());
        Ok(())
    }

    fn publish(&mut self) -> Result<VDisk, ApiError> {
        self.published = true;
        let mut disks = self.disks.lock();
        let disk = disks.get_mut(&self.name).unwrap();
        disk.hidden = false;
        Ok(view(&self.name, disk))
    }
}

impl Drop for MemoryImport {
    fn drop(&mut self) {
        if !self.published {
            self.disks.lock().remove(&self.name);
        }
    }
}
