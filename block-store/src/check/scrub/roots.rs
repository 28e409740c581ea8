//! Superblocks, segment table and catalogue as they are on the disk, and the segments' files.

use crate::check::finding::{Finding, Kind, Sink};
use crate::check::{roots, segments};
use crate::checkpoint::Checkpointer;
use crate::core::Core;
use crate::format::{SegmentRow, Superblock, segment_file_name};
use crate::recover::{Standing, read_header, standing};
use parking_lot::Mutex;
use std::io;

const ANEW: &str = "the next checkpoint writes it anew; check the disk";

/// Superblocks, table and catalogue of the last checkpoint. None is taken meanwhile: that waits for some reads.
pub(super) fn examine(core: &Core, checkpointer: &Mutex<Checkpointer>, sink: &mut Sink<'_>) {
    let checkpointer = checkpointer.lock();
    let ours = checkpointer.superblock();
    match roots::read_pages(&*core.disk) {
        Err(error) => sink.add(Finding::new(Kind::Superblock, error.to_string(), ANEW)),
        Ok(pages) => {
            for (offset, page) in roots::OFFSETS.into_iter().zip(pages) {
                let found = page.and_then(|page| Superblock::decode(&page).map_err(|e| e.why));
                let why = match found {
                    Ok(found) if found == *ours => continue,
                    Ok(other) => format!(
                        "is of generation {}, not of {} as was written",
                        other.generation, ours.generation
                    ),
                    Err(why) => why,
                };
                sink.add(Finding::new(Kind::Superblock, why, ANEW).at(offset));
            }
        }
    }
    drop(roots::read(&*core.disk, ours, ANEW, sink));
}

/// The file of a segment by its name, which the next process will need. `Some`: it counts as looked at.
pub(super) fn examine_segment(
    core: &Core,
    superblock: &Superblock,
    row: &SegmentRow,
    sink: &mut Sink<'_>,
) {
    let found = core
        .disk
        .open(&segment_file_name(row.id))
        .and_then(|file| Ok((read_header(&*file, superblock, row.id)?, file.len()?)));
    let findings = match &found {
        Ok((head, len)) => match standing(Some(row), head, u64::MAX) {
            Standing::Named(row) => segments::of_named(row, head, *len),
            _ => vec![segments::replaced()],
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let way_out = "reads still find it as long as this backend runs, and no longer: copy its vDisks elsewhere now \
                           (firn vdisk export)";
            vec![segments::gone(row, way_out)]
        }
        Err(error) => vec![segments::unreadable(error)],
    };
    if findings.is_empty() || !still_there(core, row) {
        return;
    }
    findings
        .into_iter()
        .for_each(|finding| sink.add(finding.in_segment(row.id)));
}

/// Whether the store still needs this segment. One that nothing lives in is unlinked before it is forgotten.
fn still_there(core: &Core, row: &SegmentRow) -> bool {
    let state = core.state.lock();
    let now = state.segments.get(row.id).map(|s| s.row(row.id));
    now.is_some_and(|now| now.generation == row.generation && (now.live > 0 || now.open))
}
