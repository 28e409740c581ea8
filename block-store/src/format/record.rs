//! The header that stands before everything in a segment: extents, ranges, commits, map nodes, tables.

use super::bytes::{Fields, put};
use super::{
    BLOCK, FormatError, MAX_BLOCKS, MAX_EXTENT_BLOCKS, MAX_NUMBER, MAX_STORED, NODE_SLOTS, UNIT,
};

/// Size of a record's header in bytes.
pub const RECORD_HEADER: usize = 64;
const MAGIC: [u8; 4] = *b"FXT1";
const WHAT: &str = "record header";

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// 1..32 consecutive blocks of one layer.
    Extent = 1,
    /// A run of blocks that now read as zeroes; no payload.
    Range = 2,
    /// What a flush has made durable; see [`super::CommitRecord`].
    Commit = 3,
    /// A node of a block map; see [`super::pack_node`].
    Node = 4,
    /// A piece of the segment table.
    Table = 5,
    /// A piece of the catalogue.
    Catalogue = 6,
    /// The rest of the page is empty: the next record begins with the next page. No payload.
    Pad = 7,
    /// vDisks go on in new layers; see [`super::CutRecord`].
    Cut = 8,
}

/// Bits of a record's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordFlags {
    /// Written by relocation: takes effect only through a checkpoint, roll-forward passes over it.
    pub relocated: bool,
    /// For a range: the blocks may be forgotten (discard), not merely zeroed.
    pub discard: bool,
}

/// What a header's checksum is seeded with: the place where it must stand. A record that was written to the
/// wrong place, or is left over from a segment's earlier life, does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    /// Segment number.
    pub segment: u32,
    /// Generation of the segment, never reused within a store.
    pub generation: u64,
    /// Offset of the header within the segment, in bytes.
    pub offset: u32,
}

impl Seed {
    fn crc(&self) -> u32 {
        let mut bytes = [0; 16];
        put(&mut bytes, 0, &self.generation.to_le_bytes());
        put(&mut bytes, 8, &self.segment.to_le_bytes());
        put(&mut bytes, 12, &self.offset.to_le_bytes());
        crc32c::crc32c(&bytes)
    }
}

/// A decoded record header; `docs/disk-format.md`, section "Record header".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// What follows.
    pub kind: RecordKind,
    /// Flags.
    pub flags: RecordFlags,
    /// Codec of the payload: 0 none, 1 lz4, 2 zstd.
    pub codec: u8,
    /// The layer it was written for (0 for records of the store itself).
    pub layer: u32,
    /// First block; for a node its level (top 8 bits) and number.
    pub first: u64,
    /// Blocks covered: 1..=32 for an extent, any for a range, 0 else.
    pub count: u64,
    /// Sequence number in the log.
    pub lsn: u64,
    /// Stored payload in bytes.
    pub payload_len: u32,
    /// Payload in bytes once decoded.
    pub raw_len: u32,
    /// crc32c over the stored payload alone.
    pub payload_crc: u32,
    /// For tables and catalogue: the packed entry of the piece before this one, or 0.
    pub link: u64,
}

/// Stored bytes of a record with this much payload: header and payload, rounded up to [`UNIT`].
pub fn units(payload_len: usize) -> usize {
    (RECORD_HEADER + payload_len).next_multiple_of(UNIT)
}

impl RecordHeader {
    /// A record that fills up a page.
    pub fn pad(lsn: u64) -> Self {
        Self {
            kind: RecordKind::Pad,
            flags: RecordFlags::default(),
            codec: 0,
            layer: 0,
            first: 0,
            count: 0,
            lsn,
            payload_len: 0,
            raw_len: 0,
            payload_crc: 0,
            link: 0,
        }
    }

    /// Stored length with header and padding, in bytes.
    pub fn stored_len(&self) -> usize {
        units(self.payload_len as usize)
    }

    /// The 64 bytes that stand at `seed`'s place.
    pub fn encode(&self, seed: Seed) -> [u8; RECORD_HEADER] {
        let mut out = [0; RECORD_HEADER];
        put(&mut out, 0, &MAGIC);
        let flags = u8::from(self.flags.relocated) | u8::from(self.flags.discard) << 1;
        put(&mut out, 4, &[self.kind as u8, self.codec, flags, 0]);
        put(&mut out, 8, &self.layer.to_le_bytes());
        put(&mut out, 12, &self.payload_len.to_le_bytes());
        put(&mut out, 16, &self.first.to_le_bytes());
        put(&mut out, 24, &self.lsn.to_le_bytes());
        put(&mut out, 32, &self.raw_len.to_le_bytes());
        put(&mut out, 36, &self.payload_crc.to_le_bytes());
        put(&mut out, 40, &self.count.to_le_bytes());
        put(&mut out, 48, &self.link.to_le_bytes());
        let sum = crc32c::crc32c_append(seed.crc(), out.get(..60).unwrap_or_default());
        put(&mut out, 60, &sum.to_le_bytes());
        out
    }

    /// Decodes and verifies the header that stands at `seed`'s place.
    pub fn decode(bytes: &[u8], seed: Seed) -> Result<Self, FormatError> {
        let f = Fields::new(WHAT, bytes);
        if f.array(0)? != MAGIC {
            return Err(f.error("no record here"));
        }
        let want = f.u32(60)?;
        let have = crc32c::crc32c_append(seed.crc(), f.slice(0, 60)?);
        if want != have {
            return Err(f.error(format!("checksum {have:08x} instead of {want:08x}")));
        }
        let flags = f.u8(6)?;
        let header = Self {
            kind: match f.u8(4)? {
                1 => RecordKind::Extent,
                2 => RecordKind::Range,
                3 => RecordKind::Commit,
                4 => RecordKind::Node,
                5 => RecordKind::Table,
                6 => RecordKind::Catalogue,
                7 => RecordKind::Pad,
                8 => RecordKind::Cut,
                other => return Err(f.error(format!("unknown kind {other}"))),
            },
            codec: f.u8(5)?,
            flags: RecordFlags {
                relocated: flags & 1 != 0,
                discard: flags & 2 != 0,
            },
            layer: f.u32(8)?,
            payload_len: f.u32(12)?,
            first: f.u64(16)?,
            lsn: f.u64(24)?,
            raw_len: f.u32(32)?,
            payload_crc: f.u32(36)?,
            count: f.u64(40)?,
            link: f.u64(48)?,
        };
        header.check(&f)?;
        Ok(header)
    }

    fn check(&self, f: &Fields<'_>) -> Result<(), FormatError> {
        let blocks = self.count as usize;
        let fits = match self.kind {
            RecordKind::Extent => {
                // Never across the border of a leaf of the map.
                (1..=MAX_EXTENT_BLOCKS).contains(&blocks)
                    && self.first % NODE_SLOTS as u64 + self.count <= NODE_SLOTS as u64
                    && self.raw_len as usize == blocks * BLOCK
            }
            RecordKind::Range => self.payload_len == 0 && self.count > 0,
            RecordKind::Pad => self.payload_len == 0,
            _ => self.raw_len as usize <= MAX_STORED,
        };
        if !fits
            || self.payload_len as usize > MAX_STORED - RECORD_HEADER
            || self.codec > 2
            || self.lsn > MAX_NUMBER
        {
            return Err(f.error("impossible lengths"));
        }
        let blocks = matches!(self.kind, RecordKind::Extent | RecordKind::Range);
        if blocks
            && self
                .first
                .checked_add(self.count)
                .is_none_or(|end| end > MAX_BLOCKS)
        {
            return Err(f.error("blocks past the end of the address space"));
        }
        Ok(())
    }

    /// Whether `payload` is what was written.
    pub fn payload_is_intact(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.payload_crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RecordHeader {
        RecordHeader {
            kind: RecordKind::Extent,
            flags: RecordFlags {
                relocated: true,
                discard: false,
            },
            codec: 1,
            layer: 7,
            first: 1 << 33,
            count: 4,
            lsn: 99,
            payload_len: 5000,
            raw_len: 4 * 4096,
            payload_crc: 1,
            link: 0,
        }
    }

    #[test]
    fn round_trip_only_at_its_own_place() {
        let seed = Seed {
            segment: 3,
            generation: 17,
            offset: 4096,
        };
        let bytes = sample().encode(seed);
        assert_eq!(RecordHeader::decode(&bytes, seed), Ok(sample()));
        for other in [
            Seed { segment: 4, ..seed },
            Seed {
                generation: 18,
                ..seed
            },
            Seed {
                offset: 4160,
                ..seed
            },
        ] {
            assert!(RecordHeader::decode(&bytes, other).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let seed = Seed {
            segment: 3,
            generation: 17,
            offset: 4096,
        };
        let bytes = sample().encode(seed);
        for bit in 0..RECORD_HEADER * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordHeader::decode(&bad, seed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn sizes_of_format_1() {
        assert_eq!(
            (RECORD_HEADER, units(0), units(1), units(64), MAX_STORED),
            (64, 64, 128, 128, 131_136)
        );
    }
}
