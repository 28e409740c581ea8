//! Memory shared with the backend: what a guest's RAM is to QEMU.
//!
//! The only unsafe code of the tests. Everything is addressed by offset and checked against the
//! mapping, and no reference to the bytes is ever handed out: the other process writes them too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU16, AtomicU64};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A memfd and its mapping.
#[derive(Debug)]
pub struct SharedMemory {
    fd: OwnedFd,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping lives as long as the value, and every access goes through copies or atomics.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; concurrent copies of the same bytes are the caller's data race to avoid, as for
// any memory that two processes share.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Allocates `len` bytes (rounded up to whole pages) of zeroed shared memory.
    pub fn new(name: &str, len: usize) -> io::Result<Self> {
        let len = len.next_multiple_of(4096);
        let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, len as u64)?;
        Self::map(fd, len, 0)
    }

    /// Maps `len` bytes from `offset` of memory that somebody else has made, such as the in-flight region.
    pub fn map(fd: OwnedFd, len: usize, offset: u64) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe {
            mmap(
                null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &fd,
                offset,
            )
        }?;
        let base =
            NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        Ok(Self { fd, base, len })
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped (never, for memory made by [`SharedMemory::new`] with a length).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of the mapping in this process: the "user address" of vhost-user messages.
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// The file behind the mapping, to be sent to the backend.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// When the range leaves the mapping; so do all accessors: it is a bug of the test.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: `at` checked the range; the source is mapped and cannot overlap private memory.
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let to = self.at(offset, from.len());
        // SAFETY: `at` checked the range; the target is mapped and cannot overlap private memory.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) }
    }

    /// Sets bytes.
    pub fn fill(&self, offset: usize, len: usize, byte: u8) {
        let to = self.at(offset, len);
        // SAFETY: `at` checked the range, which is mapped.
        unsafe { to.write_bytes(byte, len) }
    }

    /// A 16-bit word of a ring. `offset` must be even.
    pub fn u16(&self, offset: usize) -> &AtomicU16 {
        assert!(
            offset.is_multiple_of(2),
            "unaligned ring word at {offset:#x}"
        );
        let word = self.at(offset, 2);
        // SAFETY: mapped for as long as self lives, aligned, and only accessed atomically.
        unsafe { AtomicU16::from_ptr(word.cast()) }
    }

    /// A 64-bit word. `offset` must be a multiple of 8.
    pub fn u64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "unaligned word at {offset:#x}");
        let word = self.at(offset, 8);
        // SAFETY: mapped for as long as self lives, aligned, and only accessed atomically.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "{len} bytes at {offset:#x} leave the {} bytes of shared memory",
            self.len
        );
        // SAFETY: the sum stays inside the mapping, as just checked.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and nothing that borrows from it outlives self.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
    }
}
