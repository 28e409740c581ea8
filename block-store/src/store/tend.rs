//! What schedules do: snapshots that are due are taken, and those that their rules no longer keep go, all by one checkpoint.
//!
//! # Crash
//! 1. The vDisks of each schedule that is due are cut: a record of the log, which names nothing.
//! 2. In one critical section the catalogue gets the new snapshots' rows, loses those of the ones that go, and each schedule's
//!    row says which slot has been served.
//! 3. A checkpoint makes that durable. Before, there is neither snapshot nor served slot: after a crash it is still due.
//!
//! # Failures
//! One schedule's does not concern the others, unless it is the checkpoint's. It is told once, until it is another one, and tried
//! again when the next slot begins, or after a minute. Nothing is cut while the store is full: each cut leaves a layer.

use super::Store;
use super::branches::{Tree, View};
use super::keeper::{Change, Keeper, may_complete, must_be_free};
use super::prune::reasons;
use super::schedules::{Healths, is_of};
use super::snapshots::Cut;
use super::vdisk::VDisk;
use crate::error::StoreError;
use crate::format::{ScheduleRow, SnapshotRow};
use crate::snapshot::{Due, due, pause_after, pause_after_failure, stamp};
use crate::state::State;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// Names that are tried for a snapshot where others of the same second are there.
const NAMES: usize = 100;

/// What it takes to keep the schedules.
pub(super) struct Tender {
    pub(super) keeper: Keeper,
    pub(super) changing: Arc<Mutex<()>>,
    pub(super) healths: Arc<Mutex<Healths>>,
}

/// Snapshots of schedules that were cut, and are not named yet.
#[derive(Debug)]
pub struct ScheduledCuts {
    now: u64,
    all: Vec<ScheduledCut>,
}

#[derive(Debug)]
struct ScheduledCut {
    schedule: String,
    every: u64,
    slot: u64,
    missed: u64,
    name: String,
    cut: Cut,
}

/// What schedules have done.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tended {
    /// Schedules and names of the snapshots that they have taken.
    pub taken: Vec<(String, String)>,
    /// UUIDs of the snapshots that went.
    pub gone: Vec<Uuid>,
}

impl ScheduledCuts {
    /// Schedules, and names of the snapshots that are to be.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.all.iter();
        all.map(|c| (c.schedule.as_str(), c.name.as_str()))
    }
}

impl Store {
    /// Does what is due at `now` by the schedules. With threads, one of these does it.
    pub fn tend_schedules(&self, now: u64) -> Tended {
        self.tender().tend(now)
    }

    /// The cuts alone; they become snapshots when they are completed.
    pub fn cut_scheduled(&self, now: u64) -> ScheduledCuts {
        self.tender().cut(now)
    }

    /// Names what was cut, lets go what is no longer kept, and makes that durable.
    pub fn complete_scheduled(&self, cuts: ScheduledCuts) -> Tended {
        self.tender().complete(cuts)
    }

    pub(super) fn tender(&self) -> Tender {
        Tender {
            keeper: self.keeper(),
            changing: Arc::clone(&self.changing),
            healths: Arc::clone(&self.healths),
        }
    }
}

impl Tender {
    pub(super) fn tend(&self, now: u64) -> Tended {
        let cuts = self.cut(now);
        self.complete(cuts)
    }

    /// When there will be something to do, as far as can be said at `now`; `None`: there are no schedules.
    pub(super) fn next(&self, now: u64) -> Option<u64> {
        let rows = self.rows();
        let next = rows.iter().map(|row| match self.due(row, now) {
            Due::Now { .. } => now,
            Due::Later(then) => then,
        });
        next.min()
    }

    fn rows(&self) -> Vec<ScheduleRow> {
        self.keeper.core.state.lock().catalogue.schedules.clone()
    }

    fn due(&self, row: &ScheduleRow, now: u64) -> Due {
        let healths = self.healths.lock();
        let pause = healths.get(&row.name).map_or(0, |h| h.pause);
        due(row.every, row.slot, pause, now)
    }

    fn cut(&self, now: u64) -> ScheduledCuts {
        let _one = self.changing.lock();
        let mut all = Vec::new();
        for row in self.rows() {
            let Due::Now { slot, missed } = self.due(&row, now) else {
                continue;
            };
            match self.cut_one(&row, now, &all) {
                Ok((name, cut)) => all.push(ScheduledCut {
                    schedule: row.name,
                    every: row.every,
                    slot,
                    missed,
                    name,
                    cut,
                }),
                Err(error) => self.has_failed(&row.name, row.every, &error),
            }
        }
        ScheduledCuts { now, all }
    }

    fn cut_one(
        &self,
        row: &ScheduleRow,
        now: u64,
        before: &[ScheduledCut],
    ) -> Result<(String, Cut), StoreError> {
        let disks: Vec<Arc<VDisk>> = {
            let vdisks = self.keeper.vdisks.read();
            let of = |id: &u32| vdisks.values().find(|v| v.id() == *id).cloned();
            row.vdisks.iter().filter_map(of).collect()
        };
        let name = {
            let state = self.keeper.core.state.lock();
            if state.full {
                return Err(StoreError::NoSpace("the store is full".into()));
            }
            free_name(&state, &disks, before, &row.prefix, now)?
        };
        let cut = self.keeper.cut_disks(disks, &name, Some(&row.name))?;
        Ok((name, cut))
    }

    fn complete(&self, cuts: ScheduledCuts) -> Tended {
        if cuts.all.is_empty() {
            return Tended::default();
        }
        let _one = self.changing.lock();
        let of = |cut: &ScheduledCut| cut.cut.rows.iter().map(|row| row.vdisk).collect::<Vec<_>>();
        let vdisks: HashSet<u32> = cuts.all.iter().flat_map(of).collect();
        let view = View::of(&self.keeper.core.state.lock().catalogue, |vdisk| {
            vdisks.contains(&vdisk)
        });
        let round = Round::of(&view, self.rows());
        let (mut change, mut done) = (Change::default(), Vec::new());
        for cut in cuts.all {
            match round.name(&cut, cuts.now, &mut change) {
                Ok(true) => done.push(cut),
                Ok(false) => {}
                Err(error) => self.has_failed(&cut.schedule, cut.every, &error),
            }
        }
        if done.is_empty() {
            return Tended::default();
        }
        let gone = change.remove.iter().copied().collect();
        if let Err(error) = self.keeper.apply(change) {
            for cut in &done {
                self.has_failed(&cut.schedule, cut.every, &error);
            }
            return Tended::default();
        }
        let mut tended = Tended {
            taken: Vec::new(),
            gone,
        };
        for cut in done {
            self.has_worked(&cut);
            tended.taken.push((cut.schedule, cut.name));
        }
        tended
    }

    fn has_worked(&self, cut: &ScheduledCut) {
        let took = cut.cut.begun.elapsed();
        let pause = pause_after(cut.every, cut.slot, self.keeper.host.now());
        let mut healths = self.healths.lock();
        let seen = healths.contains_key(&cut.schedule);
        let health = healths.entry(cut.schedule.clone()).or_default();
        // What was missed before the first one since the store was opened was missed by nobody.
        let behind = pause > 0 || (seen && health.error.is_none() && cut.missed > 0);
        let (was_behind, failed) = (health.behind, health.error.take().is_some());
        health.pause = pause;
        health.behind = behind;
        health.took_milliseconds = Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        drop(healths);
        let name = &cut.schedule;
        if failed {
            log::info!("schedule {name}: works again");
        }
        match (was_behind, behind) {
            (false, true) => log::warn!(
                "schedule {name}: can't keep up with one snapshot every {} s: {} slot(s) missed, the last snapshot took {} ms",
                cut.every,
                cut.missed,
                took.as_millis()
            ),
            (true, false) => log::info!("schedule {name}: keeps up again"),
            _ => {}
        }
    }

    fn has_failed(&self, schedule: &str, every: u64, error: &StoreError) {
        let now = self.keeper.host.now();
        let text = error.to_string();
        let mut healths = self.healths.lock();
        let health = healths.entry(schedule.to_owned()).or_default();
        health.pause = pause_after_failure(every, now);
        // Segments have other numbers each time.
        let kind = |text: &str| text.rsplit(": ").next().map(str::to_owned);
        let before = health.error.replace((text.clone(), now));
        drop(healths);
        if before.is_none_or(|(before, _)| kind(&before) != kind(&text)) {
            log::error!("schedule {schedule}: no snapshot was taken: {text}");
        }
    }
}

/// What all the cuts that are completed together go by.
struct Round<'a> {
    view: &'a View,
    tree: Tree<'a>,
    schedules: HashMap<String, ScheduleRow>,
    /// Snapshots by the names of the schedules that took them.
    taken: HashMap<&'a str, Vec<&'a SnapshotRow>>,
}

impl<'a> Round<'a> {
    fn of(view: &'a View, schedules: Vec<ScheduleRow>) -> Self {
        let mut taken: HashMap<&str, Vec<&SnapshotRow>> = HashMap::new();
        for row in &view.rows {
            if let Some(schedule) = &row.schedule {
                taken.entry(schedule).or_default().push(row);
            }
        }
        let schedules = schedules.into_iter().map(|row| (row.name.clone(), row));
        Self {
            view,
            tree: Tree::of(view),
            schedules: schedules.collect(),
            taken,
        }
    }

    /// Adds to `change` what this cut makes of its schedule. `false`: that was ended meanwhile, or is another one.
    fn name(&self, cut: &ScheduledCut, now: u64, change: &mut Change) -> Result<bool, StoreError> {
        let of = cut.cut.rows.iter().map(|row| row.vdisk);
        let row = self.schedules.get(&cut.schedule);
        let Some(row) = row.filter(|row| of.eq(row.vdisks.iter().copied())) else {
            return Ok(false);
        };
        may_complete(&self.view.rows, &cut.cut)?;
        let taken = self.taken.get(cut.schedule.as_str()).into_iter().flatten();
        let there = taken.copied().filter(|s| is_of(s, row));
        let rows: Vec<&SnapshotRow> = there.chain(&cut.cut.rows).collect();
        // Rules that keep nothing are not made; if they come from the disk, nothing goes.
        let reasons = reasons(&self.tree, &rows, &row.keep).unwrap_or_default();
        let goes = rows.iter().zip(reasons).filter(|(_, why)| why.is_empty());
        change.remove.extend(goes.map(|(row, _)| row.uuid));
        change.add.extend(cut.cut.rows.iter().cloned());
        change.schedules.push(ScheduleRow {
            slot: cut.slot,
            taken: now,
            missed: row.missed.saturating_add(cut.missed),
            ..row.clone()
        });
        Ok(true)
    }
}

/// A name that none of the vDisks has a snapshot of, and none of those that were cut just before will get.
fn free_name(
    state: &State,
    disks: &[Arc<VDisk>],
    before: &[ScheduledCut],
    prefix: &str,
    now: u64,
) -> Result<String, StoreError> {
    let first = format!("{prefix}-{}", stamp(now));
    let others = (2..NAMES).map(|n| format!("{first}-{n}"));
    let is_free = |name: &String| {
        let mut all = disks.iter();
        all.all(|disk| must_be_free(&state.catalogue.snapshots, disk, name).is_ok())
            && before.iter().all(|cut| cut.name != *name)
    };
    let mut names = std::iter::once(first.clone()).chain(others);
    names
        .find(is_free)
        .ok_or_else(|| StoreError::Exists(format!("all names like {first} are taken by snapshots")))
}
