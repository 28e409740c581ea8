//! What lies over snapshots: their clones, and the vDisk's own branches.

use crate::format::{Catalogue, SnapshotRow};
use crate::snapshot::Spread;
use serde::Serialize;
use std::collections::HashMap;
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

/// What of the catalogue tells what lies over snapshots: a copy, so that thousands of them are not looked at under the state's lock. It
/// holds for as long as `changing` is held: meanwhile layers are merged, and a clone may let go of what it lies over, but nothing
/// comes to lie over a snapshot.
pub(super) struct View {
    /// Snapshots of the vDisks that were asked for.
    pub(super) rows: Vec<SnapshotRow>,
    /// Layers with their parents, oldest first.
    layers: Vec<(u32, Option<u32>)>,
    /// vDisks: numbers, live layers, names.
    vdisks: Vec<(u32, u32, String)>,
    /// Layers that the other vDisks' snapshots name.
    others: Vec<u32>,
}

impl View {
    /// What there is now. Of the snapshots of other vDisks only their layers are copied.
    pub(super) fn of(catalogue: &Catalogue, wanted: impl Fn(u32) -> bool) -> Self {
        let (mut rows, mut others) = (Vec::new(), Vec::new());
        for row in &catalogue.snapshots {
            match wanted(row.vdisk) {
                true => rows.push(row.clone()),
                false => others.push(row.layer),
            }
        }
        let layers = catalogue.layers.values();
        let vdisks = catalogue.vdisks.iter();
        Self {
            rows,
            layers: layers.map(|l| (l.id, l.parent)).collect(),
            vdisks: vdisks.map(|v| (v.id, v.layer, v.name.clone())).collect(),
            others,
        }
    }
}

/// What lies over the snapshots of a view.
pub(super) struct Tree<'a> {
    view: &'a View,
    spread: Spread,
    /// Where vDisks are in the view, in order of the numbers that their live layers have.
    vdisks: Vec<(usize, usize)>,
    /// The same of snapshots, for each vDisk.
    rows: Vec<((u32, usize), usize)>,
    names: HashMap<u32, &'a str>,
}

impl<'a> Tree<'a> {
    pub(super) fn of(view: &'a View) -> Self {
        let live = view.vdisks.iter().map(|(_, layer, _)| *layer);
        let named = view.rows.iter().map(|row| row.layer);
        let named = named.chain(view.others.iter().copied());
        let spread = Spread::of(&view.layers, live.chain(named));
        let number = |layer| spread.numbers(layer).start;
        let vdisks = view.vdisks.iter().zip(0..);
        let mut vdisks: Vec<_> = vdisks.map(|(v, n)| (number(v.1), n)).collect();
        vdisks.sort_unstable();
        let rows = view.rows.iter().zip(0..);
        let mut rows: Vec<_> = rows
            .map(|(row, n)| ((row.vdisk, number(row.layer)), n))
            .collect();
        rows.sort_unstable();
        let names = view.vdisks.iter().map(|(id, _, name)| (*id, name.as_str()));
        Self {
            view,
            vdisks,
            rows,
            names: names.collect(),
            spread,
        }
    }

    /// Other vDisks, and snapshots, that lie over a snapshot by branches of their own; empty where there is one branch only. What
    /// nothing names is on its way out, and does not count.
    pub(super) fn clones(&self, row: &SnapshotRow) -> Vec<String> {
        let mut places: Vec<usize> = self.vdisks_over(row).collect();
        places.sort_unstable();
        let vdisks = places.iter().filter_map(|n| self.view.vdisks.get(*n));
        let mut names: Vec<String> = vdisks.map(|(_, _, name)| name.clone()).collect();
        if names.is_empty() {
            let mut places: Vec<usize> = self.own_over(row).iter().map(|(_, n)| *n).collect();
            places.sort_unstable();
            let own = places.iter().filter_map(|n| self.view.rows.get(*n));
            let vdisk = self.name_of(row);
            names.extend(own.map(|s| format!("{vdisk}@{}", s.name)));
        }
        names
    }

    /// Whether there are any.
    pub(super) fn has_clones(&self, row: &SnapshotRow) -> bool {
        self.vdisks_over(row).next().is_some() || !self.own_over(row).is_empty()
    }

    /// Where other vDisks are that lie over a snapshot beside another branch.
    fn vdisks_over(&self, row: &SnapshotRow) -> impl Iterator<Item = usize> {
        let numbers = match self.spread.is_forked(row.layer) {
            true => self.spread.numbers(row.layer),
            false => 0..0,
        };
        let over = between(&self.vdisks, &numbers.start, &numbers.end).iter();
        let is_other = |n: &usize| {
            let vdisk = self.view.vdisks.get(*n);
            vdisk.is_some_and(|(id, _, _)| *id != row.vdisk)
        };
        over.map(|(_, n)| *n).filter(is_other)
    }

    /// Branches of the vDisk itself: what it was before it was reverted.
    fn own_over(&self, row: &SnapshotRow) -> &[((u32, usize), usize)] {
        if !self.spread.is_forked(row.layer) {
            return &[];
        }
        let numbers = self.spread.numbers(row.layer);
        let (from, to) = ((row.vdisk, numbers.start + 1), (row.vdisk, numbers.end));
        between(&self.rows, &from, &to)
    }

    fn name_of(&self, row: &SnapshotRow) -> String {
        let name = self.names.get(&row.vdisk);
        name.map_or_else(String::new, ToString::to_string)
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

/// Those of a sorted list whose keys lie from one up to another.
fn between<'a, K: Ord>(sorted: &'a [(K, usize)], from: &K, to: &K) -> &'a [(K, usize)] {
    let first = sorted.partition_point(|(key, _)| key < from);
    let end = sorted.partition_point(|(key, _)| key < to);
    sorted.get(first..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::catalogue;
    use std::time::{Duration, Instant};

    const SNAPSHOTS: u32 = 4096;

    /// A vDisk with as many snapshots as it may have. All that has lain over each was kept once more when the vDisk was reverted to it.
    fn comb() -> Catalogue {
        let mut layers = Vec::new();
        for n in 0..SNAPSHOTS / 2 {
            layers.push((2 * n + 1, (2 * n).saturating_sub(1)));
            layers.push((2 * n + 2, 2 * n + 1));
        }
        let live = SNAPSHOTS + 1;
        layers.push((live, SNAPSHOTS - 1));
        catalogue(&layers, &[live], &(1..=SNAPSHOTS).collect::<Vec<_>>())
    }

    /// Walking down from each snapshot for each fork takes four billion steps here.
    #[test]
    fn a_vdisk_that_was_reverted_often_is_looked_at_quickly() {
        let view = View::of(&comb(), |_| true);
        let begun = Instant::now();
        let tree = Tree::of(&view);
        let forked = view.rows.iter().filter(|row| tree.has_clones(row));
        assert_eq!(forked.count() as u32, SNAPSHOTS / 2);
        let last = &view.rows[SNAPSHOTS as usize - 2];
        assert_eq!(tree.clones(last), [format!("v0@s{SNAPSHOTS}")]);
        let first = tree.clones(&view.rows[0]);
        assert_eq!(first.len() as u32, SNAPSHOTS - 1);
        assert_eq!(first[..2], ["v0@s2", "v0@s3"]);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}
