//! Checkpoints, and what goes on between them.

use super::VDisks;
use super::clones::{Flattener, Flattening};
use crate::checkpoint::Checkpointer;
use crate::core::Core;
use crate::defrag::{Pace, Progress, reclaim};
use crate::error::StoreError;
use crate::host::Host;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What keeps a store in order.
pub(super) struct Upkeep {
    pub(super) core: Arc<Core>,
    pub(super) host: Arc<dyn Host>,
    pub(super) checkpointer: Mutex<Checkpointer>,
    pub(super) flattener: Mutex<Flattener>,
    /// How far the flattener has got, by vDisk.
    pub(super) flattening: Mutex<BTreeMap<u32, Flattening>>,
    pub(super) vdisks: Arc<VDisks>,
    /// Free space, in per cent, below which sparse segments are compacted.
    pub(super) low_space_percent: u32,
}

impl Upkeep {
    /// Takes a checkpoint now.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        self.checkpointer.lock().run(&self.core, |_| {})
    }

    /// A checkpoint if there is reason for one, then reclamation as far as it is called for.
    pub(super) fn round(&self, pace: &mut Pace) -> Result<(), StoreError> {
        let (due, segments) = {
            let mut state = self.core.state.lock();
            state.segments.now = self.host.now();
            if state.failed.is_some() {
                return Ok(());
            }
            // Merges change maps without a word in the log.
            let due =
                self.core.log_since_checkpoint(&state) > 0 || self.core.wants_checkpoint(&state);
            (due, state.segments.count())
        };
        if due {
            self.checkpoint()?;
        }
        reclaim(&self.core, self.low_space_percent, pace, || {
            self.checkpoint()
        })?;
        self.core.reclaimed(segments);
        self.flatten(pace)
    }

    fn flatten(&self, pace: &mut Pace) -> Result<(), StoreError> {
        if self.core.state.lock().full {
            return Ok(());
        }
        let mut flattener = self.flattener.lock();
        let progress = flattener.round(&self.core, &self.vdisks, &self.flattening, pace)?;
        drop(flattener);
        if progress != Progress::None {
            self.checkpoint()?;
        }
        if progress == Progress::More {
            self.core.upkeep_bell.ring();
        }
        Ok(())
    }
}
