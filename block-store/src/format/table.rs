//! The segment table: one row per segment that a checkpoint knows.

use super::bytes::{Fields, put};
use super::{FormatError, MAX_NUMBER, MAX_SEGMENT};

const ROW: usize = 32;
const WHAT: &str = "segment table";

/// What kind of data a segment was opened for: unlike lifetimes go to segments of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Temperature {
    /// Not recorded: nothing was appended yet, or it is not known any more.
    #[default]
    Unknown = 0,
    /// Small writes.
    Fresh = 1,
    /// Streams.
    Streaming = 2,
    /// Relocated data.
    Cold = 3,
}

impl Temperature {
    /// What a byte of the table says. It is for statistics alone: a value that we don't know is no reason to refuse a store.
    fn from_byte(byte: u8) -> Self {
        let all = [Self::Fresh, Self::Streaming, Self::Cold];
        let found = all.into_iter().find(|t| *t as u8 == byte);
        found.unwrap_or_default()
    }
}

/// A segment as of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentRow {
    /// Segment number.
    pub id: u32,
    /// Generation, as in its header.
    pub generation: u64,
    /// Bytes in use from its start: everything before was there at the checkpoint.
    pub used: u32,
    /// Map entries (blocks, nodes) that the checkpoint's maps keep in it.
    pub live: u32,
    /// Blocks and nodes ever written to it.
    pub total: u32,
    /// Whether records may follow behind `used`.
    pub open: bool,
    /// Holds the maps' nodes and not extents.
    pub meta: bool,
    /// All of it was packed for good: compaction does not look for what could be packed harder.
    pub settled: bool,
    /// What kind of data it was opened for.
    pub temperature: Temperature,
}

/// Rows as bytes.
pub fn encode_table(rows: &[SegmentRow]) -> Vec<u8> {
    let mut out = vec![0; rows.len() * ROW];
    for (row, to) in rows.iter().zip(out.chunks_exact_mut(ROW)) {
        put(to, 0, &row.id.to_le_bytes());
        put(to, 4, &row.used.to_le_bytes());
        put(to, 8, &row.generation.to_le_bytes());
        put(to, 16, &row.live.to_le_bytes());
        put(to, 20, &row.total.to_le_bytes());
        put(
            to,
            24,
            &[u8::from(row.open) | u8::from(row.meta) << 1 | u8::from(row.settled) << 2],
        );
        put(to, 25, &[row.temperature as u8]);
    }
    out
}

/// Decodes rows.
pub fn decode_table(bytes: &[u8]) -> Result<Vec<SegmentRow>, FormatError> {
    if !bytes.len().is_multiple_of(ROW) {
        return Err(FormatError::new(
            WHAT,
            format!("{} bytes are no whole rows", bytes.len()),
        ));
    }
    bytes
        .chunks_exact(ROW)
        .map(|row| {
            let f = Fields::new(WHAT, row);
            let flags = f.u8(24)?;
            let id = f.u32(0)?;
            if flags > 7 || id >= 1 << 24 || f.u32(4)? > MAX_SEGMENT || f.u64(8)? > MAX_NUMBER {
                return Err(f.error(format!(
                    "segment {id:x} has impossible flags {flags:x}, number or length"
                )));
            }
            Ok(SegmentRow {
                id,
                used: f.u32(4)?,
                generation: f.u64(8)?,
                live: f.u32(16)?,
                total: f.u32(20)?,
                open: flags & 1 != 0,
                meta: flags & 2 != 0,
                settled: flags & 4 != 0,
                temperature: Temperature::from_byte(f.u8(25)?),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let row = SegmentRow {
            id: 5,
            generation: 6,
            used: 4096,
            live: 2,
            total: 3,
            open: true,
            meta: false,
            settled: false,
            temperature: Temperature::Streaming,
        };
        let rows = vec![
            row,
            SegmentRow {
                temperature: Temperature::Cold,
                ..row
            },
            SegmentRow {
                meta: true,
                open: false,
                ..row
            },
            SegmentRow {
                settled: true,
                ..row
            },
        ];
        let bytes = encode_table(&rows);
        assert_eq!(bytes.len(), 128);
        assert_eq!(decode_table(&bytes), Ok(rows.clone()));
        let mut newer = bytes.clone();
        newer[25] = 99;
        let read = decode_table(&newer).unwrap();
        assert_eq!(read[0].temperature, Temperature::Unknown);
        assert_eq!(read[1..], rows[1..]);
        assert!(decode_table(&bytes[..33]).is_err());
        let mut bad = bytes;
        bad[24] = 0xff;
        assert!(decode_table(&bad).is_err());
    }
}
