//! How snapshots come and go: cut, named and deleted, with those parts of the store that it takes. A thread may hold these, and
//! not the store itself.

use super::VDisks;
use super::config::{MAX_SNAPSHOTS, check_name, max_of_store};
use super::snapshots::{Created, Cut};
use super::upkeep::Upkeep;
use super::vdisk::VDisk;
use crate::core::Core;
use crate::error::StoreError;
use crate::format::{Catalogue, CutRow, MAX_CUT_ROWS, ScheduleRow, SnapshotRow};
use crate::host::Host;
use crate::snapshot::cut;
use crate::state::{Blocked, State};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often a cut tries to find room in the log.
const PATIENCE: usize = 1000;

/// The parts. Whoever calls anything here holds the store's `changing`.
pub(super) struct Keeper {
    pub(super) core: Arc<Core>,
    pub(super) host: Arc<dyn Host>,
    pub(super) upkeep: Arc<Upkeep>,
    pub(super) vdisks: Arc<VDisks>,
}

/// What is to become of the snapshots' rows, all of it by one checkpoint.
#[derive(Default)]
pub(super) struct Change {
    /// New ones, whose layers their cuts keep.
    pub add: Vec<SnapshotRow>,
    /// Those that go. That they may, the caller has found out while holding `changing`.
    pub remove: HashSet<Uuid>,
    /// Schedules as they are then.
    pub schedules: Vec<ScheduleRow>,
}

impl Keeper {
    pub(super) fn vdisk(&self, name: &str) -> Result<Arc<VDisk>, StoreError> {
        let found = self.vdisks.read().get(name).cloned();
        found.ok_or_else(|| StoreError::NotFound(name.into()))
    }

    /// Cuts the vDisks of these names for a snapshot.
    pub(super) fn cut_named(&self, vdisks: &[&str], name: &str) -> Result<Cut, StoreError> {
        check_name(name).map_err(StoreError::Invalid)?;
        if vdisks.is_empty() || vdisks.len() > MAX_CUT_ROWS {
            return Err(StoreError::Invalid(format!(
                "a snapshot is taken of 1 to {MAX_CUT_ROWS} vDisks, not of {}",
                vdisks.len()
            )));
        }
        let mut disks: Vec<Arc<VDisk>> = Vec::new();
        for vdisk in vdisks {
            let disk = self.vdisk(vdisk)?;
            if disks.iter().any(|d| d.id() == disk.id()) {
                return Err(StoreError::Invalid(format!(
                    "vDisk {vdisk:?} is named twice"
                )));
            }
            must_be_free(&self.core.state.lock().catalogue.snapshots, &disk, name)?;
            disks.push(disk);
        }
        self.cut_disks(disks, name, None)
    }

    /// Cuts vDisks for a snapshot of this name, which is free.
    pub(super) fn cut_disks(
        &self,
        disks: Vec<Arc<VDisk>>,
        name: &str,
        schedule: Option<&str>,
    ) -> Result<Cut, StoreError> {
        may_be_more(&self.core.state.lock(), &disks)?;
        let begun = Instant::now();
        let created = self.host.now();
        let (mut rows, reader) = (Vec::new(), Arc::new(()));
        let (lsn, stall) = self.cut(&disks, None, |state, lsn, cut| {
            for (disk, cut) in disks.iter().zip(cut) {
                rows.push(SnapshotRow {
                    uuid: self.host.new_uuid(),
                    name: name.to_owned(),
                    vdisk: disk.id(),
                    layer: cut.parent,
                    size: disk.size(),
                    lsn,
                    created,
                    holds: Vec::new(),
                    schedule: schedule.map(str::to_owned),
                });
                state.readers.push((cut.parent, Arc::downgrade(&reader)));
            }
        })?;
        Ok(Cut {
            rows,
            disks,
            lsn,
            stall,
            begun,
            _reader: reader,
        })
    }

    /// Makes durable what was cut, and gives it its name. Where that fails the vDisks go on in their new layers all the same;
    /// those without a name are merged.
    pub(super) fn complete(&self, cut: Cut) -> Result<Created, StoreError> {
        may_complete(&self.core.state.lock().catalogue.snapshots, &cut)?;
        self.apply(Change {
            add: cut.rows.clone(),
            ..Change::default()
        })?;
        Ok(Created {
            lsn: cut.lsn,
            stall: cut.stall,
            durable: cut.begun.elapsed(),
        })
    }

    /// Makes a change durable, or undoes it.
    pub(super) fn apply(&self, change: Change) -> Result<(), StoreError> {
        // Until it is durable that their names are gone, nobody may merge the layers: the names can come back.
        let pin = Arc::new(());
        let new: HashSet<Uuid> = change.add.iter().map(|row| row.uuid).collect();
        let (removed, schedules) = {
            let mut state = self.core.state.lock();
            let mut removed = Vec::new();
            let all = std::mem::take(&mut state.catalogue.snapshots);
            for (n, row) in all.into_iter().enumerate() {
                if change.remove.contains(&row.uuid) {
                    state.readers.push((row.layer, Arc::downgrade(&pin)));
                    removed.push((n, row));
                } else {
                    state.catalogue.snapshots.push(row);
                }
            }
            state.catalogue.snapshots.extend(change.add);
            (removed, replace(&mut state.catalogue, change.schedules))
        };
        self.upkeep.checkpoint().inspect_err(|_| {
            let mut state = self.core.state.lock();
            let rows = &mut state.catalogue.snapshots;
            rows.retain(|row| !new.contains(&row.uuid));
            for (n, row) in removed {
                rows.insert(n.min(rows.len()), row);
            }
            replace(&mut state.catalogue, schedules);
        })
    }

    /// Cuts vDisks in one critical section, the end of which is `then`: each goes on over its live layer, or over
    /// the one that `over` says. Returns the LSN, and for how long others were held up.
    pub(super) fn cut(
        &self,
        disks: &[Arc<VDisk>],
        over: Option<u32>,
        mut then: impl FnMut(&mut State, u64, &[CutRow]),
    ) -> Result<(u64, Duration), StoreError> {
        let uuids: Vec<Uuid> = disks.iter().map(|_| self.host.new_uuid()).collect();
        for _ in 0..PATIENCE {
            let mut state = self.core.state.lock();
            let begun = Instant::now();
            if let Some(why) = &state.failed {
                return Err(StoreError::Failed(why.to_string()));
            }
            let layers = state.catalogue.next_layer..;
            let rows: Vec<CutRow> = disks
                .iter()
                .zip(layers)
                .zip(&uuids)
                .map(|((disk, layer), uuid)| CutRow {
                    vdisk: disk.id(),
                    layer,
                    parent: over.unwrap_or(disk.layer()),
                    uuid: *uuid,
                })
                .collect();
            match cut(&mut state, &rows) {
                Ok(lsn) => {
                    for (disk, row) in disks.iter().zip(&rows) {
                        disk.set_layer(row.layer);
                    }
                    then(&mut state, lsn, &rows);
                    self.core.ring_for(&state);
                    return Ok((lsn, begun.elapsed()));
                }
                Err(Blocked::Space) => {
                    drop(state);
                    if !self.core.allocate_step()? {
                        break;
                    }
                }
                Err(_) => {
                    drop(state);
                    self.core.drain_step()?;
                }
            }
        }
        Err(StoreError::NoSpace(
            "there is no room in the log to take a snapshot; delete something first".into(),
        ))
    }
}

/// Whether a cut may be named: others may have had their turn since.
pub(super) fn may_complete(there: &[SnapshotRow], cut: &Cut) -> Result<(), StoreError> {
    for (disk, row) in cut.disks.iter().zip(&cut.rows) {
        if disk.is_deleted() {
            return Err(StoreError::NotFound(disk.name().into()));
        }
        must_be_free(there, disk, &row.name)?;
    }
    Ok(())
}

/// Puts these in the place of those that have their names, which are returned.
fn replace(catalogue: &mut Catalogue, with: Vec<ScheduleRow>) -> Vec<ScheduleRow> {
    let mut before = Vec::new();
    for row in with {
        let mut all = catalogue.schedules.iter_mut();
        if let Some(there) = all.find(|s| s.name == row.name) {
            before.push(std::mem::replace(there, row));
        }
    }
    before
}

/// Whether a snapshot of the vDisk may have this name.
pub(super) fn must_be_free(
    there: &[SnapshotRow],
    disk: &VDisk,
    name: &str,
) -> Result<(), StoreError> {
    match position(there, disk, name) {
        Ok(_) => Err(StoreError::Exists(format!(
            "vDisk {:?} has a snapshot named {name:?} already",
            disk.name()
        ))),
        Err(_) => Ok(()),
    }
}

/// Whether each of these vDisks may have one more snapshot.
fn may_be_more(state: &State, disks: &[Arc<VDisk>]) -> Result<(), StoreError> {
    let all = &state.catalogue.snapshots;
    let most = max_of_store(state.segment_size);
    if all.len() + disks.len() > most {
        return Err(StoreError::Refused(format!(
            "the store has {} snapshots, and can have no more than {most}; delete some: firn snapshot list, firn snapshot prune VDISK --keep-last N",
            all.len()
        )));
    }
    let mut of: HashMap<u32, usize> = HashMap::new();
    for row in all {
        *of.entry(row.vdisk).or_default() += 1;
    }
    let full = |disk: &&Arc<VDisk>| of.get(&disk.id()).is_some_and(|n| *n >= MAX_SNAPSHOTS);
    if let Some(disk) = disks.iter().find(full) {
        let name = disk.name();
        return Err(StoreError::Refused(format!(
            "vDisk {name:?} has {MAX_SNAPSHOTS} snapshots, and can have no more; delete some: firn snapshot list {name}, firn snapshot prune {name} --keep-last N"
        )));
    }
    Ok(())
}

pub(super) fn missing(disk: &VDisk, name: &str) -> StoreError {
    StoreError::NoSnapshot {
        vdisk: disk.name().into(),
        name: name.into(),
    }
}

pub(super) fn position(
    there: &[SnapshotRow],
    disk: &VDisk,
    name: &str,
) -> Result<usize, StoreError> {
    let mut rows = there.iter();
    rows.position(|s| s.vdisk == disk.id() && s.name == name)
        .ok_or_else(|| missing(disk, name))
}

pub(super) fn find<'a>(
    there: &'a [SnapshotRow],
    disk: &VDisk,
    name: &str,
) -> Result<&'a SnapshotRow, StoreError> {
    let n = position(there, disk, name)?;
    there.get(n).ok_or_else(|| missing(disk, name))
}
