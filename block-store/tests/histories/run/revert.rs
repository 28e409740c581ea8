//! A vDisk becomes again what it was at a snapshot.

use super::snapshots::Image;
use super::{History, Pending, SIZES};
use block_store::{StoreError, VDisk};
use rand::Rng;
use std::sync::Arc;

/// One under way: nobody uses the vDisk meanwhile.
pub struct Reverting {
    vdisk: usize,
    disk: Arc<VDisk>,
    image: Image,
    /// What it was before.
    before: Image,
}

impl History {
    /// A vDisk that nobody is using just now, and its snapshot. From here on nobody knows which of both it is.
    pub(super) fn begin_revert(&mut self) -> Option<(usize, String)> {
        let vdisk = self.rng.random_range(0..SIZES.len());
        for _ in 0..20 {
            self.poll();
        }
        let run = self.run.as_mut()?;
        let in_use = run.pending.values().any(|p| {
            let (Pending::Write { vdisk: v, .. }
            | Pending::Read { vdisk: v, .. }
            | Pending::Flush { vdisk: v, .. }) = p;
            *v == vdisk
        });
        if in_use || self.disk.is_crashed() {
            return None;
        }
        let (name, image) = self.some_snapshot_of(vdisk)?;
        self.tell(|| format!("vDisk {vdisk} is being reverted to snapshot {name}"));
        let disk = self.run.as_mut()?.vdisks.remove(&vdisk)?;
        let before = self.model.image_of(vdisk);
        self.model.reverting(vdisk, &image);
        self.reverting = Some(Reverting {
            vdisk,
            disk,
            image,
            before,
        });
        Some((vdisk, name))
    }

    pub(super) fn reverted(&mut self, outcome: Result<(), StoreError>) {
        let reverting = self.reverting.take().unwrap();
        if self.disk.is_crashed() {
            return;
        }
        match outcome {
            Ok(()) => {
                self.totals.reverts += 1;
                self.model.reverted(reverting.vdisk, &reverting.image);
            }
            Err(error) => {
                assert!(self.tight || self.faulty, "reverting: {error}");
                if self.has_failed() {
                    return;
                }
                self.model.put_back(reverting.vdisk, reverting.before);
            }
        }
        let run = self.run.as_mut().unwrap();
        run.vdisks.insert(reverting.vdisk, reverting.disk);
    }
}
