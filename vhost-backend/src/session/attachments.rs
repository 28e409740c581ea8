//! The front ends that are connected to one vDisk, and the lease among them.
//!
//! [`Lease`] decides; here is what it decides about: connections, who is at their other ends, and the bells that wake
//! sessions which wait. A session looks at the lease when it starts its first queue and when its bell has rung, and in no
//! other case: neither is on the data path.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};

use super::FrontEnd;
use super::lease::{Answer, Id, Lease};

/// Front ends that may be connected at a time: a guest's, and the one that it is being migrated to.
const CONNECTED_MAX: usize = 2;
/// Sessions, with those that have hung up and are not at their end yet. Of these there are a few where front ends come and go quickly, and
/// one whose last requests take a while; more only where somebody means harm.
const SESSIONS_MAX: usize = 64;

/// A connection.
#[derive(Debug, Clone, Copy)]
pub struct Attachment {
    /// Who.
    pub front_end: FrontEnd,
    /// Since when.
    pub since: SystemTime,
}

/// Why a front end was not admitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// There are two.
    #[error("the vDisk is attached by {0}, and another front end waits for it")]
    Full(FrontEnd),
    /// The vDisk is being deleted, or the backend goes down.
    #[error("the vDisk is no longer served")]
    Closed,
    /// The system refused.
    #[error("it can't be watched: {0}")]
    Io(#[from] std::io::Error),
}

/// All front ends of a vDisk. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Attachments {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    lease: Lease,
    members: Vec<Member>,
    /// When the holder stopped its last queue.
    rested: Option<Instant>,
    next_id: u64,
    closed: bool,
}

#[derive(Debug)]
struct Member {
    id: Id,
    attachment: Attachment,
    /// To look whether it has hung up, and to end it.
    stream: UnixStream,
    bell: Arc<OwnedFd>,
}

/// One session's place among them; dropping it gives up what it holds.
#[derive(Debug)]
pub struct Seat {
    table: Arc<Mutex<Table>>,
    id: Id,
    front_end: FrontEnd,
    beside: Option<FrontEnd>,
    bell: Arc<OwnedFd>,
}

/// What a session is told that wants to start queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// It may. With whom the vDisk was served by until now, where that one is still connected.
    Granted {
        /// The one before, and how long ago it has stopped.
        from: Option<(FrontEnd, Duration)>,
    },
    /// This one has stopped its queues and is still there.
    Wait(FrontEnd),
    /// The one before has hung up, and its last requests are being finished.
    Soon,
    /// This one's queues run.
    Refused(FrontEnd),
}

impl Attachments {
    /// Takes a connection in, if there is room for it.
    pub fn admit(&self, stream: &UnixStream, front_end: FrontEnd) -> Result<Seat, AdmitError> {
        let mut table = self.table.lock();
        if table.closed {
            return Err(AdmitError::Closed);
        }
        let connected = table.members.iter().filter(|m| !hung_up(&m.stream)).count();
        if (connected >= CONNECTED_MAX || table.members.len() >= SESSIONS_MAX)
            && let Some(first) = table.first()
        {
            return Err(AdmitError::Full(first.attachment.front_end));
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = Arc::new(eventfd(0, flags).map_err(std::io::Error::from)?);
        let stream = stream.try_clone()?;
        let beside = table.first().map(|first| first.attachment.front_end);
        let id = Id(table.next_id);
        table.next_id += 1;
        table.members.push(Member {
            id,
            attachment: Attachment {
                front_end,
                since: SystemTime::now(),
            },
            stream,
            bell: Arc::clone(&bell),
        });
        Ok(Seat {
            table: Arc::clone(&self.table),
            id,
            front_end,
            beside,
            bell,
        })
    }

    /// Who serves its guest from the vDisk, or did last, or came first; and who else is connected.
    pub fn list(&self) -> (Option<Attachment>, Option<Attachment>) {
        let table = self.table.lock();
        let Some(first) = table.first() else {
            return (None, None);
        };
        let mut others = table.members.iter().filter(|m| m.id != first.id);
        let other = others.find(|m| !hung_up(&m.stream));
        (Some(first.attachment), other.map(|m| m.attachment))
    }

    /// Admits nobody from now on, if nobody is there.
    pub fn retire(&self) -> Result<(), FrontEnd> {
        let mut table = self.table.lock();
        match table.first() {
            Some(first) => Err(first.attachment.front_end),
            None => {
                table.closed = true;
                Ok(())
            }
        }
    }

    /// Ends all connections and admits nobody any more.
    pub fn hang_up(&self) {
        let mut table = self.table.lock();
        table.closed = true;
        for member in &table.members {
            let _ = member.stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Table {
    fn member(&self, id: Id) -> Option<&Member> {
        self.members.iter().find(|m| m.id == id)
    }

    fn first(&self) -> Option<&Member> {
        let holder = self.lease.holder().and_then(|id| self.member(id));
        holder.or_else(|| self.members.first())
    }

    fn front_end(&self, id: Id) -> Option<FrontEnd> {
        self.member(id).map(|m| m.attachment.front_end)
    }

    /// Whoever waits looks again.
    fn ring(&self, from: Id) {
        for member in self.members.iter().filter(|m| m.id != from) {
            let _ = rustix::io::write(&member.bell, &1u64.to_ne_bytes());
        }
    }
}

impl Seat {
    /// Asks for the lease, to start queues. Asking again, when the bell has rung, is how a session waits.
    pub fn ask(&self) -> Permit {
        let mut table = self.table.lock();
        let holder = table.lease.holder().filter(|id| *id != self.id);
        // Its session may be waiting for the store, and not have noticed.
        if let Some(holder) = holder.and_then(|id| table.member(id))
            && hung_up(&holder.stream)
        {
            let id = holder.id;
            table.lease.end(id);
        }
        let answer = table.lease.ask(self.id);
        let somebody = |id| table.front_end(id).unwrap_or(FrontEnd::UNKNOWN);
        match answer {
            Answer::Yes { from } => {
                table.ring(self.id);
                let pause = table
                    .rested
                    .take()
                    .map_or(Duration::ZERO, |at| at.elapsed());
                Permit::Granted {
                    from: from.and_then(|id| Some((table.front_end(id)?, pause))),
                }
            }
            Answer::Wait(holder) => Permit::Wait(somebody(holder)),
            Answer::Soon => Permit::Soon,
            Answer::No(holder) => Permit::Refused(somebody(holder)),
        }
    }

    /// Its last queue has stopped, and nothing of it is in flight. See [`Lease::rest`].
    pub fn rest(&self, logged: bool) {
        let mut table = self.table.lock();
        table.lease.rest(self.id, logged);
        table.rested = Some(Instant::now());
    }

    /// It no longer wants to start queues.
    pub fn withdraw(&self) {
        self.table.lock().lease.withdraw(self.id);
    }

    /// Its connection is over, and its queues are being stopped.
    pub fn end(&self) {
        let mut table = self.table.lock();
        table.lease.end(self.id);
        table.ring(self.id);
    }

    /// Who this is.
    pub fn front_end(&self) -> FrontEnd {
        self.front_end
    }

    /// Who was there when it came.
    pub fn beside(&self) -> Option<FrontEnd> {
        self.beside
    }

    /// Who else holds the vDisk, if anybody does: then its settings are not this session's to change.
    pub fn other(&self) -> Option<FrontEnd> {
        let table = self.table.lock();
        let holder = table.lease.holder().filter(|id| *id != self.id)?;
        table.front_end(holder)
    }

    /// Becomes readable when asking again may help.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The bell was heard.
    pub fn heard(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        table.lease.gone(self.id);
        table.members.retain(|m| m.id != self.id);
        table.ring(self.id);
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
