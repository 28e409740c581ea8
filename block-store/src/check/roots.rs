//! What everything hangs from: superblocks, segment table, catalogue.

use super::finding::{Finding, Kind, Sink};
use super::names::Names;
use crate::checkpoint::{SUPERBLOCK_FILE, read_catalogue, read_table};
use crate::error::StoreError;
use crate::format::{
    Catalogue, CutRow, FormatError, Location, SUPERBLOCK_SIZE, SegmentRow, Superblock, newest,
};
use crate::io::{AlignedBuf, Disk};
use std::collections::BTreeMap;
use std::io;

pub(super) const RESTORE: &str = "restore the store from a replica or backup";

/// The superblock that counts. `None`: neither does, and nothing more can be looked at.
pub(super) fn superblock(
    disk: &dyn Disk,
    sink: &mut Sink<'_>,
) -> Result<Option<Superblock>, StoreError> {
    let mut both = Vec::new();
    let mut bad = Vec::new();
    for (offset, page) in OFFSETS.into_iter().zip(read_pages(disk)?) {
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
        Some(_) => {
            "the next checkpoint, or start of the backend, heals it from the other one; check the disk"
        }
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

/// Where the two are.
pub(super) const OFFSETS: [u64; 2] = [0, SUPERBLOCK_SIZE as u64];

/// Both pages, or why not.
pub(super) fn read_pages(disk: &dyn Disk) -> Result<[Result<AlignedBuf, String>; 2], StoreError> {
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
    Ok(OFFSETS.map(|at| read(at).map_err(|e| format!("can't be read: {e}"))))
}

/// Table and catalogue, as far as they can be read.
pub(super) struct Roots {
    /// By segment number.
    pub rows: Option<BTreeMap<u32, SegmentRow>>,
    pub catalogue: Option<Catalogue>,
    /// Where the pieces of both lie.
    pub pieces: Vec<Location>,
    /// Who reads which layer.
    pub names: Names,
}

impl Roots {
    /// A cut that the catalogue does not know yet.
    pub(super) fn learn(&mut self, row: &CutRow) {
        if let Some(catalogue) = &self.catalogue {
            self.names.learn(catalogue, row);
        }
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

/// Reads both; what can't be read is a finding each, with this way out.
pub(super) fn read(
    disk: &dyn Disk,
    superblock: &Superblock,
    way_out: &str,
    sink: &mut Sink<'_>,
) -> Roots {
    let mut pieces = Vec::new();
    let table = read_table(disk, superblock, &mut pieces);
    let table = kept(
        Kind::Table,
        "the segment table",
        table,
        &pieces,
        way_out,
        sink,
    );
    let mut more = Vec::new();
    let catalogue = read_catalogue(disk, superblock, &mut more);
    let catalogue = kept(
        Kind::Catalogue,
        "the catalogue",
        catalogue,
        &more,
        way_out,
        sink,
    );
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
        names: catalogue.as_ref().map(Names::of).unwrap_or_default(),
        catalogue,
        pieces,
    }
}

fn kept<T>(
    kind: Kind,
    what: &str,
    read: Result<T, FormatError>,
    places: &[Location],
    way_out: &str,
    sink: &mut Sink<'_>,
) -> Option<T> {
    read.map_err(|error| {
        let mut finding = Finding::new(kind, format!("{what} can't be read: {error}"), way_out);
        if let Some(at) = places.last() {
            finding = finding.in_segment(at.segment).at(at.offset);
        }
        sink.add(finding);
    })
    .ok()
}
