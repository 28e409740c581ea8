//! One file of the operating system.

use super::super::aligned::is_aligned;
use super::super::{AlignedBuf, DiskFile, PAGE, check_pages};
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
}

impl RealFile {
    pub(super) fn new(file: OwnedFd, name: &str, len: u64, direct: bool) -> RealFile {
        RealFile {
            file: File::from(file),
            name: name.to_owned(),
            len: AtomicU64::new(len),
            direct,
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
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill_with_zeros(len)?,
            other => other?,
        }
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn fill_with_zeros(&self, len: u64) -> io::Result<()> {
        let zeros = AlignedBuf::zeroed(STEP)?;
        let mut offset = 0;
        while offset < len {
            let step = usize::try_from(len - offset).unwrap_or(STEP).min(STEP);
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

/// Where to go on after a transfer that moved `moved` bytes: at a page's start, as O_DIRECT demands it again.
/// One that did not complete a single page met the end of the file.
pub(super) fn progress(before: usize, moved: usize) -> io::Result<usize> {
    let after = before + moved;
    let after = after - after % PAGE;
    if after <= before {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(after)
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_pages(buf.len(), offset)?;
        if !self.direct || is_aligned(buf) {
            return self.read_whole(buf, offset);
        }
        let mut bounce = AlignedBuf::zeroed(STEP.min(buf.len()))?;
        for (index, part) in buf.chunks_mut(STEP).enumerate() {
            bounce.set_len(part.len())?;
            self.read_whole(&mut bounce, offset + (index * STEP) as u64)?;
            part.copy_from_slice(&bounce);
        }
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
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

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        check_pages(0, len)?;
        if len > self.len.load(Ordering::Acquire) {
            let message = format!("{}: can't be cut to {len} bytes, it is shorter", self.name);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.file.set_len(len)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }
}
