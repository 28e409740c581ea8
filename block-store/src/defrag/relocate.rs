//! Moving blocks: an extent is appended to the cold segment, and the map points at it where nothing has changed meanwhile.
//!
//! # Crash
//! Relocated extents take effect only through a checkpoint: roll-forward passes over them, and the segment they came
//! from is removed only by a checkpoint that no longer names it. So no relocated copy can outlive a newer write.

use crate::core::Core;
use crate::error::StoreError;
use crate::format::{Entry, Location, RecordFlags, RecordHeader};
use crate::log::{Cause, Stream};
use crate::map::NodeKey;
use crate::state::{Blocked, State};
use crate::write::append;

/// An extent that was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Where it is now.
    pub at: Location,
    /// Blocks whose entries lead there; those of others had changed.
    pub switched: u64,
}

/// Appends the extent that `header` describes, and points the map of its layer at it for each block whose packed entry still is
/// what was `seen`. `None`: there is no room, or a checkpoint has to come first; nothing has happened then.
pub fn relocate(
    core: &Core,
    cause: Cause,
    header: &RecordHeader,
    payload: &[u8],
    seen: &[u64],
) -> Result<Option<Moved>, StoreError> {
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
            let (at, _) = append(state, Stream::Cold, cause, &header, payload)?;
            let switched = switch(state, &header, at, seen);
            core.ring_for(state);
            Ok(Moved { at, switched })
        })?;
        match outcome {
            Ok(moved) => return Ok(Some(moved)),
            // Guests wait for the same room; draining here gives it to whoever comes first.
            Err(Blocked::Buffer) => {
                if !core.drain_step()? {
                    return Ok(None);
                }
            }
            // The allocator may not have come to it yet.
            Err(Blocked::Space) => {
                if !core.allocate_step()? {
                    return Ok(None);
                }
            }
            Err(_) => return Ok(None),
        }
    }
}

/// How many were switched.
fn switch(state: &mut State, header: &RecordHeader, at: Location, seen: &[u64]) -> u64 {
    let mut switched = 0;
    for (n, old) in (0..header.count).zip(seen) {
        let block = header.first + n;
        if state.map.lookup(header.layer, block) != Ok(*old) {
            continue;
        }
        let new = Entry::Stored { at, index: n as u8 }.pack();
        state.map.set(header.layer, block, new);
        state.segments.retain(at.segment, 1);
        state.release(crate::map::Freed::Entry(*old));
        switched += 1;
    }
    switched
}
