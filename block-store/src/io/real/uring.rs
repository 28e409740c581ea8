//! Asynchronous reads over io_uring.
//!
//! ```text
//!            push                 stage                  enter                  reap
//!   caller ────────▶ waiting ────────────▶ staged ────────────▶ in the kernel ────────▶ done
//!                       ▲            (submission ring)                │
//!                       └──────── short read, EAGAIN, EINTR ──────────┘
//! ```
//!
//! # Safety
//! A read's file and buffer live in `slots` from before its entry is written to the submission ring until its
//! completion was reaped, or for ever: the kernel never holds an address that isn't ours. Entries that the kernel
//! never took (`staged`) are dead once no `enter` offers them any more.
//!
//! # Errors
//! A kernel that refuses submissions for good (`given_up`) costs speed and nothing else: what it already has is
//! waited for, everything else is read inline.

use super::super::{AlignedBuf, DiskFile, ReadDone, ReadQueue, check_units};
use super::file::progress;
use io_uring::{EnterFlags, IoUring, opcode, types};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Deepest queue: beyond it, reads wait inside.
const MAX_DEPTH: u32 = 4096;

/// How often one read is tried again after EAGAIN or EINTR, and how often (a millisecond apart) a submission is.
const MAX_RETRIES: u32 = 1000;

/// One thread's io_uring.
pub(super) struct UringQueue {
    ring: IoUring,
    slots: Vec<Option<Read>>,
    free: Vec<usize>,
    /// Not in the submission ring yet.
    waiting: VecDeque<Read>,
    /// Reads that io_uring can't express (no descriptor, no whole pages): read inline.
    odd: Vec<Read>,
    /// Slots in the submission ring that the kernel has not taken yet, oldest first.
    staged: VecDeque<usize>,
    in_kernel: usize,
    refusals: u32,
    given_up: bool,
}

struct Read {
    file: Arc<dyn DiskFile>,
    fd: RawFd,
    offset: u64,
    buf: AlignedBuf,
    /// Bytes of `buf` that earlier, short reads have filled.
    filled: usize,
    tag: u64,
    retries: u32,
}

impl UringQueue {
    /// Sets up a ring for `depth` reads at a time, at least 1 and at most 4096.
    pub(super) fn new(depth: u32) -> io::Result<UringQueue> {
        let depth = depth.clamp(1, MAX_DEPTH).next_power_of_two();
        // Completions are handed over when this thread enters the kernel anyway, instead of by interrupting it.
        // Kernels before 5.19 don't know that.
        let ring = IoUring::builder()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .build(depth)
            .or_else(|_| IoUring::new(depth))?;
        let depth = depth as usize;
        Ok(UringQueue {
            ring,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            waiting: VecDeque::new(),
            odd: Vec::new(),
            staged: VecDeque::with_capacity(depth),
            in_kernel: 0,
            refusals: 0,
            given_up: false,
        })
    }

    /// Whether the kernel refused submissions for good.
    pub(super) fn has_given_up(&self) -> bool {
        self.given_up
    }

    /// Moves waiting reads into the submission ring, as far as there are slots.
    fn stage(&mut self) {
        while let Some(slot) = self.free.pop() {
            let Some(mut read) = self.waiting.pop_front() else {
                self.free.push(slot);
                return;
            };
            let offset = read.offset + read.filled as u64;
            let rest = read.buf.get_mut(read.filled..).unwrap_or_default();
            let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            let entry = opcode::Read::new(types::Fd(read.fd), rest.as_mut_ptr(), len)
                .offset(offset)
                .build()
                .user_data(slot as u64);
            if let Some(place) = self.slots.get_mut(slot) {
                *place = Some(read);
            }
            // SAFETY: the file and the buffer, whose memory doesn't move, are in the slot until the completion
            // is reaped (see the module's comment).
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_ok() {
                self.staged.push_back(slot);
            } else {
                // The ring has as many entries as there are slots, so this can't be; nothing is lost if it is.
                if let Some(read) = self.take(slot) {
                    self.waiting.push_front(read);
                }
                return;
            }
        }
    }

    /// Offers the kernel what is staged and waits until `want` completions are there (0: doesn't wait).
    fn enter(&mut self, want: usize) {
        match self.ring.submitter().submit_and_wait(want) {
            Ok(taken) => {
                let taken = taken.min(self.staged.len());
                self.staged.drain(..taken);
                self.in_kernel += taken;
                self.refusals = 0;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Short of memory, or of room for completions: completions of what is in flight will help.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {
                self.refusals += 1;
                if self.in_kernel == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if self.refusals > MAX_RETRIES {
                    self.give_up(&error);
                }
            }
            Err(error) => self.give_up(&error),
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        log::error!("io_uring refuses reads: {error}; this queue goes on without it, more slowly");
        self.given_up = true;
        while let Some(slot) = self.staged.pop_back() {
            if let Some(read) = self.take(slot) {
                self.waiting.push_front(read);
            }
        }
    }

    /// Waits for a completion without offering anything.
    fn wait_for_kernel(&mut self) -> io::Result<()> {
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: nothing is submitted and no argument is passed.
        let entered = unsafe {
            self.ring
                .submitter()
                .enter::<libc::sigset_t>(0, 1, flags, None)
        };
        match entered {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Collects completions from the shared ring: memory accesses, no system call.
    fn reap(&mut self, done: &mut Vec<ReadDone>) {
        while let Some((slot, result)) = self.next_completion() {
            let Some(read) = self.take(slot) else {
                continue;
            };
            self.in_kernel -= 1;
            self.complete(read, result, done);
        }
    }

    fn next_completion(&mut self) -> Option<(usize, i32)> {
        let completion = self.ring.completion().next()?;
        let slot = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
        Some((slot, completion.result()))
    }

    /// Empties a slot.
    fn take(&mut self, slot: usize) -> Option<Read> {
        let read = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(read)
    }

    /// Ends a read or sends it on for what is missing.
    fn complete(&mut self, mut read: Read, result: i32, done: &mut Vec<ReadDone>) {
        let result = match usize::try_from(result) {
            Ok(moved) if read.filled + moved >= read.buf.len() => Ok(()),
            Ok(moved) => match progress(read.filled, moved) {
                Ok(filled) => {
                    read.filled = filled;
                    return self.waiting.push_front(read);
                }
                Err(error) => Err(error),
            },
            Err(_) => {
                let error = io::Error::from_raw_os_error(result.saturating_neg());
                if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR))
                    && read.retries < MAX_RETRIES
                {
                    read.retries += 1;
                    return self.waiting.push_front(read);
                }
                Err(error)
            }
        };
        done.push(ReadDone {
            tag: read.tag,
            buf: read.buf,
            result,
        });
    }

    /// Reads the odd ones by plain calls; all that wait, when the ring is of no use any more.
    fn read_inline(&mut self, done: &mut Vec<ReadDone>) {
        let all = if self.given_up { self.waiting.len() } else { 0 };
        for mut read in self.odd.drain(..).chain(self.waiting.drain(..all)) {
            let result = read.file.read_at(&mut read.buf, read.offset);
            done.push(ReadDone {
                tag: read.tag,
                buf: read.buf,
                result,
            });
        }
    }

    /// Whether the kernel has completions that it shows only to those who enter.
    fn must_enter(&mut self) -> bool {
        let submission = self.ring.submission();
        submission.taskrun() || submission.cq_overflow()
    }
}

impl ReadQueue for UringQueue {
    fn push(&mut self, file: &Arc<dyn DiskFile>, offset: u64, buf: AlignedBuf, tag: u64) {
        let checked = check_units(buf.len(), offset, file.read_unit()).is_ok()
            && offset.checked_add(buf.len() as u64).is_some();
        let fd = file.raw_fd().filter(|_| checked && !buf.is_empty());
        let read = Read {
            file: Arc::clone(file),
            fd: fd.unwrap_or(-1),
            offset,
            buf,
            filled: 0,
            tag,
            retries: 0,
        };
        // What io_uring can't express gets its error, if it is one, from the slow way.
        if fd.is_some() {
            self.waiting.push_back(read)
        } else {
            self.odd.push(read)
        }
    }

    fn poll(&mut self, done: &mut Vec<ReadDone>) {
        loop {
            self.reap(done);
            self.read_inline(done);
            if self.given_up {
                return;
            }
            self.stage();
            if !self.staged.is_empty() || self.must_enter() {
                self.enter(0);
                self.reap(done);
            }
            // With nothing in the kernel nobody would wake the caller for what waits: go round again.
            let more = !self.waiting.is_empty() || !self.staged.is_empty();
            if self.in_kernel > 0 || !more {
                return;
            }
        }
    }

    fn wait(&mut self, done: &mut Vec<ReadDone>) {
        let before = done.len();
        self.poll(done);
        while done.len() == before && self.in_flight() > 0 {
            if self.given_up && self.in_kernel > 0 {
                if let Err(error) = self.wait_for_kernel() {
                    log::error!("io_uring: can't wait for reads: {error}");
                    std::thread::sleep(Duration::from_millis(1));
                }
            } else if self.in_kernel > 0 {
                self.enter(1);
            }
            self.poll(done);
        }
    }

    fn in_flight(&self) -> usize {
        self.odd.len() + self.waiting.len() + self.staged.len() + self.in_kernel
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.ring.as_raw_fd())
    }
}

impl Drop for UringQueue {
    fn drop(&mut self) {
        let mut done = Vec::new();
        self.waiting.clear();
        while self.in_kernel > 0 {
            self.reap(&mut done);
            if self.in_kernel > 0
                && let Err(error) = self.wait_for_kernel()
            {
                log::error!(
                    "io_uring: can't wait for {} reads: {error}; their memory is lost",
                    self.in_kernel
                );
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Disk, PAGE};
    use super::super::{RealDisk, RealOptions};
    use super::*;

    /// Reads in every stage when the kernel turns away: none is lost, none comes twice.
    #[test]
    fn a_ring_that_gives_up_reads_on_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), RealOptions::default()).unwrap();
        let Ok(mut queue) = UringQueue::new(4) else {
            return;
        };
        let file = disk.create("a", 64 * PAGE as u64).unwrap();
        let push = |queue: &mut UringQueue, tag| {
            queue.push(
                &file,
                tag * PAGE as u64,
                AlignedBuf::zeroed(PAGE).unwrap(),
                tag,
            );
        };
        push(&mut queue, 0);
        push(&mut queue, 1);
        queue.stage();
        queue.enter(0);
        (2..12).for_each(|tag| push(&mut queue, tag));
        queue.stage();
        assert_eq!(
            (queue.in_kernel, queue.staged.len(), queue.waiting.len()),
            (2, 2, 8)
        );
        queue.give_up(&io::ErrorKind::Other.into());
        push(&mut queue, 12);
        let mut done = Vec::new();
        while queue.in_flight() > 0 {
            queue.wait(&mut done);
        }
        let mut tags: Vec<u64> = done.iter().map(|read| read.tag).collect();
        tags.sort();
        assert_eq!(tags, (0..13).collect::<Vec<_>>());
        assert!(done.iter().all(|read| read.result.is_ok()));
    }

    #[test]
    fn refused_and_cut_reads_are_sent_on() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), RealOptions::default()).unwrap();
        let Ok(mut queue) = UringQueue::new(4) else {
            return;
        };
        let file = disk.create("a", 64 * PAGE as u64).unwrap();
        let read = |filled| Read {
            file: Arc::clone(&file),
            fd: file.raw_fd().unwrap(),
            offset: 0,
            buf: AlignedBuf::zeroed(4 * PAGE).unwrap(),
            filled,
            tag: 1,
            retries: 0,
        };
        let mut done = Vec::new();
        queue.complete(read(0), PAGE as i32 + 700, &mut done);
        assert_eq!(
            queue.waiting.pop_front().unwrap().filled,
            PAGE + 512,
            "goes on at a sector"
        );
        queue.complete(read(PAGE), -libc::EAGAIN, &mut done);
        assert_eq!(queue.waiting.pop_front().unwrap().retries, 1);
        assert!(done.is_empty());
        queue.complete(read(PAGE), 500, &mut done);
        assert_eq!(
            done.pop().unwrap().result.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        queue.complete(read(PAGE), 3 * PAGE as i32, &mut done);
        assert!(done.pop().unwrap().result.is_ok());
        queue.complete(
            Read {
                retries: MAX_RETRIES,
                ..read(0)
            },
            -libc::EAGAIN,
            &mut done,
        );
        assert_eq!(
            done.pop().unwrap().result.unwrap_err().raw_os_error(),
            Some(libc::EAGAIN)
        );
        queue.complete(read(0), -libc::EIO, &mut done);
        assert_eq!(
            done.pop().unwrap().result.unwrap_err().raw_os_error(),
            Some(libc::EIO)
        );
    }
}
