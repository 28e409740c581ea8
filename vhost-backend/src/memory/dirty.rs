//! The dirty log: which pages of guest memory this process has written.
//!
//! Layout (vhost-user specification, "Migration"): one bit per 4 KiB page of the guest's address space, the lowest
//! page in the lowest bit of the first byte. A page is marked *after* it was written.

use std::fs::File;
use std::sync::atomic::{AtomicU8, Ordering};

use vm_memory::VolatileMemory;

use super::{GuestMemory, MapError, Mapping};

const PAGE_SHIFT: u32 = 12;

/// A dirty-page bitmap shared with the front end.
#[derive(Debug)]
pub struct DirtyLog {
    map: Mapping,
}

impl DirtyLog {
    /// Maps the log that a front end handed over.
    pub fn new(file: File, offset: u64, len: u64) -> Result<Self, MapError> {
        Ok(Self {
            map: Mapping::new(file, offset, len, "dirty log")?,
        })
    }

    /// Notes the pages of `len` bytes at guest address `guest`. Pages that the log has no room for are the front
    /// end's own loss: it said how large the log is.
    pub fn mark(&self, guest: u64, len: u64) {
        let Some(last) = len.checked_sub(1).and_then(|l| guest.checked_add(l)) else {
            return;
        };
        for page in (guest >> PAGE_SHIFT)..=(last >> PAGE_SHIFT) {
            let Ok(byte) = usize::try_from(page / 8) else {
                return;
            };
            let Some(slice) = self.map.slice(byte, 1) else {
                return;
            };
            let Ok(cell) = slice.get_atomic_ref::<AtomicU8>(0) else {
                return;
            };
            let bit = 1u8 << (page % 8);
            // Always the read-modify-write, never "load, and set if clear": without the full barrier in it, the
            // front end could clear the bit and read the page before our data has left the store buffer.
            cell.fetch_or(bit, Ordering::SeqCst);
        }
    }
}

/// Guest memory together with the log that writes to it must be noted in, if there is one.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The memory.
    pub memory: &'a GuestMemory,
    /// The log.
    pub log: Option<&'a DirtyLog>,
}

impl View<'_> {
    /// Notes a write.
    #[inline]
    pub fn mark(&self, guest: u64, len: u64) {
        if let Some(log) = self.log {
            log.mark(guest, len);
        }
    }
}
