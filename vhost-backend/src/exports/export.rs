//! One vDisk's socket and its connection.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::engine::Disk;
use crate::session::{FrontEnd, serve};
use crate::workers::Pool;

use super::socket::Socket;
use super::{Attachment, ExportStatus};

/// A vDisk that can be attached.
pub struct Export<D: Disk> {
    disk: Arc<D>,
    pool: Arc<Pool<D>>,
    socket: Socket,
    lease: Arc<Mutex<Lease>>,
}

/// Who may write.
#[derive(Default)]
struct Lease {
    holder: Option<Holder>,
    /// Connected while the holder had hung up and its last requests were being finished.
    waiting: Option<(UnixStream, FrontEnd)>,
    /// No more connections.
    retired: bool,
    thread: Option<JoinHandle<()>>,
}

struct Holder {
    attachment: Attachment,
    /// To look whether it has hung up, and to end it.
    stream: UnixStream,
}

impl<D: Disk> Export<D> {
    /// Nobody is connected.
    pub fn new(disk: Arc<D>, socket: Socket, pool: Arc<Pool<D>>) -> Self {
        Self {
            disk,
            pool,
            socket,
            lease: Arc::default(),
        }
    }

    /// The vDisk's name.
    pub fn name(&self) -> &str {
        self.disk.name()
    }

    /// Its socket.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// As seen from outside.
    pub fn status(&self) -> ExportStatus {
        ExportStatus {
            name: self.name().to_owned(),
            socket: self.socket.path().to_owned(),
            attached: self
                .lease
                .lock()
                .holder
                .as_ref()
                .map(|holder| holder.attachment),
        }
    }

    /// Takes one waiting connection and decides what becomes of it.
    pub fn accept(&self) -> std::io::Result<()> {
        let Some(stream) = self.socket.accept()? else {
            return Ok(());
        };
        let front_end = FrontEnd::of(&stream)?;
        let mut lease = self.lease.lock();
        if lease.retired {
            return Ok(());
        }
        match &lease.holder {
            None => {
                let holder = Holder::new(&stream, front_end)?;
                if let Some(old) = lease.thread.take() {
                    // It gave the lease back as the last thing it did.
                    let _ = old.join();
                }
                lease.holder = Some(holder);
                let (disk, pool) = (Arc::clone(&self.disk), Arc::clone(&self.pool));
                let shared = Arc::clone(&self.lease);
                let spawned = std::thread::Builder::new()
                    .name("firn-session".to_owned())
                    .spawn(move || serve_in_turn(&shared, stream, &disk, &pool));
                match spawned {
                    Ok(thread) => lease.thread = Some(thread),
                    Err(e) => {
                        lease.holder = None;
                        return Err(e);
                    }
                }
                log::info!("{}: attached by {front_end}", self.name());
            }
            Some(holder) if hung_up(&holder.stream) => {
                log::info!(
                    "{}: {front_end} waits for the last requests of the front end before it",
                    self.name()
                );
                lease.waiting = Some((stream, front_end));
            }
            Some(holder) => log::warn!(
                "{}: {front_end} is refused: the vDisk is attached by {}",
                self.name(),
                holder.attachment.front_end
            ),
        }
        Ok(())
    }

    /// Takes no more connections, unless somebody is attached.
    pub fn retire(&self) -> Result<(), FrontEnd> {
        let mut lease = self.lease.lock();
        match &lease.holder {
            Some(holder) => Err(holder.attachment.front_end),
            None => {
                lease.retired = true;
                Ok(())
            }
        }
    }

    /// Ends the connection and takes no more; the thread that is returned ends when nothing is in flight.
    pub fn hang_up(&self) -> Option<JoinHandle<()>> {
        let mut lease = self.lease.lock();
        lease.retired = true;
        lease.waiting = None;
        if let Some(holder) = &lease.holder {
            let _ = holder.stream.shutdown(std::net::Shutdown::Both);
        }
        lease.thread.take()
    }
}

impl Holder {
    fn new(stream: &UnixStream, front_end: FrontEnd) -> std::io::Result<Self> {
        let attachment = Attachment {
            front_end,
            since: SystemTime::now(),
        };
        Ok(Self {
            attachment,
            stream: stream.try_clone()?,
        })
    }
}

/// Serves a connection, and then the one that has waited for its end, if any.
fn serve_in_turn<D: Disk>(
    lease: &Mutex<Lease>,
    mut stream: UnixStream,
    disk: &Arc<D>,
    pool: &Arc<Pool<D>>,
) {
    loop {
        serve(stream, Arc::clone(disk), Arc::clone(pool));
        let mut lease = lease.lock();
        lease.holder = None;
        let Some((next, front_end)) = lease.waiting.take() else {
            return;
        };
        match Holder::new(&next, front_end) {
            Ok(holder) => lease.holder = Some(holder),
            Err(e) => {
                log::warn!("{}: {front_end} can't be served: {e}", disk.name());
                return;
            }
        }
        log::info!("{}: attached by {front_end}", disk.name());
        stream = next;
    }
}

/// Whether the other end is gone.
fn hung_up(stream: &UnixStream) -> bool {
    let events = PollFlags::RDHUP | PollFlags::HUP;
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), events)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1))
}
