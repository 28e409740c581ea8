//! Moving blocks: an extent is appended to the cold segment, and the map points at it where nothing has changed meanwhile.
//!
//! # Crash
//! Relocated extents take effect only through a checkpoint: roll-forward passes over them, and the segment they came
//! from is removed only by a checkpoint that no longer names it. So no relocated copy can outlive a newer write.

use crate::alloc::Purpose;
use crate::core::Core;
use crate::error::StoreError;
use crate::format::{Entry, Location, RecordFlags, RecordHeader};
use crate::log::Stream;
use crate::map::NodeKey;
use crate::state::{Blocked, State};
use crate::write::append;
use std::sync::atomic::Ordering::Relaxed;

/// Appends the extent that `header` describes, and points the map of its layer at it for each block whose packed entry still is
/// what was `seen`. `None`: there is no room, or a checkpoint has to come first; nothing has happened then.
pub fn relocate(
    core: &Core,
    purpose: Purpose,
    header: &RecordHeader,
    payload: &[u8],
    seen: &[u64],
) -> Result<Option<Location>, StoreError> {
    let header = RecordHeader {
        flags: RecordFlags {
            relocated: true,
            discard: false,
        },
        ..*header
    };
    loop {
        let outcome = core.with_nodes(|state| {
            if state.failed.is_some() || !state.catalogue.layers.contains_key(&header.layer) {
                return Err(Blocked::Checkpoint);
            }
            let key = NodeKey::leaf(header.layer, header.first);
            state.map.make_resident(key).map_err(Blocked::Node)?;
            state.map.make_room();
            if state.map.is_full() {
                return Err(Blocked::Checkpoint);
            }
            let (at, _) = append(state, Stream::Cold, purpose, &header, payload)?;
            switch(state, &header, at, seen);
            core.ring_for(state);
            Ok(at)
        })?;
        match outcome {
            Ok(at) => {
                core.counters
                    .relocated_bytes
                    .fetch_add(header.stored_len() as u64, Relaxed);
                return Ok(Some(at));
            }
            // Guests wait for the same room; draining here gives it to whoever comes first.
            Err(Blocked::Buffer) => {
                if !core.drain_step()? {
                    return Ok(None);
                }
            }
            Err(_) => return Ok(None),
        }
    }
}

fn switch(state: &mut State, header: &RecordHeader, at: Location, seen: &[u64]) {
    for (n, old) in (0..header.count).zip(seen) {
        let block = header.first + n;
        if state.map.lookup(header.layer, block) != Ok(*old) {
            continue;
        }
        let new = Entry::Stored { at, index: n as u8 }.pack();
        state.map.set(header.layer, block, new);
        state.segments.retain(at.segment, 1);
        state.release(crate::map::Freed::Entry(*old));
    }
}
