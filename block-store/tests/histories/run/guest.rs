//! The vDisk that comes and goes.

use super::{Guest, History, SIZES, name_of};
use crate::between::Phase;
use block_store::{Store, StoreError, VDisk};
use rand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;

impl History {
    /// The vDisks that a new process finds.
    pub(super) fn vdisks_of(&mut self, store: &Store) -> BTreeMap<usize, Arc<VDisk>> {
        let mut vdisks = BTreeMap::new();
        for n in 0..SIZES.len() {
            vdisks.extend(store.vdisk(&name_of(n)).ok().map(|v| (n, v)));
        }
        match self.guest {
            Guest::There(n) => {
                let vdisk = store.vdisk(&name_of(n));
                vdisks.insert(n, vdisk.expect("its creation had succeeded"));
            }
            Guest::Unsure(n) => match store.vdisk(&name_of(n)) {
                Ok(vdisk) => {
                    vdisks.insert(n, vdisk);
                    self.guest = Guest::There(n);
                }
                Err(_) => self.guest_is_gone(n),
            },
            Guest::Gone => {}
        }
        assert_eq!(store.vdisks().len(), vdisks.len(), "a deletion was undone");
        vdisks
    }

    /// The next one; as often as there is something to clone, a clone, and then what of which vDisk.
    pub(super) fn new_guest(&mut self) -> (usize, Option<String>) {
        let vdisk = self.next_guest;
        self.next_guest += 1;
        self.guest = Guest::Unsure(vdisk);
        let source = match self.rng.random_bool(0.7) {
            true => self.some_snapshot_of(0),
            false => None,
        };
        let source = source.map(|(name, image)| {
            self.tell(|| format!("vDisk {vdisk} is to be a clone of snapshot {name}"));
            self.model.clone_of(vdisk, image.into_iter());
            name
        });
        (vdisk, source)
    }

    pub(super) fn guest_is_gone(&mut self, vdisk: usize) {
        self.guest = Guest::Gone;
        self.model.forget(vdisk);
    }

    pub(super) fn created(
        &mut self,
        vdisk: usize,
        is_clone: bool,
        made: Result<Arc<VDisk>, StoreError>,
    ) {
        if self.disk.is_crashed() {
            return;
        }
        match made {
            Ok(made) => {
                self.guest = Guest::There(vdisk);
                self.totals.clones += u64::from(is_clone);
                self.run.as_mut().unwrap().vdisks.insert(vdisk, made);
            }
            Err(error) => assert!(self.tight || self.faulty, "creating a vDisk: {error}"),
        }
    }

    pub(super) fn flattened(&mut self, outcome: Result<(), StoreError>) {
        if self.disk.is_crashed() {
            return;
        }
        match outcome {
            Ok(()) => self.totals.flattened += 1,
            // It is no clone, or none any more.
            Err(StoreError::Refused(_)) => {}
            Err(error) => assert!(self.tight || self.faulty, "making independent: {error}"),
        }
    }

    /// From here on nobody knows: its number, if there is a vDisk to be deleted.
    pub fn begin_deletion(&mut self) -> Option<usize> {
        let Guest::There(vdisk) = self.guest else {
            return None;
        };
        self.tell(|| format!("vDisk {vdisk} is being deleted"));
        self.guest = Guest::Unsure(vdisk);
        self.run.as_mut()?.vdisks.remove(&vdisk);
        Some(vdisk)
    }

    pub(super) fn deleted(&mut self, outcome: Result<(), StoreError>) {
        let Guest::Unsure(vdisk) = self.guest else {
            panic!("nothing was being deleted");
        };
        if self.disk.is_crashed() {
            return;
        }
        match outcome {
            Ok(()) => {
                self.totals.deletions += 1;
                self.guest_is_gone(vdisk);
            }
            Err(error) => assert!(self.tight || self.faulty, "deleting a vDisk: {error}"),
        }
    }

    /// Deletes the vDisk that comes and goes while a checkpoint is under way: the catalogue changes at once, and what
    /// makes it durable waits for the checkpoint.
    pub fn delete_meanwhile(&mut self) {
        if self.phase != Phase::Checkpoint || self.deletion.is_some() {
            return;
        }
        let Some(vdisk) = self.begin_deletion() else {
            return;
        };
        self.totals.deletions_between += 1;
        let (store, name) = (self.store(), name_of(vdisk));
        let deleting = Arc::clone(&store);
        self.deletion = Some(std::thread::spawn(move || {
            deleting.delete_vdisk(&name_of(vdisk))
        }));
        while store.vdisk(&name).is_ok() {
            std::thread::yield_now();
        }
    }
}
