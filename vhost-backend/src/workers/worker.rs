//! A worker's loop.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Instant;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::engine::{Disk, Done, Engine};
use crate::memory::GuestPayload;

use super::patience::Patience;
use super::queue::{Core, Queue};
use super::{Haste, Order, QueueKey, QueueSetup, QueueWiring, StartError, Stopped};

/// Events taken from the kernel at once.
const EVENTS: usize = 64;
/// Rounds with work between two looks at the kernel for new kicks and orders.
const ROUNDS_PER_LOOK: u32 = 4;
/// Milliseconds between two looks at a queue that is being stopped: the only time that a worker wakes up by itself.
const STOP_LOOK: i32 = 100;
/// Event data that isn't a queue: a queue's generation never gets this far.
const ORDERS: u64 = u64::MAX;
const LANE: u64 = u64::MAX - 1;

struct Slot<D> {
    generation: u32,
    queue: Option<Box<Queue<D>>>,
}

/// One worker.
pub struct Worker<E: Engine> {
    core: Core<E>,
    queues: Vec<Slot<E::Disk>>,
    /// Slots of queues to look at.
    active: Vec<u32>,
    /// Slots of queues that may have answers to publish.
    touched: Vec<u32>,
    done: Vec<Done<GuestPayload>>,
    /// Queues that are being stopped.
    stopping: usize,
    /// For the next request, while none is in the store's hands.
    for_guests: Patience,
    /// For the store, while it has something to do: with many requests in flight one ends every few microseconds.
    for_store: Patience,
    epoll: Epoll,
    inbox: Receiver<Order<E::Disk>>,
    bell: Arc<OwnedFd>,
}

impl<E: Engine> Worker<E> {
    /// Sets the epoll up.
    pub fn new(
        engine: E,
        inbox: Receiver<Order<E::Disk>>,
        bell: Arc<OwnedFd>,
    ) -> std::io::Result<Self> {
        let epoll = Epoll::new()?;
        let watch = |fd: RawFd, data| {
            epoll.ctl(
                ControlOperation::Add,
                fd,
                EpollEvent::new(EventSet::IN, data),
            )
        };
        watch(bell.as_raw_fd(), ORDERS)?;
        for fd in engine.pollable() {
            watch(fd, LANE)?;
        }
        let core = Core {
            engine,
            pending: Default::default(),
            pool: Default::default(),
            chain: Default::default(),
            submitted: 0,
        };
        Ok(Self {
            core,
            queues: Vec::new(),
            active: Vec::new(),
            touched: Vec::new(),
            done: Vec::new(),
            stopping: 0,
            for_guests: Patience::default(),
            for_store: Patience::default(),
            epoll,
            inbox,
            bell,
        })
    }

    /// Works until told to exit.
    pub fn run(mut self) {
        let mut events = [EpollEvent::default(); EVENTS];
        let mut round = 0u32;
        let mut busy = false;
        loop {
            if self.active.is_empty() || round.is_multiple_of(ROUNDS_PER_LOOK) {
                // A next part that was not polled yet is work too, and what was finished may have made room for more.
                let idle = self.active.is_empty() && self.core.submitted == 0 && !busy;
                let timeout = match (idle, self.stopping) {
                    (false, _) => 0,
                    (true, 0) => -1,
                    (true, _) => STOP_LOOK,
                };
                if !self.look(timeout, &mut events) {
                    return;
                }
            }
            round = round.wrapping_add(1);
            busy = self.work() || self.work_comes_soon();
            if !busy {
                self.go_idle();
            }
        }
    }

    /// One round over the queues and the store; false if there was nothing to do.
    fn work(&mut self) -> bool {
        let taken = self.take_requests();
        let finished = self.collect();
        self.publish();
        taken + finished > 0
    }

    /// Looks for as long as it is worth it; false if nothing came.
    fn work_comes_soon(&mut self) -> bool {
        let span = self.patience().span();
        if span.is_zero() || self.active.is_empty() {
            return false;
        }
        let began = Instant::now();
        while began.elapsed() < span {
            std::hint::spin_loop();
            if self.work() {
                return true;
            }
        }
        false
    }

    /// What the worker waits for now decides how soon it comes.
    fn patience(&mut self) -> &mut Patience {
        if self.core.pending.is_empty() {
            &mut self.for_guests
        } else {
            &mut self.for_store
        }
    }

    /// Waits for the kernel's news and acts on them; false means: exit.
    fn look(&mut self, timeout: i32, events: &mut [EpollEvent]) -> bool {
        let sleeps = (timeout != 0).then(Instant::now);
        let waited = self.epoll.wait(timeout, events);
        if let Some(since) = sleeps {
            self.patience().slept(since.elapsed());
        }
        let count = match waited {
            Ok(count) => count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => 0,
            Err(e) => {
                log::error!("a worker can't wait for events: {e}");
                return false;
            }
        };
        for event in events.iter().take(count) {
            match event.data() {
                // The lane is polled in every round.
                LANE => {}
                ORDERS => {
                    if !self.obey() {
                        return false;
                    }
                }
                data => self.kicked(data),
            }
        }
        true
    }

    fn take_requests(&mut self) -> usize {
        let mut taken = 0;
        for &slot in &self.active {
            let Some(queue) = queue_mut(&mut self.queues, slot) else {
                continue;
            };
            taken += queue.take(&mut self.core);
            touch(queue, &mut self.touched);
        }
        taken
    }

    /// Lets the store work and takes over what it has finished. Once: a huge request whose parts are done as soon as they are
    /// submitted would else keep everybody waiting for its end.
    fn collect(&mut self) -> usize {
        self.core.submitted = 0;
        let mut done = std::mem::take(&mut self.done);
        self.core.engine.poll(&mut done);
        if self.stopping > 0 {
            self.take_back(&mut done);
        }
        let finished = done.len();
        for one in done.drain(..) {
            let Some(slot) = self.core.pending.queue_of(one.tag) else {
                log::error!(
                    "the store finished request {:#x}, which nobody made",
                    one.tag
                );
                continue;
            };
            let Some(queue) = queue_mut(&mut self.queues, slot) else {
                continue;
            };
            queue.complete(one, &mut self.core);
            touch(queue, &mut self.touched);
            // An answer tends to bring the next request: worth a look, and it spares the guest a kick.
            activate(queue, &mut self.active);
        }
        self.done = done;
        finished
    }

    /// Takes requests back that the store has not begun or that wait for space, where a stop would wait for them too long.
    fn take_back(&mut self, done: &mut Vec<Done<GuestPayload>>) {
        let now = Instant::now();
        let queues = &self.queues;
        let gives_up = |slot: u32| {
            let queue = queues
                .get(slot as usize)
                .and_then(|place| place.queue.as_ref());
            queue.is_some_and(|queue| queue.out_of_patience(now))
        };
        let Core {
            engine, pending, ..
        } = &mut self.core;
        let which = |tag| pending.queue_of(tag).is_some_and(gives_up);
        if (0u32..).zip(queues).any(|(slot, _)| gives_up(slot)) {
            engine.cancel_stalled(done, &which);
        }
    }

    fn publish(&mut self) {
        for slot in self.touched.drain(..) {
            let Some(place) = self.queues.get_mut(slot as usize) else {
                continue;
            };
            let Some(queue) = place.queue.as_mut() else {
                continue;
            };
            queue.touched = false;
            if queue.has_answers() {
                queue.publish();
            }
            if queue.try_finish() {
                let kick = queue.wiring.kick.as_raw_fd();
                let _ = self
                    .epoll
                    .ctl(ControlOperation::Delete, kick, EpollEvent::default());
                self.active.retain(|&s| s != slot);
                self.stopping -= 1;
                place.queue = None;
                place.generation = place.generation.wrapping_add(1);
            }
        }
    }

    fn go_idle(&mut self) {
        let queues = &mut self.queues;
        self.active.retain(|&slot| {
            let Some(queue) = queue_mut(queues, slot) else {
                return false;
            };
            queue.active = queue.go_idle();
            if queue.active {
                queue.go_busy();
            }
            queue.active
        });
    }

    fn kicked(&mut self, data: u64) {
        let key = QueueKey::from_data(data);
        if let Some(queue) = find(&mut self.queues, key) {
            activate(queue, &mut self.active);
        }
    }

    /// Carries out what was ordered; false means: exit.
    fn obey(&mut self) -> bool {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
        loop {
            match self.inbox.try_recv() {
                Ok(Order::Start(setup, reply)) => {
                    let _ = reply.send(self.start(*setup));
                }
                Ok(Order::Rewire(key, wiring, reply)) => {
                    let _ = reply.send(self.rewire(key, *wiring));
                }
                Ok(Order::Stop(key, haste, reply)) => self.stop(key, haste, reply),
                Ok(Order::Ping(reply)) => drop(reply.send(())),
                Ok(Order::Exit) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn start(&mut self, setup: QueueSetup<E::Disk>) -> Result<QueueKey, StartError> {
        let free = self.queues.iter().position(|place| place.queue.is_none());
        let index = free.unwrap_or_else(|| {
            self.queues.push(Slot {
                generation: 0,
                queue: None,
            });
            self.queues.len() - 1
        });
        let slot = u32::try_from(index).map_err(|_| StartError::NoSuchQueue)?;
        let place = self.queues.get_mut(index).ok_or(StartError::NoSuchQueue)?;
        let key = QueueKey {
            slot,
            generation: place.generation,
        };
        let mut queue = Box::new(Queue::start(setup, key)?);
        watch_kick(&self.epoll, &queue).map_err(StartError::Kick)?;
        // Looked at and signalled once, whatever was kicked or signalled before.
        activate(&mut queue, &mut self.active);
        touch(&mut queue, &mut self.touched);
        place.queue = Some(queue);
        Ok(key)
    }

    fn rewire(&mut self, key: QueueKey, wiring: QueueWiring) -> Result<(), StartError> {
        let queue = find(&mut self.queues, key).ok_or(StartError::NoSuchQueue)?;
        let old = std::mem::replace(&mut queue.wiring, wiring);
        if !Arc::ptr_eq(&old.kick, &queue.wiring.kick) {
            let fd = old.kick.as_raw_fd();
            let _ = self
                .epoll
                .ctl(ControlOperation::Delete, fd, EpollEvent::default());
            watch_kick(&self.epoll, queue).map_err(StartError::Kick)?;
        }
        activate(queue, &mut self.active);
        Ok(())
    }

    fn stop(&mut self, key: QueueKey, haste: Haste, reply: SyncSender<Stopped>) {
        if let Some(queue) = find(&mut self.queues, key) {
            if !queue.stopping() {
                self.stopping += 1;
            }
            queue.begin_stop(haste, reply);
            touch(queue, &mut self.touched);
        }
    }
}

impl QueueKey {
    fn to_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "taken apart as it was put together"
    )]
    fn from_data(data: u64) -> Self {
        Self {
            slot: data as u32,
            generation: (data >> 32) as u32,
        }
    }
}

fn watch_kick<D>(epoll: &Epoll, queue: &Queue<D>) -> std::io::Result<()> {
    let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
    let event = EpollEvent::new(events, queue.key.to_data());
    epoll.ctl(ControlOperation::Add, queue.wiring.kick.as_raw_fd(), event)
}

fn queue_mut<D>(queues: &mut [Slot<D>], slot: u32) -> Option<&mut Queue<D>> {
    queues.get_mut(slot as usize)?.queue.as_deref_mut()
}

fn find<D>(queues: &mut [Slot<D>], key: QueueKey) -> Option<&mut Queue<D>> {
    queue_mut(queues, key.slot).filter(|queue| queue.key == key)
}

fn activate<D: Disk>(queue: &mut Queue<D>, active: &mut Vec<u32>) {
    if !queue.active {
        queue.active = true;
        queue.go_busy();
        active.push(queue.key.slot);
    }
}

fn touch<D>(queue: &mut Queue<D>, touched: &mut Vec<u32>) {
    if !queue.touched {
        queue.touched = true;
        touched.push(queue.key.slot);
    }
}
