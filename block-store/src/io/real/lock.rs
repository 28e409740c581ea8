//! Exclusive use of a store.

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Holds a lock file locked as long as it lives. The kernel lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock file `path`, creating it if need be. `WouldBlock` when someone else holds it; the message
/// tells that process's id where it is known. The file itself is never removed: two processes could otherwise
/// hold locks on two files that bore the same name.
pub fn lock_exclusive(path: &Path) -> io::Result<Lock> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|e| named(path, e))?;
    let file = take(path, File::from(file))?;
    // For the message below only: no harm if it fails.
    let _ = file.set_len(0);
    let _ = file.write_at(std::process::id().to_string().as_bytes(), 0);
    Ok(Lock { _file: file })
}

/// The same for who only reads: nothing is written. `NotFound` where nobody has ever taken the lock.
pub fn lock_unwritten(path: &Path) -> io::Result<Lock> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = fs::open(path, flags, Mode::empty()).map_err(|e| named(path, e))?;
    Ok(Lock {
        _file: take(path, File::from(file))?,
    })
}

fn take(path: &Path, file: File) -> io::Result<File> {
    match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(held(path, &file)),
        Err(error) => Err(named(path, error)),
    }
}

fn named(path: &Path, error: Errno) -> io::Error {
    io::Error::new(
        io::Error::from(error).kind(),
        format!("{}: {error}", path.display()),
    )
}

fn held(path: &Path, file: &File) -> io::Error {
    let mut text = [0; 20];
    let read = file.read_at(&mut text, 0).unwrap_or(0);
    let text = text
        .get(..read)
        .and_then(|text| std::str::from_utf8(text).ok());
    let holder = match text.and_then(|text| text.trim().parse::<u32>().ok()) {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    };
    io::Error::new(
        io::ErrorKind::WouldBlock,
        format!("{} is held by {holder}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = lock_exclusive(&path).unwrap();
        let error = lock_exclusive(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(lock);
        lock_exclusive(&path).unwrap();
        assert!(path.exists());
    }

    #[test]
    fn a_reader_holds_it_too_and_leaves_it_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let missing = lock_unwritten(&path).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        drop(lock_exclusive(&path).unwrap());
        let before = std::fs::read(&path).unwrap();
        let lock = lock_unwritten(&path).unwrap();
        for error in [lock_unwritten(&path), lock_exclusive(&path)] {
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        drop(lock);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        lock_exclusive(&path).unwrap();
    }

    #[test]
    fn other_errors_are_not_taken_for_a_holder() {
        let dir = tempfile::tempdir().unwrap();
        let error = lock_exclusive(&dir.path().join("missing/lock")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        std::os::unix::fs::symlink("/dev/null", dir.path().join("link")).unwrap();
        assert_ne!(
            lock_exclusive(&dir.path().join("link")).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}
