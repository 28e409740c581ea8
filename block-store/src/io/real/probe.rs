//! Trials of what the directory's filesystem and the kernel really do.

use super::super::{AlignedBuf, DiskFile, PAGE, ReadQueue, SECTOR};
use super::file::RealFile;
use super::uring::UringQueue;
use rustix::fs::{self, AtFlags, Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The file that trials are made with; gone as soon as it is open. One fixed name and one fixed content: what a
/// killed process left behind is taken over by the next trial, and two at a time do each other no harm.
pub(super) const PROBE_NAME: &str = ".firn-probe";

const PAGES: usize = 2;

/// Whether O_DIRECT works: a write and a read of a page each, at an offset that is no multiple of anything larger.
pub(super) fn direct(dir: &OwnedFd) -> io::Result<()> {
    let file = probe_file(dir, true)?;
    let mut back = AlignedBuf::zeroed(PAGE)?;
    file.read_at(&mut back, PAGE as u64)?;
    compare(&back, 0)
}

/// Whether single sectors can be read: O_DIRECT refuses that where the device's own are longer.
pub(super) fn sectors(dir: &OwnedFd, direct: bool) -> io::Result<()> {
    let file = probe_file(dir, direct)?;
    let mut back = AlignedBuf::zeroed(PAGE)?;
    back.set_len(SECTOR)?;
    file.read_at(&mut back, (PAGE + SECTOR) as u64)?;
    compare(&back, SECTOR)
}

/// Whether io_uring works on this kind of file: its own set-up and a read.
pub(super) fn uring(dir: &OwnedFd, direct: bool) -> io::Result<()> {
    let mut queue = UringQueue::new(1)?;
    let file: Arc<dyn DiskFile> = Arc::new(probe_file(dir, direct)?);
    queue.push(&file, PAGE as u64, AlignedBuf::zeroed(PAGE)?, 0);
    let mut done = Vec::new();
    queue.wait(&mut done);
    let read = done.pop().ok_or(io::ErrorKind::UnexpectedEof)?;
    read.result?;
    if queue.has_given_up() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel refuses submissions",
        ));
    }
    compare(&read.buf, 0)
}

fn probe_file(dir: &OwnedFd, direct: bool) -> io::Result<RealFile> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let flags = if direct {
        flags | OFlags::DIRECT
    } else {
        flags
    };
    let opened = fs::openat(dir, PROBE_NAME, flags, Mode::RUSR | Mode::WUSR);
    // Some filesystems create the file and then refuse the flag: remove it in any case.
    let _ = fs::unlinkat(dir, PROBE_NAME, AtFlags::empty());
    let file = RealFile::new(opened?, PROBE_NAME, 0, direct, SECTOR);
    file.allocate((PAGES * PAGE) as u64)?;
    file.write_at(&AlignedBuf::from_bytes(&pattern())?, PAGE as u64)?;
    Ok(file)
}

fn pattern() -> [u8; PAGE] {
    let mut page = [0; PAGE];
    for (index, byte) in page.iter_mut().enumerate() {
        *byte = (index * 31 % 251) as u8;
    }
    page
}

fn compare(read: &[u8], from: usize) -> io::Result<()> {
    if pattern().get(from..from + read.len()) == Some(read) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "what was read differs from what was written",
    ))
}
