//! Serving a connection from its first message to its end.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use rustix::net::{RecvFlags, recv};
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::engine::Disk;
use crate::workers::Pool;

use super::handler::Handler;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontEnd {
    /// Process id; that of a process in another pid namespace reads as 0.
    pub pid: i32,
    /// User id.
    pub uid: u32,
}

impl FrontEnd {
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

/// Serves one connection; returns when it has ended and nothing of it is in flight.
///
/// To end it from outside, shut the socket down.
pub fn serve<D: Disk>(stream: UnixStream, disk: Arc<D>, pool: Arc<Pool<D>>) {
    let name = disk.name().to_owned();
    let handler = Arc::new(Mutex::new(Handler::new(disk, pool)));
    let ahead = stream.try_clone();
    let mut messages = BackendReqHandler::from_stream(stream, Arc::clone(&handler));
    let (message, end) = loop {
        let message = ahead.as_ref().ok().and_then(Upcoming::of);
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
    // The socket stays open until then: a front end that stops us waits for this.
    let mut handler = handler
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    handler.stop_all();
}
