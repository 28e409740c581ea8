//! Schedules as users see them: made, listed, ended. What they do is done in `tend.rs`.

use super::Store;
use super::config::{MAX_SNAPSHOTS, check_name};
use super::prune::keeps_nothing;
use crate::error::StoreError;
use crate::format::{Catalogue, Keep, MAX_CUT_ROWS, MAX_EVERY, MIN_EVERY, ScheduleRow};
use crate::snapshot::{Due, begin_of_slot, due};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// Schedules of a store, at most.
const MAX_SCHEDULES: usize = 1024;
/// Longest prefix of a snapshot's name: a dash, 16 characters of the moment, and a number where that is taken, follow.
pub(super) const MAX_PREFIX: usize = 40;

/// A schedule to be made.
#[derive(Debug, Clone)]
pub struct ScheduleSpec {
    /// As a vDisk's name.
    pub name: String,
    /// The vDisks: a consistency group, cut at one LSN.
    pub vdisks: Vec<String>,
    /// Seconds between two snapshots.
    pub every: u64,
    /// What the names of its snapshots begin with; without one, the schedule's name.
    pub prefix: Option<String>,
    /// Which of its snapshots stay.
    pub keep: Keep,
}

/// A schedule, and how it is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScheduleInfo {
    /// Its name.
    pub name: String,
    /// Names of the vDisks.
    pub vdisks: Vec<String>,
    /// Seconds between two snapshots.
    pub every_seconds: u64,
    /// What the names of its snapshots begin with.
    pub prefix: String,
    /// Which of its snapshots stay.
    pub keep: Keep,
    /// Seconds since 1970 at which it was made.
    pub created: u64,
    /// When the next snapshot is due, in seconds since 1970: now, if that has passed.
    pub next: u64,
    /// When the last one was taken.
    pub last: Option<u64>,
    /// How many instants it keeps snapshots of at the moment.
    pub kept: u64,
    /// Slots that have passed without a snapshot, since it was made.
    pub missed: u64,
    /// Milliseconds that the last one took until it was durable; none since the store was opened.
    pub took_milliseconds: Option<u64>,
    /// It can't keep up: one took longer than the interval, or slots passed while the store was open.
    pub behind: bool,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<String>,
    /// When that was.
    pub failed_at: Option<u64>,
}

/// How a schedule is doing, since the store was opened.
#[derive(Debug, Default, Clone)]
pub(super) struct Health {
    /// Nothing is tried before this moment.
    pub pause: u64,
    pub took_milliseconds: Option<u64>,
    pub behind: bool,
    pub error: Option<(String, u64)>,
}

/// That of all schedules, by name.
pub(super) type Healths = BTreeMap<String, Health>;

impl Health {
    fn is_late(&self) -> bool {
        self.behind || self.error.is_some()
    }
}

impl Store {
    /// Makes a schedule. Its first snapshot is taken when its next slot begins.
    pub fn create_schedule(&self, spec: &ScheduleSpec) -> Result<ScheduleInfo, StoreError> {
        let _one = self.changing.lock();
        let now = self.host.now();
        {
            let mut state = self.core.state.lock();
            let row = form(&state.catalogue, spec, now)?;
            state.catalogue.schedules.push(row);
        }
        if let Err(error) = self.checkpoint() {
            let mut state = self.core.state.lock();
            state.catalogue.schedules.retain(|s| s.name != spec.name);
            return Err(error);
        }
        self.healths.lock().remove(&spec.name);
        self.core.schedule_bell.ring();
        let info = self.infos(now).into_iter().find(|s| s.name == spec.name);
        info.ok_or_else(|| no_schedule(&spec.name))
    }

    /// Ends a schedule. Its snapshots stay, and are like any others from then on; one of the same name would go on with them.
    pub fn delete_schedule(&self, name: &str) -> Result<(), StoreError> {
        let _one = self.changing.lock();
        let (n, row) = {
            let mut state = self.core.state.lock();
            let schedules = &mut state.catalogue.schedules;
            let n = schedules.iter().position(|s| s.name == name);
            let n = n.ok_or_else(|| no_schedule(name))?;
            (n, schedules.remove(n))
        };
        if let Err(error) = self.checkpoint() {
            let mut state = self.core.state.lock();
            let at = n.min(state.catalogue.schedules.len());
            state.catalogue.schedules.insert(at, row);
            return Err(error);
        }
        self.healths.lock().remove(name);
        Ok(())
    }

    /// All schedules, in order of creation.
    pub fn schedules(&self) -> Vec<ScheduleInfo> {
        // One that is being made is not there yet.
        let _one = self.changing.lock();
        self.infos(self.host.now())
    }

    fn infos(&self, now: u64) -> Vec<ScheduleInfo> {
        let healths = self.healths.lock().clone();
        let state = self.core.state.lock();
        let catalogue = &state.catalogue;
        let rows = catalogue.schedules.iter();
        rows.map(|row| {
            let health = healths.get(&row.name).cloned().unwrap_or_default();
            describe(catalogue, row, &health, now)
        })
        .collect()
    }

    /// How many schedules there are, and how many of these can't be kept at the moment. To be called without the state's lock.
    pub(super) fn count_schedules(&self) -> (u64, u64) {
        let healths = self.healths.lock();
        let late = healths.iter().filter(|(_, h)| h.is_late());
        let late: HashSet<String> = late.map(|(name, _)| name.clone()).collect();
        drop(healths);
        let all = &self.core.state.lock().catalogue.schedules;
        let late = all.iter().filter(|s| late.contains(&s.name)).count();
        (all.len() as u64, late as u64)
    }
}

pub(super) fn no_schedule(name: &str) -> StoreError {
    StoreError::NoSchedule(name.into())
}

/// The row of a schedule to be made, or what is wrong with it.
fn form(catalogue: &Catalogue, spec: &ScheduleSpec, now: u64) -> Result<ScheduleRow, StoreError> {
    let name = &spec.name;
    let invalid = |why: String| Err(StoreError::Invalid(why));
    check_name(name).map_err(StoreError::Invalid)?;
    let prefix = spec.prefix.as_ref().unwrap_or(name);
    check_name(prefix).map_err(StoreError::Invalid)?;
    if prefix.len() > MAX_PREFIX {
        return invalid(format!(
            "names of snapshots can't begin with the {} characters of {prefix:?}, {MAX_PREFIX} are the most; give a shorter one with --prefix",
            prefix.len()
        ));
    }
    if !(MIN_EVERY..=MAX_EVERY).contains(&spec.every) {
        return invalid(format!(
            "a schedule takes a snapshot every 1 s to 366 days, not every {} s",
            spec.every
        ));
    }
    if spec.keep.most() == 0 {
        return Err(keeps_nothing());
    }
    if spec.vdisks.is_empty() || spec.vdisks.len() > MAX_CUT_ROWS {
        return invalid(format!(
            "a schedule is of 1 to {MAX_CUT_ROWS} vDisks, not of {}",
            spec.vdisks.len()
        ));
    }
    if catalogue.schedules.iter().any(|s| s.name == *name) {
        return Err(StoreError::Exists(format!(
            "there is a schedule named {name:?} already; to change it, end it first: firn snapshot unschedule {name}"
        )));
    }
    if catalogue.schedules.len() >= MAX_SCHEDULES {
        return Err(StoreError::Refused(format!(
            "the store has {MAX_SCHEDULES} schedules, and can have no more"
        )));
    }
    let mut vdisks = Vec::new();
    for vdisk in &spec.vdisks {
        let mut all = catalogue.vdisks.iter().filter(|v| !v.hidden);
        let row = all.find(|v| v.name == *vdisk);
        let id = row.ok_or_else(|| StoreError::NotFound(vdisk.clone()))?.id;
        if vdisks.contains(&id) {
            return invalid(format!("vDisk {vdisk:?} is named twice"));
        }
        // There is room for the one that is taken before others go.
        let others = catalogue
            .schedules
            .iter()
            .filter(|s| s.vdisks.contains(&id));
        let most = others.map(|s| s.keep.most()).sum::<u64>() + spec.keep.most();
        if most >= MAX_SNAPSHOTS as u64 {
            return invalid(format!(
                "schedules would keep up to {most} snapshots of vDisk {vdisk:?}, which can have {MAX_SNAPSHOTS}; keep fewer"
            ));
        }
        vdisks.push(id);
    }
    Ok(ScheduleRow {
        name: name.clone(),
        vdisks,
        every: spec.every,
        prefix: prefix.clone(),
        keep: spec.keep,
        created: now,
        slot: begin_of_slot(spec.every, now),
        taken: 0,
        missed: 0,
    })
}

fn describe(catalogue: &Catalogue, row: &ScheduleRow, health: &Health, now: u64) -> ScheduleInfo {
    let name_of = |id: &u32| {
        let found = catalogue.vdisks.iter().find(|v| v.id == *id);
        found.map_or_else(String::new, |v| v.name.clone())
    };
    let next = match due(row.every, row.slot, health.pause, now) {
        Due::Later(then) => then,
        Due::Now { .. } => now,
    };
    // Also while it waits for another attempt.
    let missed = match due(row.every, row.slot, 0, now) {
        Due::Now { missed, .. } => missed,
        Due::Later(_) => 0,
    };
    let its = catalogue.snapshots.iter().filter(|s| is_of(s, row));
    let kept: HashSet<u64> = its.map(|s| s.lsn).collect();
    ScheduleInfo {
        name: row.name.clone(),
        vdisks: row.vdisks.iter().map(name_of).collect(),
        every_seconds: row.every,
        prefix: row.prefix.clone(),
        keep: row.keep,
        created: row.created,
        next,
        last: (row.taken > 0).then_some(row.taken),
        kept: kept.len() as u64,
        missed: row.missed.saturating_add(missed),
        took_milliseconds: health.took_milliseconds,
        behind: health.behind,
        last_error: health.error.as_ref().map(|(text, _)| text.clone()),
        failed_at: health.error.as_ref().map(|(_, at)| *at),
    }
}

/// Whether a schedule has taken a snapshot, and looks after it.
pub(super) fn is_of(snapshot: &crate::format::SnapshotRow, row: &ScheduleRow) -> bool {
    snapshot.schedule.as_ref() == Some(&row.name) && row.vdisks.contains(&snapshot.vdisk)
}
