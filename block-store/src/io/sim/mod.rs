//! A simulated disk: files in memory that a test can take the power from.
//!
//! Everything random comes from one seed, so that a history run by one thread replays exactly.
//!
//! # Model
//! It is harsher than any one filesystem, so that what survives here survives on all:
//! - A file's writes and its length are durable after [`DiskFile::sync`] of that file; a name (or its removal)
//!   after [`Disk::sync_dir`]. Neither implies the other.
//! - Power loss decides for each unsynced write and page anew: kept, lost, or torn at 512 bytes. Each name that
//!   was changed falls back to any of its states since the last `sync_dir`, each length to the old or new one.
//! - A failed sync dooms the writes it should have covered: they are read back until the power goes, and lost
//!   then, whatever later syncs say.
//! - The death of the process ([`SimDisk::kill`]) loses nothing that was written, nor the buffer memory.
//!
//! # Generations
//! A crash leaves every file, queue and buffer of the dead process failing (buffers turn into private copies),
//! and so the `SimDisk` it used. [`SimDisk::restart`] gives the next process its own handle.

mod inode;
mod memory;
mod queue;
mod rng;
mod state;
#[cfg(test)]
mod tests;

pub use rng::Rng;
pub use state::{Counters, Op};

use super::{
    BufferMemory, Disk, DiskFile, PAGE, ReadQueue, Runtime, SECTOR, Space, check_len, check_name,
    check_pages, check_rest, check_units,
};
use memory::SimMemory;
use parking_lot::Mutex;
use queue::SimQueue;
use state::State;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all handles of one simulated machine share.
struct World {
    state: Mutex<State>,
    /// The generation that is alive; handles of others fail.
    generation: AtomicU64,
}

/// One process's way to a simulated disk and runtime directory. Cheap to clone.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<World>,
    generation: u64,
}

/// A way to damage a file behind the store's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Flips at least one bit in every byte.
    Rot {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Overwrites with zeros.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Exchanges two ranges that do not overlap: misdirected writes.
    Swap {
        /// First byte of the one.
        a: u64,
        /// First byte of the other.
        b: u64,
        /// Bytes of each.
        len: u64,
    },
    /// Cuts the file to this many bytes (rounded down to a page).
    Truncate(u64),
    /// Removes the file for good.
    Remove,
}

impl SimDisk {
    /// An empty disk of `capacity` bytes.
    pub fn new(seed: u64, capacity: u64) -> SimDisk {
        let world = World {
            state: Mutex::new(State::new(seed, capacity)),
            generation: AtomicU64::new(1),
        };
        SimDisk {
            world: Arc::new(world),
            generation: 1,
        }
    }

    /// Kills the process: its handles fail from here on. Everything written stays, synced or not.
    pub fn kill(&self) {
        self.world.crash(&mut self.world.state.lock());
    }

    /// Cuts the power: the process dies, unsynced data meets its fate, buffer memory is lost, the boot id changes.
    pub fn power_loss(&self) {
        let mut state = self.world.state.lock();
        self.world.crash(&mut state);
        state.power_loss();
    }

    /// The next process's handle. Kills the present process, if there is one.
    pub fn restart(&self) -> SimDisk {
        let mut state = self.world.state.lock();
        let generation = self.world.crash(&mut state) + 1;
        self.world.generation.store(generation, Ordering::Release);
        SimDisk {
            world: Arc::clone(&self.world),
            generation,
        }
    }

    /// Whether the process that this handle belongs to is dead.
    pub fn is_crashed(&self) -> bool {
        self.world.generation.load(Ordering::Acquire) != self.generation
    }

    /// Lets `n` more operations pass; the one after them kills the process, a write perhaps half done.
    /// `None` lifts it.
    pub fn crash_after(&self, n: Option<u64>) {
        self.world.state.lock().crash_after = n;
    }

    /// Lets the `n`th operation of this kind from now on (1: the next) fail with EIO, once.
    pub fn fail_nth(&self, op: Op, n: u64) {
        self.world.state.lock().fail_nth(op, n);
    }

    /// Takes back all faults that have not come yet.
    pub fn lift_faults(&self) {
        self.world.state.lock().lift_faults();
    }

    /// Sets the capacity in bytes; less than what is used makes the disk full and loses nothing.
    pub fn set_capacity(&self, capacity: u64) {
        self.world.state.lock().capacity = capacity;
    }

    /// Damages a file; works at any time, also between two processes. `NotFound` if there is no such file.
    pub fn damage(&self, name: &str, damage: Damage) -> io::Result<()> {
        self.world.state.lock().damage(name, damage)
    }

    /// Operations so far, of all processes; crashes don't reset them.
    pub fn counters(&self) -> Counters {
        self.world.state.lock().counters
    }

    /// Runs `act` on the state if the process is alive and the operation isn't to fail.
    fn run<T>(&self, op: Op, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.world.state.lock();
        self.admit(&mut state, op)?;
        act(&mut state)
    }

    /// Counts an operation, and fails it if the process is dead, dies now, or a fault is due.
    fn admit(&self, state: &mut State, op: Op) -> io::Result<()> {
        if self.is_crashed() {
            return Err(crashed());
        }
        if state.is_crash_due() {
            self.world.crash(state);
            return Err(crashed());
        }
        state.counters.count(op);
        state.injected(op)
    }
}

impl World {
    /// Ends the present generation and tells its number.
    fn crash(&self, state: &mut State) -> u64 {
        state.process_died();
        // An odd number is a process, an even one the time between two.
        let generation = self.generation.load(Ordering::Acquire).next_multiple_of(2);
        self.generation.store(generation, Ordering::Release);
        generation
    }
}

/// The error of everything that a dead process tries.
fn crashed() -> io::Error {
    io::Error::new(
        io::ErrorKind::BrokenPipe,
        "the simulated process has crashed",
    )
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk(generation {})", self.generation)
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        check_len(len)?;
        let inode = self.run(Op::Name, |state| state.create(name, len))?;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            name: name.to_owned(),
            inode,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let inode = self.run(Op::Name, |state| state.open(name))?;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            name: name.to_owned(),
            inode,
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.run(Op::Name, |state| state.remove(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.run(Op::Name, |state| Ok(state.list()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.run(Op::Sync, |state| {
            state.sync_dir();
            Ok(())
        })
    }

    fn space(&self) -> io::Result<Space> {
        self.run(Op::Name, |state| {
            Ok(Space {
                total: state.capacity,
                free: state.free(),
            })
        })
    }

    fn read_queue(&self, depth: u32) -> io::Result<Box<dyn ReadQueue>> {
        let seed = self.run(Op::Name, |state| Ok(state.rng.bits()))?;
        Ok(Box::new(SimQueue::new(depth, seed)))
    }
}

impl Runtime for SimDisk {
    fn create_memory(&self, name: &str, len: usize) -> io::Result<Box<dyn BufferMemory>> {
        check_name(name)?;
        check_len(len as u64)?;
        let buffer = self.run(Op::Name, |state| state.memory.create(name, len))?;
        Ok(Box::new(SimMemory::new(self.clone(), name, buffer)))
    }

    fn open_memory(&self, name: &str, len: usize) -> io::Result<Box<dyn BufferMemory>> {
        check_name(name)?;
        check_len(len as u64)?;
        let buffer = self.run(Op::Name, |state| state.memory.open(name, len))?;
        Ok(Box::new(SimMemory::new(self.clone(), name, buffer)))
    }

    fn remove_memory(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.run(Op::Name, |state| state.memory.remove(name))
    }

    fn list_memory(&self) -> io::Result<Vec<String>> {
        self.run(Op::Name, |state| Ok(state.memory.names()))
    }

    fn boot_id(&self) -> io::Result<[u8; 16]> {
        self.run(Op::Name, |state| Ok(u128::from(state.boots).to_le_bytes()))
    }
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    name: String,
    inode: u64,
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_units(buf.len(), offset, SECTOR)?;
        self.disk.run(Op::Read, |state| {
            let inode = state.inode(self.inode)?;
            if offset
                .checked_add(buf.len() as u64)
                .is_none_or(|end| end > inode.len())
            {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (mut at, mut page) = (offset, [0; PAGE]);
            for sector in buf.chunks_mut(SECTOR) {
                let within = (at % PAGE as u64) as usize;
                if within == 0 || at == offset {
                    inode.read(at / PAGE as u64, &mut page);
                }
                sector.copy_from_slice(page.get(within..within + SECTOR).unwrap_or_default());
                at += SECTOR as u64;
            }
            state.counters.bytes_read += buf.len() as u64;
            Ok(())
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_pages(buf.len(), offset)?;
        let mut state = self.disk.world.state.lock();
        let was_alive = !self.disk.is_crashed();
        let admitted = self.disk.admit(&mut state, Op::Write);
        let pages = match &admitted {
            Ok(()) => usize::MAX,
            // The disk failed, or the process died, amidst this write: some of it got through.
            Err(_) if was_alive => state.rng.below(buf.len() / PAGE + 1),
            Err(_) => 0,
        };
        let Ok(inode) = state.inode(self.inode) else {
            return admitted;
        };
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > inode.end())
        {
            let message = format!(
                "{}: {} bytes at {offset} are past its end",
                self.name,
                buf.len()
            );
            return Err(io::Error::new(io::ErrorKind::WriteZero, message));
        }
        for (number, page) in (offset / PAGE as u64..).zip(buf.chunks(PAGE)).take(pages) {
            inode.write(number, page);
        }
        if admitted.is_ok() {
            state.counters.bytes_written += buf.len() as u64;
        }
        admitted
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.world.state.lock();
        let admitted = self.disk.admit(&mut state, Op::Sync);
        if self.disk.is_crashed() {
            return admitted;
        }
        let inode = state.inode(self.inode)?;
        match &admitted {
            Ok(()) => inode.sync(),
            Err(_) => inode.fail_sync(),
        }
        admitted
    }

    fn read_unit(&self) -> usize {
        SECTOR
    }

    fn len(&self) -> io::Result<u64> {
        self.disk
            .run(Op::Name, |state| Ok(state.inode(self.inode)?.len()))
    }

    fn give_back(&self, from: u64) -> io::Result<()> {
        self.disk.run(Op::Name, |state| {
            let inode = state.inode(self.inode)?;
            check_rest(&self.name, from, inode.len())?;
            inode.give_back(from);
            Ok(())
        })
    }

    fn shrink(&self, len: u64) -> io::Result<()> {
        self.disk.run(Op::Name, |state| {
            let inode = state.inode(self.inode)?;
            check_rest(&self.name, len, inode.len())?;
            inode.shrink(len);
            Ok(())
        })
    }

    fn raw_fd(&self) -> Option<RawFd> {
        None
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.world.state.lock();
        if !self.disk.is_crashed() {
            state.close(self.inode);
        }
    }
}
