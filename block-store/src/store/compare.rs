//! Comparing states of a vDisk.

use super::Store;
use super::vdisk::VDisk;
use crate::error::StoreError;
use crate::format::BLOCK;
use crate::snapshot::{changed, differing};
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
        let reader = Arc::new(());
        let (layers, tops) = {
            let mut state = self.core.state.lock();
            let tops @ [one, other] = [a.layer(), b.layer()];
            let (layers, meet) = differing(&state.catalogue, one, other);
            // Nothing may come up from below either.
            for layer in layers.iter().chain(&meet) {
                state.readers.push((*layer, Arc::downgrade(&reader)));
            }
            (layers, tops)
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
}
