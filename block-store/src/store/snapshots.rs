//! Snapshots as users see them: made, listed, held, renamed, deleted, reverted to, cloned, read.
//!
//! Every change is durable when its call returns. Space is given back afterwards, in the background.

use super::Store;
use super::branches::{SnapshotInfo, Tree, View};
use super::config::check_name;
use super::keeper::{Change, find, missing, must_be_free, position};
use super::vdisk::VDisk;
use crate::error::StoreError;
use crate::format::{Catalogue, LayerRow, SnapshotRow, VDiskRow};
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A snapshot that was made.
#[derive(Debug, Clone, Serialize)]
pub struct Created {
    /// The cut: the same for all vDisks.
    pub lsn: u64,
    /// For how long guests' I/O was held up.
    pub stall: Duration,
    /// How long it took until all up to the cut was durable.
    pub durable: Duration,
}

/// Snapshots that were deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// Their names.
    pub deleted: Vec<String>,
    /// Of these, those whose space comes back only when one of several branches over them is left.
    pub deferred: Vec<String>,
}

/// What was cut for a snapshot, and is not named yet.
#[derive(Debug)]
pub struct Cut {
    pub(super) rows: Vec<SnapshotRow>,
    pub(super) disks: Vec<Arc<VDisk>>,
    pub(super) lsn: u64,
    pub(super) stall: Duration,
    pub(super) begun: Instant,
    /// Keeps the sealed layers.
    pub(super) _reader: Arc<()>,
}

impl Cut {
    /// Has the snapshots held from their first moment on: there is none when they are there, and could be deleted.
    pub fn held_by(mut self, holder: &str) -> Result<Cut, StoreError> {
        check_name(holder).map_err(StoreError::Invalid)?;
        for row in &mut self.rows {
            row.holds.push(holder.to_owned());
        }
        Ok(self)
    }
}

impl Store {
    /// Takes a snapshot of some vDisks at one instant, under one name. It is durable when the call returns.
    pub fn create_snapshot(&self, vdisks: &[&str], name: &str) -> Result<Created, StoreError> {
        let cut = self.cut_snapshot(vdisks, name)?;
        self.complete_snapshot(cut)
    }

    /// The instant of a snapshot alone: whoever has quiesced guests for it can let them go on. What it has cut stays as it is
    /// until the answer is completed, or dropped, and is no snapshot before that.
    pub fn cut_snapshot(&self, vdisks: &[&str], name: &str) -> Result<Cut, StoreError> {
        let _one = self.changing.lock();
        self.keeper().cut_named(vdisks, name)
    }

    /// Makes durable what was cut, and gives it its name.
    pub fn complete_snapshot(&self, cut: Cut) -> Result<Created, StoreError> {
        let _one = self.changing.lock();
        self.keeper().complete(cut)
    }

    /// All snapshots, or those of one vDisk, oldest first.
    pub fn snapshots(&self, vdisk: Option<&str>) -> Result<Vec<SnapshotInfo>, StoreError> {
        let only = vdisk.map(|name| self.vdisk(name)).transpose()?;
        // One that is being made is not there yet.
        let _one = self.changing.lock();
        let view = View::of(&self.core.state.lock().catalogue, |vdisk| {
            only.as_ref().is_none_or(|v| v.id() == vdisk)
        });
        let tree = Tree::of(&view);
        Ok(view.rows.iter().map(|row| tree.describe(row)).collect())
    }

    /// Deletes some of a vDisk's snapshots, all at once or none. One that several branches would still lie over is refused, or
    /// (`defer`) loses its name now and its space when one of these is left.
    pub fn delete_snapshots(
        &self,
        vdisk: &str,
        names: &[&str],
        defer: bool,
    ) -> Result<Deleted, StoreError> {
        let _one = self.changing.lock();
        let disk = self.vdisk(vdisk)?;
        let view = View::of(&self.core.state.lock().catalogue, |vdisk| {
            vdisk == disk.id()
        });
        let mut rows = Vec::new();
        for name in names {
            let row = find(&view.rows, &disk, name)?;
            may_go(&disk, row)?;
            rows.push(row.clone());
        }
        let going = without_clones(view, &disk, rows, defer)?;
        let mut deleted = Deleted::default();
        let mut remove = HashSet::new();
        for (row, waits) in going {
            if remove.insert(row.uuid) {
                deleted.deferred.extend(waits.then(|| row.name.clone()));
                deleted.deleted.push(row.name);
            }
        }
        if !remove.is_empty() {
            self.keeper().apply(Change {
                remove,
                ..Change::default()
            })?;
            self.core.upkeep_bell.ring();
        }
        Ok(deleted)
    }

    /// Gives a snapshot another name.
    pub fn rename_snapshot(&self, vdisk: &str, name: &str, to: &str) -> Result<(), StoreError> {
        check_name(to).map_err(StoreError::Invalid)?;
        self.change_snapshot(vdisk, name, |catalogue, disk| {
            must_be_free(&catalogue.snapshots, disk, to)?;
            let n = position(&catalogue.snapshots, disk, name)?;
            if let Some(row) = catalogue.snapshots.get_mut(n) {
                row.name = to.to_owned();
            }
            Ok(())
        })
    }

    /// Keeps a snapshot from being deleted until this holder releases it. Holding it twice is holding it.
    pub fn hold_snapshot(&self, vdisk: &str, name: &str, holder: &str) -> Result<(), StoreError> {
        check_name(holder).map_err(StoreError::Invalid)?;
        self.change_snapshot(vdisk, name, |catalogue, disk| {
            let n = position(&catalogue.snapshots, disk, name)?;
            if let Some(row) = catalogue.snapshots.get_mut(n)
                && !row.holds.iter().any(|h| h == holder)
            {
                row.holds.push(holder.to_owned());
            }
            Ok(())
        })
    }

    /// Ends a hold.
    pub fn release_snapshot(
        &self,
        vdisk: &str,
        name: &str,
        holder: &str,
    ) -> Result<(), StoreError> {
        self.change_snapshot(vdisk, name, |catalogue, disk| {
            let n = position(&catalogue.snapshots, disk, name)?;
            let row = catalogue.snapshots.get_mut(n);
            let row = row.ok_or_else(|| missing(disk, name))?;
            let before = row.holds.len();
            row.holds.retain(|h| h != holder);
            if row.holds.len() == before {
                return Err(StoreError::Refused(format!(
                    "{holder:?} does not hold snapshot {name:?} of vDisk {vdisk:?}"
                )));
            }
            Ok(())
        })
    }

    fn change_snapshot(
        &self,
        vdisk: &str,
        name: &str,
        change: impl FnOnce(&mut Catalogue, &VDisk) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _one = self.changing.lock();
        let disk = self.vdisk(vdisk)?;
        let before = {
            let mut state = self.core.state.lock();
            let n = position(&state.catalogue.snapshots, &disk, name)?;
            let before = state.catalogue.snapshots.get(n).cloned();
            change(&mut state.catalogue, &disk)?;
            before
        };
        if let Err(error) = self.checkpoint() {
            let mut state = self.core.state.lock();
            for row in &mut state.catalogue.snapshots {
                if let Some(before) = before.as_ref().filter(|b| b.uuid == row.uuid) {
                    row.clone_from(before);
                }
            }
            return Err(error);
        }
        Ok(())
    }

    /// Makes a vDisk what it was at a snapshot. What it is now can be kept as a snapshot first; else it is gone. Nobody may
    /// use the vDisk meanwhile: that is the caller's to see to.
    pub fn revert_vdisk(
        &self,
        vdisk: &str,
        name: &str,
        keep: Option<&str>,
    ) -> Result<(), StoreError> {
        if let Some(keep) = keep {
            check_name(keep).map_err(StoreError::Invalid)?;
        }
        let _one = self.changing.lock();
        let disk = self.vdisk(vdisk)?;
        let row = find(&self.core.state.lock().catalogue.snapshots, &disk, name)?.clone();
        if let Some(keep) = keep {
            let keeper = self.keeper();
            keeper.complete(keeper.cut_named(&[vdisk], keep)?)?;
        }
        // Until it is durable nobody may let go of what is to be left.
        let (before, size, pin) = (disk.layer(), disk.size(), Arc::new(()));
        let reader = (before, Arc::downgrade(&pin));
        self.core.state.lock().readers.push(reader);
        let disks = [Arc::clone(&disk)];
        let over = |layer| self.keeper().cut(&disks, Some(layer), |_, _, _| {});
        over(row.layer)?;
        disk.set_size(row.size);
        if let Err(error) = self.checkpoint() {
            over(before).inspect_err(|undo| {
                log::error!("vDisk {vdisk} stays what it was at snapshot {name}: {undo}");
            })?;
            disk.set_size(size);
            return Err(error);
        }
        self.core.upkeep_bell.ring();
        Ok(())
    }

    /// A new vDisk that begins as a snapshot of another one, and shares its data.
    pub fn clone_vdisk(
        &self,
        vdisk: &str,
        name: &str,
        new: &str,
    ) -> Result<Arc<VDisk>, StoreError> {
        check_name(new).map_err(StoreError::Invalid)?;
        let _one = self.changing.lock();
        if self.vdisks.read().contains_key(new) {
            return Err(StoreError::Exists(format!(
                "there is a vDisk named {new:?} already"
            )));
        }
        let disk = self.vdisk(vdisk)?;
        let row = {
            let mut state = self.core.state.lock();
            let state = &mut *state;
            let since = state.segments.oldest_unsealed();
            let catalogue = &mut state.catalogue;
            let snapshot = find(&catalogue.snapshots, &disk, name)?.clone();
            let source = catalogue.vdisks.iter().find(|v| v.id == disk.id());
            let source = source
                .ok_or_else(|| StoreError::NotFound(vdisk.into()))?
                .clone();
            let layer = catalogue.next_layer;
            catalogue.next_layer += 1;
            catalogue.layers.insert(
                layer,
                LayerRow {
                    id: layer,
                    uuid: self.host.new_uuid(),
                    parent: Some(snapshot.layer),
                    root: 0,
                    since,
                },
            );
            let row = VDiskRow {
                id: catalogue.next_vdisk,
                uuid: self.host.new_uuid(),
                name: new.to_owned(),
                size: snapshot.size,
                layer,
                hidden: false,
                created: self.host.now(),
                flatten: false,
                used: None,
                ..source
            };
            catalogue.next_vdisk += 1;
            catalogue.vdisks.push(row.clone());
            state.map.add_layer(layer, 0);
            row
        };
        if let Err(error) = self.checkpoint() {
            let mut state = self.core.state.lock();
            state.catalogue.vdisks.retain(|v| v.id != row.id);
            state.catalogue.layers.remove(&row.layer);
            return Err(error);
        }
        let clone = Arc::new(VDisk::of(&row, disk.rules()));
        self.vdisks
            .write()
            .insert(new.to_owned(), Arc::clone(&clone));
        Ok(clone)
    }

    /// A snapshot as a vDisk that can only be read. Its layer stays until this is dropped, whatever becomes of the name.
    pub fn open_snapshot(&self, vdisk: &str, name: &str) -> Result<Arc<VDisk>, StoreError> {
        let disk = self.vdisk(vdisk)?;
        let mut state = self.core.state.lock();
        let snapshot = find(&state.catalogue.snapshots, &disk, name)?.clone();
        let row = state.catalogue.vdisks.iter().find(|v| v.id == disk.id());
        let row = row.ok_or_else(|| StoreError::NotFound(vdisk.into()))?;
        let reader = Arc::new(());
        let view = VDisk::of_snapshot(row, &snapshot, disk.rules(), Arc::clone(&reader));
        state
            .readers
            .push((snapshot.layer, Arc::downgrade(&reader)));
        Ok(Arc::new(view))
    }
}

/// Refuses what somebody needs.
fn may_go(disk: &VDisk, row: &SnapshotRow) -> Result<(), StoreError> {
    if row.holds.is_empty() {
        return Ok(());
    }
    let (name, vdisk) = (&row.name, disk.name());
    Err(StoreError::Refused(format!(
        "snapshot {name} of vDisk {vdisk} is held by {}; if nobody needs it: firn snapshot release {vdisk} {name} {}",
        row.holds.join(", "),
        row.holds.join(" ")
    )))
}

/// With each of these snapshots, whether several branches lie over it once all of them are gone; refused where `defer` does not
/// allow that.
fn without_clones(
    mut view: View,
    disk: &VDisk,
    rows: Vec<SnapshotRow>,
    defer: bool,
) -> Result<Vec<(SnapshotRow, bool)>, StoreError> {
    let going: HashSet<_> = rows.iter().map(|row| row.uuid).collect();
    view.rows.retain(|s| !going.contains(&s.uuid));
    let tree = Tree::of(&view);
    let mut out = Vec::new();
    for row in rows {
        let clones = tree.clones(&row);
        if !clones.is_empty() && !defer {
            let (name, vdisk, over) = (&row.name, disk.name(), clones.join(", "));
            let own = clones.iter().all(|c| c.starts_with(&format!("{vdisk}@")));
            return Err(StoreError::Refused(match own {
                true => format!(
                    "vDisk {vdisk} was reverted to snapshot {name}, and what it was before lies over it too: {over}. Delete the snapshots that keep that as well, or let the name go now and the space later, with --defer"
                ),
                false => format!(
                    "clones lie over snapshot {name} of vDisk {vdisk}: {over}. Delete these first, make them independent (firn vdisk flatten), or let the name go now and the space later, with --defer"
                ),
            }));
        }
        out.push((row, !clones.is_empty()));
    }
    Ok(out)
}
