//! Which of the files in the directory count, and as what.

use crate::format::{FormatError, SegmentHeader, SegmentRow, Superblock};
use crate::io::{AlignedBuf, DiskFile, PAGE};

/// What the first page of a segment's file says.
#[derive(Debug)]
pub enum Head {
    /// A header of this segment.
    Valid(SegmentHeader),
    /// Never finished being allocated: the header is written and synced before a segment is used.
    Blank,
    /// Something else.
    Damaged(FormatError),
}

/// Reads the first page of segment `id`.
pub fn read_header(file: &dyn DiskFile, superblock: &Superblock, id: u32) -> std::io::Result<Head> {
    if file.len()? < PAGE as u64 {
        return Ok(Head::Blank);
    }
    let mut page = AlignedBuf::zeroed(PAGE)?;
    file.read_at(&mut page, 0)?;
    let other = || FormatError {
        what: "segment header",
        why: "it belongs to another place or store".into(),
    };
    Ok(match SegmentHeader::decode(&page) {
        Ok(h) if h.store == superblock.store && h.id == id => Head::Valid(h),
        Ok(_) => Head::Damaged(other()),
        Err(_) if page.iter().all(|b| *b == 0) => Head::Blank,
        Err(error) => Head::Damaged(error),
    })
}

/// What a segment's file counts as.
#[derive(Debug)]
pub enum Standing<'a> {
    /// The segment that the table names.
    Named(&'a SegmentRow),
    /// Made since the checkpoint, of this generation: all of it is log.
    Log(u64),
    /// Unlinked by a checkpoint, or never finished being allocated.
    Orphan,
    /// It may hold flushed data, but nothing tells.
    Unknown(&'a FormatError),
}

/// Holds a file's header against the table's row of that number.
pub fn standing<'a>(
    row: Option<&'a SegmentRow>,
    head: &'a Head,
    next_generation: u64,
) -> Standing<'a> {
    // Without a readable header the row decides: every record is verified against its generation anyway.
    let row = row.filter(|r| match head {
        Head::Valid(h) => h.generation == r.generation,
        _ => true,
    });
    match (row, head) {
        (Some(row), _) => Standing::Named(row),
        (None, Head::Valid(h)) if h.generation >= next_generation => Standing::Log(h.generation),
        (None, Head::Damaged(error)) => Standing::Unknown(error),
        _ => Standing::Orphan,
    }
}
