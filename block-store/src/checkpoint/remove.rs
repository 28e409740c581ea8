//! Removal of segments in which nothing is alive.
//!
//! A filesystem frees a file in one transaction, and tells the device so in one go where it is mounted with `discard`; everybody else's
//! writes wait meanwhile: 10 ms for one of 64 MiB, more for several at once. So segments lose their names first, and then their space
//! piece by piece, as soon as nobody reads them any more.

use crate::alloc::Phase;
use crate::core::Core;
use crate::counters::count;
use crate::format::{SegmentRow, segment_file_name};
use crate::io::DiskFile;
use std::io;
use std::sync::Arc;

/// Bytes that a file without a name is cut short by at a time.
const PIECE: u64 = 8 << 20;

/// Files of removed segments whose space is still to be given back.
#[derive(Default)]
pub(super) struct Removed(Vec<Arc<dyn DiskFile>>);

impl Removed {
    /// Step 6: segments without a live entry, neither in the checkpoint nor since, that were sealed at the cut. In any
    /// other there may be flushed data, overwritten since and not flushed again, or ranges, of which no entry tells.
    ///
    /// The checkpoint counts already: what can't be removed is left to the next one, and by then to recovery.
    pub(super) fn take(&mut self, core: &Core, rows: &[SegmentRow]) {
        let dead: Vec<u32> = {
            let state = core.state.lock();
            let is_dead = |row: &&SegmentRow| {
                let now = state.segments.get(row.id);
                row.live == 0
                    && !row.open
                    && now.is_some_and(|s| {
                        s.live == 0 && s.phase == Phase::Sealed && s.generation == row.generation
                    })
            };
            rows.iter().filter(is_dead).map(|r| r.id).collect()
        };
        let mut removed = false;
        for id in &dead {
            match core.disk.remove(&segment_file_name(*id)) {
                Ok(()) => {
                    let segment = core.state.lock().segments.remove(*id);
                    self.0.extend(segment.map(|s| s.file));
                    count(&core.counters.segments_removed);
                    removed = true;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    core.state.lock().segments.remove(*id);
                }
                Err(e) => log::warn!(
                    "removing segment {id:x}, which holds nothing any more: {e}; the next checkpoint tries again"
                ),
            }
        }
        if removed && let Err(e) = core.disk.sync_dir() {
            log::warn!(
                "removing segments: {e}; they may come back after loss of power, and go again"
            );
        }
        self.give_back();
        if removed {
            core.state.lock().full = false;
            core.alloc_bell.ring();
        }
    }

    /// Gives back the space of those that nobody reads any more; nobody begins to.
    fn give_back(&mut self) {
        self.0.retain(|file| {
            let read = Arc::strong_count(file) > 1;
            if !read && let Err(error) = shrink(&**file) {
                log::warn!("giving back the space of {file:?}: {error}; closing it does");
            }
            read
        });
    }
}

/// Cuts a file short piece by piece, from its end; its first piece goes when it is closed.
fn shrink(file: &dyn DiskFile) -> io::Result<()> {
    let mut len = file.len()?;
    while len > PIECE {
        len -= PIECE;
        file.shrink(len)?;
    }
    Ok(())
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
        let (size, rest) = (3 * PIECE + 8192, 8192);
        let file = disk.create("a", size).unwrap();
        let mut removed = Removed(vec![Arc::clone(&file)]);
        removed.give_back();
        assert_eq!((removed.0.len(), file.len().unwrap()), (1, size));
        let seen = std::fs::File::open(dir.path().join("a")).unwrap();
        drop(file);
        removed.give_back();
        assert!(removed.0.is_empty());
        assert_eq!(seen.metadata().unwrap().len(), rest);
    }
}
