//! Checkpoints, and what goes on between them.

use crate::checkpoint::Checkpointer;
use crate::core::Core;
use crate::defrag::{Pace, reclaim};
use crate::error::StoreError;
use crate::host::Host;
use parking_lot::Mutex;
use std::sync::Arc;

/// What keeps a store in order.
pub(super) struct Upkeep {
    pub(super) core: Arc<Core>,
    pub(super) host: Arc<dyn Host>,
    pub(super) checkpointer: Mutex<Checkpointer>,
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
        Ok(())
    }
}
