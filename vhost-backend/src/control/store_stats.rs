//! How the store's data lies, behind the control API.

use super::explain::{store_error, translate};
use super::store_target::StoreTarget;
use super::target::StatsTarget;
use control_api::types::*;
use std::time::{Duration, Instant};

/// How long one answer looks at how a vDisk lies.
const LOOK: Duration = Duration::from_millis(500);

impl StatsTarget for StoreTarget {
    fn store_stats(&self) -> Result<StoreStats, ApiError> {
        translate(&self.inner.store.stats())
    }

    fn layers(&self) -> Result<Vec<Layer>, ApiError> {
        translate(&self.inner.store.layers())
    }

    fn layer_usage(&self, layer: u32, offset: u64) -> Result<SnapshotUsage, ApiError> {
        let usage = self.inner.store.layer_usage(layer, offset);
        translate(&usage.map_err(store_error)?)
    }

    fn fragmentation(&self, name: &str, offset: u64) -> Result<Fragmentation, ApiError> {
        let vdisk = self.inner.visible(name)?;
        let began = Instant::now();
        let mut sum = Fragmentation {
            next: Some(offset),
            ..Fragmentation::default()
        };
        while let Some(at) = sum.next
            && (at == offset || began.elapsed() < LOOK)
        {
            let part = self.inner.store.fragmentation(&vdisk, at);
            let part: Fragmentation = translate(&part.map_err(store_error)?)?;
            sum.add(&part);
            // An answer that does not get on would have us ask for ever.
            sum.next = part.next.filter(|next| *next > at);
        }
        Ok(sum)
    }
}
