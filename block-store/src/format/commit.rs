//! The commit record: what the flush before has made durable.

use super::FormatError;
use super::bytes::Fields;

const ROW: usize = 16;
/// Rows in one commit record, at most; a store has far fewer segments open at a time.
const MAX_ROWS: usize = 1024;
const WHAT: &str = "commit record";

/// A segment is durable from its start up to this offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Segment number.
    pub segment: u32,
    /// Generation of the segment.
    pub generation: u64,
    /// First byte that was not yet promised.
    pub end: u32,
}

/// Prefixes that changed with one group commit. A bad record below one is damage; above it, the log's end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitRecord {
    /// One row per segment.
    pub prefixes: Vec<Prefix>,
}

impl CommitRecord {
    /// Payload of the record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.prefixes.len() * ROW);
        for p in self.prefixes.iter().take(MAX_ROWS) {
            out.extend_from_slice(&p.segment.to_le_bytes());
            out.extend_from_slice(&p.end.to_le_bytes());
            out.extend_from_slice(&p.generation.to_le_bytes());
        }
        out
    }

    /// Decodes a payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if !bytes.len().is_multiple_of(ROW) || bytes.len() > MAX_ROWS * ROW {
            return Err(FormatError::new(
                WHAT,
                format!("{} bytes are no whole rows", bytes.len()),
            ));
        }
        let prefixes = bytes.chunks_exact(ROW).map(|row| {
            let f = Fields::new(WHAT, row);
            Ok(Prefix {
                segment: f.u32(0)?,
                end: f.u32(4)?,
                generation: f.u64(8)?,
            })
        });
        Ok(Self {
            prefixes: prefixes.collect::<Result<_, FormatError>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_bad_length() {
        let record = CommitRecord {
            prefixes: vec![
                Prefix {
                    segment: 1,
                    generation: 1 << 40,
                    end: 8192
                };
                3
            ],
        };
        let bytes = record.encode();
        assert_eq!(bytes.len(), 48);
        assert_eq!(CommitRecord::decode(&bytes), Ok(record));
        assert!(CommitRecord::decode(&bytes[1..]).is_err());
    }
}
