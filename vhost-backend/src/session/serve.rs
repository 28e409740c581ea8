//! Serving a connection from its first message to its end.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::engine::Disk;
use crate::workers::Pool;

use super::attachments::Seat;
use super::device::{Handler, refused};

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontEnd {
    /// Process id; that of a process in another pid namespace reads as 0.
    pub pid: i32,
    /// User id.
    pub uid: u32,
}

impl FrontEnd {
    /// One that has gone.
    pub(super) const UNKNOWN: Self = Self { pid: 0, uid: 0 };

    /// The peer of a socket, as it was when it connected.
    ///
    /// By way of tokio: `rustix` has process ids that can't be 0, and 0 is what the kernel says of a process that our
    /// pid namespace doesn't know.
    pub fn of(stream: &UnixStream) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let _entered = runtime.enter();
        let copy = stream.try_clone()?;
        copy.set_nonblocking(true)?;
        let peer = tokio::net::UnixStream::from_std(copy).and_then(|copy| copy.peer_cred());
        // The two share their flags.
        stream.set_nonblocking(false)?;
        let peer = peer?;
        Ok(Self {
            pid: peer.pid().unwrap_or(0),
            uid: peer.uid(),
        })
    }
}

impl std::fmt::Display for FrontEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} (uid {})", self.pid, self.uid)
    }
}

/// What the next message says of itself. `vhost` doesn't tell which one it refuses.
struct Upcoming {
    request: u32,
    len: u32,
}

impl Upcoming {
    /// Waits for it, and leaves it where it is.
    fn of(stream: &UnixStream) -> Option<Self> {
        let mut header = [0; 12];
        let (_, len) = recv(stream, &mut header[..], RecvFlags::PEEK).ok()?;
        let [a, b, c, d, _, _, _, _, e, f, g, h] = header;
        (len == header.len()).then_some(Self {
            request: u32::from_ne_bytes([a, b, c, d]),
            len: u32::from_ne_bytes([e, f, g, h]),
        })
    }
}

impl std::fmt::Display for Upcoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match FrontendReq::try_from(self.request) {
            Ok(name) => write!(f, "{name:?}"),
            Err(()) => write!(f, "request {}", self.request),
        }?;
        write!(f, " of {} bytes", self.len)
    }
}

/// Serves one connection; returns when it has ended, nothing of it is in flight, and its seat is free.
///
/// To end it from outside, shut the socket down.
pub fn serve<D: Disk>(stream: UnixStream, seat: Seat, disk: Arc<D>, pool: Arc<Pool<D>>) {
    let name = disk.name().to_owned();
    let seat = Arc::new(seat);
    let handler = Arc::new(Mutex::new(Handler::new(disk, pool, Arc::clone(&seat))));
    let lock = || handler.lock().unwrap_or_else(PoisonError::into_inner);
    let ahead = stream.try_clone();
    let mut messages = BackendReqHandler::from_stream(stream, Arc::clone(&handler));
    let (message, end) = loop {
        let until = lock().gives_up_at();
        let message = match next(ahead.as_ref().ok(), &seat, until) {
            Next::Message => ahead.as_ref().ok().and_then(Upcoming::of),
            Next::Bell => {
                seat.heard();
                match lock().look_again() {
                    Ok(()) => continue,
                    Err(error) => break (None, error),
                }
            }
            Next::Nothing => break (None, refused("the front end before it does not hang up")),
        };
        if let Err(error) = messages.handle_request() {
            break (message, error);
        }
    };
    match end {
        Error::Disconnected => log::info!("{name}: the front end has disconnected"),
        // The rest of a message that never came.
        Error::PartialMessage => log::info!("{name}: the front end broke off"),
        Error::SocketBroken(e) => log::info!("{name}: the connection has ended: {e}"),
        error => match message {
            Some(message) => log::warn!("{name}: the connection is closed: {message}: {error}"),
            None => log::warn!("{name}: the connection is closed: {error}"),
        },
    }
    seat.end();
    // The socket stays open until then: a front end that stops us waits for this.
    lock().stop_all();
}

/// What a session does next.
enum Next {
    /// Handle a message, or the connection's end.
    Message,
    /// Look at the lease.
    Bell,
    /// Give up.
    Nothing,
}

/// Waits for something to do, until then.
fn next(stream: Option<&UnixStream>, seat: &Seat, until: Option<Instant>) -> Next {
    let Some(stream) = stream else {
        return Next::Message;
    };
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Next::Nothing;
        }
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [
            PollFd::from_borrowed_fd(seat.bell(), PollFlags::IN),
            PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, left.as_ref()) {
            Ok(0) | Err(Errno::INTR) => continue,
            // The message that follows tells what is wrong.
            Err(_) => return Next::Message,
            Ok(_) => {}
        }
        let [bell, _] = &fds;
        return match bell.revents().is_empty() {
            true => Next::Message,
            false => Next::Bell,
        };
    }
}
