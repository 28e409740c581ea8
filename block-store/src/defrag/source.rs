//! A segment that is being compacted: what of it is alive, and its bytes.

use super::group::Shape;
use crate::alloc::Why;
use crate::core::Core;
use crate::error::StoreError;
use crate::format::{BLOCK, Entry, Location, RecordHeader, RecordKind, SEGMENT_DATA_START};
use crate::io::{AlignedBuf, DiskFile, PAGE};
use crate::map::NodeKey;
use crate::read::{Run, Source as Place};
use crate::recover::{Records, Scanned};
use crate::state::{Blocked, State};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes read at a time where extents are asked for in the order in which they lie.
const WINDOW: u32 = 256 << 10;
/// Bytes that may lie between two such.
const NEAR: u32 = 64 << 10;

/// A segment that is being compacted.
pub struct Source {
    /// Its number.
    pub id: u32,
    /// Why it is compacted.
    pub why: Why,
    /// Seconds for which it was untouched.
    pub untouched: u64,
    generation: u64,
    file: Arc<dyn DiskFile>,
    used: u32,
    window: Option<(u32, AlignedBuf)>,
}

/// Takes a checkpoint amidst compaction where one is due: what has moved counts from there on, guests' writes may wait for it, and what
/// was found alive is looked at again when it moves.
pub struct Due<'a>(pub &'a mut dyn FnMut() -> Result<(), StoreError>);

impl Due<'_> {
    /// If it is due.
    pub fn checkpoint(&mut self, core: &Core) -> Result<(), StoreError> {
        let due = core.wants_checkpoint(&core.state.lock());
        if due { (self.0)() } else { Ok(()) }
    }
}

/// Blocks of one extent that are alive.
#[derive(Debug, Clone)]
pub struct Piece {
    /// As decisions see it.
    pub shape: Shape,
    /// The extent's header; its layer is the one whose map names it now.
    pub header: RecordHeader,
    /// The extent.
    pub at: Location,
    /// Its first block that is alive.
    pub index: u64,
    /// Which of the sources it lies in.
    pub source: usize,
}

impl Piece {
    /// Packed entries of its blocks.
    pub fn entries(&self) -> impl Iterator<Item = u64> {
        let (at, index) = (self.at, self.index);
        (index..index + self.shape.blocks).map(move |n| Entry::Stored { at, index: n as u8 }.pack())
    }

    /// As a read of it sees it.
    pub fn run(&self, generation: u64) -> Run {
        Run {
            first: self.shape.first,
            blocks: self.shape.blocks,
            layer: self.shape.layer,
            at: self.at,
            index: self.index as u8,
            generation,
            source: Place::Zero,
        }
    }

    /// Its bytes when decoded.
    pub fn bytes(&self) -> usize {
        self.shape.blocks as usize * BLOCK
    }
}

impl Source {
    /// Of a segment.
    pub fn of(core: &Core, id: u32, why: Why, untouched: u64) -> Result<Self, StoreError> {
        let state = core.state.lock();
        let segment = state
            .segments
            .get(id)
            .ok_or_else(|| compacting(id)(io::ErrorKind::NotFound.into()))?;
        Ok(Self {
            id,
            why,
            untouched,
            generation: segment.generation,
            file: Arc::clone(&segment.file),
            used: segment.used,
            window: None,
        })
    }

    /// Seeds the checksums of its records.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Its records, as far as they can be read: what can't be stays where it is.
    fn records(&self) -> impl Iterator<Item = Scanned> {
        let file = &*self.file;
        let records = Records::of(file, self.id, self.generation, SEGMENT_DATA_START);
        let (records, error) = match records {
            Ok(records) => (Some(records), None),
            Err(error) => (None, Some(Err(error))),
        };
        let records = records.into_iter().flatten().chain(error);
        records.filter_map(|record| {
            let record = record.map_err(compacting(self.id));
            record
                .inspect_err(|e| log::error!("{e}; what else is in it stays where it is"))
                .ok()
        })
    }

    /// Live nodes become dirty: the next checkpoint writes them elsewhere. `false`: there is no room for all.
    pub fn rewrite_nodes(&self, core: &Core, due: &mut Due<'_>) -> Result<bool, StoreError> {
        let mut damage = Damage::of(self);
        for record in self.records() {
            due.checkpoint(core)?;
            if record.header.kind != RecordKind::Node {
                continue;
            }
            let at = self.location(&record);
            let at = Entry::Stored { at, index: 0 }.pack();
            let done = core.with_nodes(|state| {
                for layer in owners(state, record.header.layer) {
                    let Some(key) = NodeKey::from_identity(layer, record.header.first) else {
                        continue;
                    };
                    if state.map.names_node(key, at).map_err(Blocked::Node)? {
                        state.map.make_resident(key).map_err(Blocked::Node)?;
                        state.map.mark_dirty(key);
                    }
                }
                Ok(!state.map.is_full())
            });
            match damage.left(done)? {
                Some(Ok(true)) | None => {}
                Some(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// What of its records' extents is alive, appended to `out` with `number` as its source.
    pub fn alive(
        &self,
        core: &Core,
        number: usize,
        due: &mut Due<'_>,
        out: &mut Vec<Piece>,
    ) -> Result<(), StoreError> {
        let mut damage = Damage::of(self);
        for record in self.records() {
            due.checkpoint(core)?;
            if record.header.kind != RecordKind::Extent {
                continue;
            }
            let at = self.location(&record);
            let found = core.with_nodes(|state| {
                let owners = owners(state, record.header.layer).into_iter();
                owners
                    .map(|layer| Ok((layer, alive_blocks(state, layer, &record.header, at)?)))
                    .collect::<Result<Vec<_>, Blocked>>()
            });
            let found = damage.left(found)?.and_then(Result::ok);
            for (layer, ranges) in found.unwrap_or_default() {
                // A copy is its owner's own: it needs no alias.
                let header = RecordHeader {
                    layer,
                    ..record.header
                };
                out.extend(ranges.into_iter().map(|range| Piece {
                    shape: Shape {
                        layer,
                        first: header.first + range.start,
                        blocks: range.end - range.start,
                        whole: range == (0..header.count) && header.codec != 0,
                    },
                    header,
                    at,
                    index: range.start,
                    source: number,
                }));
            }
        }
        Ok(())
    }

    fn location(&self, record: &Scanned) -> Location {
        Location {
            segment: self.id,
            offset: record.offset,
            len: record.header.stored_len() as u32,
        }
    }

    /// The stored bytes of an extent.
    pub fn stored(&mut self, at: Location) -> io::Result<&[u8]> {
        let page = PAGE as u32;
        let (from, to) = (at.offset / page * page, at.end().next_multiple_of(page));
        let holds = |(start, buf): &(u32, AlignedBuf)| {
            *start <= from && to as usize <= *start as usize + buf.len()
        };
        if !self.window.as_ref().is_some_and(holds) {
            // Out of order, all but the extent itself would be read for nothing.
            let goes_on = |(start, buf): &(u32, AlignedBuf)| {
                (*start..=start + buf.len() as u32 + NEAR).contains(&from)
            };
            let ahead = match self.window.take() {
                Some(last) if goes_on(&last) => WINDOW,
                _ => 0,
            };
            let used = self.used.next_multiple_of(page);
            let end = (from + ahead).min(used).max(to);
            let mut buf = AlignedBuf::zeroed((end - from) as usize)?;
            self.file.read_at(&mut buf, u64::from(from))?;
            self.window = Some((from, buf));
        }
        let (start, buf) = self.window.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let skip = (at.offset - start) as usize;
        buf.get(skip..skip + at.len as usize)
            .ok_or(io::ErrorKind::UnexpectedEof.into())
    }
}

/// What a damaged map names can't be found, and stays where it is; all else is none of its business.
struct Damage {
    segment: u32,
    /// Once is enough: a leaf has hundreds of entries.
    said: bool,
}

impl Damage {
    fn of(source: &Source) -> Self {
        Self {
            segment: source.id,
            said: false,
        }
    }

    /// `None`: damaged.
    fn left<T>(&mut self, outcome: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match outcome {
            Err(error @ StoreError::Damaged { .. }) => {
                if !std::mem::replace(&mut self.said, true) {
                    log::error!(
                        "compacting segment {:x}: {error}; what that names stays where it is",
                        self.segment
                    );
                }
                Ok(None)
            }
            other => other.map(Some),
        }
    }
}

/// Names the segment in an error.
pub fn compacting(id: u32) -> impl FnOnce(io::Error) -> StoreError {
    StoreError::io(format!("compacting segment {id:x}"))
}

/// The layers whose maps may name what was written for `origin`: its last heir, and those that are being merged into that.
pub fn owners(state: &State, origin: u32) -> Vec<u32> {
    let catalogue = &state.catalogue;
    let heir = catalogue.aliases.heir(origin);
    let merging = catalogue.aliases.under_way();
    merging
        .filter(|layer| catalogue.aliases.heir(*layer) == heir)
        .chain([heir])
        .filter(|layer| catalogue.layers.contains_key(layer))
        .collect()
}

/// The blocks of an extent that a layer's map still names, as ranges of indices.
fn alive_blocks(
    state: &mut State,
    layer: u32,
    header: &RecordHeader,
    at: Location,
) -> Result<Vec<Range<u64>>, Blocked> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for n in 0..header.count {
        let bits = state.map.lookup(layer, header.first + n);
        if bits.map_err(Blocked::Node)? == (Entry::Stored { at, index: n as u8 }).pack() {
            match out.last_mut() {
                Some(last) if last.end == n => last.end += 1,
                _ => out.push(n..n + 1),
            }
        }
    }
    Ok(out)
}
