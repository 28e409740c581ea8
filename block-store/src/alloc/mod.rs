//! Segments: which there are, how much of each is alive, and which ones stand ready.
//!
//! A segment goes spare -> open -> sealed -> gone. Its number may come again, its generation never does.
//! An extent belongs to one layer only, so liveness is one count per segment: map entries that point into it.

mod census;
mod prewrite;
mod removed;
mod victim;

use crate::format::{SegmentRow, Temperature};
use crate::io::DiskFile;
pub use census::{Census, Kind, census};
pub use prewrite::prewriting_pays;
pub use removed::{Removed, shorten};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
pub use victim::{Appetite, Candidate, Why, choose};

/// Where in its life a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Allocated and empty.
    Spare,
    /// Being appended to.
    Open,
    /// Full, or left over from an earlier run: only read.
    Sealed,
}

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Extents.
    Data,
    /// Nodes of maps, tables, catalogues.
    Meta,
}

/// One segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Seeds the checksums of its records.
    pub generation: u64,
    /// Its file.
    pub file: Arc<dyn DiskFile>,
    /// Where in its life it is.
    pub phase: Phase,
    /// What is in it.
    pub content: Content,
    /// What kind of data it was opened for.
    pub temperature: Temperature,
    /// Bytes appended, header page included.
    pub used: u32,
    /// Map entries, or nodes, that point into it.
    pub live: u32,
    /// Blocks, or nodes, ever appended.
    pub total: u32,
    /// All of it was written once: a sync of what is written to it now has no extents to convert, and journals nothing.
    pub prewritten: bool,
    /// All of it was packed for good.
    pub settled: bool,
    /// Times that compaction has left something alive in it.
    pub left: u8,
    /// When something of it was last written or read, in seconds since 1970; not before the store was opened.
    pub touched: u64,
}

/// All segments of a store.
#[derive(Debug, Default)]
pub struct Segments {
    by_id: BTreeMap<u32, Segment>,
    spares: VecDeque<u32>,
    /// The next generation to give out; starts at 1.
    pub next_generation: u64,
    /// Generations given out to segments whose files are still being made.
    in_making: Vec<u64>,
    /// Removed, and perhaps still held by reads that had planned on them.
    gone: Vec<(u64, Weak<dyn DiskFile>)>,
    /// How many have been removed.
    removals: u64,
    miscounted: u64,
    /// One spare segment is to be [`Segment::prewritten`]: flushes are frequent.
    pub prewrite: bool,
    /// Seconds since 1970, as upkeep last saw it.
    pub now: u64,
}

/// Who asks for a spare segment, and so how deep into the reserve he may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// New data: of guests, or put together or packed anew for later.
    Guest,
    /// Records that give more space back than they take: ranges that are forgotten, cuts. What guests write fills up what was opened
    /// for these.
    Record,
    /// Compaction: gives a segment back for each that it takes.
    Relocation,
    /// Checkpoints: without them nothing is given back at all.
    Checkpoint,
}

/// Segment numbers that a map entry can hold.
const NUMBERS: u64 = 1 << 24;

/// Spare segments that guests may not take: one for records, one for compaction, two for checkpoints.
pub const RESERVED: usize = 4;

impl Purpose {
    /// Spare segments below which he gets none.
    fn must_leave(self) -> usize {
        match self {
            Self::Guest => RESERVED,
            Self::Record => 3,
            Self::Relocation => 2,
            Self::Checkpoint => 0,
        }
    }
}

impl Segments {
    /// No segments yet; generations are given out from `next_generation`.
    pub fn starting_at(next_generation: u64) -> Self {
        Self {
            next_generation,
            prewrite: true,
            ..Self::default()
        }
    }

    /// The segment with this number.
    pub fn get(&self, id: u32) -> Option<&Segment> {
        self.by_id.get(&id)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Segment> {
        self.by_id.get_mut(&id)
    }

    /// All segments by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Segment)> {
        self.by_id.iter().map(|(id, s)| (*id, s))
    }

    /// Those from this number on.
    pub fn from(&self, id: u32) -> impl Iterator<Item = (u32, &Segment)> {
        self.by_id.range(id..).map(|(id, s)| (*id, s))
    }

    /// Takes a segment in; a spare one is at once ready for use.
    pub fn insert(&mut self, id: u32, segment: Segment) {
        self.in_making.retain(|g| *g != segment.generation);
        if segment.phase == Phase::Spare {
            self.spares.push_back(id);
        }
        self.by_id.insert(id, segment);
    }

    /// Forgets a segment and returns it; its file lives on for reads that have planned on it.
    pub fn remove(&mut self, id: u32) -> Option<Segment> {
        self.spares.retain(|s| *s != id);
        let removed = self.by_id.remove(&id)?;
        self.removals += 1;
        self.gone.retain(|(_, file)| file.strong_count() > 0);
        self.gone
            .push((removed.generation, Arc::downgrade(&removed.file)));
        Some(removed)
    }

    /// How often an entry was let go of in a segment that had none left: 0, unless the segment table was wrong.
    pub fn miscounted(&self) -> u64 {
        self.miscounted
    }

    /// How many segments have been removed until now: while that stays, no entry has lost its segment.
    pub fn removals(&self) -> u64 {
        self.removals
    }

    /// Generations of all segments, in order; also of removed ones that reads are still using.
    pub fn generations(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.by_id.values().map(|s| s.generation).collect();
        all.extend(self.held());
        all.sort_unstable();
        all
    }

    /// How many have vanished from these until now.
    pub fn vanished(&self) -> u64 {
        self.removals - self.held().count() as u64
    }

    /// Generations of removed segments that reads are still using.
    fn held(&self) -> impl Iterator<Item = u64> {
        let held = self.gone.iter().filter(|(_, f)| f.strong_count() > 0);
        held.map(|(generation, _)| *generation)
    }

    /// Number and generation for a new segment; `None` when all numbers are in use.
    ///
    /// Numbers follow the generation and so come again only after 2^24 segments: whoever still holds an entry of a
    /// segment long gone does not take another one's for it.
    pub fn next_id(&mut self) -> Option<(u32, u64)> {
        for _ in 0..=self.by_id.len() {
            let generation = self.next_generation;
            self.next_generation += 1;
            let id = (generation % NUMBERS) as u32;
            if !self.by_id.contains_key(&id) {
                self.in_making.push(generation);
                return Some((id, generation));
            }
        }
        None
    }

    /// The segment could not be made.
    pub fn not_made(&mut self, generation: u64) {
        self.in_making.retain(|g| *g != generation);
    }

    /// Every segment that is not here now will have this generation or a later one.
    pub fn first_to_come(&self) -> u64 {
        let made = self.in_making.iter().copied().min();
        made.unwrap_or(self.next_generation)
    }

    /// Generation of the oldest segment that something can still be appended to.
    pub fn oldest_unsealed(&self) -> u64 {
        let unsealed = self.by_id.values().filter(|s| s.phase != Phase::Sealed);
        let oldest = unsealed.map(|s| s.generation).min();
        oldest.unwrap_or(u64::MAX).min(self.first_to_come())
    }

    /// Opens a spare segment for `purpose`, leaving the reserves of those who need it more. Where there is a choice, it is
    /// prewritten or not as asked for.
    pub fn take_spare(
        &mut self,
        purpose: Purpose,
        content: Content,
        prewritten: bool,
    ) -> Option<(u32, &mut Segment)> {
        if self.spares.len() <= purpose.must_leave() {
            return None;
        }
        let fits = |id: &u32| self.get(*id).is_some_and(|s| s.prewritten == prewritten);
        let id = match self.spares.iter().position(fits) {
            Some(place) => self.spares.remove(place)?,
            None => self.spares.pop_front()?,
        };
        let segment = self.get_mut(id)?;
        segment.phase = Phase::Open;
        segment.content = content;
        Some((id, segment))
    }

    /// Spare segments that there are for `purpose`.
    pub fn spares_for(&self, purpose: Purpose) -> usize {
        self.spares.len().saturating_sub(purpose.must_leave())
    }

    /// All segments.
    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    /// Whether the next segment that is made ready should be prewritten: one spare is enough.
    pub fn wants_prewritten(&self) -> bool {
        self.prewrite && self.spares.len() >= RESERVED && !self.has_prewritten()
    }

    /// Whether a spare segment is prewritten.
    pub fn has_prewritten(&self) -> bool {
        let written = |id: &u32| self.get(*id).is_some_and(|s| s.prewritten);
        self.spares.iter().any(written)
    }

    /// Spare segments at hand.
    pub fn spares(&self) -> usize {
        self.spares.len()
    }

    /// A map entry now points into the segment.
    pub fn retain(&mut self, id: u32, count: u32) {
        if let Some(s) = self.get_mut(id) {
            s.live = s.live.saturating_add(count);
        }
    }

    /// A map entry no longer points into the segment.
    pub fn release(&mut self, id: u32) {
        let Some(s) = self.by_id.get_mut(&id) else {
            return;
        };
        match s.live.checked_sub(1) {
            Some(left) => s.live = left,
            // Counts come from the disk, and may be wrong there: that must not end the process.
            None => {
                if self.miscounted == 0 {
                    log::error!(
                        "segment {id:x}: more is let go of than the segment table says is alive in it; firn store check tells more"
                    );
                }
                self.miscounted += 1;
            }
        }
    }

    /// The segment has grown to `used` bytes by `count` blocks or nodes.
    pub fn appended(&mut self, id: u32, used: u32, count: u32) {
        let now = self.now;
        if let Some(s) = self.get_mut(id) {
            s.touched = now;
            s.used = s.used.max(used);
            s.total = s.total.saturating_add(count);
        }
    }

    /// From when on it counts that something is not touched.
    pub fn start_clock(&mut self, now: u64) {
        self.now = now;
        for segment in self.by_id.values_mut() {
            segment.touched = now;
        }
    }

    /// The segment's file and generation, for something in it to be read.
    pub fn touch(&mut self, id: u32) -> Option<&Segment> {
        let now = self.now;
        let segment = self.get_mut(id)?;
        segment.touched = now;
        Some(segment)
    }

    /// The rows that a checkpoint writes.
    pub fn rows(&self) -> Vec<SegmentRow> {
        self.iter().map(|(id, s)| s.row(id)).collect()
    }
}

impl Segment {
    /// It was compacted. Where something is alive in it that ought to have gone (`all`), it is not tried for ever.
    pub fn left_alive(&mut self, all: bool) {
        if all && self.live > 0 {
            self.left = self.left.saturating_add(1);
        }
    }

    /// The row of it that a checkpoint would write now.
    pub fn row(&self, id: u32) -> SegmentRow {
        SegmentRow {
            id,
            generation: self.generation,
            used: self.used,
            live: self.live,
            total: self.total,
            open: self.phase != Phase::Sealed,
            meta: self.content == Content::Meta,
            settled: self.settled,
            temperature: self.temperature,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::SimDisk;
    use crate::io::{Disk, PAGE};

    fn with_one(id: u32) -> Segments {
        let file = SimDisk::new(1, 1 << 20).create("f", PAGE as u64).unwrap();
        let mut segments = Segments::starting_at(1);
        let segment = Segment {
            generation: 1,
            file,
            phase: Phase::Sealed,
            content: Content::Data,
            used: 4096,
            live: 1,
            total: 9,
            prewritten: false,
            settled: false,
            left: 0,
            touched: 0,
            temperature: Default::default(),
        };
        segments.insert(id, segment);
        segments
    }

    /// Aliases are looked at when that says so.
    #[test]
    fn a_removed_segment_vanishes_when_nobody_reads_it_any_more() {
        let mut segments = with_one(5);
        let removed = segments.remove(5).unwrap();
        assert_eq!((segments.vanished(), segments.generations()), (0, vec![1]));
        drop(removed);
        assert_eq!((segments.vanished(), segments.generations()), (1, vec![]));
    }

    /// What a damaged table says of a segment's live entries may be less than maps have.
    #[test]
    fn more_is_let_go_of_than_there_should_be() {
        let mut segments = with_one(5);
        segments.release(5);
        segments.release(5);
        assert_eq!(segments.get(5).map(|s| s.live), Some(0));
        assert_eq!(segments.miscounted(), 1);
    }
}
