//! What lies over snapshots: their clones, and the vDisk's own branches.

use crate::format::{Catalogue, SnapshotRow};
use crate::snapshot::{Over, ancestors, read_layers};
use serde::Serialize;
use std::collections::HashSet;
use uuid::Uuid;

/// A snapshot, as its row in the catalogue and the tree of layers have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotInfo {
    /// UUID.
    pub uuid: Uuid,
    /// Its vDisk's name.
    pub vdisk: String,
    /// Its name.
    pub name: String,
    /// Address range in bytes.
    pub size: u64,
    /// The cut; equal for all vDisks of a consistency group.
    pub lsn: u64,
    /// Seconds since 1970.
    pub created: u64,
    /// Who needs it.
    pub holds: Vec<String>,
    /// Clones of it: vDisks that lie over it by a branch of their own. Without any, the vDisk's own snapshots (`vdisk@name`) that do so
    /// beside the live branch, since it was reverted.
    pub clones: Vec<String>,
    /// Name of the schedule that took it.
    pub schedule: Option<String>,
}

/// What lies over snapshots, for as long as one looks at the catalogue.
pub(super) struct Tree<'a> {
    catalogue: &'a Catalogue,
    over: Over,
    /// Layers that a vDisk or a snapshot reads: its own and all below.
    read: HashSet<u32>,
}

impl<'a> Tree<'a> {
    pub(super) fn of(catalogue: &'a Catalogue) -> Self {
        Self {
            catalogue,
            over: Over::of(catalogue),
            read: read_layers(catalogue),
        }
    }

    /// Other vDisks, and snapshots, that lie over a snapshot by branches of their own; empty where there is one branch only. What
    /// nothing names is on its way out, and does not count.
    pub(super) fn clones(&self, row: &SnapshotRow) -> Vec<String> {
        let branches = self.over.layers(row.layer).iter();
        if branches.filter(|l| self.read.contains(l)).count() < 2 {
            return Vec::new();
        }
        let lies_over = |layer| ancestors(self.catalogue, layer).any(|l| l == row.layer);
        let vdisks = self.catalogue.vdisks.iter();
        let clones = vdisks.filter(|v| v.id != row.vdisk && lies_over(v.layer));
        let mut names: Vec<String> = clones.map(|v| v.name.clone()).collect();
        // Branches of the vDisk itself: what it was before it was reverted.
        let own = self
            .catalogue
            .snapshots
            .iter()
            .filter(|s| s.vdisk == row.vdisk && s.layer != row.layer && lies_over(s.layer));
        if names.is_empty() {
            let vdisk = self.name_of(row);
            names.extend(own.map(|s| format!("{vdisk}@{}", s.name)));
        }
        names
    }

    fn name_of(&self, row: &SnapshotRow) -> String {
        let vdisk = self.catalogue.vdisks.iter().find(|v| v.id == row.vdisk);
        vdisk.map_or_else(String::new, |v| v.name.clone())
    }

    pub(super) fn describe(&self, row: &SnapshotRow) -> SnapshotInfo {
        SnapshotInfo {
            uuid: row.uuid,
            vdisk: self.name_of(row),
            name: row.name.clone(),
            size: row.size,
            lsn: row.lsn,
            created: row.created,
            holds: row.holds.clone(),
            clones: self.clones(row),
            schedule: row.schedule.clone(),
        }
    }
}
