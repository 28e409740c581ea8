//! Looking a store over without opening it: everything that its superblocks lead to is read, verified and counted.
//!
//! Nothing is written. Memory is bounded: 2^20 records of the maps at a time (64 MiB, see [`claims`]), one window of a segment
//! (4 MiB), the catalogue, about 100 bytes per segment, and the first [`MAX_KEPT`] findings. A store whose maps hold
//! more records than that is walked in several passes, segment range by segment range.
//!
//! What is right is decided where the data path decides it ([`crate::read`], [`crate::recover`]): the check and a guest can't
//! differ.

mod accounting;
mod claims;
mod extents;
mod finding;
mod journal;
mod maps;
mod names;
mod offline;
mod roots;
mod scrub;
mod segments;

pub use finding::{Finding, Kind, MAX_KEPT, Report, Watch};
pub use offline::check_directory;
pub use scrub::{Begun, Pace, Pass, Passes, Scrub, Stage, Stepped, Tally, Wanted, Work, step};

use crate::error::StoreError;
use crate::io::Disk;
use claims::Batch;
use finding::Sink;
use maps::Walk;

/// How thorough, and how large.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Decompress every extent too, and don't only verify its checksums.
    pub decode: bool,
    /// Records of the maps that are held at a time.
    pub records: usize,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            decode: false,
            records: 1 << 20,
        }
    }
}

/// Checks the store in `disk`, which nobody may have open. An error: it could not be checked at all; damage is no error
/// but a finding.
pub fn check(
    disk: &dyn Disk,
    options: &CheckOptions,
    watch: &mut dyn Watch,
) -> Result<Report, StoreError> {
    let mut sink = Sink::new(watch);
    let Some(superblock) = roots::superblock(disk, &mut sink)? else {
        return Ok(sink.finish());
    };
    let mut roots = roots::read(disk, &superblock, roots::RESTORE, &mut sink);
    let mut segments = segments::survey(disk, &superblock, &roots, &mut sink)?;
    journal::examine(&superblock, &mut roots, &mut segments, &mut sink);
    let mut from = 0;
    let mut counted = None;
    while !sink.stopped() {
        let mut batch = Batch::new(from, options.records);
        let mut walk = Walk::new(&roots, &mut segments, &mut sink, counted.is_none());
        walk.all(&mut batch);
        let tally = walk.tally();
        counted.get_or_insert(tally);
        extents::verify(&batch, &roots, &mut segments, options.decode, &mut sink);
        match batch.next() {
            Some(next) => from = next,
            None => break,
        }
    }
    if let Some(tally) = counted.filter(|_| !sink.stopped()) {
        accounting::compare(&roots, &tally, &mut sink);
        sink.done_all();
    }
    Ok(sink.finish())
}
