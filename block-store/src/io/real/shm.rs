//! Shared memory in the runtime directory: the write buffer's, which outlives the process.

use super::super::{BufferMemory, DiskFile, LiveMemory, LivePages, PAGE, Runtime, check_name};
use rustix::fs::{self, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{self, MapFlags, ProtFlags};
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// A file mapped into memory, shared with nobody but later processes of the same user.
pub struct SharedMemory {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone until it is dropped.
unsafe impl Send for SharedMemory {}
// SAFETY: shared references give read access only.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Creates the file `path` of `len` bytes (a multiple of [`PAGE`], not 0), mode 0600. Its space is allocated
    /// here, so that `StorageFull` is an error now and not a SIGBUS later. `AlreadyExists` if there is one.
    pub fn create(path: &Path, len: usize) -> io::Result<SharedMemory> {
        check_size(len).map_err(named(path))?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::open(path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(io::Error::from)
            .map_err(named(path))?;
        let mapped = match allocate(&file, len) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => write_zeros(&file, len),
            other => other,
        };
        let mapped = mapped.and_then(|()| SharedMemory::map(&file, len));
        mapped.map_err(named(path)).inspect_err(|_| {
            if let Err(error) = fs::unlink(path) {
                log::warn!(
                    "{}: can't remove what was begun of it: {error}",
                    path.display()
                );
            }
        })
    }

    /// Opens what [`SharedMemory::create`] made. Refuses, as `InvalidData`, a file that is shorter than `len`,
    /// no regular file or of another user: who could cut it under the mapping could kill this process.
    pub fn open(path: &Path, len: usize) -> io::Result<SharedMemory> {
        SharedMemory::try_open(path, len).map_err(named(path))
    }

    fn try_open(path: &Path, len: usize) -> io::Result<SharedMemory> {
        check_size(len)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = fs::open(path, flags, Mode::empty())?;
        let stat = fs::fstat(&file)?;
        let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return refuse("not a regular file".to_owned());
        }
        let us = rustix::process::geteuid().as_raw();
        if stat.st_uid != us {
            return refuse(format!("belongs to user {}, not to {us}", stat.st_uid));
        }
        if stat.st_mode & 0o022 != 0 {
            return refuse(format!(
                "others may write to it (mode {:o})",
                stat.st_mode & 0o777
            ));
        }
        if usize::try_from(stat.st_size).is_ok_and(|size| size < len) {
            return refuse(format!("{} bytes, where {len} are expected", stat.st_size));
        }
        // Holes would be filled at first touch, by SIGBUS when there is no space.
        match allocate(&file, len) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            other => other?,
        }
        SharedMemory::map(&file, len)
    }

    fn map(file: &OwnedFd, len: usize) -> io::Result<SharedMemory> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice; the file has `len` allocated bytes.
        let memory = unsafe {
            mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                file,
                0,
            )
        }?;
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(SharedMemory { memory, len })
    }
}

impl BufferMemory for SharedMemory {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` mapped bytes that live as long as `self`; nobody else writes to the file (mode 0600,
        // and the store's lock keeps out other processes of ours).
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }

    fn into_live(self: Box<Self>) -> Box<dyn LiveMemory> {
        Box::new(LiveShared(Arc::from(self)))
    }
}

/// A [`SharedMemory`] in use: no reference to all of it exists any more.
struct LiveShared(Arc<SharedMemory>);

impl SharedMemory {
    /// The address of `len` bytes from `at`, if they are within.
    fn place(&self, at: usize, len: usize) -> Option<*mut u8> {
        at.checked_add(len).filter(|end| *end <= self.len)?;
        Some(self.memory.as_ptr().wrapping_add(at))
    }
}

impl LiveMemory for LiveShared {
    fn read(&self, at: usize, into: &mut [u8]) {
        let Some(from) = self.0.place(at, into.len()) else {
            return into.fill(0);
        };
        // SAFETY: mapped, see `place`; written to by `write` alone, whose `&mut self` excludes this. `into` is not in
        // the mapping, to which no reference exists.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        let Some(to) = self.0.place(at, bytes.len()) else {
            debug_assert!(false, "{} bytes at {at} of {}", bytes.len(), self.0.len);
            return;
        };
        // SAFETY: mapped, see `place`; `&mut self` excludes `read`, and parts that are being written out are not
        // written to (the contract of `LivePages`). `bytes` is not in the mapping, as above.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    fn pages(&self) -> Arc<dyn LivePages> {
        Arc::clone(&self.0) as Arc<dyn LivePages>
    }
}

impl LivePages for SharedMemory {
    fn write_out(
        &self,
        parts: &[Range<usize>],
        file: &dyn DiskFile,
        offset: u64,
    ) -> io::Result<()> {
        let slices: Option<Vec<IoSlice<'_>>> = parts
            .iter()
            .map(|part| {
                let from = self.place(part.start, part.len())?;
                // SAFETY: mapped, see `place`, for as long as `self` lives; nobody writes to a part that is being
                // written out (the contract of `LivePages`).
                let bytes = unsafe { std::slice::from_raw_parts(from, part.len()) };
                Some(IoSlice::new(bytes))
            })
            .collect();
        file.write_parts(&slices.ok_or(io::ErrorKind::InvalidInput)?, offset)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; no reference to it outlives `self`.
        let unmapped = unsafe { mm::munmap(self.memory.as_ptr().cast(), self.len) };
        if let Err(error) = unmapped {
            log::warn!("can't unmap {} bytes of shared memory: {error}", self.len);
        }
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedMemory({} bytes)", self.len)
    }
}

/// A runtime directory of the operating system: on tmpfs for speed, though any filesystem will do.
#[derive(Debug, Clone)]
pub struct RealRuntime {
    dir: PathBuf,
}

impl RealRuntime {
    /// The runtime directory `dir`, which exists.
    pub fn new(dir: &Path) -> RealRuntime {
        RealRuntime {
            dir: dir.to_owned(),
        }
    }
}

impl Runtime for RealRuntime {
    fn create_memory(&self, name: &str, len: usize) -> io::Result<Box<dyn BufferMemory>> {
        check_name(name)?;
        Ok(Box::new(SharedMemory::create(&self.dir.join(name), len)?))
    }

    fn open_memory(&self, name: &str, len: usize) -> io::Result<Box<dyn BufferMemory>> {
        check_name(name)?;
        Ok(Box::new(SharedMemory::open(&self.dir.join(name), len)?))
    }

    fn remove_memory(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let path = self.dir.join(name);
        std::fs::remove_file(&path).map_err(named(&path))
    }

    fn list_memory(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(named(&self.dir))? {
            if let Ok(name) = entry.map_err(named(&self.dir))?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn boot_id(&self) -> io::Result<[u8; 16]> {
        const PATH: &str = "/proc/sys/kernel/random/boot_id";
        let text = std::fs::read_to_string(PATH).map_err(named(Path::new(PATH)))?;
        match uuid::Uuid::try_parse(text.trim()) {
            Ok(id) => Ok(id.into_bytes()),
            Err(error) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{PATH}: {error}"),
            )),
        }
    }
}

fn check_size(len: usize) -> io::Result<()> {
    if len > 0 && len.is_multiple_of(PAGE) && isize::try_from(len).is_ok() {
        return Ok(());
    }
    let message = format!("shared memory of {len} bytes: must be a multiple of {PAGE}, not 0");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

fn allocate(file: &OwnedFd, len: usize) -> io::Result<()> {
    loop {
        match fs::fallocate(file, FallocateFlags::empty(), 0, len as u64) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// For filesystems that can't allocate ahead.
fn write_zeros(file: &OwnedFd, len: usize) -> io::Result<()> {
    let mut file = File::from(file.try_clone()?);
    io::copy(&mut io::repeat(0).take(len as u64), &mut file).map(drop)
}

fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer");
        drop(SharedMemory::create(&path, 2 * PAGE).unwrap());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            SharedMemory::open(&path, 3 * PAGE).unwrap_err().kind(),
            ErrorKind::InvalidData
        );
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(SharedMemory::open(&link, PAGE).is_err());
        assert!(SharedMemory::open(dir.path(), PAGE).is_err());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(
            SharedMemory::open(&path, PAGE).unwrap_err().kind(),
            ErrorKind::InvalidData
        );
        if rustix::process::geteuid().is_root() {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(&path, Some(1234), None).unwrap();
            let error = SharedMemory::open(&path, PAGE).unwrap_err();
            assert!(error.to_string().contains("user 1234"), "{error}");
        }
    }

    #[test]
    fn absurd_sizes_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("buffer");
        for len in [0, 1, usize::MAX, 1 << 60] {
            assert!(SharedMemory::create(&path, len).is_err(), "{len}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn the_boot_id_is_stable() {
        let runtime = RealRuntime::new(Path::new("/"));
        let id = runtime.boot_id().unwrap();
        assert_ne!(id, [0; 16]);
        assert_eq!(id, runtime.boot_id().unwrap());
    }
}
