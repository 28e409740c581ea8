//! Starting workers, and dealing queues out to them.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use crate::engine::Engine;

use super::worker::Worker;
use super::{Haste, Order, QueueKey, QueueSetup, QueueWiring, StartError, Stopped};

/// Why the workers didn't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The system refused a thread or a descriptor.
    #[error("can't start worker {index}: {source}")]
    Io {
        /// Which one.
        index: usize,
        /// Why not.
        source: std::io::Error,
    },
    /// The store gave no lane.
    #[error("can't start worker {index}: {reason}")]
    Engine {
        /// Which one.
        index: usize,
        /// Why not.
        reason: String,
    },
}

/// The sending end of one worker.
#[derive(Debug)]
pub struct WorkerHandle<D> {
    orders: Sender<Order<D>>,
    wake: Arc<OwnedFd>,
}

impl<D> WorkerHandle<D> {
    fn send(&self, order: Order<D>) -> Result<(), StartError> {
        self.orders
            .send(order)
            .map_err(|_| StartError::WorkerGone)?;
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        Ok(())
    }

    fn ask<T>(
        &self,
        order: impl FnOnce(std::sync::mpsc::SyncSender<T>) -> Order<D>,
    ) -> Result<Receiver<T>, StartError> {
        let (reply, answer) = sync_channel(1);
        self.send(order(reply))?;
        Ok(answer)
    }

    /// Serves a queue from now on.
    pub fn start(&self, setup: QueueSetup<D>) -> Result<QueueKey, StartError> {
        let answer = self.ask(|reply| Order::Start(Box::new(setup), reply))?;
        answer.recv().map_err(|_| StartError::WorkerGone)?
    }

    /// Changes a queue's wiring; when this returns, the old one is used by requests in flight only.
    pub fn rewire(&self, key: QueueKey, wiring: QueueWiring) -> Result<(), StartError> {
        let answer = self.ask(|reply| Order::Rewire(key, Box::new(wiring), reply))?;
        answer.recv().map_err(|_| StartError::WorkerGone)?
    }

    /// Begins to stop a queue; the answer comes when nothing of it is in flight any more.
    pub fn stop(&self, key: QueueKey, haste: Haste) -> Result<Receiver<Stopped>, StartError> {
        self.ask(|reply| Order::Stop(key, haste, reply))
    }
}

/// Whether workers are alive.
#[derive(Debug)]
pub struct Pulse<D>(Vec<Arc<WorkerHandle<D>>>);

impl<D> Pulse<D> {
    /// Whether every worker answers within that time; else the number of one that does not. A worker never blocks: one that
    /// is silent is stuck, and its guests with it.
    pub fn answers(&self, within: Duration) -> Result<(), usize> {
        let until = Instant::now() + within;
        let asked: Vec<_> = self.0.iter().map(|w| w.ask(Order::Ping)).collect();
        for (index, answer) in asked.into_iter().enumerate() {
            let left = until.saturating_duration_since(Instant::now());
            if !answer.is_ok_and(|answer| answer.recv_timeout(left).is_ok()) {
                return Err(index);
            }
        }
        Ok(())
    }
}

/// All workers. Dropping it ends them; queues must have been stopped before.
#[derive(Debug)]
pub struct Pool<D> {
    workers: Vec<Arc<WorkerHandle<D>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    turn: AtomicUsize,
}

impl<D: crate::engine::Disk> Pool<D> {
    /// Starts `count` workers (at least one). `engine` is called once in each thread.
    pub fn start<E, F>(count: usize, engine: F) -> Result<Self, PoolError>
    where
        E: Engine<Disk = D>,
        F: Fn() -> Result<E, String> + Send + Sync + 'static,
    {
        let engine = Arc::new(engine);
        let mut pool = Self {
            workers: Vec::new(),
            threads: Mutex::default(),
            turn: AtomicUsize::new(0),
        };
        for index in 0..count.max(1) {
            let io = |source| PoolError::Io { index, source };
            let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|e| io(e.into()))?;
            let wake = Arc::new(wake);
            let (orders, inbox) = channel();
            let (ready, started) = sync_channel(1);
            let (engine, bell) = (Arc::clone(&engine), Arc::clone(&wake));
            let thread = std::thread::Builder::new()
                .name(format!("firn-worker-{index}"))
                .spawn(move || {
                    let worker = engine()
                        .and_then(|e| Worker::new(e, inbox, bell).map_err(|e| e.to_string()));
                    match worker {
                        Ok(worker) => {
                            let _ = ready.send(Ok(()));
                            worker.run();
                        }
                        Err(reason) => {
                            let _ = ready.send(Err(reason));
                        }
                    }
                })
                .map_err(io)?;
            pool.threads.get_mut().push(thread);
            started
                .recv()
                .unwrap_or_else(|_| Err("its thread ended".to_owned()))
                .map_err(|reason| PoolError::Engine { index, reason })?;
            pool.workers.push(Arc::new(WorkerHandle { orders, wake }));
        }
        log::debug!(
            "{} workers, woken by descriptors {:?}",
            pool.workers.len(),
            pool.wakes()
        );
        Ok(pool)
    }

    fn wakes(&self) -> Vec<i32> {
        self.workers.iter().map(|w| w.wake.as_raw_fd()).collect()
    }

    /// Tells whether the workers are alive; it may outlive them.
    pub fn pulse(&self) -> Pulse<D> {
        Pulse(self.workers.clone())
    }

    /// Number of workers.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Never: there is at least one.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The worker whose turn it is to take a queue.
    pub fn next(&self) -> Option<Arc<WorkerHandle<D>>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.workers
            .get(turn % self.workers.len().max(1))
            .map(Arc::clone)
    }
}

impl<D> Drop for Pool<D> {
    fn drop(&mut self) {
        for worker in &self.workers {
            let _ = worker.send(Order::Exit);
        }
        for thread in self.threads.get_mut().drain(..) {
            if thread.join().is_err() {
                log::error!("a worker had panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_worker_that_is_stuck_is_noticed() {
        let pool = testing::pool(&[]);
        let pulse = pool.pulse();
        assert_eq!(pulse.answers(Duration::from_secs(10)), Ok(()));
        // An answer that nobody takes holds it up.
        let (reply, answer) = sync_channel(0);
        pool.workers[1].send(Order::Ping(reply)).unwrap();
        assert_eq!(pulse.answers(Duration::from_millis(200)), Err(1));
        answer.recv().unwrap();
        assert_eq!(pulse.answers(Duration::from_secs(10)), Ok(()));
        drop(pool);
        assert_eq!(pulse.answers(Duration::from_secs(10)), Err(0));
    }
}
