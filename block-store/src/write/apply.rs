//! The critical section of a write: LSN, log and map change together.

use super::prepare::Piece;
use crate::alloc::Purpose;
use crate::format::{Entry, Location, RecordFlags, RecordHeader, RecordKind};
use crate::log::{Cause, NoRoom, Stream};
use crate::map::{Freed, NodeKey};
use crate::state::{Blocked, State};

/// Appends one extent to the log and points the map of `layer` at it. Returns its LSN, and where it lies (zeroes: nowhere).
///
/// Nothing has happened when it is blocked; the caller waits for what it names and comes again.
pub fn apply(
    state: &mut State,
    layer: u32,
    stream: Stream,
    piece: &Piece,
    payload: &[u8],
) -> Result<(u64, Option<Location>), Blocked> {
    let Some(header) = piece.header(layer, payload) else {
        let lsn = apply_range(state, layer, piece.first, piece.blocks, false)?;
        return Ok((lsn, None));
    };
    ready(state)?;
    // Pieces are aligned groups of at most 32 blocks: never more than one leaf.
    state
        .map
        .make_resident(NodeKey::leaf(layer, piece.first))
        .map_err(Blocked::Node)?;
    let (at, lsn) = append(state, stream, Cause::Guest, &header, payload)?;
    point_at(state, layer, piece.first, piece.blocks, at);
    Ok((lsn, Some(at)))
}

/// Makes a range of blocks read as zeroes. `discard`: they may also be forgotten, where no parent shines through.
pub fn apply_range(
    state: &mut State,
    layer: u32,
    first: u64,
    blocks: u64,
    discard: bool,
) -> Result<u64, Blocked> {
    ready(state)?;
    state
        .map
        .prepare_range(layer, first, blocks)
        .map_err(Blocked::Node)?;
    let header = RecordHeader {
        kind: RecordKind::Range,
        flags: RecordFlags {
            relocated: false,
            discard,
        },
        codec: 0,
        layer,
        first,
        count: blocks,
        lsn: 0,
        payload_len: 0,
        raw_len: 0,
        payload_crc: 0,
        link: 0,
    };
    let (_, lsn) = append(state, Stream::Fresh, Cause::Log, &header, &[])?;
    clear(state, layer, first, blocks);
    Ok(lsn)
}

/// Points the map at an extent; its leaf is in memory.
pub(crate) fn point_at(state: &mut State, layer: u32, first: u64, blocks: u64, at: Location) {
    state.segments.retain(at.segment, blocks as u32);
    for n in 0..blocks {
        let old = state.map.set(
            layer,
            first + n,
            Entry::Stored { at, index: n as u8 }.pack(),
        );
        state.release(Freed::Entry(old));
    }
}

/// Makes a range zero in the map; its edges are in memory. In a layer without parent nothing need be remembered.
pub(crate) fn clear(state: &mut State, layer: u32, first: u64, blocks: u64) {
    let has_parent = state
        .catalogue
        .layers
        .get(&layer)
        .is_some_and(|l| l.parent.is_some());
    let bits = if has_parent {
        Entry::Zero
    } else {
        Entry::Absent
    }
    .pack();
    let mut freed = Vec::new();
    state
        .map
        .set_range(layer, first, blocks, bits, &mut |f| freed.push(f));
    for f in freed {
        state.release(f);
    }
}

fn ready(state: &mut State) -> Result<(), Blocked> {
    state.map.make_room();
    if state.map.is_full() {
        Err(Blocked::Checkpoint)
    } else {
        Ok(())
    }
}

/// On whose account a segment is opened for what is written.
fn purpose(cause: Cause) -> Purpose {
    match cause {
        Cause::Log => Purpose::Record,
        Cause::Compaction => Purpose::Relocation,
        // What is put together or packed anew for later takes space before it gives any.
        _ => Purpose::Guest,
    }
}

/// Appends, opening the next segment where one is full.
pub(crate) fn append(
    state: &mut State,
    stream: Stream,
    cause: Cause,
    header: &RecordHeader,
    payload: &[u8],
) -> Result<(Location, u64), Blocked> {
    if state.log.room(stream, header.stored_len()) == Err(NoRoom::Segment) {
        state.open_segment(stream, purpose(cause))?;
    }
    let (at, lsn) = state
        .log
        .append(stream, cause, header, payload)
        .map_err(|_| Blocked::Buffer)?;
    state
        .segments
        .appended(at.segment, at.end(), header.count.min(32) as u32);
    Ok((at, lsn))
}
