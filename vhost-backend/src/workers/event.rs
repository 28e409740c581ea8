//! Eventfds that a front end hands over.
//!
//! They may be anything: a pipe, a file, an eventfd that blocks. A worker must never sleep in one of them.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

/// Why a descriptor was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// It isn't an eventfd.
    #[error("{what} descriptor is {found}, not an eventfd")]
    NotEventfd {
        /// Which one.
        what: &'static str,
        /// What it is.
        found: String,
    },
    /// It could not be looked at.
    #[error("{what} descriptor: {source}")]
    Io {
        /// Which one.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

fn check(file: &File, what: &'static str) -> Result<(), EventError> {
    let link = rustix::fs::readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new())
        .map_err(|source| EventError::Io {
            what,
            source: source.into(),
        })?;
    if link.as_bytes() == b"anon_inode:[eventfd]" {
        return Ok(());
    }
    Err(EventError::NotEventfd {
        what,
        found: link.to_string_lossy().into_owned(),
    })
}

/// The guest rings here. Watched edge-triggered and never read: each write is an edge, so nothing is lost, and a
/// system call per kick is saved.
#[derive(Debug)]
pub struct Kick(File);

impl Kick {
    /// Takes a descriptor that must be an eventfd.
    pub fn new(file: File) -> Result<Self, EventError> {
        check(&file, "kick")?;
        Ok(Self(file))
    }
}

impl AsRawFd for Kick {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// We ring here.
#[derive(Debug)]
pub struct Call {
    file: File,
    /// A full eventfd that blocks would stop the worker: then it is asked first.
    blocking: bool,
}

impl Call {
    /// Takes a descriptor that must be an eventfd; `what` names it in errors.
    pub fn new(file: File, what: &'static str) -> Result<Self, EventError> {
        check(&file, what)?;
        let flags = rustix::fs::fcntl_getfl(&file).map_err(|source| EventError::Io {
            what,
            source: source.into(),
        })?;
        Ok(Self {
            file,
            blocking: !flags.contains(OFlags::NONBLOCK),
        })
    }

    /// Rings. A full eventfd has been rung already; other errors have nobody to go to.
    pub fn signal(&self) {
        if self.blocking {
            let mut fds = [PollFd::from_borrowed_fd(self.file.as_fd(), PollFlags::OUT)];
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            if !matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1)) {
                return;
            }
        }
        if let Err(e) = rustix::io::write(&self.file, &1u64.to_ne_bytes())
            && e != rustix::io::Errno::AGAIN
        {
            log::debug!("a front end's call descriptor: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn only_eventfds_are_taken() {
        let file = tempfile::tempfile().unwrap();
        let error = Kick::new(file).unwrap_err().to_string();
        assert!(error.contains("not an eventfd"), "{error}");
        let (read, _write) = std::io::pipe().unwrap();
        let read = File::from(std::os::fd::OwnedFd::from(read));
        assert!(Call::new(read, "call").is_err());
        assert!(Kick::new(File::from(eventfd(0, EventfdFlags::CLOEXEC).unwrap())).is_ok());
    }

    #[test]
    fn a_full_eventfd_that_blocks_stops_nobody() {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        Call::new(File::from(fd), "call").unwrap().signal();
    }
}
