//! A vhost-user-blk front end in user space: QEMU's part, without a guest.
//!
//! ```text
//!             connect                 backend dies
//!   (none) ------------> running -----------------------+
//!                           ^   kick, poll, wait        |
//!                           |                           v
//!                           +--------- reconnect --- orphaned
//! ```
//!
//! # Reconnecting
//! [`Client::reconnect`] does what QEMU does when a backend comes back: the same memory, rings and
//! eventfds; the in-flight region that the first backend gave is handed to the next one; every ring's
//! base is the index found in its *used* ring, with or without an in-flight region, so that it is for
//! the backend to find out which of the requests after it were taken. Nothing is kicked: a backend
//! must process each ring once when it starts.

mod error;
mod inflight;
pub mod message;
mod queue;
pub mod raw;
mod request;
mod session;
mod shm;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use error::ClientError;
pub use inflight::{Inflight, QueueInflight};
pub use queue::{Layout, Queue};
pub use request::{
    BlockConfig, Completion, Op, Request, SECTOR, STATUS_IOERR, STATUS_OK, STATUS_UNSUPP,
    STATUS_UNTOUCHED, feature, protocol,
};
pub use session::Session;
pub use shm::SharedMemory;

/// How a client presents itself.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Virtqueues.
    pub queues: u16,
    /// Descriptors per queue, a power of two.
    pub queue_size: u16,
    /// Requests in flight per queue, at most.
    pub depth: u16,
    /// Largest request in bytes.
    pub max_bytes: u32,
    /// Data is described in pieces of at most this many bytes.
    pub segment_bytes: u32,
    /// Negotiate VIRTIO_F_EVENT_IDX where offered.
    pub event_idx: bool,
    /// Negotiate VIRTIO_F_INDIRECT_DESC where offered, and then use it for every request.
    pub indirect: bool,
    /// Insist on the in-flight region, without which a restart is exact only for servers that retire
    /// requests in ring order.
    pub inflight: bool,
    /// virtio features not to be negotiated though offered (bits of [`feature`]).
    pub without: u64,
    /// Longest wait for a reply of the backend.
    pub timeout: Duration,
    /// Guest physical address at which the shared memory appears.
    pub guest_base: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: 128,
            depth: 32,
            max_bytes: 256 << 10,
            segment_bytes: 1 << 20,
            event_idx: true,
            indirect: true,
            inflight: false,
            without: 0,
            timeout: Duration::from_secs(20),
            // Not zero and not the user address, so that mixing address spaces up shows.
            guest_base: 0x1_0000_0000,
        }
    }
}

impl ClientOptions {
    fn segments(&self) -> usize {
        self.max_bytes.div_ceil(self.segment_bytes) as usize
    }

    fn check(&self) -> Result<(), ClientError> {
        let chain = if self.indirect {
            1
        } else {
            2 + self.segments()
        };
        if usize::from(self.depth) * chain > usize::from(self.queue_size) {
            let what = format!(
                "{} chains of {chain} descriptors in a queue of {}",
                self.depth, self.queue_size
            );
            return Err(ClientError::Io {
                what,
                source: std::io::ErrorKind::InvalidInput.into(),
            });
        }
        Ok(())
    }
}

/// A connected (or orphaned) front end.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    options: ClientOptions,
    memory: Arc<SharedMemory>,
    session: Option<Session>,
    inflight: Option<Inflight>,
    /// The queues; threads may borrow them separately.
    pub queues: Vec<Queue>,
}

impl Client {
    /// Connects to a backend's socket, negotiates and starts the rings.
    pub fn connect(socket: &Path, options: ClientOptions) -> Result<Self, ClientError> {
        options.check()?;
        let mut layouts = Vec::new();
        let mut end = 0;
        for _ in 0..options.queues {
            let layout = Layout::new(end, &options);
            end = layout.end;
            layouts.push(layout);
        }
        let memory =
            SharedMemory::new("firn-test-guest", end).map_err(|source| ClientError::Io {
                what: format!("{end} bytes of guest memory"),
                source,
            })?;
        let memory = Arc::new(memory);
        let mut queues = Vec::new();
        for (index, layout) in (0u16..).zip(layouts) {
            queues.push(Queue::new(Arc::clone(&memory), layout, index, &options)?);
        }
        let mut client = Self {
            socket: socket.to_owned(),
            options,
            memory,
            session: None,
            inflight: None,
            queues,
        };
        client.attach()?;
        Ok(client)
    }

    /// Forgets the dead backend and waits up to `within` for another at the same socket.
    pub fn reconnect(&mut self, within: Duration) -> Result<(), ClientError> {
        self.session = None;
        let until = Instant::now() + within;
        loop {
            match self.attach() {
                Ok(()) => return Ok(()),
                // Nobody listens yet, or it died again while we spoke.
                Err(ClientError::Io { .. } | ClientError::Closed) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Hangs up without stopping the rings.
    pub fn hang_up(&mut self) {
        self.session = None;
    }

    /// One attempt at [`Client::reconnect`]; on an error the client stays orphaned and may try again.
    pub fn attach(&mut self) -> Result<(), ClientError> {
        self.session = None;
        let session = Session::negotiate(&self.socket, &self.options)?;
        let features = session.features();
        for queue in &mut self.queues {
            queue.set_features(
                features & feature::EVENT_IDX != 0,
                features & feature::INDIRECT_DESC != 0,
            );
        }
        session.start(
            &self.options,
            &self.memory,
            &mut self.inflight,
            &self.queues,
        )?;
        self.session = Some(session);
        Ok(())
    }

    /// Stops every ring as QEMU does at a guest's shutdown: waits for what is in flight, then hangs up.
    pub fn stop(mut self) -> Result<(), ClientError> {
        if let Some(session) = self.session.take() {
            session.stop(&self.queues)?;
        }
        Ok(())
    }

    /// The connection, unless orphaned.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The device's configuration as read when connecting.
    pub fn config(&self) -> BlockConfig {
        self.session
            .as_ref()
            .map(Session::config)
            .unwrap_or_default()
    }

    /// The memory shared with the backend.
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The in-flight region, once a backend has given one.
    pub fn inflight(&self) -> Option<&Inflight> {
        self.inflight.as_ref()
    }

    /// Requests in flight on all queues.
    pub fn in_flight(&self) -> usize {
        self.queues.iter().map(Queue::in_flight).sum()
    }

    /// Whether the backend has hung up.
    pub fn hung_up(&self) -> bool {
        let Some(session) = &self.session else {
            return true;
        };
        let mut fds = [PollFd::new(session.connection().stream(), PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().is_empty()
    }

    /// Sleeps until a queue has completions, at most `timeout`. Returns whether one has.
    pub fn wait(&self, timeout: Duration) -> bool {
        wait(&self.queues, timeout)
    }

    /// Runs one request on queue 0 to its end: for tests where speed does not matter.
    /// `data` is what a write writes, and receives what a read reads.
    pub fn run(&mut self, request: Request, data: &mut [u8]) -> Result<Completion, ClientError> {
        let timeout = self.options.timeout;
        let queue = &mut self.queues[0];
        assert_eq!(queue.in_flight(), 0, "run() wants an idle queue");
        let tag = queue.reserve().expect("an idle queue has a free slot");
        if request.op == Op::Write {
            queue.put_data(tag, 0, data);
        }
        queue.submit(tag, request);
        queue.publish();
        let mut done = Vec::new();
        while queue.poll(&mut done)? == 0 {
            if !wait(std::slice::from_ref(queue), timeout) {
                return Err(ClientError::Timeout(format!("{request:?}")));
            }
        }
        if matches!(request.op, Op::Read | Op::GetId) {
            queue.get_data(tag, 0, data);
        }
        Ok(done[0])
    }
}

/// Sleeps until one of `queues` (1..=16) has completions, at most `timeout`. Returns whether one has.
pub fn wait(queues: &[Queue], timeout: Duration) -> bool {
    let until = Instant::now() + timeout;
    loop {
        // All of them, not only up to the first that is ready.
        let ready = queues.iter().filter(|queue| queue.arm()).count();
        if ready > 0 {
            return true;
        }
        let Some(left) = until.checked_duration_since(Instant::now()) else {
            return false;
        };
        let left = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        // On the stack: this is the hot path of the benchmark. Places past the last queue repeat it.
        const MOST: usize = 16;
        let mut fds: [PollFd<'_>; MOST] = std::array::from_fn(|at| {
            let queue = &queues[at.min(queues.len() - 1)];
            PollFd::from_borrowed_fd(queue.call_fd(), PollFlags::IN)
        });
        let _ = poll(&mut fds[..queues.len()], Some(&left));
        for queue in queues {
            queue.disarm();
        }
    }
}
