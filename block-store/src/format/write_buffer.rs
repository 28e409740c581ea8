//! The shared-memory write buffer: a header, a table of slots, the slots.

use super::bytes::{Fields, put, put_checksum};
use super::{FormatError, PAGE};
use uuid::Uuid;

/// Bytes of the header.
pub const BUFFER_HEADER: usize = PAGE;
/// Bytes of one row of the slot table.
pub const SLOT_ROW: usize = 32;
/// Version of this layout; another one is never parsed.
pub const BUFFER_LAYOUT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"FIRNBUF1";
const CHECKSUM_AT: usize = 60;
/// Stands at this offset once a write or fsync of a segment has failed.
const FAILED_AT: usize = 64;
const FAILED: [u8; 8] = *b"NOSYNC!!";

/// Header of a write buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferHeader {
    /// The store it belongs to.
    pub store: Uuid,
    /// As in the superblock.
    pub nonce: Uuid,
    /// Bytes of one slot.
    pub slot_size: u32,
    /// Number of slots.
    pub slots: u32,
}

impl BufferHeader {
    /// The first bytes of the buffer.
    pub fn encode(&self) -> [u8; 64] {
        let mut out = [0; 64];
        put(&mut out, 0, &MAGIC);
        put(&mut out, 8, &BUFFER_LAYOUT_VERSION.to_le_bytes());
        put(&mut out, 12, &self.slot_size.to_le_bytes());
        put(&mut out, 16, self.store.as_bytes());
        put(&mut out, 32, self.nonce.as_bytes());
        put(&mut out, 48, &self.slots.to_le_bytes());
        put_checksum(&mut out, CHECKSUM_AT);
        out
    }

    /// Decodes and checks that slots and table fit into `len` bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let f = Fields::new("write buffer", bytes);
        if f.array(0)? != MAGIC {
            return Err(f.error("not a write buffer"));
        }
        f.checksum(CHECKSUM_AT)?;
        let version = f.u32(8)?;
        if version != BUFFER_LAYOUT_VERSION {
            return Err(f.error(format!("layout {version}; start the version of firn that wrote it once, and stop it cleanly")));
        }
        let header = Self {
            slot_size: f.u32(12)?,
            store: Uuid::from_bytes(f.array(16)?),
            nonce: Uuid::from_bytes(f.array(32)?),
            slots: f.u32(48)?,
        };
        if !header.slot_size.is_multiple_of(PAGE as u32)
            || header.slot_size == 0
            || header.bytes() > bytes.len() as u64
        {
            return Err(f.error("impossible size of slots"));
        }
        Ok(header)
    }

    /// Offset of the first slot.
    pub fn slots_at(&self) -> usize {
        BUFFER_HEADER + (self.slots as usize * SLOT_ROW).next_multiple_of(PAGE)
    }

    /// Size of the whole buffer in bytes.
    pub fn bytes(&self) -> u64 {
        self.slots_at() as u64 + u64::from(self.slots) * u64::from(self.slot_size)
    }
}

/// Where [`note_failure`] writes what.
pub const FAILURE_NOTE: (usize, [u8; FAILED.len()]) = (FAILED_AT, FAILED);

/// Notes in a buffer that a write or fsync has failed: what its process had written since may be in the page cache
/// and nowhere else, and no later fsync would tell.
pub fn note_failure(buffer: &mut [u8]) {
    if let Some(to) = buffer.get_mut(FAILED_AT..FAILED_AT + FAILED.len()) {
        to.copy_from_slice(&FAILED);
    }
}

/// Whether that was noted.
pub fn has_failed(buffer: &[u8]) -> bool {
    buffer.get(FAILED_AT..FAILED_AT + FAILED.len()) == Some(&FAILED)
}

/// What a slot in use holds: a stretch of a segment that is perhaps not yet in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRow {
    /// Segment number.
    pub segment: u32,
    /// Offset in the segment of the slot's first byte.
    pub offset: u32,
    /// Generation of the segment.
    pub generation: u64,
}

impl SlotRow {
    /// Row of a slot in use.
    pub fn encode(&self) -> [u8; SLOT_ROW] {
        let mut out = [0; SLOT_ROW];
        put(&mut out, 0, &self.segment.to_le_bytes());
        put(&mut out, 4, &self.offset.to_le_bytes());
        put(&mut out, 8, &self.generation.to_le_bytes());
        put_checksum(&mut out, 28);
        out
    }

    /// Decodes a row; `None` for a free slot. A slot is claimed by writing its row and freed by zeroing it; a row
    /// that a SIGKILL left half written belongs to a slot that holds nothing yet, or nothing any more.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let f = Fields::new("slot", bytes);
        f.checksum(28).ok()?;
        let row = Self {
            segment: f.u32(0).ok()?,
            offset: f.u32(4).ok()?,
            generation: f.u64(8).ok()?,
        };
        (row.generation != 0).then_some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip() {
        let h = BufferHeader {
            store: Uuid::from_u128(1),
            nonce: Uuid::from_u128(2),
            slot_size: 8192,
            slots: 3,
        };
        let mut all = vec![0; h.bytes() as usize];
        assert_eq!(all.len(), 4096 + 4096 + 3 * 8192);
        all[..64].copy_from_slice(&h.encode());
        assert_eq!(BufferHeader::decode(&all), Ok(h));
        assert!(BufferHeader::decode(&all[..all.len() - 1]).is_err());
        all[8] = 2;
        put_checksum(&mut all, CHECKSUM_AT);
        assert!(BufferHeader::decode(&all).is_err());
    }

    #[test]
    fn slot_rows() {
        let row = SlotRow {
            segment: 1,
            offset: 4096,
            generation: 3,
        };
        assert_eq!(SlotRow::decode(&row.encode()), Some(row));
        assert_eq!(SlotRow::decode(&[0; SLOT_ROW]), None);
        let mut torn = row.encode();
        torn[9] = 1;
        assert_eq!(SlotRow::decode(&torn), None);
    }
}
