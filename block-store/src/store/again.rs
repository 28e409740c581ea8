//! Reading again what was found scattered when there was no room to gather it.

use super::client::BlockClient;
use super::config::OnFull;
use super::lane::Lane;
use super::{Store, VDisks};
use crate::core::Core;
use crate::defrag::Later;
use std::sync::Arc;

/// Reads in flight: one at a time, of as many pieces.
const DEPTH: u32 = 32;

/// A reader for this alone; what it reads is handed over to be coalesced as any read's is.
pub struct Again {
    core: Arc<Core>,
    vdisks: Arc<VDisks>,
    client: Option<BlockClient>,
}

impl Store {
    /// A reader of what is to be read again.
    pub fn again(&self) -> Again {
        Again {
            core: Arc::clone(&self.core),
            vdisks: Arc::clone(&self.vdisks),
            client: None,
        }
    }
}

impl Again {
    /// Reads `range`. What can't be read now stays as it is.
    pub fn read(&mut self, range: Later) {
        let vdisk = {
            let vdisks = self.vdisks.read();
            vdisks.values().find(|v| v.id() == range.vdisk).cloned()
        };
        let Some(vdisk) = vdisk else { return };
        if self.client.is_none() {
            let lane = Lane::new(Arc::clone(&self.core), OnFull::Error, DEPTH, None);
            self.client = lane.ok().map(BlockClient::new);
        }
        let mut bytes = vec![0; range.len as usize];
        let read = self
            .client
            .as_mut()
            .map(|client| client.read(&vdisk, range.offset, &mut bytes));
        if read != Some(Ok(())) {
            log::debug!("{range:?} of {} is not read again: {read:?}", vdisk.name());
        }
    }

    /// Requests of all vDisks that have completed.
    pub(super) fn requests(&self) -> u64 {
        super::requests(&self.vdisks)
    }
}
