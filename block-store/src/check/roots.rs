//! What everything hangs from: superblocks, segment table, catalogue.

use super::finding::{Finding, Kind, Sink};
use crate::checkpoint::{SUPERBLOCK_FILE, read_catalogue, read_table};
use crate::error::StoreError;
use crate::format::{
    Catalogue, CutRow, FormatError, Location, SUPERBLOCK_SIZE, SegmentRow, Superblock, newest,
};
use crate::io::{AlignedBuf, Disk};
use std::collections::{BTreeMap, HashMap};
use std::io;

const RESTORE: &str = "restore the store from a replica or backup";

/// The superblock that counts. `None`: neither does, and nothing more can be looked at.
pub(super) fn superblock(
    disk: &dyn Disk,
    sink: &mut Sink<'_>,
) -> Result<Option<Superblock>, StoreError> {
    let mut both = Vec::new();
    let mut bad = Vec::new();
    for (n, page) in read_pages(disk)?.into_iter().enumerate() {
        let offset = (n * SUPERBLOCK_SIZE) as u64;
        match page {
            Ok(page) => {
                if let Err(error) = Superblock::decode(&page) {
                    bad.push((offset, error.why));
                }
                both.extend_from_slice(&page);
            }
            Err(why) => {
                bad.push((offset, why));
                both.extend_from_slice(&[0; SUPERBLOCK_SIZE]);
            }
        }
    }
    let best = match newest(&both) {
        Ok(superblock) => Some(superblock),
        Err(error) if error.why.contains("newer firn") => {
            return Err(StoreError::damaged("the superblock")(error));
        }
        Err(_) => None,
    };
    let way_out = match best {
        Some(_) => "the next start of the backend heals it from the other one; check the disk",
        None => RESTORE,
    };
    for (offset, why) in bad {
        sink.add(Finding::new(Kind::Superblock, why, way_out).at(offset));
    }
    if let Some(buffer) = best.as_ref().and_then(|s| s.buffer.as_ref()) {
        let what = format!(
            "the backend was not stopped cleanly: acknowledged writes may wait in {}/{}, which is not checked",
            buffer.dir,
            buffer.file()
        );
        let way_out =
            "start the backend once and stop it with SIGTERM to have them written to the store";
        sink.add(Finding::new(Kind::WriteBuffer, what, way_out).note());
    }
    Ok(best)
}

/// Both pages, or why not.
fn read_pages(disk: &dyn Disk) -> Result<[Result<AlignedBuf, String>; 2], StoreError> {
    let file = match disk.open(SUPERBLOCK_FILE) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok([0, 1].map(|_| Err("its file is missing".into())));
        }
        Err(e) => return Err(StoreError::io("opening the superblock")(e)),
    };
    let read = |offset| {
        let mut page = AlignedBuf::zeroed(SUPERBLOCK_SIZE)?;
        file.read_at(&mut page, offset).map(|()| page)
    };
    Ok([0, SUPERBLOCK_SIZE as u64].map(|at| read(at).map_err(|e| format!("can't be read: {e}"))))
}

/// Table and catalogue, as far as they can be read.
pub(super) struct Roots {
    /// By segment number.
    pub rows: Option<BTreeMap<u32, SegmentRow>>,
    pub catalogue: Option<Catalogue>,
    /// Where the pieces of both lie.
    pub pieces: Vec<Location>,
    /// The vDisk that reads a layer: the first one, of several.
    vdisks: HashMap<u32, (String, u64)>,
}

impl Roots {
    /// Name of the vDisk that reads a layer.
    pub(super) fn vdisk(&self, layer: u32) -> Option<&str> {
        self.vdisks.get(&layer).map(|(name, _)| name.as_str())
    }

    /// A cut that the catalogue does not know yet: the vDisk reads this layer too.
    pub(super) fn learn(&mut self, row: &CutRow) {
        let vdisks = self.catalogue.iter().flat_map(|c| &c.vdisks);
        if let Some(vdisk) = vdisks.into_iter().find(|v| v.id == row.vdisk) {
            let blocks = vdisk.size.div_ceil(crate::format::BLOCK as u64);
            let name = vdisk.name.clone();
            self.vdisks.entry(row.layer).or_insert((name, blocks));
        }
    }

    /// Blocks of a node's range that the vDisk has.
    pub(super) fn clip(&self, layer: u32, first: u64, blocks: u64) -> u64 {
        let end = self.vdisks.get(&layer).map_or(u64::MAX, |(_, end)| *end);
        blocks.min(end.saturating_sub(first)).max(1)
    }

    /// Whether data of one layer may be read as another's.
    pub(super) fn is_heir(&self, origin: u32, layer: u32) -> bool {
        origin == layer
            || self
                .catalogue
                .as_ref()
                .is_some_and(|c| c.is_heir(origin, layer))
    }
}

/// Reads both; what can't be read is a finding each.
pub(super) fn read(disk: &dyn Disk, superblock: &Superblock, sink: &mut Sink<'_>) -> Roots {
    let mut pieces = Vec::new();
    let table = read_table(disk, superblock, &mut pieces);
    let table = kept(Kind::Table, "the segment table", table, &pieces, sink);
    let mut more = Vec::new();
    let catalogue = read_catalogue(disk, superblock, &mut more);
    let catalogue = kept(Kind::Catalogue, "the catalogue", catalogue, &more, sink);
    pieces.append(&mut more);
    let mut rows = BTreeMap::new();
    for row in table.iter().flatten() {
        if rows.insert(row.id, *row).is_some() {
            let what = "is in the segment table twice";
            sink.add(Finding::new(Kind::Table, what, RESTORE).in_segment(row.id));
        }
    }
    Roots {
        rows: table.is_some().then_some(rows),
        vdisks: catalogue.as_ref().map(owners).unwrap_or_default(),
        catalogue,
        pieces,
    }
}

fn kept<T>(
    kind: Kind,
    what: &str,
    read: Result<T, FormatError>,
    places: &[Location],
    sink: &mut Sink<'_>,
) -> Option<T> {
    read.map_err(|error| {
        let mut finding = Finding::new(kind, format!("{what} can't be read: {error}"), RESTORE);
        if let Some(at) = places.last() {
            finding = finding.in_segment(at.segment).at(at.offset);
        }
        sink.add(finding);
    })
    .ok()
}

/// Which vDisk reads which layer, and how many blocks it has.
fn owners(catalogue: &Catalogue) -> HashMap<u32, (String, u64)> {
    let mut owners = HashMap::new();
    for vdisk in &catalogue.vdisks {
        let mut next = Some(vdisk.layer);
        while let Some(layer) = next {
            let blocks = vdisk.size.div_ceil(crate::format::BLOCK as u64);
            owners
                .entry(layer)
                .or_insert_with(|| (vdisk.name.clone(), blocks));
            next = catalogue.layers.get(&layer).and_then(|l| l.parent);
        }
    }
    owners
}
