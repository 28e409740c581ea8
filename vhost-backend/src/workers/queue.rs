//! One queue at its worker.
//!
//! ```text
//!            Start                      Stop
//!   (none) ────────> running ──────────────────────> stopping ── nothing in flight ──> (none)
//!                      │                                ^
//!                      └── a ring that can't be ── broken (takes nothing; what is in flight ends)
//! ```
//!
//! The order of steps that makes a restart exact is written down in [`crate::inflight`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use crate::blk::config::Features;
use crate::blk::token::{Answer, Answers, Status, Token};
use crate::engine::{Disk, Done, Engine, RequestError};
use crate::inflight::{Recovery, Tracker};
use crate::memory::{GuestPayload, SegmentPool, View};
use crate::virtq::chain::Chain;
use crate::virtq::ring::{Ring, RingError, avail_index, used_index};

use super::request::{Pending, PendingTable};
use super::{Haste, QueueKey, QueueSetup, QueueWiring, StartError, Stopped};

/// What all queues of a worker share.
pub struct Core<E> {
    /// The way into the store.
    pub engine: E,
    /// Requests in the store's hands.
    pub pending: PendingTable,
    /// Lists for the next requests' buffers.
    pub pool: SegmentPool,
    /// Scratch.
    pub chain: Chain,
    /// Commands given to the engine since it was polled last.
    pub submitted: usize,
}

/// A request that waited, for space or for its turn, when its queue was stopped.
struct Left {
    token: Token,
    position: Option<u16>,
}

/// A stop that is under way.
struct Stop {
    reply: SyncSender<Stopped>,
    haste: Haste,
    /// When the store last finished something of this queue; of a hurried stop, when it began.
    progress: Instant,
}

impl Stop {
    fn out_of_patience(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.progress) >= PATIENCE
    }
}

/// How long a stop waits for a store that finishes nothing, before what waits in it is taken back. Writes wait for the
/// write buffer too, for milliseconds: those must not be taken for writes that wait for space.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pieces of guest memory that one queue's requests in flight may name together: 2 MiB of lists. Beyond that it takes no
/// more until some are through.
const MAX_PIECES_IN_FLIGHT: usize = 64 << 10;

/// Descriptors that are read for one queue before the others of its worker have their turn: some 100 microseconds.
const DESCRIPTORS_PER_TURN: usize = 4096;

/// One queue.
pub struct Queue<D> {
    /// Its name at this worker.
    pub key: QueueKey,
    /// On the worker's list of queues to look at.
    pub active: bool,
    /// On the worker's list of queues that may have answers to publish.
    pub touched: bool,
    /// What can change while it runs.
    pub wiring: QueueWiring,
    pub(super) disk: Arc<D>,
    index: u16,
    pub(super) features: Features,
    pub(super) ring: Ring,
    tracker: Tracker,
    pub(super) answers: Answers,
    batch: Vec<Answer>,
    /// Pieces of memory that requests in the store's hands name.
    pub(super) pieces: usize,
    /// Heads found in flight, to be executed before anything new.
    resume: Vec<u16>,
    left: Vec<Left>,
    stop: Option<Stop>,
    broken: bool,
    /// The first signal is unconditional: whether the last one before a restart got through, nobody knows.
    signal_anyway: bool,
    complained: bool,
}

impl<D: Disk> Queue<D> {
    /// Finds out where the queue stands.
    pub fn start(setup: QueueSetup<D>, key: QueueKey) -> Result<Self, StartError> {
        let QueueSetup {
            disk,
            index,
            size,
            features,
            base,
            inflight,
            wiring,
        } = setup;
        let used = used_index(&wiring.memory, &wiring.places)?;
        let avail = avail_index(&wiring.memory, &wiring.places)?;
        let recovery = match &inflight {
            Some(region) => region.recover(size, used, avail, base)?,
            None => Recovery {
                heads: Vec::new(),
                next_avail: base,
                counter: 0,
                discarded: None,
            },
        };
        let name = disk.name();
        if let Some(why) = recovery.discarded {
            log::warn!("{name}: queue {index}: the in-flight region is started afresh: {why}");
        }
        if inflight.is_none() {
            log::warn!(
                "{name}: queue {index}: the front end keeps no in-flight region; if this process dies, requests \
                 in flight may be lost to the guest"
            );
        }
        log::debug!(
            "{name}: queue {index}: {size} descriptors, avail {avail}, next {}, used {used}, {} in flight",
            recovery.next_avail,
            recovery.heads.len()
        );
        let event_idx = features.has(Features::EVENT_IDX);
        Ok(Self {
            key,
            active: false,
            touched: false,
            wiring,
            disk,
            index,
            features,
            ring: Ring::new(size, event_idx, recovery.next_avail, used),
            tracker: Tracker::new(size, inflight, recovery.counter),
            answers: Answers::default(),
            batch: Vec::new(),
            pieces: 0,
            resume: recovery.heads,
            left: Vec::new(),
            stop: None,
            broken: false,
            signal_anyway: true,
            complained: false,
        })
    }

    /// Takes what is there, a turn's worth at most, and gives it to the store; tells how many requests that were.
    pub fn take<E: Engine<Disk = D>>(&mut self, core: &mut Core<E>) -> usize {
        if self.broken || self.stop.is_some() || !self.wiring.enabled {
            return 0;
        }
        let mut taken = 0;
        let mut descriptors = 0;
        for head in std::mem::take(&mut self.resume) {
            if let Err(error) = self.tracker.resume(head) {
                self.break_down(error);
                return taken;
            }
            taken += 1;
            self.execute(head, None, core);
        }
        while descriptors < DESCRIPTORS_PER_TURN && !self.saturated() {
            let position = self.ring.next_avail();
            let head = match self.ring.pop(&self.wiring.memory, &self.wiring.places) {
                Ok(Some(head)) => head,
                Ok(None) => return taken,
                Err(error) => {
                    self.break_down(error);
                    return taken;
                }
            };
            if let Err(error) = self.tracker.begin(head) {
                self.break_down(error);
                return taken;
            }
            taken += 1;
            self.execute(head, Some(position), core);
            descriptors += 1 + core.chain.readable.len() + core.chain.writable.len();
        }
        taken
    }

    /// Whether it takes nothing more until the store is through with something.
    pub fn saturated(&self) -> bool {
        self.pieces >= MAX_PIECES_IN_FLIGHT
    }

    /// The store is through with a command of one of this queue's requests.
    pub fn complete<E: Engine<Disk = D>>(&mut self, done: Done<GuestPayload>, core: &mut Core<E>) {
        let mut give_up = false;
        if let Some(stop) = &mut self.stop {
            match stop.haste {
                Haste::Patient => stop.progress = Instant::now(),
                Haste::Hurried => give_up = stop.out_of_patience(Instant::now()),
            }
        }
        if let Some(payload) = done.payload {
            // Also after a failure: part of the data may have arrived. For a write it is noted in vain.
            if let Some(log) = &self.wiring.log {
                payload.mark_dirty(log);
            }
            core.pool.put(payload.into_segments());
        }
        match done.result {
            Ok(()) => {
                let Some(pending) = core.pending.get_mut(done.tag) else {
                    return;
                };
                if let Some(command) = pending.next_command(&mut core.pool) {
                    if give_up {
                        return self.set_aside(done.tag, core);
                    }
                    core.engine.submit(&self.disk, command, done.tag);
                    core.submitted += 1;
                } else if let Some(pending) = core.pending.remove(done.tag) {
                    self.pieces -= pending.pieces;
                    pending.token.finish(Status::Ok, pending.written);
                }
            }
            Err(RequestError::Cancelled) if self.stop.is_some() => self.set_aside(done.tag, core),
            // The store has logged it. Dropping the request answers it.
            Err(_) => {
                if let Some(pending) = core.pending.remove(done.tag) {
                    self.pieces -= pending.pieces;
                }
            }
        }
    }

    /// Lets a request wait for the end of the stop.
    fn set_aside<E>(&mut self, tag: u64, core: &mut Core<E>) {
        if let Some(Pending {
            token,
            position,
            pieces,
            ..
        }) = core.pending.remove(tag)
        {
            self.pieces -= pieces;
            self.left.push(Left { token, position });
        }
    }

    /// Publishes what has been answered, in one batch, and signals the guest if it wants that.
    pub fn publish(&mut self) {
        if let Err(error) = self.try_publish() {
            self.break_down(error);
        }
    }

    fn try_publish(&mut self) -> Result<(), RingError> {
        self.answers.take(&mut self.batch);
        let QueueWiring {
            memory,
            places,
            log,
            call,
            ..
        } = &self.wiring;
        let view = View {
            memory,
            log: log.as_deref(),
        };
        let mut wanted = std::mem::replace(&mut self.signal_anyway, false);
        if !self.batch.is_empty() {
            let mut result = Ok(());
            for answer in self.batch.drain(..) {
                if let Some((byte, status)) = answer.status {
                    let _ = byte
                        .memory
                        .store(byte.place, 0, status as u8, Ordering::Release);
                    if let Some(guest) = byte.memory.guest_address(byte.place) {
                        view.mark(guest, 1);
                    }
                }
                if result.is_ok() {
                    result = self
                        .ring
                        .put_used(view, places, answer.head, answer.written);
                }
                match result {
                    Ok(()) => self.tracker.retire(answer.head),
                    // The ring's memory is gone; nobody will see an answer, and nobody shall wait for it.
                    Err(_) => self.tracker.leave(answer.head),
                }
            }
            result?;
            self.ring.publish(view, places)?;
            self.tracker.published(self.ring.used_index());
            wanted |= self.ring.needs_signal(memory, places)?;
        }
        if wanted && let Some(call) = call {
            call.signal();
        }
        Ok(())
    }

    /// Asks for kicks; tells whether something has come in for which there will be none.
    pub fn go_idle(&mut self) -> bool {
        // What is saturated is looked at again when the store is through with something.
        if self.broken || self.stop.is_some() || !self.wiring.enabled || self.saturated() {
            return false;
        }
        let QueueWiring {
            memory,
            places,
            log,
            ..
        } = &self.wiring;
        let view = View {
            memory,
            log: log.as_deref(),
        };
        match self.ring.enable_kicks(view, places) {
            Ok(more) => more,
            Err(error) => {
                self.break_down(error);
                false
            }
        }
    }

    /// The queue is being looked at anyway: no kicks, please.
    pub fn go_busy(&mut self) {
        if self.broken {
            return;
        }
        let QueueWiring {
            memory,
            places,
            log,
            ..
        } = &self.wiring;
        let view = View {
            memory,
            log: log.as_deref(),
        };
        if let Err(error) = self.ring.disable_kicks(view, places) {
            self.break_down(error);
        }
    }

    /// Takes no more requests; [`Queue::try_finish`] tells when it is over.
    pub fn begin_stop(&mut self, haste: Haste, reply: SyncSender<Stopped>) {
        let progress = Instant::now();
        self.stop = Some(Stop {
            reply,
            haste,
            progress,
        });
    }

    /// Whether it is being stopped.
    pub fn stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Whether it is being stopped and what waits in the store is to be taken back.
    pub fn out_of_patience(&self, now: Instant) -> bool {
        self.stop
            .as_ref()
            .is_some_and(|stop| stop.out_of_patience(now))
    }

    /// If the queue was to be stopped and nothing of it is in flight: ends it and says so.
    pub fn try_finish(&mut self) -> bool {
        if self.stop.is_none() || usize::from(self.tracker.in_flight()) > self.left.len() {
            return false;
        }
        let left_in_flight = self.settle_left();
        let next_avail = self.ring.next_avail();
        if let Some(stop) = self.stop.take() {
            let _ = stop.reply.send(Stopped {
                next_avail,
                left_in_flight,
            });
        }
        true
    }

    /// What becomes of requests that waited. If they are exactly the last ones taken, the avail ring is
    /// wound back over them, so that they survive even where the in-flight region doesn't go (a saved guest).
    /// Else they stay marked, and are executed again when the queue is served next. Without a region there is
    /// nowhere to mark them: then they fail.
    fn settle_left(&mut self) -> u16 {
        let left = std::mem::take(&mut self.left);
        let count = u16::try_from(left.len()).unwrap_or(u16::MAX);
        let next = self.ring.next_avail();
        let tail = left.iter().all(|l| {
            l.position
                .is_some_and(|position| next.wrapping_sub(position) <= count)
        });
        if tail {
            for one in left {
                self.tracker.untake(one.token.leave());
            }
            self.ring.rewind(count);
            return 0;
        }
        if self.tracker.persistent() {
            for one in left {
                self.tracker.leave(one.token.leave());
            }
            return count;
        }
        log::warn!(
            "{}: queue {}: {count} requests that wait fail, because the front end keeps no in-flight \
             region to note them in",
            self.disk.name(),
            self.index
        );
        drop(left);
        self.publish();
        0
    }

    fn break_down(&mut self, error: RingError) {
        if std::mem::replace(&mut self.broken, true) {
            return;
        }
        log::error!(
            "{}: queue {} is broken and takes no more requests until it is set up anew: {error}",
            self.disk.name(),
            self.index
        );
        if let Some(err) = &self.wiring.err {
            err.signal();
        }
    }

    pub(super) fn complain(&mut self, what: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!(
                "{}: queue {}: a malformed request was refused (more of them are not reported): {what}",
                self.disk.name(),
                self.index
            );
        }
    }

    /// Whether answers wait to be published.
    pub fn has_answers(&self) -> bool {
        self.signal_anyway || !self.answers.is_empty()
    }
}
