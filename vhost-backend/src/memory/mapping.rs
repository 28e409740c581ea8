//! A shared mapping of a file that a peer handed over.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::SealFlags;
use vm_memory::{AtomicAccess, Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use super::fault::Guard;

/// The kernel's magic number of hugetlbfs; its mappings must be aligned to the huge page size.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
/// What mmap(2) wants everywhere else.
const PAGE: u64 = 4096;

/// Why a peer's file was not mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The range is empty or wraps around.
    #[error("{what}: {len} bytes at offset {offset} is not a range")]
    Range {
        /// What was to be mapped.
        what: &'static str,
        /// Bytes asked for.
        len: u64,
        /// Where in the file.
        offset: u64,
    },
    /// Touching the pages behind the end of a file kills the process that does it.
    #[error("{what}: it claims to reach up to byte {end}, but its file is only {file} bytes long")]
    TooShort {
        /// What was to be mapped.
        what: &'static str,
        /// End of the claimed range.
        end: u64,
        /// Length of the file.
        file: u64,
    },
    /// Two regions claim the same guest addresses.
    #[error("memory regions overlap at guest address {0:#x}")]
    Overlap(u64),
    /// No such region.
    #[error("there is no memory region of {len} bytes at guest address {guest:#x}")]
    NoRegion {
        /// Guest address named.
        guest: u64,
        /// Length named.
        len: u64,
    },
    /// More address space than front ends are granted.
    #[error(
        "{what}: {len} bytes are too much: front ends have {taken} mapped, and {max} is the most"
    )]
    TooMuch {
        /// What was to be mapped.
        what: &'static str,
        /// Bytes asked for.
        len: u64,
        /// Bytes that count against the limit already.
        taken: u64,
        /// The limit.
        max: u64,
    },
    /// More regions than slots.
    #[error("{0} memory regions are more than the {max} slots", max = super::GuestMemory::MAX_REGIONS)]
    TooMany(usize),
    /// The kernel refused.
    #[error("{what}: {source}")]
    Io {
        /// What was to be mapped.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// Address space that all mappings together may take. Files may be sparse and of any length, so that a front end could
/// otherwise use up the 128 TiB that a process has, and with it what others need to live.
const MAX_MAPPED: u64 = 96 << 40;
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// A share of [`MAX_MAPPED`].
#[derive(Debug)]
struct Share(u64);

impl Share {
    fn take(len: u64, what: &'static str) -> Result<Self, MapError> {
        let max = MAX_MAPPED;
        let more = |taken: u64| taken.checked_add(len).filter(|&sum| sum <= max);
        MAPPED
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map(|_| Self(len))
            .map_err(|taken| MapError::TooMuch {
                what,
                len,
                taken,
                max,
            })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        MAPPED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// A shared, writable mapping of `len` bytes of a peer's file.
///
/// Its file was long enough when it was mapped, and can't be shortened later if it can be sealed at all; if it can't, a
/// shortened one turns into zeroes (see [`super::fault`]).
#[derive(Debug)]
pub struct Mapping {
    /// Before `map`: dropped first.
    _guard: Guard,
    map: MmapRegion<()>,
    /// Where the range asked for begins inside `map`, which starts at a page boundary.
    bias: usize,
    len: usize,
    /// Behind `map`: given back after it is unmapped.
    _share: Share,
}

impl Mapping {
    /// Maps `len` bytes at `offset` of `file`; `what` names it in errors.
    pub fn new(file: File, offset: u64, len: u64, what: &'static str) -> Result<Self, MapError> {
        let range = MapError::Range { what, len, offset };
        let io = |source: rustix::io::Errno| MapError::Io {
            what,
            source: source.into(),
        };
        let end = match offset.checked_add(len) {
            Some(end) if len > 0 && end <= i64::MAX as u64 => end,
            _ => return Err(range),
        };
        // Where the file can be sealed (memfd), its owner can't shorten it under us any more. Before looking at its length.
        let _ = rustix::fs::fcntl_add_seals(file.as_fd(), SealFlags::SHRINK);
        let stat = rustix::fs::fstat(file.as_fd()).map_err(io)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if end > size {
            return Err(MapError::TooShort {
                what,
                end,
                file: size,
            });
        }
        let kind = rustix::fs::fstatfs(file.as_fd()).map_err(io)?;
        let huge = kind.f_type as u64 & 0xffff_ffff == HUGETLBFS_MAGIC;
        let align = if huge {
            u64::try_from(kind.f_bsize).unwrap_or(PAGE).max(PAGE)
        } else {
            PAGE
        };
        let start = offset - offset % align;
        let bias = offset - start;
        let whole = if huge {
            (len + bias).checked_next_multiple_of(align).ok_or(range)?
        } else {
            len + bias
        };
        let (Ok(whole), Ok(bias), Ok(len)) = (
            usize::try_from(whole),
            usize::try_from(bias),
            usize::try_from(len),
        ) else {
            return Err(MapError::Range { what, len, offset });
        };
        let share = Share::take(whole as u64, what)?;
        let map = MmapRegion::from_file(FileOffset::new(file, start), whole).map_err(|e| {
            MapError::Io {
                what,
                source: std::io::Error::other(e),
            }
        })?;
        Ok(Self {
            _guard: Guard::new(&map),
            map,
            bias,
            len,
            _share: share,
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: an empty range is not mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes at `offset`, or nothing if they are not all inside.
    #[inline]
    pub fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        self.map.get_slice(self.bias.checked_add(offset)?, len).ok()
    }

    /// An aligned integer, read once.
    #[inline]
    pub fn load<T: AtomicAccess>(&self, offset: usize, order: Ordering) -> Option<T> {
        self.slice(offset, size_of::<T>())?.load(0, order).ok()
    }

    /// An aligned integer, written once.
    #[inline]
    pub fn store<T: AtomicAccess>(&self, offset: usize, value: T, order: Ordering) -> Option<()> {
        self.slice(offset, size_of::<T>())?
            .store(value, 0, order)
            .ok()
    }
}
