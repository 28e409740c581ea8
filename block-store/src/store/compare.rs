//! Looking at what snapshots hold: what has changed between states of a vDisk, what a snapshot costs.

use super::Store;
use super::vdisk::VDisk;
use crate::error::StoreError;
use crate::format::{BLOCK, MAX_BLOCKS, NODE_SLOTS};
use crate::snapshot::{Above, Usage, above, changed, differing, usage};
use crate::state::State;
use serde::Serialize;
use std::ops::Range;
use std::sync::Arc;

/// Which parts of a vDisk have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Byte ranges, in order.
    pub ranges: Vec<Range<u64>>,
    /// Everything from the start asked for up to here was looked at.
    pub checked: u64,
}

/// What a snapshot costs, or a part of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotUsage {
    /// Of the part that was looked at.
    #[serde(flatten)]
    pub usage: Usage,
    /// The presence map of its layer, if there is one now.
    pub presence_map: Option<PresenceMap>,
    /// Where the part ends, in bytes of the address space. `None`: that was all.
    pub next: Option<u64>,
}

/// A presence map in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PresenceMap {
    /// Blocks that it has.
    pub blocks: u64,
    /// Bytes of memory that it takes.
    pub bytes: u64,
}

impl Store {
    /// Byte ranges from `offset` on that were written, zeroed or discarded between two states of a vDisk, in whole blocks, in order:
    /// snapshots of it ([`Store::open_snapshot`]), or the vDisk itself as it is while this looks. Which of the two comes first
    /// makes no difference. Where neither came from the other, what either has changed since their ways parted counts.
    ///
    /// Reads metadata only. The answer is bounded, `checked` tells how far it goes.
    pub fn changed(&self, a: &VDisk, b: &VDisk, offset: u64) -> Result<Changed, StoreError> {
        if a.id() != b.id() {
            return Err(StoreError::Invalid(format!(
                "{} and {} are not of one vDisk: only states of one can be compared",
                a.name(),
                b.name()
            )));
        }
        if a.uuid() == b.uuid() {
            return Err(StoreError::Invalid(format!(
                "{} can't be compared with itself: name two snapshots, or one to compare it with the present",
                a.name()
            )));
        }
        let block = BLOCK as u64;
        let size = a.size().max(b.size());
        let end = size.div_ceil(block);
        let first = if offset < size { offset / block } else { end };
        let (layers, tops, _pins) = {
            let mut state = self.core.state.lock();
            let tops @ [one, other] = [a.layer(), b.layer()];
            let (layers, meet) = differing(&state.catalogue, one, other);
            // Nothing may come up from below either.
            let pins = pin(&mut state, layers.iter().chain(&meet));
            (layers, tops, pins)
        };
        // A round of merging that was under way has not seen the pins.
        drop(self.core.tidying.lock());
        let part = changed(&self.core, &layers, first..end)?;
        let state = self.core.state.lock();
        let is_there = |layer: &u32| state.catalogue.layers.contains_key(layer);
        if !layers.iter().chain(&tops).all(is_there) {
            return Err(StoreError::Refused(format!(
                "{} or {} was deleted while they were compared",
                a.name(),
                b.name()
            )));
        }
        drop(state);
        let runs = part.runs.all().iter();
        let bytes = |run: &Range<u64>| run.start * block..(run.end * block).min(size);
        Ok(Changed {
            ranges: runs.map(bytes).collect(),
            checked: (part.checked * block).min(size),
        })
    }

    /// What a snapshot's layer costs, from `offset` (rounded down to 2 MiB) on, as far as one answer goes: ask on from what
    /// [`SnapshotUsage::next`] says, and add up. Reads metadata only: of the layer, and of the one over it.
    ///
    /// While layers of deleted snapshots are being merged into this one, or are between it and what lies over it, this may
    /// tell less than all.
    pub fn snapshot_usage(
        &self,
        snapshot: &VDisk,
        offset: u64,
    ) -> Result<SnapshotUsage, StoreError> {
        self.layer_usage(snapshot.layer(), offset)
    }

    /// The same for any layer, by its number. What would come free without the live layer of a vDisk is all of it.
    pub fn layer_usage(&self, layer: u32, offset: u64) -> Result<SnapshotUsage, StoreError> {
        let leaf = (NODE_SLOTS * BLOCK) as u64;
        let first = (offset / leaf * NODE_SLOTS as u64).min(MAX_BLOCKS);
        let (over, map, _pins) = {
            let mut state = self.core.state.lock();
            if !state.catalogue.layers.contains_key(&layer) {
                return Err(StoreError::NoLayer(layer));
            }
            let over = above(&state.catalogue, layer);
            let child = match over {
                Above::One(child) => Some(child),
                _ => None,
            };
            let pins = pin(&mut state, [layer].iter().chain(&child));
            let bytes = state.presence.peek(layer).map(|(_, bytes)| bytes as u64);
            (over, state.presence.share(layer).zip(bytes), pins)
        };
        drop(self.core.tidying.lock());
        let (usage, checked) = usage(&self.core, layer, over, first..MAX_BLOCKS)?;
        Ok(SnapshotUsage {
            usage,
            presence_map: map.map(|(blocks, bytes)| PresenceMap {
                blocks: blocks.len(),
                bytes,
            }),
            next: (checked < MAX_BLOCKS).then_some(checked * BLOCK as u64),
        })
    }
}

/// Keeps layers from being merged away or dropped, for as long as there is what this returns.
fn pin<'a>(state: &mut State, layers: impl Iterator<Item = &'a u32>) -> Arc<()> {
    let reader = Arc::new(());
    for layer in layers {
        state.readers.push((*layer, Arc::downgrade(&reader)));
    }
    reader
}
