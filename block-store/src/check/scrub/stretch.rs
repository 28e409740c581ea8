//! Reading records in the order in which they lie in a segment, neighbours together.

use crate::check::extents::read_alone;
use crate::format::Location;
use crate::io::{AlignedBuf, DiskFile, PAGE};
use std::io;

/// Longest single read in bytes: what a step reads, and the disk does, before guests have their turn.
const MAX_READ: u32 = 1 << 20;
/// Bytes between two records that are read along rather than skipped.
const GAP: u32 = 32 << 10;

/// How many of these records, in order of place, are read together: at least one.
pub(super) fn together(mut places: impl Iterator<Item = Location>) -> usize {
    let Some(first) = places.next() else {
        return 0;
    };
    let mut end = first.end();
    let near = places.take_while(|at| {
        let near = at.segment == first.segment
            && at.offset >= first.offset
            && at.offset <= end.saturating_add(GAP)
            && at.end().saturating_sub(first.offset) <= MAX_READ;
        end = end.max(at.end());
        near
    });
    1 + near.count()
}

/// The stored bytes of records that lie together.
pub(super) struct Stretch<'a> {
    file: &'a dyn DiskFile,
    from: u32,
    pages: Option<AlignedBuf>,
    alone: AlignedBuf,
    /// Bytes that were read.
    pub(super) bytes: u64,
}

impl<'a> Stretch<'a> {
    /// Reads them, as [`together`] has put them together. Where that fails they are read one by one.
    pub(super) fn read(
        file: &'a dyn DiskFile,
        places: impl Iterator<Item = Location>,
    ) -> io::Result<Self> {
        let page = PAGE as u32;
        let (mut from, mut end) = (u32::MAX, 0);
        for at in places {
            from = from.min(at.offset / page * page);
            end = end.max(at.end().next_multiple_of(page));
        }
        let len = end.saturating_sub(from);
        let mut pages = AlignedBuf::zeroed(len as usize)?;
        let read = file.read_at(&mut pages, from.into());
        Ok(Self {
            file,
            from,
            pages: read.is_ok().then_some(pages),
            alone: AlignedBuf::zeroed(0)?,
            bytes: len.into(),
        })
    }

    /// One record, or why it can't be read.
    pub(super) fn get(&mut self, at: Location) -> Result<&[u8], String> {
        let from = (at.offset as usize).checked_sub(self.from as usize);
        let stored = match &self.pages {
            Some(pages) => from.and_then(|from| pages.get(from..from + at.len as usize)),
            None => {
                self.alone = read_alone(self.file, at).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => "the file ends before it does".to_owned(),
                    _ => format!("can't be read: {error}"),
                })?;
                let skip = at.offset as usize % PAGE;
                self.alone.get(skip..skip + at.len as usize)
            }
        };
        stored.ok_or_else(|| "the file ends before it does".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u32, offset: u32, len: u32) -> Location {
        Location {
            segment,
            offset,
            len,
        }
    }

    #[test]
    fn neighbours_are_read_together_within_bounds() {
        let count = |places: &[Location]| together(places.iter().copied());
        assert_eq!(count(&[]), 0);
        let near = [at(1, 0, 64), at(1, 64, 4096), at(1, 30_000, 64)];
        assert_eq!(count(&near), 3);
        assert_eq!(count(&[at(1, 0, 64), at(2, 64, 64)]), 1);
        assert_eq!(count(&[at(1, 0, 64), at(1, 100_000, 64)]), 1);
        assert_eq!(count(&[at(1, 64, 64), at(1, 0, 64)]), 1, "not in order");
        let many: Vec<_> = (0..100).map(|n| at(1, n * 65_536, 65_536)).collect();
        assert_eq!(count(&many), 16);
        let long = [at(1, u32::MAX / 64 * 64, 1 << 18), at(1, 0, 64)];
        assert_eq!(count(&long), 1);
    }
}
