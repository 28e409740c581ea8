//! The edge to the operating system: files, shared memory, asynchronous reads.
//!
//! Everything above this folder works against [`Disk`], [`DiskFile`], [`ReadQueue`] and [`BufferMemory`], so
//! the same store code runs over io_uring ([`real`]) and over a simulated disk ([`sim`]). This folder
//! holds the only unsafe code of the crate and knows nothing of the on-disk format.

mod aligned;
pub mod real;
pub mod sim;

pub use aligned::AlignedBuf;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

/// Alignment, in bytes, of every offset, length and memory address of file I/O: what O_DIRECT asks for on
/// the devices and filesystems we serve, and the size of the page that a flush makes durable as a whole.
pub const PAGE: usize = 4096;

/// Space of the filesystem that holds the store, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the filesystem.
    pub total: u64,
    /// Free for us to use.
    pub free: u64,
}

/// A directory of flat files that one store owns.
///
/// Names are relative, have no directories but may contain one `/`-free component only.
pub trait Disk: Send + Sync {
    /// Creates `name` with `len` bytes of allocated space that read as zero; fails with `StorageFull` and
    /// leaves nothing behind when the space is not there. Fails if it exists. The name is durable only after
    /// [`Disk::sync_dir`].
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a name. Files that are still open stay readable.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// All file names, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes creations and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Total and free space.
    fn space(&self) -> io::Result<Space>;
    /// A queue for asynchronous reads, for the use of one thread. `depth`: reads in flight at most.
    fn read_queue(&self, depth: u32) -> io::Result<Box<dyn ReadQueue>>;
}

/// One open file. Reads and writes are positional and whole: short ones are errors (`UnexpectedEof`, `WriteZero`).
pub trait DiskFile: Send + Sync + std::fmt::Debug {
    /// Fills `buf` from `offset`. Offset and length are multiples of [`PAGE`]. A read past the end of the
    /// file is `UnexpectedEof`.
    fn read_at(&self, buf: &mut AlignedBuf, offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset` (multiples of [`PAGE`]). Durable only after [`DiskFile::sync`].
    fn write_at(&self, buf: &AlignedBuf, offset: u64) -> io::Result<()>;
    /// fdatasync: everything written so far survives loss of power.
    fn sync(&self) -> io::Result<()>;
    /// Current length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file to `len` bytes and gives the space behind it back.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// The operating system's descriptor, where there is one.
    fn raw_fd(&self) -> Option<RawFd>;
}

/// A finished asynchronous read: the buffer comes back to its owner, filled when `result` is `Ok`.
#[derive(Debug)]
pub struct ReadDone {
    /// What the caller named the read.
    pub tag: u64,
    /// The caller's buffer.
    pub buf: AlignedBuf,
    /// Whether it was filled whole.
    pub result: io::Result<()>,
}

/// Asynchronous reads of one thread. The queue owns buffers and files of reads in flight, so that the kernel
/// never writes to memory that is not there; dropping the queue waits for them.
pub trait ReadQueue: Send {
    /// Takes a read in: fills the whole of `buf` from `offset` (multiples of [`PAGE`]). Never blocks: reads
    /// beyond the queue's depth wait inside.
    fn push(&mut self, file: &Arc<dyn DiskFile>, offset: u64, buf: AlignedBuf, tag: u64);
    /// Hands what was pushed to the kernel and appends what has finished to `done`. Never blocks.
    fn poll(&mut self, done: &mut Vec<ReadDone>);
    /// Waits until at least one read has finished, if any is in flight; then as [`ReadQueue::poll`].
    fn wait(&mut self, done: &mut Vec<ReadDone>);
    /// Reads pushed and not yet returned.
    fn in_flight(&self) -> usize;
    /// A descriptor that polls readable when something has finished; `None` where [`ReadQueue::poll`] finishes
    /// everything at once.
    fn fd(&self) -> Option<RawFd>;
}

/// The memory of the write buffer: outlives the process, not the power.
pub trait BufferMemory: Send {
    /// The whole buffer.
    fn bytes(&self) -> &[u8];
    /// The whole buffer. Stores are visible to a later process in program order as a SIGKILL leaves it.
    fn bytes_mut(&mut self) -> &mut [u8];
}
