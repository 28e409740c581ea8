//! Snapshots: what each sector was at the cut, for as long as there is one.

use super::check::Near;
use super::{History, SIZES, name_of};
use crate::model::Value;
use block_store::{Created, Cut, Keep, Pruned, ScheduleSpec, ScheduledCuts, StoreError, Tended};
use rand::Rng;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// Snapshots at a time, at most.
const MOST: usize = 5;
/// What a schedule keeps: two of these at most, of one moment or of two hours.
const KEPT: Keep = Keep {
    last: 1,
    hourly: 2,
    daily: 0,
    weekly: 0,
    monthly: 0,
};
/// What stays of the rest, of each vDisk.
pub const PRUNED: Keep = Keep {
    last: 2,
    hourly: 0,
    ..KEPT
};

/// What each sector of a vDisk may read as.
pub type Image = BTreeMap<u64, Vec<Value>>;

/// A snapshot of a history.
pub struct Snapshot {
    name: String,
    vdisks: Vec<usize>,
    /// What each sector may read as: one value, once it was read.
    image: BTreeMap<(usize, u64), Vec<Value>>,
    /// A schedule has taken it.
    scheduled: bool,
    /// Its creation or deletion has not succeeded, or not yet: the next process will see.
    unsure: bool,
}

impl History {
    /// Names and vDisks for a snapshot to be taken; `None`: there are enough.
    pub(super) fn new_snapshot(&mut self) -> Option<(String, Vec<usize>)> {
        if self.snapshots.iter().filter(|s| !s.scheduled).count() >= MOST {
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
                self.sealed(name, vdisks, false);
                Some(cut)
            }
            Err(error) => {
                assert!(self.tight || self.faulty, "cutting: {error}");
                None
            }
        }
    }

    pub(super) fn completed(&mut self, name: &str, made: Result<Created, StoreError>) {
        if self.disk.is_crashed() {
            return;
        }
        match made {
            Ok(_) => {
                self.totals.snapshots += 1;
                let n = self.position(name);
                self.snapshots[n].unsure = false;
            }
            Err(error) => {
                assert!(self.tight || self.faulty, "completing: {error}");
                if !self.has_failed() {
                    let n = self.position(name);
                    self.snapshots.remove(n);
                }
            }
        }
    }

    fn position(&self, name: &str) -> usize {
        self.snapshots.iter().position(|s| s.name == name).unwrap()
    }

    /// What these vDisks are at this moment is what a snapshot will read as, if it comes to be.
    fn sealed(&mut self, name: String, vdisks: Vec<usize>, scheduled: bool) {
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
            scheduled,
            unsure: true,
        });
    }

    /// Both vDisks get a schedule.
    pub(super) fn make_schedule(&mut self) {
        let spec = ScheduleSpec {
            name: "auto".into(),
            vdisks: (0..SIZES.len()).map(name_of).collect(),
            every: 60,
            prefix: None,
            keep: KEPT,
        };
        self.store().create_schedule(&spec).unwrap();
    }

    /// The clock goes on, and is set now and then.
    pub(super) fn time_passes(&mut self) -> u64 {
        let now = self.clock.load(Relaxed);
        let now = match self.rng.random_range(0..20) {
            0 => now - self.rng.random_range(0..10_000),
            // Days: what nobody touches is cold then.
            1..4 => now + self.rng.random_range(0..200_000),
            _ => now + self.rng.random_range(10..1500),
        };
        self.clock.store(now, Relaxed);
        self.tell(|| format!("it is {now}"));
        now
    }

    /// The schedule's vDisks were cut just now. From here on nobody knows about its snapshots. `false`: there was nothing to do.
    pub(super) fn scheduled(&mut self, cuts: &ScheduledCuts) -> bool {
        if self.disk.is_crashed() {
            return false;
        }
        let names: Vec<String> = cuts.names().map(|(_, name)| name.to_owned()).collect();
        assert!(names.len() <= 1, "{names:?}");
        let Some(name) = names.into_iter().next() else {
            return false;
        };
        self.tell(|| format!("scheduled snapshot {name}"));
        self.sealed(name, (0..SIZES.len()).collect(), true);
        for snapshot in self.snapshots.iter_mut().filter(|s| s.scheduled) {
            snapshot.unsure = true;
        }
        true
    }

    /// It was taken, and others of its schedule went; or nothing has happened.
    pub(super) fn tended(&mut self, tended: &Tended) {
        if self.disk.is_crashed() || self.has_failed() {
            return;
        }
        self.totals.scheduled += tended.taken.len() as u64;
        self.totals.retired += tended.gone.len() as u64;
        let there = self.store().snapshots(None).unwrap();
        if tended.taken.is_empty() {
            assert!(self.tight || self.faulty, "no snapshot was taken");
        }
        let its = there.iter().filter(|s| s.schedule.is_some());
        assert!(its.count() <= 2 * SIZES.len(), "{there:?}");
        for snapshot in self.snapshots.iter_mut().filter(|s| s.scheduled) {
            snapshot.unsure = false;
        }
        let is_there = |name: &str| there.iter().filter(|s| s.name == name).count();
        self.snapshots.retain(|s| {
            let n = is_there(&s.name);
            assert!(
                !s.scheduled || n == 0 || n == SIZES.len(),
                "half a snapshot"
            );
            !s.scheduled || n > 0
        });
    }

    /// A vDisk whose snapshots rules will be about; from here on nobody knows about these.
    pub(super) fn begin_pruning(&mut self) -> usize {
        let vdisk = self.rng.random_range(0..SIZES.len());
        self.tell(|| format!("snapshots of vDisk {vdisk} are being pruned"));
        self.unsure_before = self
            .snapshots
            .iter()
            .filter(|s| s.unsure)
            .map(|s| s.name.clone())
            .collect();
        for snapshot in &mut self.snapshots {
            snapshot.unsure |= !snapshot.scheduled && snapshot.vdisks.contains(&vdisk);
        }
        vdisk
    }

    pub(super) fn pruned(&mut self, vdisk: usize, pruned: Result<Pruned, StoreError>) {
        if self.disk.is_crashed() || self.has_failed() {
            return;
        }
        let gone = match pruned {
            Ok(pruned) => pruned.snapshots,
            Err(error) => {
                assert!(self.tight || self.faulty, "pruning: {error}");
                Vec::new()
            }
        };
        for fate in gone.iter().filter(|fate| fate.kept_by.is_empty()) {
            self.totals.pruned += 1;
            let n = self.position(&fate.name);
            self.snapshots[n].vdisks.retain(|v| *v != vdisk);
        }
        for snapshot in &mut self.snapshots {
            snapshot.unsure = self.unsure_before.contains(&snapshot.name);
        }
        self.snapshots.retain(|s| !s.vdisks.is_empty());
    }

    /// A snapshot of this vDisk that is sure to be there, and what it reads as.
    pub(super) fn some_snapshot_of(&mut self, vdisk: usize) -> Option<(String, Image)> {
        let sure = |s: &&Snapshot| !s.unsure && !s.scheduled && s.vdisks.contains(&vdisk);
        let n = self.snapshots.iter().filter(sure).count();
        if n == 0 {
            return None;
        }
        let n = self.rng.random_range(0..n);
        let snapshot = self.snapshots.iter().filter(sure).nth(n)?;
        let image = snapshot.image.iter().filter(|((v, _), _)| *v == vdisk);
        let image = image.map(|((_, sector), values)| (*sector, values.clone()));
        Some((snapshot.name.clone(), image.collect()))
    }

    /// Where a snapshot to be deleted is among them; from here on nobody knows.
    pub(super) fn begin_forgetting(&mut self) -> Option<(String, Vec<usize>)> {
        let sure: Vec<usize> = (0..self.snapshots.len())
            .filter(|n| !self.snapshots[*n].unsure && !self.snapshots[*n].scheduled)
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
