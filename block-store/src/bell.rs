//! How threads wake each other.

use crate::io::Wake;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// Wakes a thread that waits for work; rings before the wait are not lost.
#[derive(Default)]
pub struct Bell {
    rung: AtomicBool,
    lock: Mutex<()>,
    sleeper: Condvar,
}

impl Bell {
    /// Wakes the thread, or keeps it from sleeping the next time.
    pub fn ring(&self) {
        if !self.rung.swap(true, SeqCst) {
            let _guard = self.lock.lock();
            self.sleeper.notify_all();
        }
    }

    /// Sleeps until rung, at most as long as said.
    pub fn wait(&self, at_most: Option<Duration>) {
        let mut guard = self.lock.lock();
        if !self.rung.load(SeqCst) {
            match at_most {
                Some(time) => {
                    self.sleeper.wait_for(&mut guard, time);
                }
                None => self.sleeper.wait(&mut guard),
            }
        }
        self.rung.store(false, SeqCst);
    }
}

/// How other threads reach one lane.
#[derive(Debug)]
pub struct LaneBell {
    wake: Wake,
    /// Set and rung, taken and drained under one lock: a ring is never lost, and never left without a cause.
    news: Mutex<News>,
}

#[derive(Debug, Default)]
struct News {
    /// Flushes that have ended: operation and whether all went well.
    flushed: Vec<(usize, bool)>,
    /// What stalled may be tried again.
    resume: bool,
}

impl News {
    fn is_empty(&self) -> bool {
        self.flushed.is_empty() && !self.resume
    }
}

impl LaneBell {
    /// A bell of its own.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            wake: Wake::new()?,
            news: Mutex::default(),
        })
    }

    /// The descriptor that is readable when there is something.
    pub fn fd(&self) -> std::os::fd::RawFd {
        self.wake.fd()
    }

    /// Takes what has come: ended flushes into `flushed`; whether stalled operations may be tried again.
    pub fn answer(&self, flushed: &mut Vec<(usize, bool)>) -> bool {
        let mut news = self.news.lock();
        if news.is_empty() {
            return false;
        }
        self.wake.drain();
        flushed.append(&mut news.flushed);
        std::mem::take(&mut news.resume)
    }

    /// Lets what is stalled in the lane try again.
    pub(crate) fn resume(&self) {
        let mut news = self.news.lock();
        if news.is_empty() {
            self.wake.ring();
        }
        news.resume = true;
    }

    /// Tells the lane how a flush has ended.
    pub(crate) fn flush_ended(&self, operation: usize, ok: bool) {
        let mut news = self.news.lock();
        if news.is_empty() {
            self.wake.ring();
        }
        news.flushed.push((operation, ok));
    }
}
