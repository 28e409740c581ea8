//! The log after the checkpoint, held against what commits have promised.

use super::finding::{Finding, Kind, Sink};
use super::roots::Roots;
use super::segments::Segments;
use crate::error::StoreError;
use crate::format::{Prefix, RecordHeader, RecordKind, Superblock};
use crate::recover::{Scan, cut_short, hold_to_promises, scan};
use std::collections::BTreeMap;

/// Scans the log as recovery would.
pub(super) fn examine(
    superblock: &Superblock,
    roots: &mut Roots,
    segments: &mut Segments<'_>,
    sink: &mut Sink<'_>,
) {
    let (mut scans, mut cut) = (Vec::new(), Vec::new());
    let tails: Vec<(u32, u32)> = segments
        .places
        .iter()
        .filter_map(|(id, place)| Some((*id, place.log?)))
        .collect();
    for (id, from) in tails {
        if sink.stopped() {
            return;
        }
        match scan_one(segments, id, from) {
            Ok(mut scan) => {
                sink.report.log_records += scan.records.len() as u64;
                for row in scan.cuts.values().flat_map(|cut| &cut.rows) {
                    roots.learn(row);
                }
                // What is fine needs no second look: memory stays bounded.
                scan.records.retain(|r| !r.intact);
                scans.push(scan);
            }
            Err(why) => {
                let way_out = "check the disk; the backend can't start without reading it";
                let what = format!("its log can't be read: {why}");
                sink.add(
                    Finding::new(Kind::Log, what, way_out)
                        .in_segment(id)
                        .at(from),
                );
            }
        }
        let len = segments.places.get(&id).map_or(0, |p| p.len);
        cut.extend(cut_short(id, len, superblock.segment_size));
        sink.advance(len.saturating_sub(u64::from(from)));
    }
    let missing: Vec<Prefix> = roots
        .rows
        .iter()
        .flat_map(BTreeMap::values)
        .filter(|row| row.open && !segments.places.contains_key(&row.id))
        .map(|row| Prefix {
            segment: row.id,
            generation: row.generation,
            end: row.used,
        })
        .collect();
    let is_there = |id| segments.places.contains_key(&id);
    let next = superblock.next_segment_generation;
    let broken = hold_to_promises(&mut scans, &missing, next, &is_there);
    for error in cut.into_iter().chain(broken) {
        sink.add(promise(error));
    }
    for (id, record) in scans
        .iter()
        .flat_map(|s| s.records.iter().map(|r| (s.segment, r)))
        // A cut that does not verify is a promise broken.
        .filter(|(_, r)| r.header.kind != RecordKind::Cut)
    {
        let finding = damaged_record(roots, &record.header);
        sink.add(finding.in_segment(id).at(record.offset));
    }
}

/// A record whose payload does not verify, although it was promised to be durable.
fn damaged_record(roots: &Roots, header: &RecordHeader) -> Finding {
    const WHAT: &str = "a flushed record of the log: payload checksum does not match";
    if header.kind == RecordKind::Commit {
        let way_out = "no data is lost by it, but it is not known what it promised: check the disk; a clean stop of the \
                       backend makes it superfluous";
        return Finding::new(Kind::Log, WHAT, way_out);
    }
    let way_out = "these blocks read as I/O errors: write them anew from within the guest, or restore them; check the disk";
    let (layer, first, count) = (header.layer, header.first, header.count);
    Finding::new(Kind::Extent, WHAT, way_out).of(&roots.names, layer, first, count)
}

fn scan_one(segments: &mut Segments<'_>, id: u32, from: u32) -> Result<Scan, String> {
    let (place, file) = segments.get(id)?;
    let mut scan = scan(&*file, id, place.generation, from).map_err(|e| e.to_string())?;
    scan.look_beyond(&*file).map_err(|e| e.to_string())?;
    Ok(scan)
}

fn promise(error: StoreError) -> Finding {
    let way_out = "the backend refuses the store: restore it from a replica or backup, or give up what was written there \
                   with --accept-log-damage";
    match error {
        StoreError::LogDamaged {
            segment,
            from,
            to,
            why,
        } => {
            let what = format!("damaged up to byte {to}, within flushed data: {why}");
            Finding::new(Kind::Log, what, way_out)
                .in_segment(segment)
                .at(from)
        }
        other => Finding::new(Kind::Log, other.to_string(), way_out),
    }
}
