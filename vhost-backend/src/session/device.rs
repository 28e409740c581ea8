//! The device, as one connection sees it: what runs, and what the vDisk's lease allows to run.
//!
//! Queues start when they are complete and this session has the lease ([`super::lease`]); which it asks for when it starts the
//! first of them, and gives up when the last has stopped. Where it must wait for it, it answers all messages as if its queues ran.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use vhost::vhost_user::{Error, Result};

use crate::blk::config::{DiskShape, Features, MAX_QUEUES};
use crate::engine::Disk;
use crate::memory::GuestMemory;
use crate::workers::{Haste, Pool, QueueSetup, QueueWiring, StartError, Stopped};

use super::attachments::{Permit, Seat};
use super::vring::{Running, Shared, Vring};

/// How long a session waits for a front end that has stopped its queues to hang up. libvirt ends the QEMU that a guest was
/// migrated from within a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The device, as one connection sees it.
pub struct Handler<D> {
    pub(super) disk: Arc<D>,
    pub(super) pool: Arc<Pool<D>>,
    pub(super) owned: bool,
    pub(super) features: Features,
    pub(super) protocol: u64,
    pub(super) shared: Shared,
    pub(super) vrings: Vec<Vring<D>>,
    pub(super) seat: Arc<Seat>,
    /// What the front end was told of the write cache.
    pub(super) told: Option<bool>,
    /// Queues are complete, and somebody else has the lease.
    waits: Option<Waits>,
}

/// A wait for the lease.
#[derive(Debug, Clone, Copy)]
struct Waits {
    /// When to give up; none: whom it waits for has hung up already.
    until: Option<Instant>,
}

/// A refusal, which ends the connection.
pub(super) fn refused(error: impl std::fmt::Display) -> Error {
    Error::ReqHandlerError(std::io::Error::other(error.to_string()))
}

fn named(index: u32, error: impl std::fmt::Display) -> Error {
    refused(format_args!("queue {index}: {error}"))
}

impl<D: Disk> Handler<D> {
    /// A device that nothing has been said about.
    pub fn new(disk: Arc<D>, pool: Arc<Pool<D>>, seat: Arc<Seat>) -> Self {
        Self {
            disk,
            pool,
            owned: false,
            features: Features::default(),
            protocol: 0,
            shared: Shared::default(),
            vrings: (0..MAX_QUEUES).map(|_| Vring::default()).collect(),
            seat,
            told: None,
            waits: None,
        }
    }

    /// Number of queues that are served.
    pub fn running(&self) -> usize {
        self.vrings.iter().filter(|v| v.running.is_some()).count()
    }

    /// Stops all queues, and returns when nothing is in flight. All are told before the first is waited for.
    pub fn stop_all(&mut self) {
        let ends: Vec<_> = self
            .vrings
            .iter_mut()
            .filter_map(|v| v.running.take())
            .map(|running| stop(running, Haste::Hurried))
            .collect();
        for end in ends.into_iter().flatten() {
            let _ = end.recv();
        }
    }

    /// Stops all queues of a front end that stays connected.
    pub(super) fn stop_and_rest(&mut self) {
        let ran = self.running() > 0;
        self.stop_all();
        self.rested(ran);
    }

    /// Tells the lease, if that was the last queue.
    pub(super) fn rested(&self, ran: bool) {
        if ran && self.running() == 0 {
            self.seat.rest(self.shared.logging);
        }
    }

    /// When this session has waited long enough for somebody who has stopped and does not hang up.
    pub fn gives_up_at(&mut self) -> Option<Instant> {
        let waits = self.waits?;
        let shared = &self.shared;
        let wants = |v: &Vring<D>| matches!(v.wiring(shared), Ok(Some(wiring)) if wiring.enabled);
        if !self.vrings.iter().any(wants) {
            self.waits = None;
            self.seat.withdraw();
            return None;
        }
        waits.until
    }

    /// The lease may be had now.
    pub fn look_again(&mut self) -> Result<()> {
        match self.waits {
            Some(_) => self.settle_all(),
            None => Ok(()),
        }
    }

    pub(super) fn vring(&mut self, index: u32) -> Result<&mut Vring<D>> {
        self.vrings
            .get_mut(index as usize)
            .ok_or_else(|| refused(format_args!("queue {index}: there are {MAX_QUEUES}")))
    }

    /// Starts a queue that has become complete, or tells its worker what has changed.
    pub(super) fn settle(&mut self, index: u32) -> Result<()> {
        let vring = self.vrings.get(index as usize).ok_or(Error::InvalidParam)?;
        let wiring = vring.wiring(&self.shared).map_err(|e| named(index, e))?;
        match (&vring.running, wiring) {
            (Some(Running { worker, key }), Some(wiring)) => {
                worker.rewire(*key, wiring).map_err(|e| named(index, e))
            }
            (Some(_), None) => Err(named(
                index,
                "it is being served and can't lose its memory or kick",
            )),
            (None, Some(wiring)) if wiring.enabled => match self.may_start(index)? {
                true => self.start(index, wiring),
                false => Ok(()),
            },
            (None, _) => Ok(()),
        }
    }

    fn start(&mut self, index: u32, wiring: QueueWiring) -> Result<()> {
        let number = u16::try_from(index).map_err(|_| Error::InvalidParam)?;
        let inflight = match &self.shared.inflight {
            Some(region) => {
                let missing = "the in-flight region has no room for it";
                let part = region.queue(number);
                Some(part.ok_or_else(|| named(index, missing))?)
            }
            None => None,
        };
        let (disk, features) = (Arc::clone(&self.disk), self.features);
        let worker = self.pool.next();
        let worker = worker.ok_or_else(|| named(index, StartError::WorkerGone))?;
        let vring = self.vring(index)?;
        let setup = QueueSetup {
            disk,
            index: number,
            size: vring.size,
            features,
            base: vring.base,
            inflight,
            wiring,
        };
        let key = worker.start(setup).map_err(|e| named(index, e))?;
        vring.running = Some(Running { worker, key });
        Ok(())
    }

    /// Whether queues may run now. If not, the session waits, or ends.
    fn may_start(&mut self, index: u32) -> Result<bool> {
        if self.running() > 0 {
            return Ok(true);
        }
        let (name, us) = (self.disk.name(), self.seat.front_end());
        match self.seat.ask() {
            Permit::Granted { from } => {
                if let Some((from, pause)) = from {
                    let pause = pause.as_millis();
                    log::info!(
                        "{name}: handed over by {from} to {us}, which starts {pause} ms after its stop"
                    );
                }
                self.waits = None;
                self.keep_what_was_told()?;
                Ok(true)
            }
            Permit::Wait(other) => {
                if !matches!(self.waits, Some(Waits { until: Some(_) })) {
                    log::info!(
                        "{name}: {us} waits for {other} to hang up, which has stopped its queues"
                    );
                    let until = Instant::now().checked_add(PATIENCE);
                    self.waits = Some(Waits { until });
                }
                Ok(false)
            }
            Permit::Soon => {
                if !matches!(self.waits, Some(Waits { until: None })) {
                    log::info!(
                        "{name}: {us} waits for the last requests of the front end before it"
                    );
                    self.waits = Some(Waits { until: None });
                }
                Ok(false)
            }
            Permit::Refused(other) => Err(named(
                index,
                format_args!("the vDisk is attached by {other}, which uses it"),
            )),
        }
    }

    /// A front end that was told that the write cache is off never says so again, whatever its guest did before the guest was
    /// migrated here: QEMU compares with what it has read at its start. Its guest may rely on writes being durable.
    fn keep_what_was_told(&self) -> Result<()> {
        if self.told == Some(false) && self.disk.write_cache() {
            self.disk.set_write_cache(false).map_err(refused)?;
            log::info!(
                "{}: the write cache is off, as {} was told when it connected",
                self.disk.name(),
                self.seat.front_end()
            );
        }
        Ok(())
    }

    pub(super) fn settle_all(&mut self) -> Result<()> {
        (0..u32::from(MAX_QUEUES)).try_for_each(|index| self.settle(index))
    }

    pub(super) fn change_memory(&mut self, memory: GuestMemory) -> Result<()> {
        let old = std::mem::replace(&mut self.shared.memory, Arc::new(memory));
        // A queue that runs needs its rings to stay where they are: refused before anything is told to a worker.
        for (index, vring) in self.vrings.iter().enumerate() {
            let lost = match vring.wiring(&self.shared) {
                Ok(None) => vring.running.is_some(),
                Ok(Some(_)) => false,
                Err(_) => vring.running.is_some(),
            };
            if lost {
                self.shared.memory = old;
                return Err(refused(format_args!(
                    "queue {index} is being served, and its rings are not in the new memory"
                )));
            }
        }
        let complete: Vec<u32> = (0u32..)
            .zip(&self.vrings)
            .filter(|(_, vring)| matches!(vring.wiring(&self.shared), Ok(Some(_))))
            .map(|(index, _)| index)
            .collect();
        complete
            .into_iter()
            .try_for_each(|index| self.settle(index))
    }

    pub(super) fn shape(&self) -> DiskShape {
        DiskShape {
            size: self.disk.size(),
            write_cache: self.disk.write_cache(),
        }
    }
}

pub(super) fn stop<D>(running: Running<D>, haste: Haste) -> Option<Receiver<Stopped>> {
    running.worker.stop(running.key, haste).ok()
}
