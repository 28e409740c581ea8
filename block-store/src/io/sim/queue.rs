//! Simulated asynchronous reads: they finish late and in any order.

use super::super::{AlignedBuf, DiskFile, ReadDone, ReadQueue};
use super::rng::Rng;
use std::os::fd::RawFd;
use std::sync::Arc;

/// A queue whose reads take a random number of polls.
pub(super) struct SimQueue {
    depth: usize,
    rng: Rng,
    /// Oldest first; the first `depth` are under way.
    reads: Vec<Read>,
}

struct Read {
    file: Arc<dyn DiskFile>,
    offset: u64,
    buf: AlignedBuf,
    tag: u64,
}

impl SimQueue {
    pub(super) fn new(depth: u32, seed: u64) -> SimQueue {
        SimQueue {
            depth: depth.max(1) as usize,
            rng: Rng::new(seed),
            reads: Vec::new(),
        }
    }

    fn finish_one(&mut self, done: &mut Vec<ReadDone>) {
        let index = self.rng.below(self.depth.min(self.reads.len()));
        if index < self.reads.len() {
            let Read {
                file,
                offset,
                mut buf,
                tag,
            } = self.reads.remove(index);
            let result = file.read_at(&mut buf, offset);
            done.push(ReadDone { tag, buf, result });
        }
    }
}

impl ReadQueue for SimQueue {
    fn push(&mut self, file: &Arc<dyn DiskFile>, offset: u64, buf: AlignedBuf, tag: u64) {
        self.reads.push(Read {
            file: Arc::clone(file),
            offset,
            buf,
            tag,
        });
    }

    fn poll(&mut self, done: &mut Vec<ReadDone>) {
        for _ in 0..self.rng.below(self.depth.min(self.reads.len()) + 1) {
            self.finish_one(done);
        }
    }

    fn wait(&mut self, done: &mut Vec<ReadDone>) {
        self.finish_one(done);
        self.poll(done);
    }

    fn in_flight(&self) -> usize {
        self.reads.len()
    }

    fn fd(&self) -> Option<RawFd> {
        None
    }
}
