//! The store behind the control API.

use super::explain::{request_error, store_error, translate};
use super::import::StoreImport;
use super::sockets::Sockets;
use super::target::{ControlTarget, ImportTarget};
use block_store::check::Begun;
use block_store::compress::{Class as StoreClass, WriteTraits};
use block_store::format::UseRow;
use block_store::{BlockClient, ScrubOptions, Store, VDisk as StoreVDisk, VDiskSpec};
use control_api::limits::SECTOR;
use control_api::types::*;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one answer to `allocated` looks for data: the maps of a large vDisk take a while to read.
const LOOK: Duration = Duration::from_millis(500);
/// Ranges that one answer to `allocated` has at most, give or take a GiB's.
const RANGES_MAX: usize = 4096;

/// An open store and the sockets of its vDisks.
pub struct StoreTarget {
    pub(super) inner: Arc<Inner>,
    run: PathBuf,
    started: Instant,
}

/// What imports share with the target that began them.
pub(super) struct Inner {
    pub store: Arc<Store>,
    pub sockets: Box<dyn Sockets>,
    /// Creating, publishing, resizing and deleting touch store and socket: one at a time.
    pub changing: Mutex<()>,
    /// For reads; taken out while in use.
    clients: Mutex<Vec<BlockClient>>,
}

impl StoreTarget {
    /// Serves `store`; `run` is the runtime directory.
    pub fn new(store: Arc<Store>, sockets: Box<dyn Sockets>, run: PathBuf) -> StoreTarget {
        let (changing, clients) = (Mutex::default(), Mutex::default());
        let inner = Arc::new(Inner {
            store,
            sockets,
            changing,
            clients,
        });
        StoreTarget {
            inner,
            run,
            started: Instant::now(),
        }
    }
}

impl Inner {
    /// The vDisk with this name; those that are being imported are nobody's business.
    pub fn visible(&self, name: &str) -> Result<Arc<StoreVDisk>, ApiError> {
        let found = self
            .store
            .vdisks()
            .into_iter()
            .find(|vdisk| vdisk.name() == name);
        found.ok_or_else(|| {
            ApiError::new(
                ErrorKind::NotFound,
                format!("there is no vDisk named {name:?}"),
            )
            .hint("see: firn vdisk list")
        })
    }

    /// What was kept of a domain. `None` too for what only a later release can have kept.
    fn domain_of(used: UseRow) -> Option<DomainUse> {
        let state = [DomainState::Running, DomainState::Stopped];
        let state = state.into_iter().find(|s| s.as_str() == used.state)?;
        Some(DomainUse {
            name: used.by,
            uuid: used.uuid,
            state,
            reason: used.reason,
            since: used.since,
        })
    }

    pub fn view(&self, vdisk: &StoreVDisk) -> VDisk {
        let serial = vdisk.serial();
        VDisk {
            name: vdisk.name().to_owned(),
            uuid: vdisk.uuid(),
            serial: String::from_utf8_lossy(&serial)
                .trim_end_matches('\0')
                .to_owned(),
            size: vdisk.size(),
            created: vdisk.created(),
            tag: vdisk.tag().map(str::to_owned),
            write_cache: vdisk.write_cache(),
            read_only: vdisk.read_only(),
            socket: self
                .sockets
                .path(vdisk.name())
                .to_string_lossy()
                .into_owned(),
            attached: self.sockets.attached(vdisk.name()),
            waiting: self.sockets.waiting(vdisk.name()),
            domain: vdisk.used().and_then(Self::domain_of),
            // The two are of the same shape.
            flattening: self
                .store
                .flattening(vdisk)
                .and_then(|f| translate(&f).ok()),
        }
    }

    /// Opens the socket of a vDisk that has just come to be; without one it may not stay.
    pub fn open_or_delete(&self, vdisk: Arc<StoreVDisk>) -> Result<VDisk, ApiError> {
        match self.sockets.open(Arc::clone(&vdisk)) {
            Ok(()) => Ok(self.view(&vdisk)),
            Err(error) => {
                if let Err(second) = self.store.delete_vdisk(vdisk.name()) {
                    log::error!(
                        "vDisk {}: has no socket and can't be deleted: {second}",
                        vdisk.name()
                    );
                }
                Err(error)
            }
        }
    }

    /// Runs `change` while nobody is attached and nobody can be.
    pub fn while_detached<T>(
        &self,
        vdisk: &Arc<StoreVDisk>,
        change: impl FnOnce() -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.sockets.close(vdisk.name())?;
        let changed = change();
        self.sockets.open(Arc::clone(vdisk))?;
        changed
    }

    fn shrink(&self, vdisk: &Arc<StoreVDisk>, request: &ResizeVDisk) -> Result<(), ApiError> {
        let name = vdisk.name();
        if let Some(by) = self.sockets.attached(name) {
            let text = format!(
                "vDisk {name} is attached by process {}: it can't shrink under a guest",
                by.pid
            );
            return Err(ApiError::new(ErrorKind::Busy, text).hint("stop its guest first"));
        }
        if !request.shrink {
            let text = format!(
                "{} bytes are less than the {} of vDisk {name}: what is behind them would be lost",
                request.size,
                vdisk.size()
            );
            return Err(ApiError::new(ErrorKind::Refused, text).hint(
                "shrink its filesystem and partitions first, then repeat this with --shrink",
            ));
        }
        self.while_detached(vdisk, || {
            self.store
                .resize_vdisk(name, request.size)
                .map_err(store_error)
        })
    }

    fn check_range(&self, vdisk: &StoreVDisk, offset: u64, length: u64) -> Result<(), ApiError> {
        match offset.checked_add(length) {
            Some(end) if end <= vdisk.size() => Ok(()),
            _ => Err(ApiError::new(
                ErrorKind::Invalid,
                format!(
                    "{length} bytes at {offset} are outside of vDisk {} of {} bytes",
                    vdisk.name(),
                    vdisk.size()
                ),
            )),
        }
    }

    /// Where a vDisk, or a snapshot, holds data.
    pub fn allocated(&self, vdisk: &StoreVDisk, offset: u64) -> Result<Allocated, ApiError> {
        let size = vdisk.size();
        let mut ranges: Vec<ByteRange> = Vec::new();
        let mut at = offset / SECTOR * SECTOR;
        let began = Instant::now();
        while at < size && began.elapsed() < LOOK && ranges.len() < RANGES_MAX {
            let part = self
                .store
                .allocated(vdisk, at, size - at)
                .map_err(store_error)?;
            for range in part.ranges {
                // A range begins at its block, which may lie before what was asked for.
                let (from, to) = (range.start.max(at), range.end.min(size));
                match ranges.last_mut() {
                    Some(last) if last.offset + last.length == from => last.length += to - from,
                    _ if from < to => ranges.push(ByteRange {
                        offset: from,
                        length: to - from,
                    }),
                    _ => {}
                }
            }
            // An answer that does not get on would have us ask for ever.
            if part.checked <= at {
                break;
            }
            at = part.checked;
        }
        let next = (at < size && at > offset).then_some(at);
        Ok(Allocated { ranges, next })
    }

    /// Bytes of a vDisk, or a snapshot.
    pub fn read(
        &self,
        vdisk: &Arc<StoreVDisk>,
        offset: u64,
        length: u64,
    ) -> Result<Vec<u8>, ApiError> {
        self.check_range(vdisk, offset, length)?;
        let idle = self.clients.lock().pop();
        let mut client = match idle {
            Some(client) => client,
            None => self.store.client().map_err(store_error)?,
        };
        let mut data = vec![0; length as usize];
        let read = client.read(vdisk, offset, &mut data);
        self.clients.lock().push(client);
        read.map_err(|error| request_error(vdisk.name(), "read", offset, error))?;
        Ok(data)
    }
}

impl ControlTarget for StoreTarget {
    fn health(&self) -> Health {
        Health {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: control_api::API_VERSION,
            pid: std::process::id(),
            store: self.inner.store.status().dir,
            run: self.run.to_string_lossy().into_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
        }
    }

    fn status(&self) -> Result<StoreStatus, ApiError> {
        translate(&self.inner.store.status())
    }

    fn vdisks(&self) -> Result<Vec<VDisk>, ApiError> {
        Ok(self
            .inner
            .store
            .vdisks()
            .iter()
            .map(|vdisk| self.inner.view(vdisk))
            .collect())
    }

    fn vdisk(&self, name: &str) -> Result<VDisk, ApiError> {
        Ok(self.inner.view(&*self.inner.visible(name)?))
    }

    fn create(&self, request: &CreateVDisk) -> Result<VDisk, ApiError> {
        let _one = self.inner.changing.lock();
        let spec = VDiskSpec {
            name: request.name.clone(),
            size: request.size,
            hidden: false,
        };
        let vdisk = self.inner.store.create_vdisk(&spec).map_err(store_error)?;
        self.inner.open_or_delete(vdisk)
    }

    fn delete(&self, name: &str) -> Result<(), ApiError> {
        let _one = self.inner.changing.lock();
        let vdisk = self.inner.visible(name)?;
        self.inner
            .sockets
            .close(name)
            .map_err(|error| match error.kind {
                ErrorKind::Busy => error.hint("stop its guest, or detach the disk from it, first"),
                _ => error,
            })?;
        let deleted = self.inner.store.delete_vdisk(name).map_err(store_error);
        if deleted.is_err() && self.inner.visible(name).is_ok() {
            self.inner.sockets.open(vdisk)?;
        }
        deleted
    }

    fn resize(&self, name: &str, request: &ResizeVDisk) -> Result<Resized, ApiError> {
        let _one = self.inner.changing.lock();
        let vdisk = self.inner.visible(name)?;
        let old_size = vdisk.size();
        match request.size.cmp(&old_size) {
            std::cmp::Ordering::Less => self.inner.shrink(&vdisk, request)?,
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => {
                self.inner
                    .store
                    .resize_vdisk(name, request.size)
                    .map_err(store_error)?;
            }
        }
        let vdisk = self.inner.view(&vdisk);
        let grown = request.size > old_size && vdisk.attached.is_some();
        let note = grown.then(|| {
            "a guest is attached: it sees the new size at its next cold start (power off and on; a reboot from inside does not do)"
                .to_owned()
        });
        Ok(Resized {
            vdisk,
            old_size,
            note,
        })
    }

    fn record_domain(&self, name: &str, request: &RecordDomain) -> Result<VDisk, ApiError> {
        let vdisk = self.inner.visible(name)?;
        let used = UseRow {
            by: request.name.clone(),
            uuid: request.uuid,
            state: request.state.as_str().to_owned(),
            reason: request.reason.clone(),
            since: 0,
        };
        self.inner.store.set_use(name, used).map_err(store_error)?;
        Ok(self.inner.view(&vdisk))
    }

    fn stats(&self, name: &str) -> Result<VDiskStats, ApiError> {
        let stats = self.inner.visible(name)?.stats();
        Ok(VDiskStats {
            name: name.to_owned(),
            reads: stats.reads,
            read_bytes: stats.read_bytes,
            writes: stats.writes,
            written_bytes: stats.written_bytes,
            stored_bytes: stats.stored_bytes,
            zero_bytes: stats.zero_bytes,
            flushes: stats.flushes,
            errors: stats.errors,
        })
    }

    fn allocated(&self, name: &str, offset: u64) -> Result<Allocated, ApiError> {
        self.inner.allocated(&*self.inner.visible(name)?, offset)
    }

    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, ApiError> {
        self.inner.read(&self.inner.visible(name)?, offset, length)
    }

    fn begin_import(&self, request: &BeginImport) -> Result<Box<dyn ImportTarget>, ApiError> {
        Ok(Box::new(StoreImport::begin(
            Arc::clone(&self.inner),
            request,
        )?))
    }

    fn rules(&self, vdisk: Option<&str>) -> Result<Rules, ApiError> {
        vdisk.map(|name| self.inner.visible(name)).transpose()?;
        translate(&*self.inner.store.rules(vdisk).map_err(store_error)?)
    }

    fn set_rules(&self, vdisk: Option<&str>, rules: &Rules) -> Result<(), ApiError> {
        vdisk.map(|name| self.inner.visible(name)).transpose()?;
        self.inner
            .store
            .set_rules(vdisk, translate(rules)?)
            .map_err(store_error)
    }

    fn scrub(&self) -> Result<ScrubStatus, ApiError> {
        translate(&self.inner.store.scrub_status())
    }

    fn start_scrub(&self, request: &StartScrub) -> Result<ScrubChanged, ApiError> {
        let begun = self.inner.store.start_scrub(ScrubOptions {
            rate: request.rate,
            decode: request.decode,
            again: request.again,
        });
        Ok(ScrubChanged {
            outcome: match begun {
                Begun::Started => ScrubOutcome::Started,
                Begun::Continued => ScrubOutcome::Continued,
                Begun::Running => ScrubOutcome::Running,
            },
            scrub: self.scrub()?,
        })
    }

    fn stop_scrub(&self) -> Result<ScrubChanged, ApiError> {
        Ok(ScrubChanged {
            outcome: match self.inner.store.stop_scrub() {
                true => ScrubOutcome::Stopped,
                false => ScrubOutcome::NotRunning,
            },
            scrub: self.scrub()?,
        })
    }

    fn explain(&self, request: &ExplainRequest) -> Result<Explanation, ApiError> {
        let vdisk = request
            .vdisk
            .as_deref()
            .map(|name| self.inner.visible(name))
            .transpose()?;
        let rules = self
            .inner
            .store
            .rules(request.vdisk.as_deref())
            .map_err(store_error)?;
        let write = WriteTraits {
            bytes: request.bytes,
            sequential: request.sequential,
            aligned: request.aligned,
            tag: request
                .tag
                .as_deref()
                .or(vdisk.as_ref().and_then(|vdisk| vdisk.tag())),
            age_secs: request.age_secs,
            class: match request.class {
                Class::Incompressible => StoreClass::Incompressible,
                Class::Compressible => StoreClass::Compressible,
            },
            cpu_headroom: request.cpu_headroom,
        };
        let choice = rules.choose(&write);
        Ok(Explanation {
            rules: translate(&rules.explain(&write))?,
            treatment: Treatment {
                codec: choice.codec.to_string(),
                extent_kib: choice.extent_blocks * 4,
                defer: choice.defer,
            },
        })
    }
}
