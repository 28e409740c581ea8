//! Metadata segments: written by checkpoints alone, straight to the file.

use crate::alloc::{Content, Phase, Purpose};
use crate::compress::{Codec, Compressor};
use crate::core::Core;
use crate::error::StoreError;
use crate::format::{
    Chain, Entry, FormatError, Location, MAX_STORED, RECORD_HEADER, RecordFlags, RecordHeader,
    RecordKind, SEGMENT_DATA_START, Seed, SegmentHeader, Superblock, pack_node, segment_file_name,
    units,
};
use crate::io::{AlignedBuf, Disk, DiskFile, PAGE};
use crate::log::Cause;
use crate::map::{NodeKey, Slots};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes that are gathered before they are written.
const GATHER: usize = 1 << 20;

struct Open {
    id: u32,
    generation: u64,
    file: Arc<dyn DiskFile>,
    size: u32,
    /// Where the first gathered byte goes; a multiple of the page.
    at: u32,
    gathered: Vec<u8>,
}

/// Appends records to metadata segments.
#[derive(Default)]
pub struct MetaWriter {
    open: Option<Open>,
    /// Segments written to since the last sync, but for the open one.
    full: Vec<(u32, Arc<dyn DiskFile>)>,
    packed: Vec<u8>,
    stored: Vec<u8>,
    compressor: Option<Compressor>,
}

impl MetaWriter {
    /// Segments written to since the last sync, and the open one.
    pub fn segments(&self) -> Vec<u32> {
        self.full
            .iter()
            .map(|(id, _)| *id)
            .chain(self.open.as_ref().map(|o| o.id))
            .collect()
    }

    /// Appends a node; returns the packed entry of its record.
    pub fn append_node(
        &mut self,
        core: &Core,
        key: NodeKey,
        slots: &Slots,
    ) -> Result<u64, StoreError> {
        let mut packed = std::mem::take(&mut self.packed);
        let mut stored = std::mem::take(&mut self.stored);
        pack_node(slots, &mut packed);
        stored.clear();
        let mut compressor = match self.compressor.take() {
            Some(compressor) => compressor,
            None => Compressor::new().map_err(StoreError::io("compressing a map node"))?,
        };
        let codec = match compressor.compress(Codec::Lz4, &packed, &mut stored) {
            Some(_) => Codec::Lz4.byte(),
            None => 0,
        };
        self.compressor = Some(compressor);
        let payload = if codec == 0 { &packed } else { &stored };
        let header = RecordHeader {
            kind: RecordKind::Node,
            flags: RecordFlags::default(),
            codec,
            layer: key.layer(),
            first: key.identity(),
            count: 0,
            lsn: 0,
            payload_len: payload.len() as u32,
            raw_len: packed.len() as u32,
            payload_crc: crc32c::crc32c(payload),
            link: 0,
        };
        let at = self.append(core, &header, payload, 1);
        (self.packed, self.stored) = (packed, stored);
        Ok(Entry::Stored { at: at?, index: 0 }.pack())
    }

    /// Appends `bytes` as a chain of records; their segments are added to `segments`.
    pub fn append_chain(
        &mut self,
        core: &Core,
        kind: RecordKind,
        bytes: &[u8],
        segments: &mut Vec<u32>,
    ) -> Result<Chain, StoreError> {
        let mut chain = Chain::default();
        for piece in bytes.chunks(MAX_STORED - RECORD_HEADER) {
            let header = RecordHeader {
                kind,
                flags: RecordFlags::default(),
                codec: 0,
                layer: 0,
                first: u64::from(chain.records),
                count: 0,
                lsn: 0,
                payload_len: piece.len() as u32,
                raw_len: piece.len() as u32,
                payload_crc: crc32c::crc32c(piece),
                link: chain.last,
            };
            let at = self.append(core, &header, piece, 0)?;
            segments.push(at.segment);
            chain = Chain {
                last: Entry::Stored { at, index: 0 }.pack(),
                records: chain.records + 1,
            };
        }
        Ok(chain)
    }

    fn append(
        &mut self,
        core: &Core,
        header: &RecordHeader,
        payload: &[u8],
        count: u32,
    ) -> Result<Location, StoreError> {
        let len = units(payload.len());
        self.reserve(core, len)?;
        let Some(open) = &mut self.open else {
            return Err(no_space());
        };
        let at = Location {
            segment: open.id,
            offset: open.at + open.gathered.len() as u32,
            len: len as u32,
        };
        let seed = Seed {
            segment: open.id,
            generation: open.generation,
            offset: at.offset,
        };
        open.gathered.extend_from_slice(&header.encode(seed));
        open.gathered.extend_from_slice(payload);
        open.gathered.resize((at.end() - open.at) as usize, 0);
        core.state
            .lock()
            .segments
            .appended(open.id, at.end(), count);
        if open.gathered.len() >= GATHER {
            open.write_out(core)?;
        }
        Ok(at)
    }

    /// Makes sure that the next `len` bytes go to one segment.
    pub fn reserve(&mut self, core: &Core, len: usize) -> Result<(), StoreError> {
        if let Some(open) = &mut self.open {
            if open.at as usize + open.gathered.len() + len <= open.size as usize {
                return Ok(());
            }
            open.write_out(core)?;
        }
        if let Some(open) = self.open.take() {
            if let Some(s) = core.state.lock().segments.get_mut(open.id) {
                s.phase = Phase::Sealed;
            }
            self.full.push((open.id, open.file));
        }
        if len > (core.segment_size - SEGMENT_DATA_START) as usize {
            return Err(StoreError::NoSpace(
                "the catalogue no longer fits into a segment".into(),
            ));
        }
        self.open = Some(open_spare(core)?);
        Ok(())
    }

    /// Makes everything durable that was appended.
    pub fn sync(&mut self, core: &Core) -> Result<(), StoreError> {
        if let Some(open) = &mut self.open {
            open.write_out(core)?;
            open.file
                .sync()
                .map_err(|e| core.fail(open.id, "syncing", e))?;
        }
        for (id, file) in self.full.drain(..) {
            file.sync().map_err(|e| core.fail(id, "syncing", e))?;
        }
        Ok(())
    }
}

fn open_spare(core: &Core) -> Result<Open, StoreError> {
    // The reserve is for us; it is only empty when the disk is full, or when a burst of checkpoints outran the
    // allocator: then allocate here.
    for _ in 0..2 {
        let mut state = core.state.lock();
        if let Some((id, segment)) =
            state
                .segments
                .take_spare(Purpose::Checkpoint, Content::Meta, false)
        {
            let (generation, file) = (segment.generation, Arc::clone(&segment.file));
            core.alloc_bell.ring();
            let gathered = Vec::with_capacity(GATHER + MAX_STORED);
            return Ok(Open {
                id,
                generation,
                file,
                size: core.segment_size,
                at: SEGMENT_DATA_START,
                gathered,
            });
        }
        drop(state);
        core.allocate_step()?;
    }
    Err(no_space())
}

fn no_space() -> StoreError {
    StoreError::NoSpace(
        "the reserve for checkpoints is used up; free space on the store's filesystem".into(),
    )
}

impl Open {
    /// Writes what is gathered, padded by a record as in the log, so that compaction finds what follows; goes on with a
    /// page of its own.
    fn write_out(&mut self, core: &Core) -> Result<(), StoreError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let records = self.gathered.len() as u64;
        if !self.gathered.len().is_multiple_of(PAGE) {
            let seed = Seed {
                segment: self.id,
                generation: self.generation,
                offset: self.at + self.gathered.len() as u32,
            };
            self.gathered
                .extend_from_slice(&RecordHeader::pad(0).encode(seed));
        }
        let pages = AlignedBuf::from_bytes(&self.gathered)
            .map_err(StoreError::io("writing a checkpoint"))?;
        self.file
            .write_at(&pages, u64::from(self.at))
            .map_err(|e| core.fail(self.id, "writing", e))?;
        let all = pages.len() as u64;
        core.counters.meta_bytes.fetch_add(all, Relaxed);
        let written = &core.counters.written;
        written.add(Cause::Checkpoint, records);
        written.add(Cause::Padding, all - records);
        self.at += pages.len() as u32;
        self.gathered.clear();
        Ok(())
    }
}

/// Reads a chain of records back into the bytes that were cut up. Where each piece lies is appended to `places`; after an
/// error the last one is that of the piece that can't be read.
pub fn read_chain(
    disk: &dyn Disk,
    superblock: &Superblock,
    chain: &Chain,
    kind: RecordKind,
    places: &mut Vec<Location>,
) -> Result<Vec<u8>, FormatError> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut next = chain.last;
    for number in (0..chain.records).rev() {
        let bad = |why: String| FormatError {
            what: "chain of records",
            why: format!("piece {number}{why}"),
        };
        let Entry::Stored { at, .. } = Entry::unpack(next)? else {
            return Err(bad(" is not named".into()));
        };
        places.push(at);
        let (segment, offset) = (at.segment, at.offset);
        let place = |why: String| bad(format!(", at byte {offset} of segment {segment:x}: {why}"));
        let (payload, link) =
            read_piece(disk, superblock, at, kind, number).map_err(|e| place(e.to_string()))?;
        pieces.push(payload);
        next = link;
    }
    pieces.reverse();
    Ok(pieces.concat())
}

/// One piece of a chain, and the entry of the one before it.
fn read_piece(
    disk: &dyn Disk,
    superblock: &Superblock,
    at: Location,
    kind: RecordKind,
    number: u32,
) -> Result<(Vec<u8>, u64), FormatError> {
    let bad = |why: String| FormatError {
        what: "record",
        why,
    };
    let io = |e: std::io::Error| bad(e.to_string());
    let file = disk.open(&segment_file_name(at.segment)).map_err(io)?;
    let mut page = AlignedBuf::zeroed(PAGE).map_err(io)?;
    file.read_at(&mut page, 0).map_err(io)?;
    let segment = SegmentHeader::decode(&page)?;
    if segment.store != superblock.store || segment.id != at.segment {
        return Err(bad("the segment belongs to another place or store".into()));
    }
    let from = at.offset as usize / PAGE * PAGE;
    let mut pages =
        AlignedBuf::zeroed((at.end() as usize).next_multiple_of(PAGE) - from).map_err(io)?;
    file.read_at(&mut pages, from as u64).map_err(io)?;
    let stored = pages.get(at.offset as usize - from..).unwrap_or_default();
    let seed = Seed {
        segment: at.segment,
        generation: segment.generation,
        offset: at.offset,
    };
    let header = RecordHeader::decode(stored, seed)?;
    let payload = stored
        .get(RECORD_HEADER..RECORD_HEADER + header.payload_len as usize)
        .unwrap_or_default();
    if header.kind != kind || header.first != u64::from(number) {
        return Err(bad("another record is there".into()));
    }
    if !header.payload_is_intact(payload) {
        return Err(bad("payload checksum does not match".into()));
    }
    Ok((payload.to_vec(), header.link))
}
