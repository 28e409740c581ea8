//! Planning: which stored extents a range of blocks comes from, and which pages hold them.

use super::Search;
use crate::format::{Entry, Location, NODE_SLOTS};
use crate::io::DiskFile;
use crate::state::{Blocked, State};
use std::sync::Arc;

/// Longest single read in bytes: extents that lie side by side are read together up to this.
const MAX_READ: u32 = 256 << 10;

/// Where a run's data is.
#[derive(Debug, Clone)]
pub enum Source {
    /// Zeroes.
    Zero,
    /// An extent in a segment's file. The file stays readable while it is held, whatever becomes of the segment.
    File {
        /// The segment's file.
        file: Arc<dyn DiskFile>,
    },
    /// An extent that was still in the write buffer: a copy of it.
    Memory(Vec<u8>),
    /// The map itself is damaged here.
    Damaged,
}

/// Consecutive blocks out of one source.
#[derive(Debug, Clone)]
pub struct Run {
    /// First block.
    pub first: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// The layer whose entry it is.
    pub layer: u32,
    /// Where the extent lies; meaningless for zeroes.
    pub at: Location,
    /// Block of the extent at which the run begins.
    pub index: u8,
    /// Generation of the extent's segment.
    pub generation: u64,
    /// Where the data is.
    pub source: Source,
}

/// How far planning has got; reused from one request to the next.
#[derive(Debug, Default)]
pub struct Progress {
    /// Blocks that are planned.
    done: u64,
    /// For the next ones.
    search: Search,
}

impl Progress {
    /// Back to the beginning.
    pub fn clear(&mut self) {
        self.done = 0;
        self.search.clear();
    }
}

/// Plans `blocks` blocks from `first` of a layer into runs, appended to `out`. When blocked, the same progress goes on.
pub fn plan(
    state: &mut State,
    layer: u32,
    first: u64,
    blocks: u64,
    progress: &mut Progress,
    out: &mut Vec<Run>,
) -> Result<(), Blocked> {
    let leaf = NODE_SLOTS as u64;
    while progress.done < blocks {
        let from = first + progress.done;
        let within = (blocks - progress.done).min(leaf - from % leaf);
        let found = progress.search.run(state, layer, from, within)?;
        for (block, (found_in, bits)) in (from..).zip(found) {
            match out.last_mut() {
                Some(run) if block > first && continues(run, *found_in, *bits) => run.blocks += 1,
                _ => out.push(run_of(state, *found_in, block, *bits)),
            }
        }
        progress.search.clear();
        progress.done += within;
    }
    Ok(())
}

fn continues(run: &Run, layer: u32, bits: u64) -> bool {
    match Entry::unpack(bits) {
        Ok(Entry::Stored { at, index }) => {
            !matches!(run.source, Source::Zero | Source::Damaged)
                && (layer, at) == (run.layer, run.at)
                && u64::from(index) == u64::from(run.index) + run.blocks
        }
        Ok(_) => matches!(run.source, Source::Zero),
        Err(_) => false,
    }
}

fn run_of(state: &mut State, layer: u32, block: u64, bits: u64) -> Run {
    let nowhere = Location {
        segment: 0,
        offset: 0,
        len: 0,
    };
    let mut run = Run {
        first: block,
        blocks: 1,
        layer,
        at: nowhere,
        index: 0,
        generation: 0,
        source: Source::Zero,
    };
    match Entry::unpack(bits) {
        Ok(Entry::Stored { at, index }) => {
            (run.at, run.index) = (at, index);
            let mut copy = Vec::new();
            run.source = match state.segments.touch(at.segment) {
                None => Source::Damaged,
                Some(segment) => {
                    run.generation = segment.generation;
                    if state.log.read_buffered(at, &mut copy) {
                        Source::Memory(copy)
                    } else {
                        Source::File {
                            file: Arc::clone(&segment.file),
                        }
                    }
                }
            };
        }
        Ok(_) => {}
        Err(_) => run.source = Source::Damaged,
    }
    run
}

/// One read of whole sectors or pages that serves a stretch of runs.
#[derive(Debug, Clone)]
pub struct PageRead {
    /// The file.
    pub file: Arc<dyn DiskFile>,
    /// Segment number.
    pub segment: u32,
    /// Where it begins, in bytes: a multiple of the file's read unit.
    pub offset: u32,
    /// Bytes to read.
    pub len: u32,
}

impl PageRead {
    /// Whether it covers the location.
    pub fn covers(&self, at: Location) -> bool {
        self.segment == at.segment && self.offset <= at.offset && at.end() <= self.offset + self.len
    }
}

/// The reads that the runs need: neighbours within a segment are read together. Appended to `out`.
pub fn page_reads(runs: &[Run], out: &mut Vec<PageRead>) {
    for run in runs {
        let Source::File { file } = &run.source else {
            continue;
        };
        let unit = file.read_unit() as u32;
        let (from, to) = (
            run.at.offset / unit * unit,
            run.at.end().next_multiple_of(unit),
        );
        if let Some(last) = out.last_mut()
            && last.segment == run.at.segment
            && last.offset <= from
            && from <= last.offset + last.len
            && to.saturating_sub(last.offset) <= MAX_READ
        {
            last.len = last.len.max(to - last.offset);
            continue;
        }
        out.push(PageRead {
            file: Arc::clone(file),
            segment: run.at.segment,
            offset: from,
            len: to - from,
        });
    }
}
