//! One file of the operating system.

use super::super::aligned::is_aligned;
use super::super::{AlignedBuf, DiskFile, PAGE, SECTOR, check_pages, check_rest, check_units};
use rustix::fs::{self, FallocateFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes per step where something must be copied or written piecemeal.
const STEP: usize = 256 * 1024;

/// A file of a [`super::RealDisk`].
#[derive(Debug)]
pub(super) struct RealFile {
    file: File,
    name: String,
    /// Files never grow, so the length is known without asking the kernel before each write.
    len: AtomicU64,
    direct: bool,
    read_unit: usize,
}

impl RealFile {
    pub(super) fn new(
        file: OwnedFd,
        name: &str,
        len: u64,
        direct: bool,
        read_unit: usize,
    ) -> RealFile {
        RealFile {
            file: File::from(file),
            name: name.to_owned(),
            len: AtomicU64::new(len),
            direct,
            read_unit,
        }
    }

    /// Gives a new file its space, so that a full disk shows here and not in a write that was promised room.
    pub(super) fn allocate(&self, len: u64) -> io::Result<()> {
        let allocated = loop {
            match fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        match allocated {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill_with_zeros(0, len)?,
            other => other?,
        }
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    /// Whether a write keeps to whole pages within the file.
    fn check_write(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_pages(buf.len(), offset)?;
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len.load(Ordering::Acquire)) {
            let message = format!(
                "{}: {} bytes at {offset} are past its end",
                self.name,
                buf.len()
            );
            return Err(io::Error::new(io::ErrorKind::WriteZero, message));
        }
        Ok(())
    }

    fn fill_with_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = AlignedBuf::zeroed(STEP)?;
        let mut offset = from;
        while offset < to {
            let step = usize::try_from(to - offset).unwrap_or(STEP).min(STEP);
            self.write_whole(zeros.get(..step).unwrap_or(&[]), offset)?;
            offset += step as u64;
        }
        Ok(())
    }

    /// Reads all of `buf`, going on after short reads and interruptions.
    fn read_whole(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(read) => filled = progress(filled, read)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `buf`, going on after short writes and interruptions.
    fn write_whole(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut written = 0;
        while let Some(rest) = buf.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write_at(rest, offset + written as u64) {
                Ok(more) => {
                    written = progress(written, more).map_err(|_| io::ErrorKind::WriteZero)?
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where to go on after a transfer that moved `moved` bytes: at a sector's start, as O_DIRECT demands it again.
/// One that did not complete a single sector met the end of the file.
pub(super) fn progress(before: usize, moved: usize) -> io::Result<usize> {
    let after = before + moved;
    let after = after - after % SECTOR;
    if after <= before {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(after)
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_units(buf.len(), offset, self.read_unit)?;
        if !self.direct || is_aligned(buf) {
            return self.read_whole(buf, offset);
        }
        let mut bounce = AlignedBuf::zeroed(STEP.min(buf.len().next_multiple_of(PAGE)))?;
        for (index, part) in buf.chunks_mut(STEP).enumerate() {
            bounce.set_len(part.len())?;
            self.read_whole(&mut bounce, offset + (index * STEP) as u64)?;
            part.copy_from_slice(&bounce);
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check_write(buf, offset)?;
        if !self.direct || is_aligned(buf) {
            return self.write_whole(buf, offset);
        }
        let mut bounce = AlignedBuf::zeroed(STEP.min(buf.len()))?;
        for (index, part) in buf.chunks(STEP).enumerate() {
            bounce.set_len(part.len())?;
            bounce.copy_from_slice(part);
            self.write_whole(&bounce, offset + (index * STEP) as u64)?;
        }
        Ok(())
    }

    fn write_parts(&self, parts: &[io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for part in parts {
            self.check_write(part, at)?;
            at += part.len() as u64;
        }
        if self.direct && !parts.iter().all(|part| is_aligned(part)) {
            let mut at = offset;
            return parts.iter().try_for_each(|part| {
                self.write_at(part, at)?;
                at += part.len() as u64;
                Ok(())
            });
        }
        let written = loop {
            match rustix::io::pwritev(&self.file, parts, offset) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        // The rest of a short write, part by part; no more of it is done twice than a sector that O_DIRECT asks for.
        let (mut done, mut at) = (written - written % SECTOR, offset);
        for part in parts {
            let skip = done.min(part.len());
            self.write_whole(part.get(skip..).unwrap_or_default(), at + skip as u64)?;
            done -= skip;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn read_unit(&self) -> usize {
        self.read_unit
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn give_back(&self, from: u64) -> io::Result<()> {
        let len = self.len.load(Ordering::Acquire);
        check_rest(&self.name, from, len)?;
        if from == len {
            return Ok(());
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punched = loop {
            match fs::fallocate(&self.file, hole, from, len - from) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        match punched {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill_with_zeros(from, len),
            other => Ok(other?),
        }
    }

    fn shrink(&self, len: u64) -> io::Result<()> {
        check_rest(&self.name, len, self.len.load(Ordering::Acquire))?;
        self.file.set_len(len)?;
        self.len.store(len, Ordering::Release);
        self.file.sync_all()
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }
}
