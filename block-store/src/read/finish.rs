//! Finishing a read: every byte is verified, header and payload, before it is decoded.

use super::plan::{Run, Source};
use crate::compress::Decompressor;
use crate::format::{BLOCK, MAX_EXTENT_BLOCKS, RECORD_HEADER, RecordHeader, RecordKind, Seed};
use std::io;

/// Why a run can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// First block of the run.
    pub block: u64,
    /// Segment number of the extent.
    pub segment: u32,
    /// Offset of the extent in the segment.
    pub offset: u32,
    /// What is wrong.
    pub why: String,
}

/// What the scratch space holds: the first blocks of one extent, verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    generation: u64,
    offset: u32,
    /// Block and layer that it was verified for.
    first: u64,
    layer: u32,
}

/// Verifies and decodes runs; one per thread, its scratch space is reused.
pub struct Decoder {
    decompressor: Decompressor,
    scratch: Vec<u8>,
    holds: Option<(Held, usize)>,
}

impl Decoder {
    /// A decoder.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            decompressor: Decompressor::new()?,
            scratch: vec![0; MAX_EXTENT_BLOCKS * BLOCK],
            holds: None,
        })
    }

    /// The run's blocks. `stored` is the extent with its header, as read from `run.at`; `is_heir(origin, layer)` says
    /// whether data written for a layer may be read as another's.
    pub fn decode<'a>(
        &'a mut self,
        run: &Run,
        stored: &[u8],
        is_heir: &mut dyn FnMut(u32, u32) -> bool,
    ) -> Result<&'a [u8], Fault> {
        let (from, blocks) = (usize::from(run.index), run.blocks as usize);
        let wanted = from + blocks;
        let first = run.first.wrapping_sub(from as u64);
        let this = Held {
            generation: run.generation,
            offset: run.at.offset,
            first,
            layer: run.layer,
        };
        if !self
            .holds
            .is_some_and(|(held, n)| held == this && n >= wanted)
        {
            self.holds = None;
            self.decode_extent(run, stored, wanted, is_heir)
                .map_err(|why| fault(run, why))?;
            self.holds = Some((this, wanted));
        }
        self.scratch
            .get(from * BLOCK..wanted * BLOCK)
            .ok_or_else(|| fault(run, "a block past the extent".into()))
    }

    fn decode_extent(
        &mut self,
        run: &Run,
        stored: &[u8],
        wanted: usize,
        is_heir: &mut dyn FnMut(u32, u32) -> bool,
    ) -> Result<(), String> {
        let (header, payload) = verify(run, stored, wanted, is_heir)?;
        let to = self.scratch.get_mut(..wanted * BLOCK).ok_or("too large")?;
        self.decompressor
            .decompress(header.codec, payload, header.raw_len as usize, to)
            .map_err(|e| e.to_string())
    }
}

/// Header and payload of the extent at `run.at`, if it is what the map says: the run's block, layer and place, `wanted`
/// blocks of it, and both checksums.
pub fn verify<'a>(
    run: &Run,
    stored: &'a [u8],
    wanted: usize,
    is_heir: &mut dyn FnMut(u32, u32) -> bool,
) -> Result<(RecordHeader, &'a [u8]), String> {
    let seed = Seed {
        segment: run.at.segment,
        generation: run.generation,
        offset: run.at.offset,
    };
    let header = RecordHeader::decode(stored, seed).map_err(|e| e.to_string())?;
    if header.kind != RecordKind::Extent
        || header.stored_len() != run.at.len as usize
        || header.first.checked_add(u64::from(run.index)) != Some(run.first)
        || wanted as u64 > header.count
        || !is_heir(header.layer, run.layer)
    {
        return Err(format!(
            "holds {} blocks from {} of layer {}",
            header.count, header.first, header.layer
        ));
    }
    let payload = stored
        .get(RECORD_HEADER..RECORD_HEADER + header.payload_len as usize)
        .ok_or("ends within its payload")?;
    if !header.payload_is_intact(payload) {
        return Err("payload checksum does not match".into());
    }
    Ok((header, payload))
}

fn fault(run: &Run, why: String) -> Fault {
    let why = match run.source {
        Source::Damaged => "the map entry is damaged".into(),
        _ => why,
    };
    Fault {
        block: run.first,
        segment: run.at.segment,
        offset: run.at.offset,
        why,
    }
}
