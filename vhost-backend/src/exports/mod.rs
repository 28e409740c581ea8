//! Sockets, and who is connected to them.
//!
//! Every visible vDisk has a socket `RUN/NAME.sock` (mode 0660) that listens for as long as the backend runs, attached
//! or not. Two front ends may be connected, so that a guest can be migrated from one to the other; **one at a time has
//! the write lease**, which is its running queues (`session/lease.rs`), and goes with its connection; nothing is written down that
//! could go stale. A third one's connection is closed at once, with a log line. A front end's process id comes from the
//! kernel (SO_PEERCRED).
//!
//! One thread accepts connections for all sockets; each connection's messages have a thread of their own, which sleeps
//! nearly always. Neither is on the data path.

mod export;
mod socket;

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::engine::Disk;
pub use crate::session::Attachment;
use crate::session::FrontEnd;
use crate::workers::Pool;

use export::Export;
pub use socket::SocketError;

/// Event data of the bell that ends the accepting thread; exports are numbered from 0.
const BELL: u64 = u64::MAX;
/// Pause after a failed accept: most likely we are out of descriptors, which passes, and which epoll would report again
/// and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How sockets are made.
#[derive(Debug, Clone)]
pub struct SocketOptions {
    /// The runtime directory.
    pub run: PathBuf,
    /// Group that may connect, beside our own user; none: our own group.
    pub group: Option<u32>,
}

/// Why an export was not added or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Its socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// It is there already.
    #[error("vDisk {0} has a socket already")]
    Exists(String),
    /// There is none of that name.
    #[error("vDisk {0} has no socket")]
    NotFound(String),
    /// A front end is connected.
    #[error("vDisk {name} is attached by {front_end}: detach it there first")]
    Attached {
        /// The vDisk.
        name: String,
        /// Who.
        front_end: FrontEnd,
    },
    /// The backend is going down.
    #[error("the backend is shutting down")]
    Closing,
    /// The system refused.
    #[error("can't watch sockets: {0}")]
    Io(#[from] std::io::Error),
}

/// One vDisk's socket, as seen from outside.
#[derive(Debug, Clone)]
pub struct ExportStatus {
    /// The vDisk.
    pub name: String,
    /// Where its socket is.
    pub socket: PathBuf,
    /// Who serves its guest from it, or did last, or was connected first.
    pub attached: Option<Attachment>,
    /// Who else is connected.
    pub waiting: Option<Attachment>,
}

/// All sockets. Cheap to clone; all clones are the same.
pub struct Exports<D: Disk> {
    shared: Arc<Shared<D>>,
}

impl<D: Disk> Clone for Exports<D> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

struct Shared<D: Disk> {
    options: SocketOptions,
    pool: Arc<Pool<D>>,
    table: Mutex<Table<D>>,
    epoll: Epoll,
    bell: OwnedFd,
    closing: AtomicBool,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

struct Table<D: Disk> {
    by_name: BTreeMap<String, (u64, Arc<Export<D>>)>,
    next_id: u64,
}

impl<D: Disk> Exports<D> {
    /// No sockets yet.
    pub fn new(options: SocketOptions, pool: Arc<Pool<D>>) -> Result<Self, ExportError> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(std::io::Error::from)?;
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(EventSet::IN, BELL);
        epoll.ctl(ControlOperation::Add, bell.as_raw_fd(), event)?;
        let shared = Arc::new(Shared {
            options,
            pool,
            table: Mutex::new(Table {
                by_name: BTreeMap::new(),
                next_id: 0,
            }),
            epoll,
            bell,
            closing: AtomicBool::new(false),
            acceptor: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("firn-accept".to_owned())
            .spawn(move || accepting.accept_all())?;
        *shared.acceptor.lock() = Some(thread);
        Ok(Self { shared })
    }

    /// Opens a vDisk's socket.
    pub fn add(&self, disk: Arc<D>) -> Result<PathBuf, ExportError> {
        let shared = &self.shared;
        let name = disk.name().to_owned();
        let mut table = shared.table.lock();
        if shared.closing.load(Ordering::Acquire) {
            return Err(ExportError::Closing);
        }
        if table.by_name.contains_key(&name) {
            return Err(ExportError::Exists(name));
        }
        let socket = socket::Socket::open(&shared.options, &name)?;
        let path = socket.path().to_owned();
        let id = table.next_id;
        let event = EpollEvent::new(EventSet::IN, id);
        shared
            .epoll
            .ctl(ControlOperation::Add, socket.as_raw_fd(), event)?;
        table.next_id += 1;
        let export = Arc::new(Export::new(disk, socket, Arc::clone(&shared.pool)));
        table.by_name.insert(name, (id, export));
        Ok(path)
    }

    /// Closes a vDisk's socket, unless a front end is attached.
    pub fn remove(&self, name: &str) -> Result<(), ExportError> {
        let mut table = self.shared.table.lock();
        let Some((_, export)) = table.by_name.get(name) else {
            return Err(ExportError::NotFound(name.to_owned()));
        };
        if let Err(front_end) = export.retire() {
            return Err(ExportError::Attached {
                name: name.to_owned(),
                front_end,
            });
        }
        let _ = self.shared.epoll.ctl(
            ControlOperation::Delete,
            export.socket().as_raw_fd(),
            EpollEvent::default(),
        );
        table.by_name.remove(name);
        Ok(())
    }

    /// All sockets, by name.
    pub fn list(&self) -> Vec<ExportStatus> {
        let table = self.shared.table.lock();
        table
            .by_name
            .values()
            .map(|(_, export)| export.status())
            .collect()
    }

    /// One vDisk's socket.
    pub fn get(&self, name: &str) -> Option<ExportStatus> {
        let table = self.shared.table.lock();
        table.by_name.get(name).map(|(_, export)| export.status())
    }

    /// Closes all sockets and connections; returns when nothing of any guest is in flight. Guests whose front ends
    /// reconnect go on with the next backend.
    pub fn shut_down(&self) {
        let shared = &self.shared;
        let exports = {
            let mut table = shared.table.lock();
            shared.closing.store(true, Ordering::Release);
            std::mem::take(&mut table.by_name)
        };
        let _ = rustix::io::write(&shared.bell, &1u64.to_ne_bytes());
        let acceptor = shared.acceptor.lock().take();
        if let Some(thread) = acceptor
            && thread.join().is_err()
        {
            log::error!("the accepting thread had panicked");
        }
        // All are told before the first is waited for.
        let threads: Vec<_> = exports
            .values()
            .flat_map(|(_, export)| export.hang_up())
            .collect();
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a session had panicked");
            }
        }
    }
}

impl<D: Disk> Shared<D> {
    fn accept_all(&self) {
        let mut events = [EpollEvent::default(); 16];
        while !self.closing.load(Ordering::Acquire) {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    log::error!("can't wait for connections: {e}");
                    return;
                }
            };
            for event in events
                .iter()
                .take(count)
                .filter(|event| event.data() != BELL)
            {
                let export = {
                    let table = self.table.lock();
                    let mut all = table.by_name.values();
                    all.find(|(id, _)| *id == event.data())
                        .map(|(_, export)| Arc::clone(export))
                };
                let Some(export) = export else { continue };
                if let Err(e) = export.accept() {
                    log::warn!("{}: can't accept a connection: {e}", export.name());
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
