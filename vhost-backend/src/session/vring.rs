//! One queue as the messages describe it.

use std::sync::Arc;

use crate::inflight::InflightRegion;
use crate::memory::{DirtyLog, GuestMemory};
use crate::virtq::ring::{RingPlaces, avail_len, descriptor_table_len, used_len};
use crate::workers::{Call, Kick, QueueKey, QueueWiring, WorkerHandle};

/// Where SET_VRING_ADDR says that the rings are, in the front end's address space.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Descriptor table.
    pub table: u64,
    /// Avail ring.
    pub avail: u64,
    /// Used ring.
    pub used: u64,
    /// Guest address of the used ring, if writes to it are to be noted.
    pub used_log: Option<u64>,
}

/// A queue that a worker serves.
#[derive(Debug)]
pub struct Running<D> {
    /// Which worker.
    pub worker: Arc<WorkerHandle<D>>,
    /// Its name there.
    pub key: QueueKey,
}

/// A queue.
#[derive(Debug)]
pub struct Vring<D> {
    /// SET_VRING_NUM; 0 while unknown.
    pub size: u16,
    /// SET_VRING_ADDR.
    pub addresses: Option<Addresses>,
    /// SET_VRING_BASE.
    pub base: u16,
    /// SET_VRING_KICK.
    pub kick: Option<Arc<Kick>>,
    /// SET_VRING_CALL.
    pub call: Option<Arc<Call>>,
    /// SET_VRING_ERR.
    pub err: Option<Arc<Call>>,
    /// SET_VRING_ENABLE.
    pub enabled: bool,
    /// Served.
    pub running: Option<Running<D>>,
}

impl<D> Default for Vring<D> {
    fn default() -> Self {
        Self {
            size: 0,
            addresses: None,
            base: 0,
            kick: None,
            call: None,
            err: None,
            enabled: false,
            running: None,
        }
    }
}

/// What the whole device has in common.
#[derive(Debug, Default)]
pub struct Shared {
    /// SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG.
    pub memory: Arc<GuestMemory>,
    /// SET_LOG_BASE.
    pub log: Option<Arc<DirtyLog>>,
    /// Whether LOG_ALL is negotiated at present.
    pub logging: bool,
    /// SET_INFLIGHT_FD.
    pub inflight: Option<Arc<InflightRegion>>,
}

impl<D> Vring<D> {
    /// The wiring for a worker; `Ok(None)` while something is missing.
    pub fn wiring(&self, shared: &Shared) -> Result<Option<QueueWiring>, &'static str> {
        let (Some(addresses), Some(kick)) = (self.addresses, &self.kick) else {
            return Ok(None);
        };
        if self.size == 0 || shared.memory.is_empty() {
            return Ok(None);
        }
        Ok(Some(QueueWiring {
            memory: Arc::clone(&shared.memory),
            places: self.places(addresses, shared)?,
            log: shared.log.clone().filter(|_| shared.logging),
            kick: Arc::clone(kick),
            call: self.call.clone(),
            err: self.err.clone(),
            enabled: self.enabled,
        }))
    }

    fn places(&self, at: Addresses, shared: &Shared) -> Result<RingPlaces, &'static str> {
        const OUTSIDE: &str = "a ring is not within one region of the guest's memory";
        let place = |address, len| shared.memory.user_place(address, len).ok_or(OUTSIDE);
        Ok(RingPlaces {
            table: place(at.table, descriptor_table_len(self.size))?,
            avail: place(at.avail, avail_len(self.size))?,
            used: place(at.used, used_len(self.size))?,
            used_log: at.used_log.filter(|_| shared.logging),
        })
    }
}
