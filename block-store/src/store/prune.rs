//! Retention of a vDisk's snapshots: which of them go, and why the others stay.

use super::Store;
use super::branches::{Tree, View};
use super::keeper::Change;
use super::schedules::is_of;
use crate::error::StoreError;
use crate::format::{Keep, ScheduleRow, SnapshotRow};
use crate::snapshot::{Candidate, Reason, retain};
use serde::Serialize;
use uuid::Uuid;

/// What rules make of a vDisk's snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// All that the rules are about, oldest first.
    pub snapshots: Vec<Fate>,
    /// Snapshots of schedules, which have rules of their own and are not touched.
    pub scheduled: u64,
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// UUID.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Why it stays; nothing: it goes.
    pub kept_by: Vec<Reason>,
    /// Who needs it.
    pub holds: Vec<String>,
    /// What lies over it by branches of its own.
    pub clones: Vec<String>,
}

impl Store {
    /// Deletes those of a vDisk's snapshots that no rule keeps; what is held, or lies under clones, stays, and so do those of
    /// the vDisk's schedules. All of it is one change, durable when the call returns. `dry_run`: only tells.
    pub fn prune_snapshots(
        &self,
        vdisk: &str,
        keep: &Keep,
        dry_run: bool,
    ) -> Result<Pruned, StoreError> {
        let _one = self.changing.lock();
        let disk = self.vdisk(vdisk)?;
        let (view, schedules) = {
            let state = self.core.state.lock();
            let view = View::of(&state.catalogue, |vdisk| vdisk == disk.id());
            (view, state.catalogue.schedules.clone())
        };
        let pruned = decide(&view, &schedules, keep)?;
        let goes = pruned.snapshots.iter().filter(|s| s.kept_by.is_empty());
        let remove: std::collections::HashSet<Uuid> = goes.map(|s| s.uuid).collect();
        if !dry_run && !remove.is_empty() {
            self.keeper().apply(Change {
                remove,
                ..Change::default()
            })?;
            self.core.upkeep_bell.ring();
        }
        Ok(pruned)
    }
}

fn decide(view: &View, schedules: &[ScheduleRow], keep: &Keep) -> Result<Pruned, StoreError> {
    let is_scheduled = |row: &&SnapshotRow| schedules.iter().any(|s| is_of(row, s));
    let (scheduled, rows): (Vec<_>, Vec<_>) = view.rows.iter().partition(is_scheduled);
    let tree = Tree::of(view);
    let reasons = reasons(&tree, &rows, keep).ok_or_else(keeps_nothing)?;
    let fates = rows.iter().zip(reasons);
    let fates = fates.map(|(row, kept_by)| Fate {
        uuid: row.uuid,
        name: row.name.clone(),
        created: row.created,
        kept_by,
        holds: row.holds.clone(),
        clones: tree.clones(row),
    });
    Ok(Pruned {
        snapshots: fates.collect(),
        scheduled: scheduled.len() as u64,
    })
}

/// Why each of these stays; nothing: it goes. `None`: the rules keep nothing.
pub(super) fn reasons(
    tree: &Tree<'_>,
    rows: &[&SnapshotRow],
    keep: &Keep,
) -> Option<Vec<Vec<Reason>>> {
    let candidates = rows.iter().map(|row| Candidate {
        lsn: row.lsn,
        created: row.created,
        held: !row.holds.is_empty(),
        cloned: tree.has_clones(row),
    });
    retain(&candidates.collect::<Vec<_>>(), keep)
}

pub(super) fn keeps_nothing() -> StoreError {
    StoreError::Invalid(
        "these rules keep nothing: give at least one of them a number, like --keep-last 7".into(),
    )
}
