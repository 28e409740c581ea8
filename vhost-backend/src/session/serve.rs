//! Serving a connection from its first message to its end.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

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

/// Serves one connection; returns when it has ended and nothing of it is in flight.
///
/// To end it from outside, shut the socket down.
pub fn serve<D: Disk>(stream: UnixStream, disk: Arc<D>, pool: Arc<Pool<D>>) {
    let name = disk.name().to_owned();
    let handler = Arc::new(Mutex::new(Handler::new(disk, pool)));
    let mut messages = BackendReqHandler::from_stream(stream, Arc::clone(&handler));
    let end = loop {
        if let Err(error) = messages.handle_request() {
            break error;
        }
    };
    match end {
        Error::Disconnected => log::info!("{name}: the front end has disconnected"),
        // The rest of a message that never came.
        Error::PartialMessage => log::info!("{name}: the front end broke off"),
        Error::SocketBroken(e) => log::info!("{name}: the connection has ended: {e}"),
        error => log::warn!("{name}: the connection is closed: {error}"),
    }
    // The socket stays open until then: a front end that stops us waits for this.
    let mut handler = handler
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    handler.stop_all();
}
