//! Waking a thread that sleeps in epoll.

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// An eventfd: readable once it was rung, until it is drained.
#[derive(Debug)]
pub struct Wake(OwnedFd);

impl Wake {
    /// A new one, not rung.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    /// Makes it readable. A full counter is readable already.
    pub fn ring(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Makes it unreadable.
    pub fn drain(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Sleeps until one of the descriptors is readable. They must be open.
pub fn wait_readable(fds: &[RawFd]) {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| {
            // SAFETY: the caller keeps the descriptors open for the length of the call.
            let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
            PollFd::from_borrowed_fd(fd, PollFlags::IN)
        })
        .collect();
    // An interrupted wait is a wait that ended early: the caller looks and comes again.
    let _ = poll(&mut polled, None);
}
