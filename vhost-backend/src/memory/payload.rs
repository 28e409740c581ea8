//! The data part of a request, as the store sees it.

use std::sync::Arc;

use crate::engine::{Payload, PayloadError};

use super::{DirtyLog, GuestMemory};

/// A piece of guest memory inside a payload.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Where in the payload it begins, in bytes.
    pub start: usize,
    pub(super) region: u32,
    pub(super) offset: usize,
    /// Bytes.
    pub len: usize,
}

/// Pieces of guest memory that hold the data of one command.
///
/// The store copies out of or into it exactly once; the bytes themselves are only ever touched by `vm-memory`.
#[derive(Debug)]
pub struct GuestPayload {
    memory: Arc<GuestMemory>,
    /// Without gaps: each one starts where the one before it ended.
    segments: Vec<Segment>,
    len: usize,
}

impl GuestPayload {
    /// `segments` must be resolved against `memory`.
    pub fn new(memory: Arc<GuestMemory>, segments: Vec<Segment>) -> Self {
        let len = segments.iter().map(|s| s.len).sum();
        Self {
            memory,
            segments,
            len,
        }
    }

    /// Notes every page of it as written. Called once the data has arrived, never before: a page that is noted
    /// early may be sent to the other side with its old content.
    pub fn mark_dirty(&self, log: &DirtyLog) {
        for segment in &self.segments {
            if let Some(guest) = self.memory.segment_address(segment) {
                log.mark(guest, segment.len as u64);
            }
        }
    }

    /// Gives the list back for the next request.
    pub fn into_segments(self) -> Vec<Segment> {
        self.segments
    }

    /// The first segment that `offset` lies in.
    fn first(&self, offset: usize) -> usize {
        self.segments.partition_point(|s| s.start + s.len <= offset)
    }

    fn each_piece(
        &self,
        offset: usize,
        len: usize,
        mut copy: impl FnMut(&Segment, usize, std::ops::Range<usize>) -> Option<()>,
    ) -> Option<()> {
        let mut done = 0;
        for segment in self.segments.get(self.first(offset)..)? {
            if done == len {
                break;
            }
            let skip = (offset + done).checked_sub(segment.start)?;
            let here = (segment.len.checked_sub(skip)?).min(len - done);
            copy(segment, skip, done..done + here)?;
            done += here;
        }
        (done == len).then_some(())
    }
}

impl Payload for GuestPayload {
    fn len(&self) -> usize {
        self.len
    }

    fn copy_out(&self, offset: usize, dst: &mut [u8]) -> Result<(), PayloadError> {
        self.each_piece(offset, dst.len(), |segment, skip, part| {
            self.memory.copy_out(segment, skip, dst.get_mut(part)?)
        })
        .ok_or(PayloadError)
    }

    fn copy_in(&mut self, offset: usize, src: &[u8]) -> Result<(), PayloadError> {
        self.each_piece(offset, src.len(), |segment, skip, part| {
            self.memory.copy_in(segment, skip, src.get(part)?)
        })
        .ok_or(PayloadError)
    }
}

/// Appends the pieces of `segments` between `from` and `from + len` (payload offsets) to `out`, renumbered from 0.
pub fn cut(segments: &[Segment], from: usize, len: usize, out: &mut Vec<Segment>) {
    let end = from.saturating_add(len);
    for segment in segments {
        let (start, stop) = (
            segment.start.max(from),
            (segment.start + segment.len).min(end),
        );
        if start < stop {
            out.push(Segment {
                start: start - from,
                region: segment.region,
                offset: segment.offset + (start - segment.start),
                len: stop - start,
            });
        }
    }
}

/// Lists of segments that wait for their next request, so that the data path allocates none.
#[derive(Debug, Default)]
pub struct SegmentPool {
    idle: Vec<Vec<Segment>>,
}

impl SegmentPool {
    /// More than a busy worker has in flight in practice; what is beyond is freed.
    const KEEP: usize = 512;
    /// A list that once held a huge request isn't kept at that size.
    const KEEP_CAPACITY: usize = 256;

    /// An empty list.
    pub fn take(&mut self) -> Vec<Segment> {
        self.idle.pop().unwrap_or_else(|| Vec::with_capacity(16))
    }

    /// Takes a list back.
    pub fn put(&mut self, mut list: Vec<Segment>) {
        if self.idle.len() < Self::KEEP && list.capacity() <= Self::KEEP_CAPACITY {
            list.clear();
            self.idle.push(list);
        }
    }
}
