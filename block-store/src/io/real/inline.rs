//! Reads without io_uring: each is done when the queue is polled.

use super::super::{AlignedBuf, DiskFile, ReadDone, ReadQueue};
use std::os::fd::RawFd;
use std::sync::Arc;

/// A queue that reads in [`ReadQueue::poll`], one after the other: it blocks there, for want of anything better.
#[derive(Debug, Default)]
pub(super) struct InlineQueue {
    waiting: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    file: Arc<dyn DiskFile>,
    offset: u64,
    buf: AlignedBuf,
    tag: u64,
}

impl ReadQueue for InlineQueue {
    fn push(&mut self, file: &Arc<dyn DiskFile>, offset: u64, buf: AlignedBuf, tag: u64) {
        self.waiting.push(Request {
            file: Arc::clone(file),
            offset,
            buf,
            tag,
        });
    }

    fn poll(&mut self, done: &mut Vec<ReadDone>) {
        for Request {
            file,
            offset,
            mut buf,
            tag,
        } in self.waiting.drain(..)
        {
            let result = file.read_at(&mut buf, offset);
            done.push(ReadDone { tag, buf, result });
        }
    }

    fn wait(&mut self, done: &mut Vec<ReadDone>) {
        self.poll(done);
    }

    fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    fn fd(&self) -> Option<RawFd> {
        None
    }
}
