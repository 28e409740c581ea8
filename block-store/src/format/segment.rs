//! A segment file: one page of header, then records.

use super::bytes::{Fields, put, put_checksum};
use super::{FORMAT_VERSION, FormatError, MAX_NUMBER, PAGE};
use uuid::Uuid;

/// Offset of the first record: the header has the first page for itself.
pub const SEGMENT_DATA_START: u32 = PAGE as u32;
const MAGIC: [u8; 8] = *b"FIRNSEG1";
const CHECKSUM_AT: usize = 60;

/// Header of a segment file; `docs/disk-format.md`, section "Segment".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store it belongs to.
    pub store: Uuid,
    /// Segment number, as in the file's name.
    pub id: u32,
    /// Never reused within a store; seeds the checksums of all records in the file.
    pub generation: u64,
    /// Length of the file in bytes when it was allocated.
    pub size: u32,
}

impl SegmentHeader {
    /// The first page of the file.
    pub fn encode(&self) -> [u8; PAGE] {
        let mut out = [0; PAGE];
        put(&mut out, 0, &MAGIC);
        put(&mut out, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut out, 12, &self.id.to_le_bytes());
        put(&mut out, 16, self.store.as_bytes());
        put(&mut out, 32, &self.generation.to_le_bytes());
        put(&mut out, 40, &self.size.to_le_bytes());
        put_checksum(&mut out, CHECKSUM_AT);
        out
    }

    /// Decodes the first page.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let f = Fields::new("segment header", bytes);
        if f.array(0)? != MAGIC {
            return Err(f.error("not a segment"));
        }
        f.checksum(CHECKSUM_AT)?;
        if f.u32(8)? != FORMAT_VERSION {
            return Err(f.error(format!("format {} is not ours", f.u32(8)?)));
        }
        if f.u64(32)? > MAX_NUMBER {
            return Err(f.error("impossible generation"));
        }
        Ok(Self {
            store: Uuid::from_bytes(f.array(16)?),
            id: f.u32(12)?,
            generation: f.u64(32)?,
            size: f.u32(40)?,
        })
    }
}

/// Name of a segment's file.
pub fn segment_file_name(id: u32) -> String {
    format!("seg-{id:08x}")
}

/// Segment number of a file name, if it is one.
pub fn segment_id_of(name: &str) -> Option<u32> {
    let hex = name.strip_prefix("seg-")?;
    (hex.len() == 8)
        .then(|| u32::from_str_radix(hex, 16).ok())
        .flatten()
        .filter(|id| *id < 1 << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let header = SegmentHeader {
            store: Uuid::from_u128(5),
            id: 9,
            generation: 77,
            size: 64 << 20,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for at in 0..64 {
            let mut bad = bytes;
            bad[at] ^= 0x10;
            assert!(SegmentHeader::decode(&bad).is_err(), "byte {at}");
        }
        assert!(SegmentHeader::decode(&bytes[..50]).is_err());
    }

    #[test]
    fn names() {
        assert_eq!(segment_id_of(&segment_file_name(0xabc)), Some(0xabc));
        for bad in [
            "seg-",
            "seg-1",
            "seg-0100000z",
            "seg-01000000",
            "superblock",
        ] {
            assert_eq!(segment_id_of(bad), None);
        }
    }
}
