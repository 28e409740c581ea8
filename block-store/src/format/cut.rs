//! The cut record: from its LSN on, vDisks go on in new layers.

use super::FormatError;
use super::bytes::{Fields, put};
use uuid::Uuid;

const ROW: usize = 32;
/// Rows in one cut record, at most: vDisks of one consistency group.
pub const MAX_CUT_ROWS: usize = 4096;
const WHAT: &str = "cut record";

/// One vDisk's writes go to another layer from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutRow {
    /// The vDisk's number.
    pub vdisk: u32,
    /// Number of its new live layer.
    pub layer: u32,
    /// The layer that this one lies over: the live one before, or an older one where the vDisk is reverted.
    pub parent: u32,
    /// The new layer's UUID.
    pub uuid: Uuid,
}

/// All vDisks that are cut at one LSN. It makes layers known to roll-forward; what names the sealed ones (a snapshot) is
/// in the catalogue, and so durable only with a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CutRecord {
    /// One row per vDisk, [`MAX_CUT_ROWS`] at most.
    pub rows: Vec<CutRow>,
}

impl CutRecord {
    /// Payload of the record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; self.rows.len() * ROW];
        for (row, to) in self.rows.iter().zip(out.chunks_exact_mut(ROW)) {
            put(to, 0, &row.vdisk.to_le_bytes());
            put(to, 4, &row.layer.to_le_bytes());
            put(to, 8, &row.parent.to_le_bytes());
            put(to, 16, row.uuid.as_bytes());
        }
        out
    }

    /// Decodes a payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let bad = |why: String| FormatError::new(WHAT, why);
        if bytes.is_empty() || !bytes.len().is_multiple_of(ROW) || bytes.len() > MAX_CUT_ROWS * ROW
        {
            return Err(bad(format!("{} bytes are no whole rows", bytes.len())));
        }
        let rows = bytes.chunks_exact(ROW).map(|row| {
            let f = Fields::new(WHAT, row);
            let row = CutRow {
                vdisk: f.u32(0)?,
                layer: f.u32(4)?,
                parent: f.u32(8)?,
                uuid: Uuid::from_bytes(f.array(16)?),
            };
            // As in the catalogue: a parent is older than its child.
            if row.parent >= row.layer || row.layer >= u32::MAX / 2 || f.u32(12)? != 0 {
                return Err(f.error(format!("layer {} over {}", row.layer, row.parent)));
            }
            Ok(row)
        });
        Ok(Self {
            rows: rows.collect::<Result<_, FormatError>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let row = CutRow {
            vdisk: 3,
            layer: 9,
            parent: 7,
            uuid: Uuid::from_u128(5),
        };
        let record = CutRecord { rows: vec![row; 2] };
        let bytes = record.encode();
        assert_eq!(bytes.len(), 64);
        assert_eq!(CutRecord::decode(&bytes), Ok(record));
        for bad in [&bytes[1..], &[], &vec![0; (MAX_CUT_ROWS + 1) * ROW]] {
            assert!(CutRecord::decode(bad).is_err());
        }
        let over_itself = CutRow { parent: 9, ..row };
        let loops = CutRecord {
            rows: vec![over_itself],
        };
        assert!(CutRecord::decode(&loops.encode()).is_err());
    }
}
