//! A second look: what has moved meanwhile is not damaged.
//!
//! Records never change where they lie, and a segment is removed only when nothing names it. So one look under the lock decides:
//! what the map names at that moment, in a segment that is there, is on the disk, or it is damage. Whoever has moved or overwritten it since
//! it was first met has written it anew, and that is the next pass's.

use crate::check::claims::Claim;
use crate::check::extents;
use crate::core::Core;
use crate::defrag::owners;
use crate::format::{Entry, Location};
use crate::io::DiskFile;
use crate::map::{Missing, NodeKey};
use crate::read::{Decoder, NodeRead};
use crate::state::{Blocked, State};
use std::sync::Arc;

/// What a second look comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Second {
    /// Nobody names it any more, or it can be read now.
    Fine,
    /// It is damaged: why; and of an extent, which of its blocks are named.
    Damaged(String, u32),
    /// Its whole segment is not there: likewise.
    Gone(String, u32),
}

/// Where something that is still named can be read: a file and its generation. An error says why nowhere.
type Named = Result<(Arc<dyn DiskFile>, u64), String>;

/// Of a record. `None`: its data is still in the write buffer.
fn file_of(state: &State, at: Location) -> Option<Named> {
    if state.log.is_buffered(at) {
        return None;
    }
    Some(match state.segments.get(at.segment) {
        Some(segment) => Ok((Arc::clone(&segment.file), segment.generation)),
        None => Err(format!("segment {:x} is not there", at.segment)),
    })
}

/// An extent that did not verify.
pub(super) fn extent(
    core: &Core,
    layer: u32,
    first: u64,
    at: Location,
    claim: &Claim,
    decoder: Option<&mut Decoder>,
) -> Second {
    let looked = core.with_nodes(|state| {
        let mut named = 0;
        for owner in owners(state, layer) {
            for index in (0..32u8).filter(|n| claim.blocks & 1 << n != 0) {
                let bits = (Entry::Stored { at, index }).pack();
                let block = first.saturating_add(index.into());
                if state.map.lookup(owner, block).map_err(Blocked::Node)? == bits {
                    named |= 1 << index;
                }
            }
        }
        Ok((named != 0)
            .then(|| file_of(state, at))
            .flatten()
            .map(|f| (f, named)))
    });
    // A map that can't be read any more is another finding.
    let Ok(Ok(Some((file, named)))) = looked else {
        return Second::Fine;
    };
    let claim = Claim {
        blocks: named,
        ..*claim
    };
    let (file, generation) = match file {
        Ok(file) => file,
        Err(why) => return Second::Gone(why, named),
    };
    let read = (|| {
        let mut alone = super::stretch::Stretch::read(&*file, [at].into_iter())
            .map_err(|error| format!("can't be read: {error}"))?;
        let stored = alone.get(at)?;
        let mut is_heir = |o, l| o == l || core.state.lock().is_heir(o, l);
        extents::sound(stored, generation, at, &claim, &mut is_heir, decoder)
    })();
    match read {
        Ok(()) => Second::Fine,
        Err(why) => Second::Damaged(why, named),
    }
}

/// A node that did not verify.
pub(super) fn node(core: &Core, key: NodeKey, bits: u64, at: Location) -> Second {
    let looked = core.with_nodes(|state| {
        for owner in owners(state, key.layer()) {
            let Some(key) = NodeKey::from_identity(owner, key.identity()) else {
                continue;
            };
            if state.map.names_node(key, bits).map_err(Blocked::Node)? {
                return Ok(file_of(state, at).map(|file| (file, key)));
            }
        }
        Ok(None)
    });
    let Ok(Ok(Some((file, key)))) = looked else {
        return Second::Fine;
    };
    let read = file.and_then(|(file, generation)| {
        let missing = Missing { key, at: bits };
        NodeRead::of(missing, at, generation, file)
            .read_now(&mut |o, l| o == l || core.state.lock().is_heir(o, l))
    });
    match read {
        Ok(_) => Second::Fine,
        Err(why) => Second::Damaged(why, 0),
    }
}
