//! The segments' files: which are there, which should be.

use super::finding::{Finding, Kind, Sink};
use super::roots::Roots;
use crate::error::StoreError;
use crate::format::{SEGMENT_DATA_START, SegmentRow, Superblock, segment_file_name, segment_id_of};
use crate::io::{Disk, DiskFile};
use crate::recover::{Head, Standing, read_header, standing};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

/// Files kept open at a time.
const MAX_OPEN: usize = 64;

/// A segment that counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Seeds its records' checksums.
    pub generation: u64,
    /// Bytes of its file.
    pub len: u64,
    /// Where the log begins that is not in the checkpoint.
    pub log: Option<u32>,
}

/// The segments that count, and some of their files.
pub(super) struct Segments<'a> {
    disk: &'a dyn Disk,
    pub places: BTreeMap<u32, Place>,
    open: HashMap<u32, Arc<dyn DiskFile>>,
}

impl Segments<'_> {
    /// A segment and its file, or why there is none.
    pub(super) fn get(&mut self, id: u32) -> Result<(Place, Arc<dyn DiskFile>), String> {
        let place = self
            .places
            .get(&id)
            .copied()
            .ok_or_else(|| format!("segment {id:x} is not there"))?;
        if let Some(file) = self.open.get(&id) {
            return Ok((place, Arc::clone(file)));
        }
        if self.open.len() >= MAX_OPEN {
            self.open.clear();
        }
        let file = self
            .disk
            .open(&segment_file_name(id))
            .map_err(|e| e.to_string())?;
        self.open.insert(id, Arc::clone(&file));
        Ok((place, file))
    }
}

/// Looks at every file and every row of the table.
pub(super) fn survey<'a>(
    disk: &'a dyn Disk,
    superblock: &Superblock,
    roots: &Roots,
    sink: &mut Sink<'_>,
) -> Result<Segments<'a>, StoreError> {
    let mut segments = Segments {
        disk,
        places: BTreeMap::new(),
        open: HashMap::new(),
    };
    let names = disk.list().map_err(StoreError::io("listing the store"))?;
    for id in names.iter().filter_map(|name| segment_id_of(name)) {
        let row = roots.rows.as_ref().and_then(|rows| rows.get(&id));
        let head = disk.open(&segment_file_name(id)).and_then(|file| {
            let len = file.len()?;
            Ok((read_header(&*file, superblock, id)?, len))
        });
        match head {
            Ok((head, len)) => {
                let place = judge(superblock, roots, id, row, &head, len, sink);
                segments.places.extend(place.map(|p| (id, p)));
            }
            Err(error) => {
                sink.add(unreadable(&error).in_segment(id));
            }
        }
    }
    for row in roots.rows.iter().flat_map(BTreeMap::values) {
        missing(row, roots, &segments, sink);
    }
    sink.report.segments = segments.places.len() as u64;
    sink.set_total(segments.places.values().map(|p| p.len).sum());
    Ok(segments)
}

const CHECK_DISK: &str = "check the disk; restore what was there from a replica or backup";

/// What a file counts as, and what is wrong with it.
fn judge(
    superblock: &Superblock,
    roots: &Roots,
    id: u32,
    row: Option<&SegmentRow>,
    head: &Head,
    len: u64,
    sink: &mut Sink<'_>,
) -> Option<Place> {
    let mut finding = |f: Finding| sink.add(f.in_segment(id));
    let place = |generation, log| {
        Some(Place {
            generation,
            len,
            log,
        })
    };
    match standing(row, head, superblock.next_segment_generation) {
        Standing::Named(row) => {
            of_named(row, head, len).into_iter().for_each(&mut finding);
            let log = row.open.then_some(row.used.max(SEGMENT_DATA_START));
            place(row.generation, log)
        }
        Standing::Log(generation) => place(generation, Some(SEGMENT_DATA_START)),
        Standing::Unknown(error) => {
            let way_out = "it may hold flushed data, so the backend refuses the store: restore it, or give up what was \
                           written there with --accept-log-damage";
            finding(Finding::new(Kind::SegmentHeader, error.to_string(), way_out).at(0u32));
            None
        }
        Standing::Orphan => match (row, head) {
            (Some(_), _) => {
                finding(replaced());
                None
            }
            // Without a table nobody can tell; what maps name can still be looked at.
            (None, Head::Valid(header)) if roots.rows.is_none() => place(header.generation, None),
            _ => {
                let way_out = "nothing: the backend removes it when it starts";
                finding(Finding::new(Kind::Segment, "nothing names this file", way_out).note());
                None
            }
        },
    }
}

/// What is wrong with the file of a segment.
pub(super) fn of_named(row: &SegmentRow, head: &Head, len: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let why = match head {
        Head::Valid(_) => None,
        Head::Blank => Some("its header is blank".to_owned()),
        Head::Damaged(error) => Some(error.to_string()),
    };
    if let Some(why) = why {
        let way_out = "its records are verified without it; check the disk, and move the data away \
                       (firn vdisk export) if more is found";
        findings.push(Finding::new(Kind::SegmentHeader, why, way_out).at(0u32));
    }
    if len < u64::from(row.used) {
        let what = format!("its file has {len} bytes, of {} in use", row.used);
        findings.push(Finding::new(Kind::Segment, what, CHECK_DISK).at(len));
    }
    findings
}

/// Its file is another one.
pub(super) fn replaced() -> Finding {
    let what = "another file stands in its place, of another generation";
    let way_out = "put the right file back before the backend starts: it would remove this one";
    Finding::new(Kind::Segment, what, way_out)
}

/// Its file can't be read.
pub(super) fn unreadable(error: &io::Error) -> Finding {
    let what = format!("its file can't be read: {error}");
    Finding::new(Kind::Segment, what, CHECK_DISK)
}

/// Its file is not there.
pub(super) fn gone(row: &SegmentRow, way_out: &str) -> Finding {
    let what = format!(
        "{} is missing; {} blocks or map nodes live in it",
        segment_file_name(row.id),
        row.live
    );
    Finding::new(Kind::Segment, what, way_out)
}

/// A row without a file is fine when nothing lives in it: a checkpoint unlinks what it has written off.
fn missing(row: &SegmentRow, roots: &Roots, segments: &Segments<'_>, sink: &mut Sink<'_>) {
    let holds_pieces = roots.pieces.iter().any(|p| p.segment == row.id);
    if segments.places.contains_key(&row.id) || row.live == 0 && !row.open && !holds_pieces {
        return;
    }
    let way_out = "put it back while the backend is stopped, or restore what was there";
    sink.add(gone(row, way_out).in_segment(row.id));
}
