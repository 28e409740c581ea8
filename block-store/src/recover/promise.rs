//! What commits have promised, held against what is there.

use super::scan::{Scan, Scanned};
use crate::error::StoreError;
use crate::format::{Prefix, RecordKind, segment_file_name};
use std::collections::BTreeMap;

/// Whether a segment's file has lost its end. Files are allocated at their full size and keep it, so it was not the store
/// that cut this one; with its end, promises that would tell may be gone as well.
pub fn cut_short(segment: u32, len: u64, segment_size: u32) -> Option<StoreError> {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    (len < segment_size).then(|| StoreError::LogDamaged {
        segment,
        from: len,
        to: segment_size,
        why: "the file was cut short".into(),
    })
}

/// Finds what was promised and is not there, in the scanned segments and in `missing` ones: one
/// [`StoreError::LogDamaged`] each. What a segment holds above its promises ends with its first damaged payload.
pub fn hold_to_promises(
    scans: &mut [Scan],
    missing: &[Prefix],
    next_generation: u64,
    is_there: &dyn Fn(u32) -> bool,
) -> Vec<StoreError> {
    let mut promised: BTreeMap<u32, Prefix> = BTreeMap::new();
    for prefix in scans
        .iter()
        .flat_map(|s| &s.commits)
        .flat_map(|c| &c.prefixes)
    {
        let best = promised.entry(prefix.segment).or_insert(*prefix);
        if (prefix.generation, prefix.end) > (best.generation, best.end) {
            *best = *prefix;
        }
    }
    let mut broken = Vec::new();
    for scan in scans {
        let end = promised
            .remove(&scan.segment)
            .filter(|p| p.generation == scan.generation)
            .map_or(0, |p| p.end)
            .max(scan.from);
        if scan.end < end {
            broken.push(StoreError::LogDamaged {
                segment: scan.segment,
                from: scan.end,
                to: end,
                why: scan.why.clone(),
            });
        }
        scan.keep_intact_beyond(end);
        // Without it, whole layers that came after it would be passed over.
        let cut = |r: &&Scanned| !r.intact && r.header.kind == RecordKind::Cut;
        for record in scan.records.iter().filter(cut) {
            broken.push(StoreError::LogDamaged {
                segment: scan.segment,
                from: record.offset,
                to: record.offset + record.header.stored_len() as u32,
                why: "the payload of a cut does not verify".into(),
            });
        }
    }
    let newer = |p: &&Prefix| p.generation >= next_generation;
    let gone = promised.values().filter(newer).chain(missing);
    broken.extend(
        gone.filter(|p| !is_there(p.segment))
            .map(|prefix| StoreError::LogDamaged {
                segment: prefix.segment,
                from: 0,
                to: prefix.end,
                why: format!("{} is not there", segment_file_name(prefix.segment)),
            }),
    );
    broken
}
