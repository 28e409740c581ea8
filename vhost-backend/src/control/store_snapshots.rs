//! The store's snapshots behind the control API.
//!
//! Everything goes by the names of visible vDisks: those that are being imported are nobody's business.

use super::explain::{snapshot_error, store_error, translate};
use super::store_target::{Inner, StoreTarget};
use super::target::{Comparison, SnapshotReader, SnapshotTarget};
use block_store::{Deleted, ScheduleSpec, StoreError, VDisk as StoreVDisk};
use control_api::types::*;
use control_api::{ApiError, ErrorKind};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

impl Inner {
    fn snapshot(&self, vdisk: &str, name: &str) -> Result<Snapshot, ApiError> {
        self.visible(vdisk)?;
        let all = self.store.snapshots(Some(vdisk)).map_err(store_error)?;
        let found = all.iter().find(|snapshot| snapshot.name == name);
        translate(found.ok_or_else(|| {
            store_error(StoreError::NoSnapshot {
                vdisk: vdisk.to_owned(),
                name: name.to_owned(),
            })
        })?)
    }

    /// Changes a snapshot; what it is afterwards, under the name that it has then.
    fn change(
        &self,
        vdisk: &str,
        name_then: &str,
        change: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<Snapshot, ApiError> {
        let _one = self.changing.lock();
        self.visible(vdisk)?;
        change().map_err(snapshot_error)?;
        self.snapshot(vdisk, name_then)
    }

    /// Whether a vDisk may be reverted: nobody is attached, and what is lost may be lost.
    fn may_revert(&self, vdisk: &str, request: &RevertVDisk) -> Result<(), ApiError> {
        if let Some(by) = self.sockets.attached(vdisk) {
            let text = format!(
                "vDisk {vdisk} is attached by process {}: it can't be reverted under a guest",
                by.pid
            );
            return Err(ApiError::new(ErrorKind::Busy, text)
                .hint("stop its guest, or detach the disk from it, first"));
        }
        match (&request.keep, request.discard) {
            (None, false) => Err(ApiError::new(
                ErrorKind::Refused,
                format!(
                    "going back to snapshot {} loses what was written to vDisk {vdisk} since its last snapshot",
                    request.snapshot
                ),
            )
            .hint("keep what it is now as a snapshot with --keep NAME, or lose it with --discard")),
            (Some(keep), true) => Err(ApiError::new(
                ErrorKind::Invalid,
                format!("what vDisk {vdisk} is now can't be both kept (as {keep}) and discarded"),
            )
            .hint("give one of --keep NAME and --discard")),
            _ => Ok(()),
        }
    }
}

impl SnapshotTarget for StoreTarget {
    fn snapshots(&self, vdisk: Option<&str>) -> Result<Vec<Snapshot>, ApiError> {
        vdisk.map(|name| self.inner.visible(name)).transpose()?;
        let mut all = self.inner.store.snapshots(vdisk).map_err(store_error)?;
        let visible = self.inner.store.vdisks();
        let visible: HashSet<&str> = visible.iter().map(|vdisk| vdisk.name()).collect();
        all.retain(|snapshot| visible.contains(snapshot.vdisk.as_str()));
        translate(&all)
    }

    fn snapshot(&self, vdisk: &str, name: &str) -> Result<Snapshot, ApiError> {
        self.inner.snapshot(vdisk, name)
    }

    fn create_snapshot(&self, request: &CreateSnapshot) -> Result<CreatedSnapshot, ApiError> {
        let _one = self.inner.changing.lock();
        for vdisk in &request.vdisks {
            self.inner.visible(vdisk)?;
        }
        let vdisks: Vec<&str> = request.vdisks.iter().map(String::as_str).collect();
        let store = &self.inner.store;
        let cut = store.cut_snapshot(&vdisks, &request.name);
        let cut = match &request.hold {
            Some(holder) => cut.and_then(|cut| cut.held_by(holder)),
            None => cut,
        };
        let created = cut
            .and_then(|cut| store.complete_snapshot(cut))
            .map_err(snapshot_error)?;
        Ok(CreatedSnapshot {
            name: request.name.clone(),
            vdisks: request.vdisks.clone(),
            lsn: created.lsn,
            stall_microseconds: microseconds(created.stall),
            durable_microseconds: microseconds(created.durable),
        })
    }

    fn delete_snapshots(
        &self,
        vdisk: &str,
        request: &DeleteSnapshots,
    ) -> Result<DeletedSnapshots, ApiError> {
        let _one = self.inner.changing.lock();
        self.inner.visible(vdisk)?;
        let names: Vec<&str> = request.names.iter().map(String::as_str).collect();
        let store = &self.inner.store;
        let deleted = store.delete_snapshots(vdisk, &names, request.defer);
        let Deleted { deleted, deferred } = deleted.map_err(snapshot_error)?;
        Ok(DeletedSnapshots { deleted, deferred })
    }

    fn rename_snapshot(&self, vdisk: &str, name: &str, to: &str) -> Result<Snapshot, ApiError> {
        self.inner.change(vdisk, to, || {
            self.inner.store.rename_snapshot(vdisk, name, to)
        })
    }

    fn hold_snapshot(&self, vdisk: &str, name: &str, holder: &str) -> Result<Snapshot, ApiError> {
        self.inner.change(vdisk, name, || {
            self.inner.store.hold_snapshot(vdisk, name, holder)
        })
    }

    fn release_snapshot(
        &self,
        vdisk: &str,
        name: &str,
        holder: &str,
    ) -> Result<Snapshot, ApiError> {
        self.inner.change(vdisk, name, || {
            self.inner.store.release_snapshot(vdisk, name, holder)
        })
    }

    fn revert(&self, vdisk: &str, request: &RevertVDisk) -> Result<Reverted, ApiError> {
        let inner = &self.inner;
        let _one = inner.changing.lock();
        let disk = inner.visible(vdisk)?;
        let snapshot = inner.snapshot(vdisk, &request.snapshot)?;
        inner.may_revert(vdisk, request)?;
        let old_size = disk.size();
        let keep = request.keep.as_deref();
        inner.while_detached(&disk, || {
            let reverted = inner.store.revert_vdisk(vdisk, &snapshot.name, keep);
            reverted.map_err(snapshot_error)
        })?;
        Ok(Reverted {
            vdisk: inner.view(&disk),
            snapshot,
            old_size,
            kept: request.keep.clone(),
        })
    }

    fn promote(&self, vdisk: &str) -> Result<VDisk, ApiError> {
        let _one = self.inner.changing.lock();
        let disk = self.inner.visible(vdisk)?;
        self.inner.store.promote_vdisk(vdisk).map_err(store_error)?;
        Ok(self.inner.view(&disk))
    }

    fn flatten(&self, vdisk: &str) -> Result<VDisk, ApiError> {
        let _one = self.inner.changing.lock();
        let disk = self.inner.visible(vdisk)?;
        self.inner.store.flatten_vdisk(vdisk).map_err(store_error)?;
        Ok(self.inner.view(&disk))
    }

    fn prune(&self, vdisk: &str, request: &PruneSnapshots) -> Result<Pruned, ApiError> {
        let _one = self.inner.changing.lock();
        self.inner.visible(vdisk)?;
        let keep = translate(&request.keep)?;
        let pruned = self
            .inner
            .store
            .prune_snapshots(vdisk, &keep, request.dry_run);
        translate(&pruned.map_err(store_error)?)
    }

    fn schedules(&self) -> Result<Vec<Schedule>, ApiError> {
        translate(&self.inner.store.schedules())
    }

    fn create_schedule(&self, request: &CreateSchedule) -> Result<Schedule, ApiError> {
        let _one = self.inner.changing.lock();
        for vdisk in &request.vdisks {
            self.inner.visible(vdisk)?;
        }
        let made = self.inner.store.create_schedule(&ScheduleSpec {
            name: request.name.clone(),
            vdisks: request.vdisks.clone(),
            every: request.every_seconds,
            prefix: request.prefix.clone(),
            keep: translate(&request.keep)?,
        });
        // The name that may be taken is a schedule's, and the message has the way out.
        let made = made.map_err(|error| match error {
            StoreError::Exists(text) => ApiError::new(ErrorKind::AlreadyExists, text),
            error => store_error(error),
        })?;
        translate(&made)
    }

    fn delete_schedule(&self, name: &str) -> Result<(), ApiError> {
        let _one = self.inner.changing.lock();
        self.inner.store.delete_schedule(name).map_err(store_error)
    }

    fn clone_snapshot(&self, vdisk: &str, name: &str, new: &str) -> Result<VDisk, ApiError> {
        let _one = self.inner.changing.lock();
        self.inner.visible(vdisk)?;
        let clone = self.inner.store.clone_vdisk(vdisk, name, new);
        // The name that may be taken is a vDisk's.
        self.inner.open_or_delete(clone.map_err(store_error)?)
    }

    fn open_snapshot(&self, vdisk: &str, name: &str) -> Result<Arc<dyn SnapshotReader>, ApiError> {
        self.inner.visible(vdisk)?;
        let view = self.inner.store.open_snapshot(vdisk, name);
        Ok(Arc::new(StoreReader {
            inner: Arc::clone(&self.inner),
            view: view.map_err(store_error)?,
        }))
    }

    fn open_comparison(
        &self,
        vdisk: &str,
        name: &str,
        to: Option<&str>,
    ) -> Result<Arc<dyn Comparison>, ApiError> {
        let disk = self.inner.visible(vdisk)?;
        let open = |name| {
            let view = self.inner.store.open_snapshot(vdisk, name);
            view.map_err(store_error)
        };
        Ok(Arc::new(StoreComparison {
            inner: Arc::clone(&self.inner),
            from: open(name)?,
            to: to.map_or(Ok(disk), open)?,
        }))
    }
}

/// A snapshot that is being read.
struct StoreReader {
    inner: Arc<Inner>,
    view: Arc<StoreVDisk>,
}

impl SnapshotReader for StoreReader {
    fn uuid(&self) -> Uuid {
        self.view.uuid()
    }

    fn allocated(&self, offset: u64) -> Result<Allocated, ApiError> {
        self.inner.allocated(&self.view, offset)
    }

    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, ApiError> {
        self.inner.read(&self.view, offset, length)
    }

    fn usage(&self, offset: u64) -> Result<SnapshotUsage, ApiError> {
        let usage = self.inner.store.snapshot_usage(&self.view, offset);
        translate(&usage.map_err(store_error)?)
    }
}

/// Two states that are being compared.
struct StoreComparison {
    inner: Arc<Inner>,
    from: Arc<StoreVDisk>,
    to: Arc<StoreVDisk>,
}

impl Comparison for StoreComparison {
    fn uuids(&self) -> [Uuid; 2] {
        [self.from.uuid(), self.to.uuid()]
    }

    fn changes(&self, offset: u64) -> Result<Changes, ApiError> {
        let found = self.inner.store.changed(&self.from, &self.to, offset);
        let found = found.map_err(store_error)?;
        let size = self.from.size().max(self.to.size());
        // A range begins at its block, which may lie before what was asked for.
        let ranges = found.ranges.into_iter().map(|range| {
            let from = range.start.max(offset);
            ByteRange {
                offset: from,
                length: range.end.saturating_sub(from),
            }
        });
        Ok(Changes {
            ranges: ranges.filter(|range| range.length > 0).collect(),
            next: (found.checked < size && found.checked > offset).then_some(found.checked),
        })
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
