//! The edge to the operating system: files, shared memory, asynchronous reads.
//!
//! Everything above this folder works against [`Disk`], [`DiskFile`], [`ReadQueue`] and [`BufferMemory`], so
//! the same store code runs over io_uring ([`real`]) and over a simulated disk ([`sim`]). This folder
//! holds the only unsafe code of the crate and knows nothing of the on-disk format.

mod aligned;
#[cfg(test)]
mod conformance;
pub mod real;
pub mod sim;
mod wake;

pub use aligned::{AlignedBuf, MAX_LEN as MAX_BUFFER};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
pub use wake::{Wake, wait_readable};

/// Alignment, in bytes, of every offset and length of writes and of every memory address of file I/O: what O_DIRECT
/// asks for on the devices and filesystems we serve, and the size of the page that a flush makes durable as a whole.
pub const PAGE: usize = 4096;

/// Alignment, in bytes, that reads have where the device has sectors of that size: see [`DiskFile::read_unit`].
pub const SECTOR: usize = 512;

/// Space of the filesystem that holds the store, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the filesystem, without what it keeps for its administrator.
    pub total: u64,
    /// Free for us to use.
    pub free: u64,
}

/// A directory of flat files that one store owns.
///
/// Names are plain: one path component, not hidden. Anything else is `InvalidInput`.
pub trait Disk: Send + Sync {
    /// Creates `name` with `len` bytes of allocated space that read as zero; fails with `StorageFull` and
    /// leaves nothing behind when the space is not there. `AlreadyExists` if it exists. The name is durable
    /// only after [`Disk::sync_dir`], the length only after [`DiskFile::sync`]: a file whose name alone was
    /// synced may come back from a power loss empty.
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
///
/// Offsets and lengths that are no multiple of [`PAGE`], or of [`DiskFile::read_unit`] for reads, are `InvalidInput`. Memory should be page-aligned like
/// an [`AlignedBuf`] or [`BufferMemory`]; other memory works, by way of a copy.
#[expect(
    clippy::len_without_is_empty,
    reason = "asking can fail, and no file is created empty"
)]
pub trait DiskFile: Send + Sync + std::fmt::Debug {
    /// Fills `buf` from `offset`. A read past the end of the file is `UnexpectedEof`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`. Durable only after [`DiskFile::sync`]. Files never grow: a write past
    /// the end is `WriteZero` and writes nothing.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Writes the parts one after the other, beginning at `offset`, as [`DiskFile::write_at`] would their
    /// concatenation; each is whole pages.
    fn write_parts(&self, parts: &[io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.write_at(&bytes, offset)
    }
    /// fdatasync: everything written so far, and the length, survives loss of power. After an error none of
    /// the writes since the last success can be relied upon, and a later success doesn't mend them.
    fn sync(&self) -> io::Result<()>;
    /// Alignment of offsets and lengths of reads, in bytes: [`SECTOR`] where that works, else [`PAGE`]. An extent of a
    /// little more than 2 KiB lies in five sectors, but half of the time in two pages.
    fn read_unit(&self) -> usize;
    /// Current length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Gives the space from `from` on (a multiple of [`PAGE`], within the file) back to the filesystem; it reads as zeroes,
    /// and is not written again. The file keeps its length, so that one that was cut short by somebody else shows. Durable
    /// only after [`DiskFile::sync`].
    fn give_back(&self, from: u64) -> io::Result<()>;
    /// Cuts the file short to `len` bytes, durably: one that has no name any more, and that nobody reads.
    fn shrink(&self, len: u64) -> io::Result<()>;
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
    /// Takes a read in: fills the whole of `buf` from `offset` (multiples of the file's [`DiskFile::read_unit`]). Never blocks: reads
    /// beyond the queue's depth wait inside.
    fn push(&mut self, file: &Arc<dyn DiskFile>, offset: u64, buf: AlignedBuf, tag: u64);
    /// Hands what was pushed to the kernel and appends what has finished to `done`. Never blocks.
    fn poll(&mut self, done: &mut Vec<ReadDone>);
    /// Waits until at least one read has finished, if any is in flight; then as [`ReadQueue::poll`].
    fn wait(&mut self, done: &mut Vec<ReadDone>);
    /// Reads pushed and not yet returned.
    fn in_flight(&self) -> usize;
    /// A descriptor that polls readable when something has finished; `None` where there is nothing to sleep
    /// on and [`ReadQueue::poll`] is simply called again.
    fn fd(&self) -> Option<RawFd>;
}

/// The memory of the write buffer: outlives the process, not the power.
pub trait BufferMemory: Send {
    /// The whole buffer.
    fn bytes(&self) -> &[u8];
    /// The whole buffer. Stores are visible to a later process in program order as a SIGKILL leaves it.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// From now on parts of it are written to files while other parts change.
    fn into_live(self: Box<Self>) -> Box<dyn LiveMemory>;
}

/// The memory of the write buffer in use. What lies outside of it is not read (zeroes come back) and not written.
pub trait LiveMemory: Send {
    /// Copies what begins at byte `at` to `into`.
    fn read(&self, at: usize, into: &mut [u8]);
    /// Copies `bytes` to where byte `at` is. Visible to a later process in program order as a SIGKILL leaves it.
    fn write(&mut self, at: usize, bytes: &[u8]);
    /// For writing parts of it to files, from other threads.
    fn pages(&self) -> Arc<dyn LivePages>;
}

/// Writes parts of a [`LiveMemory`] to files, without a copy.
pub trait LivePages: Send + Sync + std::fmt::Debug {
    /// Writes the parts, byte ranges of the memory of whole pages each, one after the other to the file from `offset` on.
    /// The parts must not be written to until this returns; what surrounds them may.
    fn write_out(
        &self,
        parts: &[std::ops::Range<usize>],
        file: &dyn DiskFile,
        offset: u64,
    ) -> io::Result<()>;
}

/// The runtime directory: holds what shall outlive the process but not the power.
pub trait Runtime: Send + Sync {
    /// Creates a buffer of `len` zero bytes (a multiple of [`PAGE`], not 0) whose space is allocated.
    /// `AlreadyExists` if there is one of that name, `StorageFull` when the space is not there.
    fn create_memory(&self, name: &str, len: usize) -> io::Result<Box<dyn BufferMemory>>;
    /// Opens the buffer that an earlier process left: `NotFound` if there is none, `InvalidData` if it is
    /// shorter than `len` or not ours.
    fn open_memory(&self, name: &str, len: usize) -> io::Result<Box<dyn BufferMemory>>;
    /// Removes a buffer. One that is still open stays usable.
    fn remove_memory(&self, name: &str) -> io::Result<()>;
    /// Names of all files in the directory: buffers, and what others keep there.
    fn list_memory(&self) -> io::Result<Vec<String>>;
    /// Names this run of the machine: a buffer of another one is gone or worthless.
    fn boot_id(&self) -> io::Result<[u8; 16]>;
}

/// Whether `name` is one plain path component.
fn check_name(name: &str) -> io::Result<()> {
    let plain = !name.is_empty() && name.len() <= 255 && !name.starts_with('.');
    if plain && !name.contains(['/', '\0']) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{name:?} is no plain file name"),
    ))
}

/// Whether a write keeps to whole pages.
fn check_pages(len: usize, offset: u64) -> io::Result<()> {
    check_units(len, offset, PAGE)
}

/// Whether a transfer keeps to whole units of so many bytes.
fn check_units(len: usize, offset: u64, unit: usize) -> io::Result<()> {
    if len.is_multiple_of(unit) && offset.is_multiple_of(unit as u64) {
        return Ok(());
    }
    let message = format!("{len} bytes at {offset}: must be multiples of {unit}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Whether what begins at `from` is the rest of a file of `len` bytes, or nothing.
fn check_rest(name: &str, from: u64, len: u64) -> io::Result<()> {
    check_pages(0, from)?;
    if from <= len {
        return Ok(());
    }
    let message = format!("{name}: ends at {len}, before {from}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Whether a file of `len` bytes can be created.
fn check_len(len: u64) -> io::Result<()> {
    if len > 0 && len.is_multiple_of(PAGE as u64) && i64::try_from(len).is_ok() {
        return Ok(());
    }
    let message = format!("a file of {len} bytes: must be a multiple of {PAGE}, not 0");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}
