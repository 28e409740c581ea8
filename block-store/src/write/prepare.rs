//! Preparing a write: data groups, probing, compression. Pure work on private memory, outside of every lock.

use crate::compress::{Choice, Codec, Compressor, Rules, WriteTraits, classify, is_zero};
use crate::format::{BLOCK, MAX_EXTENT_BLOCKS, RecordFlags, RecordHeader, RecordKind, units};
use std::io;
use std::ops::Range;

/// What a piece of a write becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Zeroes: a range record without data.
    Zero,
    /// An extent.
    Extent {
        /// Codec byte of the record.
        codec: u8,
        /// crc32c of the payload.
        crc: u32,
        /// Where the payload is.
        payload: Stored,
    },
}

/// Where a piece's payload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// As is, in the write's own data.
    Raw(Range<usize>),
    /// Compressed, in [`PreparedWrite::packed`].
    Packed(Range<usize>),
}

/// Consecutive blocks that are stored as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// First block.
    pub first: u64,
    /// Blocks: 1..=32 for an extent, any number for zeroes.
    pub blocks: u64,
    /// What it becomes.
    pub body: Body,
}

/// A write, ready for its critical sections. Reused from request to request.
#[derive(Debug, Default)]
pub struct PreparedWrite {
    /// In order of address.
    pub pieces: Vec<Piece>,
    packed: Vec<u8>,
}

impl Piece {
    /// The header of its extent in a layer; the log gives it its LSN. `None`: zeroes have none.
    pub fn header(&self, layer: u32, payload: &[u8]) -> Option<RecordHeader> {
        let Body::Extent { codec, crc, .. } = self.body else {
            return None;
        };
        Some(RecordHeader {
            kind: RecordKind::Extent,
            flags: RecordFlags::default(),
            codec,
            layer,
            first: self.first,
            count: self.blocks,
            lsn: 0,
            payload_len: payload.len() as u32,
            raw_len: (self.blocks * BLOCK as u64) as u32,
            payload_crc: crc,
            link: 0,
        })
    }
}

impl PreparedWrite {
    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.packed.clear();
    }

    /// The payload of a piece; `data` is what the write was prepared from.
    pub fn payload<'a>(&'a self, piece: &Piece, data: &'a [u8]) -> &'a [u8] {
        match &piece.body {
            Body::Zero => &[],
            Body::Extent {
                payload: Stored::Raw(range),
                ..
            } => data.get(range.clone()).unwrap_or_default(),
            Body::Extent {
                payload: Stored::Packed(range),
                ..
            } => self.packed.get(range.clone()).unwrap_or_default(),
        }
    }

    /// Bytes that its extents take in a segment, headers included.
    pub fn stored_len(&self, data: &[u8]) -> usize {
        let payloads = self.pieces.iter().map(|p| self.payload(p, data).len());
        payloads.map(units).sum()
    }

    /// Adds a range of zeroes.
    pub fn push_zeroes(&mut self, first: u64, blocks: u64) {
        match self.pieces.last_mut() {
            Some(last) if last.body == Body::Zero && last.first + last.blocks == first => {
                last.blocks += blocks
            }
            _ if blocks > 0 => self.pieces.push(Piece {
                first,
                blocks,
                body: Body::Zero,
            }),
            _ => {}
        }
    }
}

/// Forms and compresses pieces; one per thread.
pub struct Packer {
    compressor: Compressor,
}

impl Packer {
    /// A packer.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            compressor: Compressor::new()?,
        })
    }

    /// Cuts `data[range]` (whole blocks, the first of them being block `first`) into pieces and compresses them as the
    /// rules say. Groups are aligned to their own size in the vDisk's address space, so that an overwrite of a group
    /// replaces one extent.
    pub fn pack(
        &mut self,
        rules: &Rules,
        traits: &WriteTraits<'_>,
        first: u64,
        data: &[u8],
        range: Range<usize>,
        out: &mut PreparedWrite,
    ) {
        let group_blocks =
            u64::from(rules.choose(traits).extent_blocks).clamp(1, MAX_EXTENT_BLOCKS as u64);
        let mut block = first;
        let mut at = range.start;
        while at < range.end {
            let blocks =
                (group_blocks - block % group_blocks).min(((range.end - at) / BLOCK) as u64);
            if blocks == 0 {
                return;
            }
            let end = at + blocks as usize * BLOCK;
            self.pack_group((rules, traits), block, data, at..end, out);
            (block, at) = (block + blocks, end);
        }
    }

    /// Like [`Packer::pack`] for all of `data`, but zero blocks stay data: relocation must not change what a block is.
    pub fn pack_stored(
        &mut self,
        rules: &Rules,
        traits: &WriteTraits<'_>,
        first: u64,
        data: &[u8],
        out: &mut PreparedWrite,
    ) {
        let mut at = 0;
        while at < data.len() {
            let rest = data.get(at..).unwrap_or_default();
            let near = rest.get(..MAX_EXTENT_BLOCKS * BLOCK).unwrap_or(rest);
            let choice = choose_for(rules, traits, near);
            let most = u64::from(choice.extent_blocks).clamp(1, MAX_EXTENT_BLOCKS as u64);
            let block = first + (at / BLOCK) as u64;
            let blocks = (most - block % most).min((rest.len() / BLOCK) as u64);
            let group = rest.get(..blocks as usize * BLOCK).unwrap_or_default();
            if group.is_empty() {
                return;
            }
            let body = self.extent(choice.codec, group, at, out);
            out.pieces.push(Piece {
                first: block,
                blocks,
                body,
            });
            at += group.len();
        }
    }

    fn pack_group(
        &mut self,
        rules: (&Rules, &WriteTraits<'_>),
        first: u64,
        data: &[u8],
        range: Range<usize>,
        out: &mut PreparedWrite,
    ) {
        let blocks = data.get(range.clone()).unwrap_or_default();
        let zero = |block: &[u8]| is_zero(block);
        let lead = blocks.chunks_exact(BLOCK).take_while(|b| zero(b)).count();
        out.push_zeroes(first, lead as u64);
        let rest = blocks.get(lead * BLOCK..).unwrap_or_default();
        let tail = rest
            .chunks_exact(BLOCK)
            .rev()
            .take_while(|b| zero(b))
            .count();
        let body = rest.get(..rest.len() - tail * BLOCK).unwrap_or_default();
        if !body.is_empty() {
            let choice = choose_for(rules.0, rules.1, body);
            // Deferred: stored as it is now, compressed when it is relocated.
            let codec = if choice.defer {
                Codec::None
            } else {
                choice.codec
            };
            let mut at = lead;
            let end = lead + body.len() / BLOCK;
            // What this very data looks like may ask for shorter extents than the write as a whole did.
            let most = u64::from(choice.extent_blocks).clamp(1, MAX_EXTENT_BLOCKS as u64);
            while at < end {
                let block = first + at as u64;
                let count = ((most - block % most) as usize).min(end - at);
                let group = blocks
                    .get(at * BLOCK..(at + count) * BLOCK)
                    .unwrap_or_default();
                let piece = Piece {
                    first: block,
                    blocks: count as u64,
                    body: self.extent(codec, group, range.start + at * BLOCK, out),
                };
                out.pieces.push(piece);
                at += count;
            }
        }
        out.push_zeroes(first + (blocks.len() / BLOCK - tail) as u64, tail as u64);
    }

    fn extent(&mut self, codec: Codec, body: &[u8], start: usize, out: &mut PreparedWrite) -> Body {
        let from = out.packed.len();
        if self
            .compressor
            .compress(codec, body, &mut out.packed)
            .is_some()
        {
            let crc = crc32c::crc32c(out.packed.get(from..).unwrap_or_default());
            return Body::Extent {
                codec: codec.byte(),
                crc,
                payload: Stored::Packed(from..out.packed.len()),
            };
        }
        let payload = Stored::Raw(start..start + body.len());
        Body::Extent {
            codec: 0,
            crc: crc32c::crc32c(body),
            payload,
        }
    }
}

/// The codec for one group: the rules see what its own data looks like.
fn choose_for(rules: &Rules, traits: &WriteTraits<'_>, group: &[u8]) -> Choice {
    rules.choose(&WriteTraits {
        class: classify(group),
        ..*traits
    })
}
