//! vDisks come, change and go; rules change; the store stops. Every change is durable when its call returns.

use super::Store;
use super::config::{VDiskSpec, check_name, check_size};
use super::vdisk::VDisk;
use crate::compress::Rules;
use crate::error::StoreError;
use crate::format::{LayerRow, SnapshotRow, UseRow, VDiskRow};
use crate::snapshot::drop_layer;
use std::sync::Arc;

impl Store {
    /// Makes a vDisk.
    pub fn create_vdisk(&self, spec: &VDiskSpec) -> Result<Arc<VDisk>, StoreError> {
        check_name(&spec.name).map_err(StoreError::Invalid)?;
        check_size(spec.size).map_err(StoreError::Invalid)?;
        let _one = self.changing.lock();
        if self.vdisks.read().contains_key(&spec.name) {
            return Err(StoreError::Exists(format!(
                "there is a vDisk named {:?} already",
                spec.name
            )));
        }
        let row = {
            let mut state = self.core.state.lock();
            let since = state.segments.oldest_unsealed();
            let catalogue = &mut state.catalogue;
            let layer = catalogue.next_layer;
            catalogue.next_layer += 1;
            let row = VDiskRow {
                id: catalogue.next_vdisk,
                uuid: self.host.new_uuid(),
                name: spec.name.clone(),
                size: spec.size,
                layer,
                write_cache: true,
                hidden: spec.hidden,
                created: self.host.now(),
                tag: String::new(),
                rules: None,
                flatten: false,
                used: None,
            };
            catalogue.next_vdisk += 1;
            let uuid = self.host.new_uuid();
            catalogue.layers.insert(
                layer,
                LayerRow {
                    id: layer,
                    uuid,
                    parent: None,
                    root: 0,
                    since,
                },
            );
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
        let vdisk = Arc::new(VDisk::of(&row, Arc::clone(&self.rules.read())));
        self.vdisks
            .write()
            .insert(spec.name.clone(), Arc::clone(&vdisk));
        Ok(vdisk)
    }

    /// Makes a hidden vDisk visible.
    pub fn publish_vdisk(&self, name: &str) -> Result<(), StoreError> {
        self.change_row(name, |row| row.hidden = false).map(drop)
    }

    /// Changes a vDisk's size.
    pub fn resize_vdisk(&self, name: &str, size: u64) -> Result<(), StoreError> {
        check_size(size).map_err(StoreError::Invalid)?;
        let vdisk = self.vdisk(name)?;
        if size < vdisk.size() {
            self.discard_behind(&vdisk, size)?;
        }
        let vdisk = self.change_row(name, |row| row.size = size)?;
        vdisk.set_size(size);
        Ok(())
    }

    /// What is cut off must not come back when the vDisk grows again.
    fn discard_behind(&self, vdisk: &Arc<VDisk>, size: u64) -> Result<(), StoreError> {
        let old = vdisk.size();
        let refused = |e: crate::error::RequestError| {
            StoreError::Refused(format!("cutting off {}: {e}", vdisk.name()))
        };
        let mut client = self.client()?;
        client
            .write_zeroes(vdisk, size, old - size)
            .map_err(refused)
    }

    /// Whether writes of the vDisk may complete before they are durable: what its guest has chosen.
    pub fn set_write_cache(&self, name: &str, on: bool) -> Result<(), StoreError> {
        let vdisk = self.vdisk(name)?;
        if !on {
            // From the moment that the guest is told, everything before is durable too.
            vdisk.set_cache(false);
        }
        if vdisk.write_cache() != on || !on {
            self.change_row(name, |row| row.write_cache = on)?;
        }
        vdisk.set_cache(on);
        Ok(())
    }

    /// Keeps who uses a vDisk, or has stopped doing so. All that was written before is durable then, too. The store
    /// says since when.
    pub fn set_use(&self, name: &str, used: UseRow) -> Result<(), StoreError> {
        let since = self.host.now();
        let used = UseRow { since, ..used };
        let vdisk = self.change_row(name, |row| row.used = Some(used))?;
        // What the catalogue has by now: somebody may have said more meanwhile.
        let state = self.core.state.lock();
        let mut rows = state.catalogue.vdisks.iter();
        let row = rows.find(|row| row.id == vdisk.id());
        vdisk.set_used(row.and_then(|row| row.used.clone()));
        Ok(())
    }

    /// Deletes a vDisk, which must have no snapshots; its space is given back in the background.
    pub fn delete_vdisk(&self, name: &str) -> Result<(), StoreError> {
        let _one = self.changing.lock();
        let vdisk = self.vdisk(name)?;
        {
            let mut state = self.core.state.lock();
            // First: while there is a schedule there are more snapshots each time.
            let mut schedules = state.catalogue.schedules.iter();
            if let Some(s) = schedules.find(|s| s.vdisks.contains(&vdisk.id())) {
                return Err(StoreError::Refused(format!(
                    "schedule {:?} takes snapshots of vDisk {name:?}; end it first: firn snapshot unschedule {}",
                    s.name, s.name
                )));
            }
            let of_it = |s: &&SnapshotRow| s.vdisk == vdisk.id();
            let snapshots = state.catalogue.snapshots.iter().filter(of_it).count();
            if snapshots > 0 {
                return Err(StoreError::Refused(format!(
                    "vDisk {name:?} has snapshots ({snapshots}); delete these first: firn snapshot delete {name} --all"
                )));
            }
            vdisk.mark_deleted();
            state.catalogue.vdisks.retain(|v| v.id != vdisk.id());
            drop_layer(&mut state, vdisk.layer());
        }
        self.vdisks.write().remove(name);
        self.checkpoint()?;
        self.core.upkeep_bell.ring();
        Ok(())
    }

    /// The compression rules of a vDisk, or (`None`) the store's.
    pub fn rules(&self, vdisk: Option<&str>) -> Result<Arc<Rules>, StoreError> {
        match vdisk {
            None => Ok(Arc::clone(&self.rules.read())),
            Some(name) => Ok(self.vdisk(name)?.rules()),
        }
    }

    /// Changes the compression rules of a vDisk, or (`None`) of the store and all vDisks without rules of their own. They
    /// hold for writes from now on.
    pub fn set_rules(&self, vdisk: Option<&str>, rules: Rules) -> Result<(), StoreError> {
        rules
            .validate()
            .map_err(|e| StoreError::Invalid(e.to_string()))?;
        let json = serde_json::to_string(&rules).map_err(|e| StoreError::Invalid(e.to_string()))?;
        let rules = Arc::new(rules);
        if let Some(name) = vdisk {
            self.change_row(name, |row| row.rules = Some(json))?
                .set_rules(rules);
            return Ok(());
        }
        let _one = self.changing.lock();
        let (before, own): (_, Vec<u32>) = {
            let mut state = self.core.state.lock();
            let before = state.catalogue.rules.replace(json);
            let rows = state.catalogue.vdisks.iter();
            let own = rows.filter(|v| v.rules.is_some()).map(|v| v.id);
            (before, own.collect())
        };
        self.checkpoint().inspect_err(|_| {
            self.core.state.lock().catalogue.rules = before;
        })?;
        *self.rules.write() = Arc::clone(&rules);
        for vdisk in self
            .vdisks
            .read()
            .values()
            .filter(|v| !own.contains(&v.id()))
        {
            vdisk.set_rules(Arc::clone(&rules));
        }
        Ok(())
    }

    pub(super) fn change_row(
        &self,
        name: &str,
        change: impl FnOnce(&mut VDiskRow),
    ) -> Result<Arc<VDisk>, StoreError> {
        let _one = self.changing.lock();
        let vdisk = self.vdisk(name)?;
        let before = {
            let mut state = self.core.state.lock();
            let row = state
                .catalogue
                .vdisks
                .iter_mut()
                .find(|v| v.id == vdisk.id());
            let row = row.ok_or_else(|| StoreError::NotFound(name.into()))?;
            let before = row.clone();
            change(row);
            before
        };
        if let Err(error) = self.checkpoint() {
            let mut state = self.core.state.lock();
            if let Some(row) = state
                .catalogue
                .vdisks
                .iter_mut()
                .find(|v| v.id == vdisk.id())
            {
                *row = before;
            }
            return Err(error);
        }
        Ok(vdisk)
    }

    /// Drains the write buffer empty, takes a last checkpoint, and stops the threads. Guests must have stopped sending.
    pub fn shutdown(&self) -> Result<(), StoreError> {
        self.threads.stop(&self.core);
        let mut checkpointer = self.upkeep.checkpointer.lock();
        let buffer = checkpointer.superblock().buffer.clone();
        checkpointer.run(&self.core, |superblock| superblock.buffer = None)?;
        // Whoever still sends is told, and not acknowledged into a buffer that nothing names any more.
        self.core.state.lock().failed = Some("it was shut down".into());
        if let Some(buffer) = buffer {
            let _ = self.host.runtime().remove_memory(&buffer.file());
        }
        Ok(())
    }
}
