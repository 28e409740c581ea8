//! The cut: from one LSN on, vDisks go on in new layers. No data and no map is copied.
//!
//! # Crash
//! The cut is a record of the log, so that what is written after it finds its layer again when the log is rolled forward.
//! The record names nothing: a snapshot exists when a checkpoint has made its row in the catalogue durable, and with that
//! everything up to the cut. Until then the sealed layer has no name, and is merged away.

use crate::format::{CutRecord, CutRow, LayerRow, RecordFlags, RecordHeader, RecordKind};
use crate::log::{Cause, Stream};
use crate::state::{Blocked, State};
use crate::write::append;

/// Cuts all these vDisks at one LSN, which is returned. Nothing has happened when it is blocked.
///
/// Rows name live vDisks, new layers and layers that are there: whoever forms them has the catalogue at hand.
pub fn cut(state: &mut State, rows: &[CutRow]) -> Result<u64, Blocked> {
    let payload = CutRecord {
        rows: rows.to_vec(),
    }
    .encode();
    let header = RecordHeader {
        kind: RecordKind::Cut,
        flags: RecordFlags::default(),
        codec: 0,
        layer: 0,
        first: 0,
        count: 0,
        lsn: 0,
        payload_len: payload.len() as u32,
        raw_len: payload.len() as u32,
        payload_crc: crc32c::crc32c(&payload),
        link: 0,
    };
    let since = state.segments.oldest_unsealed();
    // Every commit covers this stream: nothing of the new layers is promised without this record.
    let (_, lsn) = append(state, Stream::Fresh, Cause::Log, &header, &payload)?;
    for row in rows {
        let applied = apply_cut(state, row, since);
        debug_assert_eq!(applied, Ok(()), "{row:?}");
    }
    Ok(lsn)
}

/// Lets one vDisk go on in its new layer, of which no segment older than `since` holds anything. An error says why it can't.
pub fn apply_cut(state: &mut State, row: &CutRow, since: u64) -> Result<(), &'static str> {
    let catalogue = &mut state.catalogue;
    if catalogue.layers.contains_key(&row.layer) || row.layer < catalogue.next_layer {
        return Err("its new layer is not new");
    }
    if row.parent >= row.layer || !catalogue.layers.contains_key(&row.parent) {
        return Err("the layer below is not there");
    }
    let vdisk = catalogue.vdisks.iter_mut().find(|v| v.id == row.vdisk);
    let vdisk = vdisk.ok_or("there is no such vDisk")?;
    if vdisk.layer != row.parent {
        // Reverted: to the size as well. Or that is undone.
        let mut snapshots = catalogue.snapshots.iter();
        let snapshot = snapshots.find(|s| s.layer == row.parent).map(|s| s.size);
        let left = state.left.insert(vdisk.id, (vdisk.layer, vdisk.size));
        let undone = left.filter(|(layer, _)| *layer == row.parent);
        vdisk.size = snapshot
            .or(undone.map(|(_, size)| size))
            .unwrap_or(vdisk.size);
    }
    vdisk.layer = row.layer;
    catalogue.layers.insert(
        row.layer,
        LayerRow {
            id: row.layer,
            uuid: row.uuid,
            parent: Some(row.parent),
            root: 0,
            since,
        },
    );
    catalogue.next_layer = row.layer + 1;
    state.map.add_layer(row.layer, 0);
    Ok(())
}
