//! The segment table's live counts against what the maps hold.

use super::finding::{Finding, Kind, Sink};
use super::maps::Tally;
use super::roots::Roots;
use crate::format::SegmentRow;

/// Compares both, where both are known.
pub(super) fn compare(roots: &Roots, tally: &Tally, sink: &mut Sink<'_>) {
    let Some(rows) = roots.rows.as_ref().filter(|_| !tally.incomplete) else {
        let what = "live counts were not compared: not all of table and maps can be read";
        let way_out = "see the other findings";
        sink.add(Finding::new(Kind::Accounting, what, way_out).note());
        return;
    };
    for row in rows.values() {
        let held = tally.live.get(&row.id).copied().unwrap_or(0);
        if let Some((what, way_out)) = differs(row, held) {
            sink.add(Finding::new(Kind::Accounting, what, way_out).in_segment(row.id));
        }
    }
    for id in tally.live.keys().filter(|id| !rows.contains_key(id)) {
        let what = "the maps name it, the segment table does not";
        let way_out = "restore the store from a replica or backup";
        sink.add(Finding::new(Kind::Accounting, what, way_out).in_segment(*id));
    }
}

/// What follows from a wrong count.
fn differs(row: &SegmentRow, held: u32) -> Option<(String, &'static str)> {
    let what = format!(
        "the segment table counts {} live entries, the maps hold {held}",
        row.live
    );
    match held.cmp(&row.live) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Less => Some((
            what,
            "space that is not given back, no data is at risk: copy the vDisks to a new store to have it back",
        )),
        std::cmp::Ordering::Greater => Some((
            what,
            "it could be removed while it is in use: don't start the backend, restore the store from a replica or backup",
        )),
    }
}
