//! What sessions ask of workers.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::blk::config::Features;
use crate::inflight::{InflightError, QueueRegion};
use crate::memory::{DirtyLog, GuestMemory};
use crate::virtq::ring::{RingError, RingPlaces};

use super::{Call, Kick};

/// A queue at its worker. A key is never used twice for two queues of one worker within 2^32 starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueKey {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

#[cfg(any(test, feature = "testing"))]
impl QueueKey {
    /// Of a queue that no worker has.
    pub(crate) fn for_tests() -> Self {
        Self {
            slot: 0,
            generation: 0,
        }
    }
}

/// The part of a queue's setup that can change while it runs.
#[derive(Debug, Clone)]
pub struct QueueWiring {
    /// The guest's memory.
    pub memory: Arc<GuestMemory>,
    /// Where the rings are in it.
    pub places: RingPlaces,
    /// Notes written pages, while LOG_ALL is on.
    pub log: Option<Arc<DirtyLog>>,
    /// The guest rings here.
    pub kick: Arc<Kick>,
    /// We ring here; without it the guest polls.
    pub call: Option<Arc<Call>>,
    /// We say here that the queue is broken.
    pub err: Option<Arc<Call>>,
    /// Whether requests may be taken.
    pub enabled: bool,
}

/// A queue that is to be served.
#[derive(Debug)]
pub struct QueueSetup<D> {
    /// The vDisk.
    pub disk: Arc<D>,
    /// Which of its queues.
    pub index: u16,
    /// Descriptors: 1..=[`MAX_QUEUE_SIZE`](crate::blk::config::MAX_QUEUE_SIZE).
    pub size: u16,
    /// What was negotiated.
    pub features: Features,
    /// Where the front end says that the avail ring goes on.
    pub base: u16,
    /// What was in flight, and where to note what is.
    pub inflight: Option<QueueRegion>,
    /// The rest.
    pub wiring: QueueWiring,
}

/// Why a queue can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its rings.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Its in-flight region.
    #[error(transparent)]
    Inflight(#[from] InflightError),
    /// Its kick descriptor can't be watched.
    #[error("can't watch the kick descriptor: {0}")]
    Kick(std::io::Error),
    /// The queue isn't there (any more).
    #[error("no such queue")]
    NoSuchQueue,
    /// The worker is gone.
    #[error("the worker is gone")]
    WorkerGone,
}

/// How long a stop waits for a store that has a lot to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// As long as it gets on: the guest may be saved next, and its requests must be through.
    Patient,
    /// Not for long: the front end is gone. What was not begun stays in its in-flight region, and a hostile one's queues hold
    /// hours of work.
    Hurried,
}

/// How a queue ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Where its avail ring goes on: what GET_VRING_BASE tells.
    pub next_avail: u16,
    /// Requests that stay marked in the in-flight region, because they waited for space.
    pub left_in_flight: u16,
}

/// An order, with the place where its answer goes.
#[derive(Debug)]
pub enum Order<D> {
    /// Serve a queue.
    Start(Box<QueueSetup<D>>, SyncSender<Result<QueueKey, StartError>>),
    /// Serve it with other wiring from now on.
    Rewire(
        QueueKey,
        Box<QueueWiring>,
        SyncSender<Result<(), StartError>>,
    ),
    /// Take no more requests, wait for those in flight, and let go.
    Stop(QueueKey, Haste, SyncSender<Stopped>),
    /// Say that you are there.
    Ping(SyncSender<()>),
    /// End the thread; its queues must have been stopped.
    Exit,
}
