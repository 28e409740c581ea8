//! One vDisk's socket and its connections.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::engine::Disk;
use crate::session::{AdmitError, Attachments, FrontEnd, serve};
use crate::workers::Pool;

use super::ExportStatus;
use super::socket::Socket;

/// A vDisk that can be attached.
pub struct Export<D: Disk> {
    disk: Arc<D>,
    pool: Arc<Pool<D>>,
    socket: Socket,
    attachments: Attachments,
    /// Of connections that are served, and some that are over.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<D: Disk> Export<D> {
    /// Nobody is connected.
    pub fn new(disk: Arc<D>, socket: Socket, pool: Arc<Pool<D>>) -> Self {
        Self {
            disk,
            pool,
            socket,
            attachments: Attachments::default(),
            threads: Mutex::default(),
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
        let (attached, waiting) = self.attachments.list();
        ExportStatus {
            name: self.name().to_owned(),
            socket: self.socket.path().to_owned(),
            attached,
            waiting,
        }
    }

    /// Takes one waiting connection and decides what becomes of it.
    pub fn accept(&self) -> std::io::Result<()> {
        let Some(stream) = self.socket.accept()? else {
            return Ok(());
        };
        let front_end = FrontEnd::of(&stream)?;
        let seat = match self.attachments.admit(&stream, front_end) {
            Ok(seat) => seat,
            Err(AdmitError::Io(error)) => return Err(error),
            Err(error) => {
                log::warn!("{}: {front_end} is refused: {error}", self.name());
                return Ok(());
            }
        };
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        let (disk, pool) = (Arc::clone(&self.disk), Arc::clone(&self.pool));
        match seat.beside() {
            None => log::info!("{}: attached by {front_end}", self.name()),
            Some(other) => log::info!("{}: {front_end} is connected, beside {other}", self.name()),
        }
        let thread = std::thread::Builder::new()
            .name("firn-session".to_owned())
            .spawn(move || serve(stream, seat, disk, pool))?;
        threads.push(thread);
        Ok(())
    }

    /// Takes no more connections, unless somebody is attached.
    pub fn retire(&self) -> Result<(), FrontEnd> {
        self.attachments.retire()
    }

    /// Ends all connections and takes no more; the threads that are returned end when nothing is in flight.
    pub fn hang_up(&self) -> Vec<JoinHandle<()>> {
        self.attachments.hang_up();
        std::mem::take(&mut *self.threads.lock())
    }
}
