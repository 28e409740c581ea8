//! A queue over a disk in memory, served step by step instead of by a worker.

use std::sync::Arc;

use crate::engine::Engine;
use crate::workers::queue::{Core, Queue};
use crate::workers::{QueueKey, QueueSetup, StartError};

use super::ram::{RamDisk, RamEngine};

pub struct BareQueue {
    core: Core<RamEngine>,
    queue: Queue<RamDisk>,
}

impl BareQueue {
    pub fn start(setup: QueueSetup<RamDisk>) -> Result<Self, StartError> {
        let engine = RamEngine::new(&[Arc::clone(&setup.disk)]);
        let core = Core {
            engine,
            pending: Default::default(),
            pool: Default::default(),
            chain: Default::default(),
            submitted: 0,
        };
        let queue = Queue::start(setup, QueueKey::for_tests())?;
        Ok(Self { core, queue })
    }

    /// Takes what is offered, carries it out and publishes it, as a worker does in one round; how many were taken.
    pub fn round(&mut self) -> usize {
        let taken = self.queue.take(&mut self.core);
        let mut done = Vec::new();
        loop {
            self.core.submitted = 0;
            self.core.engine.poll(&mut done);
            for one in done.drain(..) {
                self.queue.complete(one, &mut self.core);
            }
            if self.core.submitted == 0 {
                break;
            }
        }
        self.queue.publish();
        if !self.queue.go_idle() {
            self.queue.go_busy();
        }
        taken
    }
}
