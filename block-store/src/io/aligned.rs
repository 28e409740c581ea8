//! Page-aligned memory for file I/O.

use super::{PAGE, SECTOR};
use std::alloc::{self, Layout};
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// Largest buffer, in bytes. Lengths come from disk and from guests: a nonsensical one must fail here, as an
/// error, and not as an abort of the process by the allocator.
pub const MAX_LEN: usize = 1 << 30;

/// A heap buffer at a [`PAGE`]-aligned address, as O_DIRECT wants it.
///
/// Its memory doesn't move when the value does, so that the kernel may fill it while a queue holds it. The
/// capacity is fixed; the length is a multiple of [`SECTOR`] and may be set anew within it, so that one buffer
/// serves reads of many sizes.
pub struct AlignedBuf {
    memory: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: the memory is owned by this value alone, like that of a `Vec<u8>`.
unsafe impl Send for AlignedBuf {}
// SAFETY: shared references give read access only, like those of a `Vec<u8>`.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A buffer without memory: a placeholder that costs nothing.
    pub const fn empty() -> AlignedBuf {
        AlignedBuf {
            memory: NonNull::<Page>::dangling().cast(),
            capacity: 0,
            len: 0,
        }
    }

    /// A buffer of `len` zeros, a multiple of [`SECTOR`], at most [`MAX_LEN`]; otherwise `InvalidInput`. Its capacity is
    /// whole pages. `OutOfMemory` when the allocator has none.
    pub fn zeroed(len: usize) -> io::Result<AlignedBuf> {
        let layout = layout(len)?;
        let capacity = layout.size();
        if len == 0 {
            return Ok(AlignedBuf::empty());
        }
        // SAFETY: the layout's size isn't zero.
        let memory = unsafe { alloc::alloc_zeroed(layout) };
        let memory = NonNull::new(memory).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(AlignedBuf {
            memory,
            capacity,
            len,
        })
    }

    /// A buffer that holds `bytes`, filled up with zeros to a multiple of [`PAGE`]. Errors as
    /// [`AlignedBuf::zeroed`].
    pub fn from_bytes(bytes: &[u8]) -> io::Result<AlignedBuf> {
        let mut buf = AlignedBuf::zeroed(bytes.len().next_multiple_of(PAGE))?;
        if let Some(start) = buf.get_mut(..bytes.len()) {
            start.copy_from_slice(bytes);
        }
        Ok(buf)
    }

    /// Bytes that the buffer can hold at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets the length, in bytes: a multiple of [`SECTOR`], at most the capacity; otherwise `InvalidInput`.
    /// What it uncovers is what was there before, or zero.
    pub fn set_len(&mut self, len: usize) -> io::Result<()> {
        if len > self.capacity || !len.is_multiple_of(SECTOR) {
            let message = format!("no length of {len} bytes in a buffer of {}", self.capacity);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.len = len;
        Ok(())
    }
}

/// Gives the placeholder's dangling pointer its alignment.
#[repr(align(4096))]
struct Page;

fn layout(len: usize) -> io::Result<Layout> {
    let fits = len <= MAX_LEN && len.is_multiple_of(SECTOR);
    let layout = if fits {
        Layout::from_size_align(len.next_multiple_of(PAGE), PAGE).ok()
    } else {
        None
    };
    layout.ok_or_else(|| {
        let message =
            format!("a buffer of {len} bytes: must be a multiple of {SECTOR}, at most {MAX_LEN}");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `capacity` bytes, all initialised when allocated, are ours, and len <= capacity.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.capacity == 0 {
            return;
        }
        let Ok(layout) = layout(self.capacity) else {
            return;
        };
        // SAFETY: allocated with this very layout in `zeroed`.
        unsafe { alloc::dealloc(self.memory.as_ptr(), layout) }
    }
}

impl Default for AlignedBuf {
    fn default() -> AlignedBuf {
        AlignedBuf::empty()
    }
}

impl fmt::Debug for AlignedBuf {
    /// The size only: the content is a guest's and has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} of {} bytes)", self.len, self.capacity)
    }
}

/// Whether O_DIRECT takes memory at this address.
pub(super) fn is_aligned(bytes: &[u8]) -> bool {
    ptr::from_ref(bytes)
        .cast::<u8>()
        .addr()
        .is_multiple_of(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_zero_and_writable() {
        for len in [PAGE, 3 * PAGE, 1 << 20] {
            let mut buf = AlignedBuf::zeroed(len).unwrap();
            assert!(is_aligned(&buf));
            assert!(buf.iter().all(|byte| *byte == 0));
            buf[len - 1] = 7;
            assert_eq!(buf[len - 1], 7);
        }
    }

    #[test]
    fn nonsensical_sizes_are_errors() {
        for len in [
            1,
            PAGE + 1,
            MAX_LEN + SECTOR,
            usize::MAX - PAGE + 1,
            usize::MAX,
        ] {
            assert_eq!(
                AlignedBuf::zeroed(len).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{len}"
            );
        }
    }

    #[test]
    fn sectors_lie_in_whole_pages() {
        let mut buf = AlignedBuf::zeroed(PAGE + SECTOR).unwrap();
        assert_eq!((buf.len(), buf.capacity()), (PAGE + SECTOR, 2 * PAGE));
        buf.set_len(2 * PAGE).unwrap();
        assert!(buf.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_empty_one_is_usable() {
        let mut buf = AlignedBuf::zeroed(0).unwrap();
        assert!(is_aligned(&buf) && buf.is_empty());
        buf.fill(1);
        assert!(buf.set_len(PAGE).is_err());
    }

    #[test]
    fn the_length_moves_within_the_capacity() {
        let mut buf = AlignedBuf::from_bytes(&[5; PAGE + 10]).unwrap();
        assert_eq!((buf.len(), buf.capacity()), (2 * PAGE, 2 * PAGE));
        assert_eq!((buf[PAGE + 9], buf[PAGE + 10]), (5, 0));
        buf.set_len(PAGE).unwrap();
        assert_eq!(buf.len(), PAGE);
        assert!(buf.set_len(100).is_err());
        assert!(buf.set_len(3 * PAGE).is_err());
        buf.set_len(2 * PAGE).unwrap();
        assert_eq!(buf[PAGE + 9], 5);
    }
}
