//! Errors: what failed, on what, and the way out.

use crate::format::FormatError;
use std::io;

/// Why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Input or output failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, to which file.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The directory is not a store.
    #[error("{0} is not a Firn store; make one with: firn store init {0}")]
    NotAStore(String),
    /// There is something already.
    #[error("{0}")]
    Exists(String),
    /// No such vDisk.
    #[error("there is no vDisk named {0:?}; see: firn vdisk list")]
    NotFound(String),
    /// No such snapshot.
    #[error("vDisk {vdisk:?} has no snapshot named {name:?}; see: firn snapshot list {vdisk}")]
    NoSnapshot {
        /// The vDisk.
        vdisk: String,
        /// The name asked for.
        name: String,
    },
    /// No such layer, or none any more.
    #[error("there is no layer {0}")]
    NoLayer(u32),
    /// No such schedule.
    #[error("there is no schedule named {0:?}; see: firn snapshot schedules")]
    NoSchedule(String),
    /// Another process has the store open.
    #[error("{0} is in use by another process; only one backend can own a store")]
    Locked(String),
    /// Bytes on disk that are not what they should be.
    #[error("{what}: {source}")]
    Damaged {
        /// What was being read.
        what: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// The log is damaged below what was promised to be durable.
    #[error(
        "segment {segment:x} is damaged from byte {from} to {to}, within flushed data: {why}. Restore the store from a \
         replica or backup, or give up what was written there with --accept-log-damage"
    )]
    LogDamaged {
        /// Segment number.
        segment: u32,
        /// First damaged byte.
        from: u32,
        /// End of what was promised.
        to: u32,
        /// What is wrong.
        why: String,
    },
    /// Acknowledged data waits in a write buffer that is not at hand.
    #[error("{0}")]
    WriteBuffer(String),
    /// A value out of range.
    #[error("{0}")]
    Invalid(String),
    /// It can't be done now.
    #[error("{0}")]
    Refused(String),
    /// No space.
    #[error("no space: {0}")]
    NoSpace(String),
    /// Durability can't be promised any more.
    #[error(
        "the store has stopped taking writes: {0}. Reads go on; stop the backend, see to the disk, start it again"
    )]
    Failed(String),
}

impl StoreError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| {
            if matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) {
                Self::NoSpace(what)
            } else {
                Self::Io { what, source }
            }
        }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> impl FnOnce(FormatError) -> Self {
        let what = what.into();
        move |source| Self::Damaged { what, source }
    }
}

/// How a request failed. The store has written the log line, where one is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Past the end of the vDisk.
    #[error("outside of the vDisk")]
    OutOfRange,
    /// Not in whole 512-byte sectors.
    #[error("not in whole sectors of 512 bytes")]
    Unaligned,
    /// The caller's memory could not be reached.
    #[error("the request's memory can't be reached")]
    Payload,
    /// The vDisk can't be written to.
    #[error("read-only")]
    ReadOnly,
    /// The store is full, and set to say so instead of waiting.
    #[error("no space in the store")]
    NoSpace,
    /// The disk failed, or what it returned does not verify.
    #[error("input/output error")]
    Io,
    /// Taken back before it had any effect.
    #[error("cancelled")]
    Cancelled,
}
