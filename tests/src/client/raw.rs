//! A front end without manners: it sends what it is told to and puts into memory what it is told to.
//!
//! [`Client`](super::Client) keeps the rules, which tests of broken rules can't have. Memory is laid out by fixed
//! offsets, so that tests can aim:
//!
//! ```text
//! queue n at n x 64 KiB: descriptors | 0x8000 avail ring | 0xa000 used ring;   from DATA on: the tests' own
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::error::ClientError;
use super::message::{Code, Connection, vring_state};
use super::request::{feature, protocol};
use super::shm::SharedMemory;

/// A descriptor: address, length, flags, next.
pub type Descriptor = (u64, u32, u16, u16);

/// `next` is valid.
pub const NEXT: u16 = 1;
/// The device writes the buffer.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

const STRIDE: usize = 0x1_0000;
const AVAIL: usize = 0x8000;
const USED: usize = 0xa000;

/// One region of memory as messages name it.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    /// Guest address.
    pub guest: u64,
    /// Bytes.
    pub len: u64,
    /// Address in the front end.
    pub user: u64,
    /// Where in its file.
    pub offset: u64,
}

impl Region {
    fn words(&self) -> [u64; 4] {
        [self.guest, self.len, self.user, self.offset]
    }
}

/// A connection and a guest's memory.
#[derive(Debug)]
pub struct Raw {
    /// The socket.
    pub link: Connection,
    /// The memory, which the backend sees at [`Raw::GUEST`].
    pub memory: SharedMemory,
    /// Descriptors per queue.
    pub size: u16,
    kicks: Vec<OwnedFd>,
    calls: Vec<OwnedFd>,
    avail: Vec<u16>,
}

impl Raw {
    /// Guest address of the memory.
    pub const GUEST: u64 = 0x1000_0000;
    /// Offset of what no queue uses.
    pub const DATA: usize = 0x40_0000;
    /// Bytes of memory.
    pub const LEN: usize = 0x100_0000;

    /// Connects; nothing is said.
    pub fn open(socket: &Path, size: u16) -> Result<Self, ClientError> {
        let memory = SharedMemory::new("hostile", Self::LEN).map_err(|source| ClientError::Io {
            what: "guest memory".into(),
            source,
        })?;
        Ok(Self {
            link: Connection::open(socket, Duration::from_secs(10))?,
            memory,
            size,
            kicks: Vec::new(),
            calls: Vec::new(),
            avail: Vec::new(),
        })
    }

    /// Agrees on everything that is offered but LOG_ALL.
    pub fn shake_hands(&mut self) -> Result<(), ClientError> {
        self.link.command(Code::SetOwner, &[], &[])?;
        let offered = self.link.ask_u64(Code::GetFeatures)? & !feature::LOG_ALL;
        let agreed = self.link.ask_u64(Code::GetProtocolFeatures)?;
        self.link
            .command(Code::SetProtocolFeatures, &agreed.to_ne_bytes(), &[])?;
        self.link.ack = agreed & protocol::REPLY_ACK != 0;
        self.link
            .command(Code::SetFeatures, &offered.to_ne_bytes(), &[])
    }

    /// The whole memory as one region.
    pub fn region(&self) -> Region {
        Region {
            guest: Self::GUEST,
            len: Self::LEN as u64,
            user: self.memory.address(),
            offset: 0,
        }
    }

    /// ADD_MEM_REG.
    pub fn add_region(&self, region: Region, fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        self.link
            .command(Code::AddMemReg, &single_region(region), fds)
    }

    /// REM_MEM_REG.
    pub fn remove_region(&self, region: Region) -> Result<(), ClientError> {
        self.link
            .command(Code::RemMemReg, &single_region(region), &[])
    }

    /// Hands the memory over and starts so many queues.
    pub fn start(&mut self, queues: u16) -> Result<(), ClientError> {
        self.shake_hands()?;
        self.add_region(self.region(), &[self.memory.fd()])?;
        for index in 0..queues {
            self.start_queue(index)?;
        }
        Ok(())
    }

    /// Starts a queue; queues must be started in order.
    pub fn start_queue(&mut self, index: u16) -> Result<(), ClientError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = |e: rustix::io::Errno| ClientError::Io {
            what: "eventfd".into(),
            source: e.into(),
        };
        self.kicks.push(eventfd(0, flags).map_err(event)?);
        self.calls.push(eventfd(0, flags).map_err(event)?);
        self.avail.push(0);
        let at = usize::from(index);
        let number = u64::from(index).to_ne_bytes();
        self.link.command(
            Code::SetVringNum,
            &vring_state(index, u32::from(self.size)),
            &[],
        )?;
        self.link
            .command(Code::SetVringBase, &vring_state(index, 0), &[])?;
        self.set_addresses(index, self.ring_addresses(index))?;
        self.link
            .command(Code::SetVringCall, &number, &[self.calls[at].as_fd()])?;
        self.link
            .command(Code::SetVringKick, &number, &[self.kicks[at].as_fd()])?;
        self.link
            .command(Code::SetVringEnable, &vring_state(index, 1), &[])
    }

    /// Has writes noted from now on, as for a migration; where, is not said.
    pub fn log_all(&self) -> Result<(), ClientError> {
        let offered = self.link.ask_u64(Code::GetFeatures)?;
        self.link
            .command(Code::SetFeatures, &offered.to_ne_bytes(), &[])
    }

    /// GET_VRING_BASE.
    pub fn stop_queue(&self, index: u16) -> Result<(), ClientError> {
        self.link
            .ask(Code::GetVringBase, &vring_state(index, 0))
            .map(drop)
    }

    /// Starts a queue that was stopped.
    pub fn restart_queue(&self, index: u16) -> Result<(), ClientError> {
        let base = vring_state(index, u32::from(self.used(index)));
        self.link.command(Code::SetVringBase, &base, &[])?;
        let kick = self.kicks[usize::from(index)].as_fd();
        let number = u64::from(index).to_ne_bytes();
        self.link.command(Code::SetVringKick, &number, &[kick])?;
        // An acknowledgement of what came before need not say that it runs.
        self.link
            .command(Code::SetVringEnable, &vring_state(index, 1), &[])
    }

    /// Where a queue's descriptors, used and avail ring are in the front end.
    pub fn ring_addresses(&self, index: u16) -> [u64; 3] {
        let base = self.memory.address() + u64::from(index) * STRIDE as u64;
        [base, base + USED as u64, base + AVAIL as u64]
    }

    /// SET_VRING_ADDR: descriptors, used ring, avail ring.
    pub fn set_addresses(&self, index: u16, addresses: [u64; 3]) -> Result<(), ClientError> {
        let mut body = [0; 40];
        body[..4].copy_from_slice(&u32::from(index).to_ne_bytes());
        for (at, address) in [8, 16, 24].into_iter().zip(addresses) {
            body[at..at + 8].copy_from_slice(&address.to_ne_bytes());
        }
        self.link.command(Code::SetVringAddr, &body, &[])
    }

    /// The guest address of an offset in the memory.
    pub fn guest(&self, offset: usize) -> u64 {
        Self::GUEST + offset as u64
    }

    /// Writes a descriptor into a queue's table.
    pub fn put(&self, queue: u16, index: u16, descriptor: Descriptor) {
        self.put_at(usize::from(queue) * STRIDE, index, descriptor);
    }

    /// Writes a descriptor into a table at this offset.
    pub fn put_at(&self, table: usize, index: u16, (addr, len, flags, next): Descriptor) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&addr.to_le_bytes());
        raw[8..12].copy_from_slice(&len.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write(table + 16 * usize::from(index), &raw);
    }

    /// Writes a request header.
    pub fn header(&self, offset: usize, kind: u32, sector: u64) {
        let mut raw = [0; 16];
        raw[..4].copy_from_slice(&kind.to_le_bytes());
        raw[8..].copy_from_slice(&sector.to_le_bytes());
        self.memory.write(offset, &raw);
    }

    /// Puts a head into the avail ring.
    pub fn offer(&mut self, queue: u16, head: u16) {
        let avail = &mut self.avail[usize::from(queue)];
        let ring = usize::from(queue) * STRIDE + AVAIL;
        let slot = ring + 4 + 2 * usize::from(*avail % self.size);
        self.memory.u16(slot).store(head, Ordering::Relaxed);
        *avail = avail.wrapping_add(1);
        self.memory.u16(ring + 2).store(*avail, Ordering::Release);
    }

    /// Writes an avail index.
    pub fn set_avail(&mut self, queue: u16, index: u16) {
        self.avail[usize::from(queue)] = index;
        let ring = usize::from(queue) * STRIDE + AVAIL;
        self.memory.u16(ring + 2).store(index, Ordering::Release);
    }

    /// Kicks.
    pub fn kick(&self, queue: u16) {
        let _ = rustix::io::write(&self.kicks[usize::from(queue)], &1u64.to_ne_bytes());
    }

    /// The used index.
    pub fn used(&self, queue: u16) -> u16 {
        let ring = usize::from(queue) * STRIDE + USED;
        self.memory.u16(ring + 2).load(Ordering::Acquire)
    }

    /// Waits until the used index is this; whether it came to that.
    pub fn wait_used(&self, queue: u16, index: u16, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.used(queue) != index {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Whether the backend hangs up in time. What it sends before is thrown away.
    pub fn is_closed(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        while Instant::now() < until {
            match self.link.receive() {
                Ok(_) => {}
                Err(ClientError::Timeout(_)) => return false,
                Err(_) => return true,
            }
        }
        false
    }
}

/// The body of ADD_MEM_REG and REM_MEM_REG.
pub fn single_region(region: Region) -> Vec<u8> {
    let mut body = vec![0; 8];
    for word in region.words() {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    body
}

/// The body of SET_MEM_TABLE that claims `count` regions and has these.
pub fn region_table(count: u32, regions: &[Region]) -> Vec<u8> {
    let mut body = count.to_ne_bytes().to_vec();
    body.extend_from_slice(&[0; 4]);
    for word in regions.iter().flat_map(Region::words) {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    body
}
