//! Map entries: 64 bits that say where a block, or a node of the map, is stored.

use super::{FormatError, UNIT};

const SEGMENT_BITS: u32 = 24;
const OFFSET_BITS: u32 = 20;
const LENGTH_BITS: u32 = 12;
const INDEX_BITS: u32 = 5;
const OFFSET_SHIFT: u32 = SEGMENT_BITS;
const LENGTH_SHIFT: u32 = OFFSET_SHIFT + OFFSET_BITS;
const INDEX_SHIFT: u32 = LENGTH_SHIFT + LENGTH_BITS;
const KIND_SHIFT: u32 = 62;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// Where one record (an extent, a map node, a table) lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// Segment number, below 2^24.
    pub segment: u32,
    /// Offset in the segment in bytes, a multiple of [`UNIT`].
    pub offset: u32,
    /// Stored length in bytes with the header, a multiple of [`UNIT`].
    pub len: u32,
}

impl Location {
    /// First byte behind the record.
    pub fn end(&self) -> u32 {
        self.offset.saturating_add(self.len)
    }
}

/// What the map says of a block (in a leaf) or of a whole subtree (in an inner node).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Entry {
    /// This layer knows nothing of it: look in the parent layer; without one it reads as zeroes.
    #[default]
    Absent,
    /// Zeroes.
    Zero,
    /// Stored: block `index` of the extent at the location; in an inner node the child's record.
    Stored {
        /// Where the extent or node lies.
        at: Location,
        /// Which block of the extent, 0..=31.
        index: u8,
    },
}

impl Entry {
    /// Packs the entry into the 64 bits of `docs/disk-format.md`, section "Map entry".
    pub fn pack(self) -> u64 {
        match self {
            Self::Absent => 0,
            Self::Zero => 1 << KIND_SHIFT,
            Self::Stored { at, index } => {
                let unit = UNIT as u32;
                u64::from(at.segment) & mask(SEGMENT_BITS)
                    | (u64::from(at.offset / unit) & mask(OFFSET_BITS)) << OFFSET_SHIFT
                    | (u64::from(at.len / unit) & mask(LENGTH_BITS)) << LENGTH_SHIFT
                    | (u64::from(index) & mask(INDEX_BITS)) << INDEX_SHIFT
                    | 2 << KIND_SHIFT
            }
        }
    }

    /// Unpacks 64 bits; an unknown kind, a record without length or stray bits are errors.
    pub fn unpack(bits: u64) -> Result<Self, FormatError> {
        let bad = |why: &str| {
            Err(FormatError::new(
                "map entry",
                format!("{why} in {bits:016x}"),
            ))
        };
        match bits >> KIND_SHIFT {
            0 if bits == 0 => Ok(Self::Absent),
            1 if bits == 1 << KIND_SHIFT => Ok(Self::Zero),
            2 => {
                let unit = UNIT as u32;
                let field = |shift: u32, width: u32| ((bits >> shift) & mask(width)) as u32;
                let at = Location {
                    segment: field(0, SEGMENT_BITS),
                    offset: field(OFFSET_SHIFT, OFFSET_BITS) * unit,
                    len: field(LENGTH_SHIFT, LENGTH_BITS) * unit,
                };
                if at.len == 0 || bits & (1 << 61) != 0 {
                    return bad("impossible length");
                }
                Ok(Self::Stored {
                    at,
                    index: field(INDEX_SHIFT, INDEX_BITS) as u8,
                })
            }
            _ => bad("unknown kind"),
        }
    }

    /// The segment that the entry keeps alive.
    pub fn segment(self) -> Option<u32> {
        match self {
            Self::Stored { at, .. } => Some(at.segment),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_into_64_bits_and_back() {
        let at = Location {
            segment: (1 << 24) - 1,
            offset: ((1 << 20) - 1) * 64,
            len: 4095 * 64,
        };
        for e in [Entry::Absent, Entry::Zero, Entry::Stored { at, index: 31 }] {
            assert_eq!(Entry::unpack(e.pack()), Ok(e));
        }
        assert_eq!(Entry::Stored { at, index: 31 }.pack() >> 61, 0b100);
    }

    #[test]
    fn hostile_bits_are_refused() {
        for bits in [1, 3 << 62, 1 << 62 | 1, 2 << 62, u64::MAX] {
            assert!(Entry::unpack(bits).is_err(), "{bits:x}");
        }
    }
}
