//! The log: open segments, and the write buffer in which their newest part waits.
//!
//! Appending copies a record into the write buffer's slots, which outlive the process; draining writes full pages from
//! there to the segment's file; a commit pads every open segment to a page and makes all of it durable. The log decides
//! and remembers; the files are written by its caller between [`Log::next_drain`] and [`Log::drained`].
//!
//! # Crash
//! A page that a commit has made durable is never written again: the commit's padding moves the append point to a
//! page of its own. After a SIGKILL the slots are written to their files again as they are, which is what draining
//! would have done. LSNs grow along each segment.

mod causes;
mod commit;
mod gather;
mod slots;
mod streams;

use crate::format::{Location, MAX_STORED, Prefix, RecordHeader, SEGMENT_DATA_START, Seed};
use crate::io::{DiskFile, LivePages, PAGE};
pub use causes::{CAUSES, Cause, Written};
pub use commit::Cut;
pub use gather::Gathering;
pub use slots::SlotPool;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
pub use streams::{Marks, STREAMS, Stream, Streams};

/// Largest single write of draining, in bytes: long enough for the disk's full rate, short enough not to keep a flush waiting.
const MAX_DRAIN: usize = 1 << 20;

/// Part of the write buffer that each stream but that of small writes may fill: one in so many.
const STREAMING_SHARE: usize = 4;

/// Why nothing can be appended now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// The stream has no open segment, or its segment is full: open another one.
    Segment,
    /// The write buffer is full: wait until it has drained.
    Buffer,
}

/// A segment that has something in the write buffer or not yet synced.
#[derive(Debug)]
struct LogSegment {
    id: u32,
    stream: Stream,
    generation: u64,
    file: Arc<dyn DiskFile>,
    size: u32,
    /// Next byte to append.
    append: u32,
    /// Written to the file up to here, a multiple of the page.
    drained: u32,
    /// Durable up to here.
    synced: u32,
    sealed: bool,
    /// Commits that synced something of it.
    commits: u32,
    /// Offset in the segment of the first slot held.
    slots_from: u32,
    slots: VecDeque<usize>,
}

/// Pages of the write buffer that are to be written. Nobody changes them before [`Log::drained`]: appending goes on
/// behind them.
#[derive(Debug)]
pub struct Drain {
    /// The write buffer.
    pub pages: Arc<dyn LivePages>,
    /// Its parts to be written, in order.
    pub parts: Vec<Range<usize>>,
    /// Segment number.
    pub segment: u32,
    /// Its file.
    pub file: Arc<dyn DiskFile>,
    /// Offset of the first page in bytes.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

/// The log.
pub struct Log {
    pool: SlotPool,
    segments: Vec<LogSegment>,
    open: [Option<u32>; STREAMS.len()],
    next_lsn: u64,
    /// Per stream: the last LSN that a commit of it has covered.
    synced: [u64; STREAMS.len()],
    /// Prefixes of the last commit, to be recorded by the next one.
    unrecorded: Vec<Prefix>,
    /// Bytes appended, padding included, since the checkpoint that the store was opened from: for the checkpoint's trigger and statistics.
    pub appended: u64,
    written: Arc<Written>,
}

impl Log {
    /// A log that goes on with `next_lsn`; `unrecorded` are prefixes that recovery has made durable.
    ///
    /// `appended`: bytes of log since the last checkpoint already.
    pub fn new(pool: SlotPool, next_lsn: u64, unrecorded: Vec<Prefix>, appended: u64) -> Self {
        Self {
            pool,
            segments: Vec::new(),
            open: [None; STREAMS.len()],
            next_lsn,
            synced: [0; STREAMS.len()],
            unrecorded,
            appended,
            written: Arc::default(),
        }
    }

    /// A log that nothing can be appended to, for as long as a store is being recovered.
    pub fn nowhere() -> Self {
        Self::new(SlotPool::none(), 1, Vec::new(), 0)
    }

    /// The last LSN given out.
    pub fn last_lsn(&self) -> u64 {
        self.next_lsn - 1
    }

    /// Opens a segment for a stream and seals the one before; returns the sealed one's number.
    pub fn open_segment(
        &mut self,
        stream: Stream,
        id: u32,
        generation: u64,
        file: Arc<dyn DiskFile>,
        size: u32,
    ) -> Option<u32> {
        let sealed = self.seal(stream);
        self.segments.push(LogSegment {
            id,
            stream,
            generation,
            file,
            size,
            append: SEGMENT_DATA_START,
            drained: SEGMENT_DATA_START,
            synced: SEGMENT_DATA_START,
            sealed: false,
            commits: 0,
            slots_from: SEGMENT_DATA_START,
            slots: VecDeque::new(),
        });
        if let Some(place) = self.open.get_mut(stream as usize) {
            *place = Some(id);
        }
        sealed
    }

    fn seal(&mut self, stream: Stream) -> Option<u32> {
        let id = self.open.get_mut(stream as usize)?.take()?;
        let lsn = self.last_lsn();
        let segment = self.segments.iter_mut().find(|s| s.id == id)?;
        let skipped = segment.pad(&mut self.pool, lsn);
        self.appended += skipped;
        self.written.add(Cause::Padding, skipped);
        segment.sealed = true;
        segment.give_back(&mut self.pool);
        Some(id)
    }

    /// Segments of which something is not yet in the file, or not durable.
    pub fn segments(&self) -> Vec<u32> {
        self.segments.iter().map(|s| s.id).collect()
    }

    fn segment(&self, id: u32) -> Option<&LogSegment> {
        self.segments.iter().find(|s| s.id == id)
    }

    /// The stream's open segment.
    pub fn open_in(&self, stream: Stream) -> Option<u32> {
        self.open.get(stream as usize).copied().flatten()
    }

    /// Behind what nothing is written to a segment once it is sealed, neither by draining nor, after a SIGKILL, out of the
    /// slots that it holds.
    pub fn reach_of(&self, id: u32) -> Option<u32> {
        let segment = self.segment(id)?;
        let held = segment.held_to(&self.pool).min(segment.size as usize) as u32;
        Some(held.max(segment.append))
    }

    /// Of the open segment of small writes: bytes appended, and commits that had something of it to sync.
    pub fn fresh_use(&self) -> Option<(u32, u32)> {
        let open = self.open.first().copied().flatten()?;
        let segment = self.segment(open)?;
        Some((segment.append - SEGMENT_DATA_START, segment.commits))
    }

    /// Bytes that are left in the stream's open segment.
    pub fn left_in(&self, stream: Stream) -> u32 {
        let open = self.open_in(stream).and_then(|id| self.segment(id));
        open.map_or(0, |s| s.size - s.append.min(s.size))
    }

    /// Whether a record of `len` stored bytes can be appended now.
    pub fn room(&self, stream: Stream, len: usize) -> Result<(), NoRoom> {
        let open = self.open_in(stream);
        let segment = open
            .and_then(|id| self.segment(id))
            .ok_or(NoRoom::Segment)?;
        let end = segment.append as usize + len;
        if end > segment.size as usize {
            return Err(NoRoom::Segment);
        }
        let held = segment.slots_from as usize + segment.slots.len() * self.pool.slot_size();
        let wanted = end.saturating_sub(held).div_ceil(self.pool.slot_size());
        if wanted > self.pool.free().min(self.share_left(stream)) {
            Err(NoRoom::Buffer)
        } else {
            Ok(())
        }
    }

    /// Slots that a stream may still claim: only small writes may have all of them. What streams in would fill the
    /// buffer and keep it full, and every flush and small write of a neighbour would wait for all of it.
    fn share_left(&self, stream: Stream) -> usize {
        if stream == Stream::Fresh {
            return usize::MAX;
        }
        // An extent that is not drained yet, and the next one: with less nothing would ever move.
        let least = 2 * MAX_STORED.div_ceil(self.pool.slot_size()) + 3;
        let of_stream = |s: &&LogSegment| s.stream == stream;
        let held: usize = self
            .segments
            .iter()
            .filter(of_stream)
            .map(|s| s.slots.len())
            .sum();
        (self.pool.slots() / STREAMING_SHARE)
            .max(least)
            .saturating_sub(held)
    }

    /// Appends a record; gives it the next LSN. There must be room, see [`Log::room`].
    pub fn append(
        &mut self,
        stream: Stream,
        cause: Cause,
        header: &RecordHeader,
        payload: &[u8],
    ) -> Result<(Location, u64), NoRoom> {
        let len = header.stored_len();
        self.room(stream, len)?;
        let open = self.open_in(stream);
        let segment = self
            .segments
            .iter_mut()
            .find(|s| Some(s.id) == open)
            .ok_or(NoRoom::Segment)?;
        let lsn = self.next_lsn;
        self.next_lsn += 1;
        let at = Location {
            segment: segment.id,
            offset: segment.append,
            len: len as u32,
        };
        let seed = Seed {
            segment: segment.id,
            generation: segment.generation,
            offset: segment.append,
        };
        let header = RecordHeader { lsn, ..*header }.encode(seed);
        segment.hold(&mut self.pool, at.end());
        segment.copy_in(&mut self.pool, at.offset, &header);
        segment.copy_in(&mut self.pool, at.offset + header.len() as u32, payload);
        segment.append = at.end();
        self.appended += len as u64;
        self.written.add(cause, len as u64);
        Ok((at, lsn))
    }

    /// Copies a record out of the write buffer, if its file may not have all of it yet. `out` is cleared.
    pub fn read_buffered(&self, at: Location, out: &mut Vec<u8>) -> bool {
        match self.segment(at.segment) {
            Some(segment) if at.end() > segment.drained => {
                out.clear();
                segment.visit(&self.pool, at.offset, at.len as usize, |part| {
                    self.pool.read(part, out)
                })
            }
            _ => false,
        }
    }

    /// Whether the file of a record may not have all of it yet.
    pub fn is_buffered(&self, at: Location) -> bool {
        let segment = self.segment(at.segment);
        segment.is_some_and(|s| at.end() > s.drained)
    }

    /// Bytes in full pages that wait to be drained.
    pub fn undrained(&self) -> usize {
        self.segments
            .iter()
            .map(|s| (page_floor(s.append) - s.drained) as usize)
            .sum()
    }

    /// Bytes appended that are not in their files yet.
    pub fn waiting(&self) -> u64 {
        let waiting = self.segments.iter().map(|s| s.append - s.drained);
        waiting.map(u64::from).sum()
    }

    /// Bytes written, and appended to be, by cause.
    pub fn written(&self) -> &Arc<Written> {
        &self.written
    }

    /// A write or fsync has failed: the next process must write again what this one has.
    pub fn note_failure(&mut self) {
        self.pool.note_failure();
    }

    /// Slots of the write buffer that are free.
    pub fn free_slots(&self) -> usize {
        self.pool.free()
    }

    /// The next full pages that are to be written to a file, [`MAX_DRAIN`] bytes at most. With a cut only what it
    /// covers, so that a flush never waits for what came after it; else the segment with the most of them goes first.
    pub fn next_drain(&self, cut: Option<&Cut>) -> Option<Drain> {
        let end_of = |s: &LogSegment| match cut {
            None => page_floor(s.append),
            Some(cut) => cut.end_of(s.id).unwrap_or(0),
        };
        let waiting = |s: &&LogSegment| end_of(s).saturating_sub(s.drained);
        let segment = self.segments.iter().max_by_key(waiting)?;
        let len = (waiting(&segment) as usize).min(MAX_DRAIN);
        if len == 0 {
            return None;
        }
        let mut parts = Vec::new();
        let held = segment.visit(&self.pool, segment.drained, len, |part| parts.push(part));
        debug_assert!(held, "segment {:x} lost its slots", segment.id);
        held.then(|| Drain {
            pages: self.pool.pages(),
            parts,
            segment: segment.id,
            file: Arc::clone(&segment.file),
            offset: segment.drained,
            len: len as u32,
        })
    }

    /// The pages are in their file: gives back slots.
    pub fn drained(&mut self, drain: &Drain) {
        let Some(segment) = self.segments.iter_mut().find(|s| s.id == drain.segment) else {
            return;
        };
        segment.drained = drain.offset + drain.len;
        segment.give_back(&mut self.pool);
        self.forget_finished();
    }

    /// Segments that are sealed, drained and synced are no concern of the log's any more.
    fn forget_finished(&mut self) {
        let done = |s: &LogSegment| s.sealed && s.drained >= s.append && s.synced >= s.append;
        self.segments.retain(|s| !done(s));
    }
}

impl LogSegment {
    /// Claims slots until `end` is covered.
    fn hold(&mut self, pool: &mut SlotPool, end: u32) {
        while self.held_to(pool) < end as usize {
            let offset = self.held_to(pool) as u32;
            let Some(slot) = pool.claim(self.id, self.generation, offset) else {
                return;
            };
            self.slots.push_back(slot);
        }
    }

    fn held_to(&self, pool: &SlotPool) -> usize {
        self.slots_from as usize + self.slots.len() * pool.slot_size()
    }

    fn copy_in(&mut self, pool: &mut SlotPool, offset: u32, mut bytes: &[u8]) {
        let size = pool.slot_size();
        let mut at = offset.saturating_sub(self.slots_from) as usize;
        while !bytes.is_empty() {
            let (within, slot) = (at % size, self.slots.get(at / size).copied());
            let (now, rest) = bytes.split_at(bytes.len().min(size - within));
            let Some(slot) = slot else {
                debug_assert!(false, "segment {:x} holds no slot for {offset}", self.id);
                return;
            };
            pool.write(slot, within, now);
            at += now.len();
            bytes = rest;
        }
    }

    /// Shows where a stretch of the segment is, slot by slot; `false` when it holds not all of it any more.
    fn visit(
        &self,
        pool: &SlotPool,
        offset: u32,
        len: usize,
        mut show: impl FnMut(Range<usize>),
    ) -> bool {
        let size = pool.slot_size();
        let Some(at) = offset.checked_sub(self.slots_from) else {
            return false;
        };
        let mut at = at as usize;
        let end = at + len;
        while at < end {
            let within = at % size;
            let now = (end - at).min(size - within);
            match self.slots.get(at / size) {
                Some(slot) => show(pool.place(*slot, within, now)),
                None => return false,
            }
            at += now;
        }
        true
    }

    /// Moves the append point to a page of its own; a record says so to whoever scans the log. Tells how much is skipped.
    fn pad(&mut self, pool: &mut SlotPool, lsn: u64) -> u64 {
        let end = self.append.next_multiple_of(PAGE as u32);
        let skipped = (end - self.append) as usize;
        if skipped > 0 {
            let seed = Seed {
                segment: self.id,
                generation: self.generation,
                offset: self.append,
            };
            let mut page = [0; PAGE];
            let header = RecordHeader::pad(lsn).encode(seed);
            for (to, from) in page.iter_mut().zip(header) {
                *to = from;
            }
            // Slots are whole pages: the page in question is held already. Records are aligned to the size of a header.
            self.copy_in(pool, self.append, page.get(..skipped).unwrap_or_default());
        }
        self.append = end;
        skipped as u64
    }

    /// Gives back slots that neither draining nor reading needs. An extent that reaches past `drained` may begin a
    /// whole extent before it.
    fn give_back(&mut self, pool: &mut SlotPool) {
        let size = pool.slot_size();
        let needed_from = if self.drained >= self.append && self.sealed {
            usize::MAX
        } else if self.drained >= self.append {
            self.append as usize
        } else {
            (self.drained as usize).saturating_sub(MAX_STORED)
        };
        while self.slots_from as usize + size <= needed_from {
            match self.slots.pop_front() {
                Some(slot) => pool.release(slot),
                None => break,
            }
            self.slots_from += size as u32;
        }
    }
}

fn page_floor(offset: u32) -> u32 {
    offset / PAGE as u32 * PAGE as u32
}
