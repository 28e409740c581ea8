//! Space of segments that have no name any more.
//!
//! A filesystem frees a file in one transaction, and tells the device so in one go where it is mounted with `discard`; everybody else's
//! writes wait meanwhile: 10 ms for one of 64 MiB, more for several at once. So segments lose their names first, and then their space
//! piece by piece, as soon as nobody reads them any more; nobody begins to.

use crate::io::DiskFile;
use std::io;
use std::sync::Arc;

/// Bytes that a file is cut short by at a time.
const PIECE: u64 = 8 << 20;

/// Files of removed segments whose space is still to be given back.
#[derive(Default)]
pub struct Removed(Vec<Arc<dyn DiskFile>>);

impl Removed {
    /// One more.
    pub fn add(&mut self, file: Arc<dyn DiskFile>) {
        self.0.push(file);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out one that nobody reads.
    pub fn take_unread(&mut self) -> Option<Arc<dyn DiskFile>> {
        let unread = |file: &Arc<dyn DiskFile>| Arc::strong_count(file) == 1;
        let n = self.0.iter().position(unread)?;
        Some(self.0.swap_remove(n))
    }
}

/// Cuts a piece off. `false`: only one is left, which goes when the file is closed.
pub fn shorten(file: &dyn DiskFile) -> io::Result<bool> {
    let len = file.len()?;
    if len <= PIECE {
        return Ok(false);
    }
    file.shrink(len - PIECE)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Disk;
    use crate::io::real::{RealDisk, RealOptions};

    #[test]
    fn what_is_read_keeps_its_space_until_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path(), RealOptions::default()).unwrap();
        let file = disk.create("a", 2 * PIECE + 8192).unwrap();
        let mut removed = Removed::default();
        removed.add(Arc::clone(&file));
        assert!(removed.take_unread().is_none() && !removed.is_empty());
        drop(file);
        let file = removed.take_unread().unwrap();
        assert!(removed.is_empty());
        let steps = std::iter::from_fn(|| shorten(&*file).unwrap().then(|| file.len().unwrap()));
        assert_eq!(steps.collect::<Vec<_>>(), [PIECE + 8192, 8192]);
    }
}
