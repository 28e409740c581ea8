//! Who reads which layer: what findings are named after.

use crate::format::{BLOCK, Catalogue, CutRow};
use std::collections::HashMap;

/// vDisks and snapshots by the layers that they read.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The vDisk that reads a layer (the first one, of several), and how many blocks it has.
    vdisks: HashMap<u32, (String, u64)>,
    /// The snapshot that names a layer (the oldest one, of several).
    snapshots: HashMap<u32, String>,
}

impl Names {
    /// As a catalogue has them.
    pub(super) fn of(catalogue: &Catalogue) -> Self {
        let mut names = Self::default();
        for vdisk in &catalogue.vdisks {
            let mut next = Some(vdisk.layer);
            while let Some(layer) = next {
                let blocks = vdisk.size.div_ceil(BLOCK as u64);
                names
                    .vdisks
                    .entry(layer)
                    .or_insert_with(|| (vdisk.name.clone(), blocks));
                next = catalogue.layers.get(&layer).and_then(|l| l.parent);
            }
        }
        for snapshot in &catalogue.snapshots {
            names
                .snapshots
                .entry(snapshot.layer)
                .or_insert_with(|| snapshot.name.clone());
        }
        names
    }

    /// A cut that the catalogue does not know yet: the vDisk reads this layer too.
    pub(super) fn learn(&mut self, catalogue: &Catalogue, row: &CutRow) {
        if let Some(vdisk) = catalogue.vdisks.iter().find(|v| v.id == row.vdisk) {
            let blocks = vdisk.size.div_ceil(BLOCK as u64);
            let name = vdisk.name.clone();
            self.vdisks.entry(row.layer).or_insert((name, blocks));
        }
    }

    /// Name of the vDisk that reads a layer.
    pub(super) fn vdisk(&self, layer: u32) -> Option<&str> {
        self.vdisks.get(&layer).map(|(name, _)| name.as_str())
    }

    /// Name of the snapshot of a layer.
    pub(super) fn snapshot(&self, layer: u32) -> Option<&str> {
        self.snapshots.get(&layer).map(String::as_str)
    }

    /// Blocks of a node's range that the vDisk has.
    pub(super) fn clip(&self, layer: u32, first: u64, blocks: u64) -> u64 {
        let end = self.vdisks.get(&layer).map_or(u64::MAX, |(_, end)| *end);
        blocks.min(end.saturating_sub(first)).max(1)
    }
}
