//! What can go wrong between a front end and a backend.

use std::io;

use super::message::Code;

/// An error of the client or of the backend it talks to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The backend hung up: it died, or it refused what it was sent.
    #[error("the backend closed the connection")]
    Closed,
    /// The backend answered a request with an error.
    #[error("the backend refused {code:?}")]
    Refused {
        /// The request.
        code: Code,
    },
    /// A reply of the wrong size.
    #[error("the reply to {code:?} has {len} bytes")]
    Malformed {
        /// The request.
        code: Code,
        /// Bytes in the reply's body.
        len: usize,
    },
    /// A reply to something else.
    #[error("expected a reply to request {expected}, got {got}")]
    Unexpected {
        /// Request number asked.
        expected: u32,
        /// Request number answered.
        got: u32,
    },
    /// The backend lacks something that the caller insists on.
    #[error("the backend does not offer {0}")]
    Missing(&'static str),
    /// The backend did not answer, or requests did not complete, in time.
    #[error("timed out: {0}")]
    Timeout(String),
    /// The backend broke the rules of the ring, e.g. completed a request twice.
    #[error("queue {queue}: {what}")]
    Ring {
        /// Queue index.
        queue: u16,
        /// What it did.
        what: String,
    },
}

impl ClientError {
    /// Sorts a socket's errors into "the other end is gone", "too slow" and the rest.
    pub(super) fn of_socket(what: &str, source: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, TimedOut, WouldBlock};
        match source.kind() {
            BrokenPipe | ConnectionReset | NotConnected => Self::Closed,
            WouldBlock | TimedOut => Self::Timeout(format!("{what} on the vhost-user socket")),
            _ => Self::Io {
                what: format!("{what} on the vhost-user socket"),
                source,
            },
        }
    }
}
