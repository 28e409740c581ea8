//! Files of the operating system: O_DIRECT and io_uring where they work, plain reads and writes elsewhere.
//!
//! What works is found out by trying, with a real write and read in the store's directory: version numbers
//! and flags say too little (tmpfs, FUSE, a container's seccomp filter, `io_uring_disabled`).

mod file;
mod inline;
mod lock;
mod probe;
mod shm;
mod uring;

pub use lock::{Lock, lock_exclusive, lock_unwritten};
pub use shm::{RealRuntime, SharedMemory};

use super::{AlignedBuf, Disk, DiskFile, PAGE, ReadQueue, SECTOR, Space, check_len, check_name};
use file::RealFile;
use inline::InlineQueue;
use probe::PROBE_NAME;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uring::UringQueue;

/// Whether to use a facility of the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Use {
    /// If a trial shows that it works.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// How a [`RealDisk`] does its I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RealOptions {
    /// O_DIRECT: past the page cache.
    pub direct: Use,
    /// io_uring: asynchronous reads.
    pub uring: Use,
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    dir: OwnedFd,
    direct: bool,
    uring: bool,
    read_only: bool,
    read_unit: usize,
}

impl RealDisk {
    /// Opens an existing directory, tries out what works in it and logs the choice.
    pub fn open(path: &Path, options: RealOptions) -> io::Result<RealDisk> {
        let dir = open_dir(path)?;
        let direct = options.direct == Use::Auto && outcome("O_DIRECT", path, probe::direct(&dir));
        let uring =
            options.uring == Use::Auto && outcome("io_uring", path, probe::uring(&dir, direct));
        let read_unit = match outcome("reading sectors", path, probe::sectors(&dir, direct)) {
            true => SECTOR,
            false => PAGE,
        };
        let files = if direct { "O_DIRECT" } else { "the page cache" };
        let reads = if uring {
            "io_uring"
        } else {
            "one read call at a time"
        };
        log::info!(
            "{}: files through {files}, reads in units of {read_unit} bytes, asynchronous ones by {reads}",
            path.display()
        );
        Ok(RealDisk {
            path: path.to_owned(),
            dir,
            direct,
            uring,
            read_only: false,
            read_unit,
        })
    }

    /// Opens an existing directory to look at and not to change: no trial file is made, files are opened for reading,
    /// whatever changes something fails. Past the page cache where that works, since it could hide what the disk has.
    pub fn open_read_only(path: &Path) -> io::Result<RealDisk> {
        let mut disk = RealDisk {
            path: path.to_owned(),
            dir: open_dir(path)?,
            direct: true,
            uring: false,
            read_only: true,
            read_unit: PAGE,
        };
        let mut page = AlignedBuf::zeroed(PAGE)?;
        let large = disk.list()?.into_iter().find_map(|name| {
            let stat = fs::statat(&disk.dir, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            (stat.st_size >= PAGE as i64).then_some(name)
        });
        disk.direct = large.is_some_and(|name| {
            let read = disk.try_open(&name).and_then(|f| f.read_at(&mut page, 0));
            read.is_ok()
        });
        Ok(disk)
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.read_only {
            true => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(()),
        }
    }

    /// Whether files bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Whether asynchronous reads go through io_uring.
    pub fn is_uring(&self) -> bool {
        self.uring
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let direct = if self.direct {
            OFlags::DIRECT
        } else {
            OFlags::empty()
        };
        let access = if self.read_only {
            OFlags::RDONLY
        } else {
            OFlags::RDWR
        };
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | flags | direct;
        Ok(fs::openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR)?)
    }

    fn try_create(&self, name: &str, len: u64) -> io::Result<RealFile> {
        let file = self.open_file(name, OFlags::CREATE | OFlags::EXCL)?;
        let file = RealFile::new(file, name, 0, self.direct, self.read_unit);
        file.allocate(len).inspect_err(|_| {
            if let Err(error) = fs::unlinkat(&self.dir, name, AtFlags::empty()) {
                log::warn!(
                    "{}/{name}: can't remove what was begun of it: {error}",
                    self.path.display()
                );
            }
        })?;
        Ok(file)
    }

    fn try_open(&self, name: &str) -> io::Result<RealFile> {
        // O_NONBLOCK: someone's FIFO must not hang the open; it means nothing for a regular file.
        let file = self.open_file(name, OFlags::NONBLOCK)?;
        let stat = fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a regular file",
            ));
        }
        let len = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(RealFile::new(file, name, len, self.direct, self.read_unit))
    }

    /// Says which file an error is about.
    fn named(&self, name: &str) -> impl FnOnce(io::Error) -> io::Error {
        let path = self.path.join(name);
        move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        check_len(len)?;
        self.check_writable().map_err(self.named(name))?;
        Ok(Arc::new(
            self.try_create(name, len).map_err(self.named(name))?,
        ))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        Ok(Arc::new(self.try_open(name).map_err(self.named(name))?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.check_writable().map_err(self.named(name))?;
        fs::unlinkat(&self.dir, name, AtFlags::empty())
            .map_err(|error| self.named(name)(error.into()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            let regular = match entry.file_type() {
                FileType::Unknown => {
                    let stat = fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                }
                kind => kind == FileType::RegularFile,
            };
            if regular && name != PROBE_NAME && check_name(name).is_ok() {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.dir)?)
    }

    fn space(&self) -> io::Result<Space> {
        let stat = fs::fstatvfs(&self.dir)?;
        // f_bavail and not f_bfree: the rest is the administrator's reserve, which is no part of the whole either, as in df's "Use%".
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let reserve = stat.f_bfree.saturating_sub(stat.f_bavail);
        Ok(Space {
            total: bytes(stat.f_blocks.saturating_sub(reserve)),
            free: bytes(stat.f_bavail),
        })
    }

    fn read_queue(&self, depth: u32) -> io::Result<Box<dyn ReadQueue>> {
        if self.uring {
            match UringQueue::new(depth) {
                Ok(queue) => return Ok(Box::new(queue)),
                // It worked when the store was opened: a limit on locked memory or open files, most likely.
                Err(error) => log::warn!(
                    "{}: no io_uring for a queue of {depth} reads ({error}); it reads one by one",
                    self.path.display()
                ),
            }
        }
        Ok(Box::new(InlineQueue::default()))
    }
}

/// Makes creations and removals in the directory `path` durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    Ok(fs::fsync(open_dir(path)?)?)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    fs::open(
        path,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| {
        io::Error::new(
            io::Error::from(error).kind(),
            format!("{}: {error}", path.display()),
        )
    })
}

/// Reports the result of a trial.
fn outcome(what: &str, path: &Path, result: io::Result<()>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => {
            log::info!("{}: {what} doesn't work here: {error}", path.display());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_other_things_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), RealOptions::default()).unwrap();
        println!("direct {}, io_uring {}", disk.is_direct(), disk.is_uring());
        disk.create("file", 4096).unwrap();
        symlink(dir.path().join("file"), dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        fs::mkfifoat(&disk.dir, "fifo", Mode::RUSR | Mode::WUSR).unwrap();
        for name in ["link", "dir", "fifo"] {
            let error = disk.open(name).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        assert_eq!(disk.list().unwrap(), ["file"]);
    }

    #[test]
    fn read_only_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), RealOptions::default()).unwrap();
        let page = AlignedBuf::from_bytes(&[7; 4096]).unwrap();
        disk.create("file", 4096)
            .unwrap()
            .write_at(&page, 0)
            .unwrap();
        let made = std::fs::metadata(dir.path()).unwrap().modified().unwrap();
        let disk = RealDisk::open_read_only(dir.path()).unwrap();
        let file = disk.open("file").unwrap();
        let mut back = AlignedBuf::zeroed(4096).unwrap();
        file.read_at(&mut back, 0).unwrap();
        assert_eq!(&back[..], &page[..]);
        assert!(file.write_at(&page, 0).is_err() && file.give_back(0).is_err());
        assert!(disk.create("other", 4096).is_err() && disk.remove("file").is_err());
        assert_eq!(
            std::fs::metadata(dir.path()).unwrap().modified().unwrap(),
            made
        );
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error =
            RealDisk::open(Path::new("/nowhere/store"), RealOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/nowhere/store"), "{error}");
        assert!(sync_dir(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn new_files_have_their_space() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), RealOptions::default()).unwrap();
        disk.create("file", 1 << 20).unwrap();
        let metadata = std::fs::metadata(dir.path().join("file")).unwrap();
        assert!(metadata.blocks() * 512 >= 1 << 20);
        assert_eq!(metadata.mode() & 0o777, 0o600);
    }
}
