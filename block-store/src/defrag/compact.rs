//! Compaction: what is alive in a segment moves to another one.
//!
//! What a crash leaves: see [`super::relocate`].

use super::relocate::relocate;
use crate::alloc::Content;
use crate::compress::{Class, Rules, WriteTraits};
use crate::core::Core;
use crate::error::StoreError;
use crate::format::{BLOCK, Entry, Location, RECORD_HEADER, RecordHeader, RecordKind};
use crate::io::{AlignedBuf, PAGE};
use crate::map::NodeKey;
use crate::read::{Decoder, Run, Source};
use crate::recover::{Scanned, scan};
use crate::state::{Blocked, State};
use crate::write::{Body, Packer, PreparedWrite};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// How a compaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that is alive and can be read has moved.
    Moved,
    /// There was no room to move it to.
    NoRoom,
}

/// One segment's records, and the tools to move what is alive.
pub struct Compaction {
    segment: u32,
    generation: u64,
    file: Arc<dyn crate::io::DiskFile>,
    records: Vec<Scanned>,
    decoder: Decoder,
    packer: Packer,
}

impl Compaction {
    /// Reads the segment's headers.
    pub fn of(core: &Core, segment: u32) -> Result<Self, StoreError> {
        let context = || StoreError::io(format!("compacting segment {segment:x}"));
        let (file, generation) = {
            let state = core.state.lock();
            let s = state
                .segments
                .get(segment)
                .ok_or_else(|| context()(io::ErrorKind::NotFound.into()))?;
            (Arc::clone(&s.file), s.generation)
        };
        let scan = scan(
            &*file,
            segment,
            generation,
            crate::format::SEGMENT_DATA_START,
        )
        .map_err(context())?;
        let (decoder, packer) = (
            Decoder::new().map_err(context())?,
            Packer::new().map_err(context())?,
        );
        Ok(Self {
            segment,
            generation,
            file,
            records: scan.records,
            decoder,
            packer,
        })
    }

    /// Moves everything that is alive. What can't be read stays where it is and is named in the log.
    pub fn run(mut self, core: &Core, content: Content) -> Result<Outcome, StoreError> {
        for record in std::mem::take(&mut self.records) {
            let moved = match (content, record.header.kind) {
                (Content::Meta, RecordKind::Node) => self.rewrite_node(core, &record)?,
                (Content::Data, RecordKind::Extent) => self.move_extent(core, &record)?,
                _ => true,
            };
            if !moved {
                return Ok(Outcome::NoRoom);
            }
        }
        Ok(Outcome::Moved)
    }

    /// A live node becomes dirty: the next checkpoint writes it elsewhere.
    fn rewrite_node(&self, core: &Core, record: &Scanned) -> Result<bool, StoreError> {
        let at = Entry::Stored {
            at: self.location(record),
            index: 0,
        }
        .pack();
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
        })?;
        Ok(done.unwrap_or(false))
    }

    fn location(&self, record: &Scanned) -> Location {
        Location {
            segment: self.segment,
            offset: record.offset,
            len: record.header.stored_len() as u32,
        }
    }

    fn move_extent(&mut self, core: &Core, record: &Scanned) -> Result<bool, StoreError> {
        let at = self.location(record);
        let owners = owners(&core.state.lock(), record.header.layer);
        for layer in owners {
            // The copy is the owner's own: it needs no alias.
            let header = RecordHeader {
                layer,
                ..record.header
            };
            if !self.move_blocks_of(core, record, &header, at)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves what one layer still names of an extent; `header` says which.
    fn move_blocks_of(
        &mut self,
        core: &Core,
        record: &Scanned,
        header: &RecordHeader,
        at: Location,
    ) -> Result<bool, StoreError> {
        let alive = core
            .with_nodes(|state| alive_blocks(state, header, at))?
            .unwrap_or_default();
        if alive.is_empty() {
            return Ok(true);
        }
        let stored = self.read(at)?;
        if alive.iter().eq([&(0..header.count)]) && header.codec != 0 && record.intact {
            let payload = stored
                .get(RECORD_HEADER..RECORD_HEADER + header.payload_len as usize)
                .unwrap_or_default();
            return Ok(relocate(core, header, payload, &entries(at, 0, header.count))?.is_some());
        }
        for range in alive {
            if !self.move_blocks(core, header, at, &stored, range)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read(&self, at: Location) -> Result<Vec<u8>, StoreError> {
        let context = || StoreError::io(format!("compacting segment {:x}", self.segment));
        let from = at.offset as usize / PAGE * PAGE;
        let mut pages = AlignedBuf::zeroed((at.end() as usize).next_multiple_of(PAGE) - from)
            .map_err(context())?;
        self.file
            .read_at(&mut pages, from as u64)
            .map_err(context())?;
        let skip = at.offset as usize - from;
        Ok(pages
            .get(skip..skip + at.len as usize)
            .unwrap_or_default()
            .to_vec())
    }

    /// Decodes some blocks of an extent and writes them as extents of their own.
    fn move_blocks(
        &mut self,
        core: &Core,
        header: &RecordHeader,
        at: Location,
        stored: &[u8],
        range: Range<u64>,
    ) -> Result<bool, StoreError> {
        let run = Run {
            first: header.first + range.start,
            blocks: range.end - range.start,
            layer: header.layer,
            at,
            index: range.start as u8,
            generation: self.generation,
            source: Source::Zero,
        };
        let data = match self.decoder.decode(&run, stored, &mut |_, _| true) {
            Ok(data) => data.to_vec(),
            Err(fault) => {
                log::error!(
                    "segment {:x} can't be compacted: byte {}: {}",
                    self.segment,
                    fault.offset,
                    fault.why
                );
                return Ok(true);
            }
        };
        let traits = WriteTraits {
            bytes: data.len() as u64,
            sequential: false,
            aligned: true,
            tag: None,
            age_secs: 0,
            class: Class::Compressible,
            cpu_headroom: 100,
        };
        let mut prepared = PreparedWrite::default();
        self.packer
            .pack_stored(&Rules::default(), &traits, run.first, &data, &mut prepared);
        for piece in &prepared.pieces {
            let Body::Extent { codec, crc, .. } = piece.body else {
                continue;
            };
            let payload = prepared.payload(piece, &data);
            let header = RecordHeader {
                codec,
                first: piece.first,
                count: piece.blocks,
                payload_len: payload.len() as u32,
                raw_len: (piece.blocks as usize * BLOCK) as u32,
                payload_crc: crc,
                ..*header
            };
            let index = piece.first - (run.first - range.start);
            if relocate(core, &header, payload, &entries(at, index, header.count))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
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

/// Packed entries of an extent's blocks from `index` on.
fn entries(at: Location, index: u64, count: u64) -> Vec<u64> {
    let entry = |n: u64| Entry::Stored {
        at,
        index: (index + n) as u8,
    };
    (0..count).map(|n| entry(n).pack()).collect()
}

/// The blocks of an extent that the map of `header`'s layer still names, as ranges of indices.
fn alive_blocks(
    state: &mut State,
    header: &RecordHeader,
    at: Location,
) -> Result<Vec<Range<u64>>, Blocked> {
    let mut out: Vec<Range<u64>> = Vec::new();
    for n in 0..header.count {
        let bits = state
            .map
            .lookup(header.layer, header.first + n)
            .map_err(Blocked::Node)?;
        if bits == (Entry::Stored { at, index: n as u8 }).pack() {
            match out.last_mut() {
                Some(last) if last.end == n => last.end += 1,
                _ => out.push(n..n + 1),
            }
        }
    }
    Ok(out)
}
