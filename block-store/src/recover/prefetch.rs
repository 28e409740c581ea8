//! Map nodes that roll-forward will need, read many at a time.

use crate::error::StoreError;
use crate::io::{AlignedBuf, Disk};
use crate::map::{LEVELS, NodeKey};
use crate::read::NodeRead;
use crate::state::State;
use std::collections::{BTreeSet, HashSet};

/// Reads of map nodes in flight.
const PREFETCH: u32 = 64;

/// Reads the leaves that will be changed, and what is above them, many at a time. Only to be fast: what can't be read
/// here is reported when it is needed.
pub(super) fn prefetch(
    disk: &dyn Disk,
    state: &mut State,
    leaves: BTreeSet<NodeKey>,
) -> Result<(), StoreError> {
    let context = || StoreError::io("reading block maps");
    let mut queue = disk.read_queue(PREFETCH).map_err(context())?;
    let mut done = Vec::new();
    // A round per level of the map.
    for _ in 0..LEVELS {
        let mut reads: Vec<NodeRead> = Vec::new();
        let mut seen = HashSet::new();
        for leaf in leaves.iter().take(state.map.budget()) {
            if !state.catalogue.layers.contains_key(&leaf.layer()) {
                continue;
            }
            if let Err(missing) = state.map.make_resident(*leaf)
                && seen.insert(missing.key)
                && let Ok(read) = NodeRead::plan(state, missing)
            {
                reads.push(read);
            }
        }
        for (n, read) in reads.iter().enumerate() {
            let (offset, len) = read.pages();
            let buffer = AlignedBuf::zeroed(len).map_err(context())?;
            queue.push(&read.file, offset, buffer, n as u64);
        }
        while queue.in_flight() > 0 {
            queue.wait(&mut done);
            for read in done.drain(..) {
                let Some(plan) = reads.get(read.tag as usize).filter(|_| read.result.is_ok())
                else {
                    continue;
                };
                if let Ok(slots) = plan.finish(&read.buf, &mut |o, l| state.is_heir(o, l)) {
                    state.map.install(plan.missing, slots);
                }
            }
        }
        if reads.is_empty() {
            break;
        }
    }
    Ok(())
}
