//! Snapshots: what each sector was at the cut, for as long as there is one.

use super::check::Near;
use super::{History, SIZES, name_of};
use crate::model::Value;
use block_store::{Created, Cut, StoreError};
use rand::Rng;
use std::collections::BTreeMap;

/// Snapshots at a time, at most.
const MOST: usize = 5;

/// A snapshot of a history.
pub struct Snapshot {
    name: String,
    vdisks: Vec<usize>,
    /// What each sector may read as: one value, once it was read.
    image: BTreeMap<(usize, u64), Vec<Value>>,
    /// Its creation or deletion has not succeeded, or not yet: the next process will see.
    unsure: bool,
}

impl History {
    /// Names and vDisks for a snapshot to be taken; `None`: there are enough.
    pub(super) fn new_snapshot(&mut self) -> Option<(String, Vec<usize>)> {
        if self.snapshots.len() >= MOST {
            return None;
        }
        self.next_snapshot += 1;
        let name = format!("s{}", self.next_snapshot);
        let vdisks = match self.rng.random_range(0..3) {
            0 => vec![0],
            1 => vec![1],
            _ => (0..SIZES.len()).collect(),
        };
        self.tell(|| format!("snapshot {name} of vDisks {vdisks:?}"));
        Some((name, vdisks))
    }

    /// It was cut just now. From here on nobody knows whether it will be there.
    pub(super) fn cut(
        &mut self,
        name: String,
        vdisks: Vec<usize>,
        cut: Result<Cut, StoreError>,
    ) -> Option<Cut> {
        if self.disk.is_crashed() {
            return None;
        }
        match cut {
            Ok(cut) => {
                let mut image = BTreeMap::new();
                for vdisk in &vdisks {
                    for sector in self.model.sectors(*vdisk) {
                        image.insert((*vdisk, sector), self.model.current(*vdisk, sector));
                    }
                }
                self.snapshots.push(Snapshot {
                    name,
                    vdisks,
                    image,
                    unsure: true,
                });
                Some(cut)
            }
            Err(error) => {
                assert!(self.tight || self.faulty, "cutting: {error}");
                None
            }
        }
    }

    pub(super) fn completed(&mut self, made: Result<Created, StoreError>) {
        if self.disk.is_crashed() {
            return;
        }
        match made {
            Ok(_) => {
                self.totals.snapshots += 1;
                self.snapshots.last_mut().unwrap().unsure = false;
            }
            Err(error) => {
                assert!(self.tight || self.faulty, "completing: {error}");
                if !self.has_failed() {
                    self.snapshots.pop();
                }
            }
        }
    }

    /// Where a snapshot to be deleted is among them; from here on nobody knows.
    pub(super) fn begin_forgetting(&mut self) -> Option<(String, Vec<usize>)> {
        let sure: Vec<usize> = (0..self.snapshots.len())
            .filter(|n| !self.snapshots[*n].unsure)
            .collect();
        if sure.is_empty() {
            return None;
        }
        let n = sure[self.rng.random_range(0..sure.len())];
        let snapshot = &mut self.snapshots[n];
        snapshot.unsure = true;
        let (name, vdisks) = (snapshot.name.clone(), snapshot.vdisks.clone());
        self.tell(|| format!("snapshot {name} is being deleted"));
        Some((name, vdisks))
    }

    /// It is gone from this vDisk, or not.
    pub(super) fn forgotten(&mut self, name: &str, vdisk: usize, outcome: Result<(), StoreError>) {
        if self.disk.is_crashed() {
            return;
        }
        let n = self.snapshots.iter().position(|s| s.name == name).unwrap();
        match outcome {
            Ok(()) => {
                let snapshot = &mut self.snapshots[n];
                snapshot.vdisks.retain(|v| *v != vdisk);
                if snapshot.vdisks.is_empty() {
                    self.snapshots.remove(n);
                    self.totals.forgotten += 1;
                }
            }
            Err(error) => {
                assert!(self.tight || self.faulty, "deleting a snapshot: {error}");
                // Without a checkpoint it stays, and is to be deleted no more: there is a hole in a group otherwise.
                self.snapshots[n].unsure = self.has_failed();
            }
        }
    }

    /// The snapshots that a new process finds.
    pub(super) fn snapshots_of(&mut self, store: &block_store::Store) {
        let there = store.snapshots(None).unwrap();
        let is_there = |name: &str, vdisk: usize| {
            let of = name_of(vdisk);
            there.iter().any(|s| s.name == name && s.vdisk == of)
        };
        for snapshot in &mut self.snapshots {
            let (name, unsure) = (snapshot.name.clone(), snapshot.unsure);
            snapshot.vdisks.retain(|vdisk| {
                let found = is_there(&name, *vdisk);
                assert!(found || unsure, "snapshot {name} of vDisk {vdisk} is gone");
                found
            });
            snapshot.unsure = false;
        }
        self.snapshots.retain(|s| !s.vdisks.is_empty());
        let known: usize = self.snapshots.iter().map(|s| s.vdisks.len()).sum();
        assert_eq!(there.len(), known, "a deleted snapshot is back: {there:?}");
    }

    /// Reads all of them: each sector must be what it was at the cut, and what it was found to be before.
    pub(super) fn check_snapshots(&mut self, when: &str) {
        for n in 0..self.snapshots.len() {
            if self.snapshots[n].unsure {
                continue;
            }
            let (name, vdisks) = (
                self.snapshots[n].name.clone(),
                self.snapshots[n].vdisks.clone(),
            );
            for vdisk in vdisks {
                let view = self.store().open_snapshot(&name_of(vdisk), &name).unwrap();
                let sectors = self.model.sectors(vdisk);
                let mut near = Near::default();
                for sector in sectors {
                    let bytes = self.read_sector(&view, sector, &mut near);
                    let image = &self.snapshots[n].image;
                    let allowed = image.get(&(vdisk, sector)).cloned();
                    let allowed = allowed.unwrap_or_else(|| vec![Value::VIRGIN]);
                    let what = format!("{when}: snapshot {name}");
                    let seen = self.match_value(vdisk, sector, &bytes, &allowed, &what);
                    let image = &mut self.snapshots[n].image;
                    image.insert((vdisk, sector), vec![seen]);
                    self.totals.sectors_checked += 1;
                }
            }
        }
    }
}
