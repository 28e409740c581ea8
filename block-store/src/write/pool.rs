//! Packing large writes on threads of their own.
//!
//! One thread serves a queue, and compressing a stream takes most of it. Where other cores are free, large writes are
//! handed to these threads instead, and the queue's own thread copies, appends and serves its neighbours meanwhile. A
//! write is handed over only to a thread that has nothing else to do; with all of them busy its own thread packs it, so
//! that nothing ever queues up here.

use super::{Packer, PreparedWrite};
use crate::bell::LaneBell;
use crate::compress::{Rules, WriteTraits};
use crate::host::thread_cpu_time;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A write to be packed; what has come of it afterwards.
#[derive(Debug)]
pub struct PackJob {
    /// What the lane calls it.
    pub operation: usize,
    /// First block.
    pub first: u64,
    /// Whole blocks.
    pub data: Vec<u8>,
    /// Empty; its pieces afterwards.
    pub prepared: PreparedWrite,
    /// The rules that hold.
    pub rules: Arc<Rules>,
    /// What they look at, but for the tag.
    pub traits: WriteTraits<'static>,
    /// The vDisk's tag.
    pub tag: Option<String>,
    /// CPU time that it took.
    pub took: Duration,
}

impl PackJob {
    fn pack(&mut self, packer: &mut Packer) {
        let began = thread_cpu_time();
        let traits = WriteTraits {
            tag: self.tag.as_deref(),
            ..self.traits
        };
        let whole = 0..self.data.len();
        packer.pack(
            &self.rules,
            &traits,
            self.first,
            &self.data,
            whole,
            &mut self.prepared,
        );
        self.took = thread_cpu_time().saturating_sub(began);
    }
}

/// Where a lane finds what was packed for it.
#[derive(Debug)]
pub struct Packed {
    jobs: Mutex<Vec<PackJob>>,
    bell: Arc<LaneBell>,
}

impl Packed {
    /// Nothing yet; the bell resumes the lane.
    pub fn new(bell: Arc<LaneBell>) -> Self {
        Self {
            jobs: Mutex::default(),
            bell,
        }
    }

    /// Takes what has come.
    pub fn take(&self) -> Vec<PackJob> {
        std::mem::take(&mut *self.jobs.lock())
    }

    fn put(&self, job: PackJob) {
        self.jobs.lock().push(job);
        self.bell.resume();
    }
}

/// The threads' common queue.
#[derive(Default)]
pub struct Packers {
    queue: Mutex<Queue>,
    sleepers: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(PackJob, Arc<Packed>)>,
    /// Threads that wait for a job.
    idle: usize,
    stopped: bool,
}

impl Packers {
    /// Hands over the write that `job` makes, if a thread is idle; else it is not made.
    pub fn offer(&self, to: &Arc<Packed>, job: impl FnOnce() -> PackJob) -> bool {
        let mut queue = self.queue.lock();
        if queue.idle <= queue.jobs.len() {
            return false;
        }
        queue.jobs.push_back((job(), Arc::clone(to)));
        drop(queue);
        self.sleepers.notify_one();
        true
    }

    /// Packs what is offered until stopped. One call per thread.
    pub fn serve(&self, packer: &mut Packer) {
        while let Some((mut job, to)) = self.next() {
            job.pack(packer);
            to.put(job);
        }
    }

    fn next(&self) -> Option<(PackJob, Arc<Packed>)> {
        let mut queue = self.queue.lock();
        queue.idle += 1;
        let next = loop {
            match queue.jobs.pop_front() {
                Some(job) => break Some(job),
                None if queue.stopped => break None,
                None => self.sleepers.wait(&mut queue),
            }
        };
        queue.idle -= 1;
        next
    }

    /// Lets the threads end when nothing is left to do.
    pub fn stop(&self) {
        self.queue.lock().stopped = true;
        self.sleepers.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::Class;
    use crate::format::BLOCK;

    fn job(operation: usize) -> PackJob {
        PackJob {
            operation,
            first: 0,
            data: vec![7; 8 * BLOCK],
            prepared: PreparedWrite::default(),
            rules: Arc::new(Rules::default()),
            traits: WriteTraits {
                bytes: 8 * BLOCK as u64,
                sequential: true,
                aligned: true,
                tag: None,
                age_secs: 0,
                class: Class::Compressible,
                cpu_headroom: 0,
            },
            tag: None,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn only_an_idle_thread_is_given_something_and_nothing_offered_is_lost() {
        let packers = Packers::default();
        let bell = Arc::new(LaneBell::new().unwrap());
        let packed = Arc::new(Packed::new(bell));
        assert!(!packers.offer(&packed, || unreachable!("there is no thread")));
        packers.queue.lock().idle = 1;
        assert!(packers.offer(&packed, || job(2)));
        assert!(!packers.offer(&packed, || unreachable!("it has something to do now")));
        packers.queue.lock().idle = 0;
        packers.stop();
        packers.serve(&mut Packer::new().unwrap());
        let [done] = <[PackJob; 1]>::try_from(packed.take()).unwrap();
        assert_eq!(done.operation, 2);
        let blocks: u64 = done.prepared.pieces.iter().map(|p| p.blocks).sum();
        assert_eq!(blocks, 8);
        assert!(packed.bell.answer(&mut Vec::new()), "the lane is rung for");
    }
}
