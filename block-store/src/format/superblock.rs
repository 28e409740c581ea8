//! Two superblocks, written one after the other: the root of a checkpoint.

use super::bytes::{Fields, put, put_checksum};
use super::{Entry, FORMAT_VERSION, FormatError, MAX_NUMBER, PAGE};
use uuid::Uuid;

/// Bytes of one superblock; the file holds two, each in a page of its own.
pub const SUPERBLOCK_SIZE: usize = PAGE;
const MAGIC: [u8; 8] = *b"FIRNSUP1";
const CHECKSUM_AT: usize = SUPERBLOCK_SIZE - 4;
const PATH_AT: usize = 256;
const PATH_MAX: usize = 1024;
/// Features that this code knows; a store with others is refused.
const KNOWN_INCOMPAT: u64 = 0;
const WHAT: &str = "superblock";

/// The write buffer in which acknowledged data may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferName {
    /// Boot in which it was made: in another boot it is gone, with all that was not flushed.
    pub boot: Uuid,
    /// Names this very buffer.
    pub nonce: Uuid,
    /// Version of its layout.
    pub layout: u32,
    /// Bytes of the file.
    pub len: u64,
    /// Directory of the file.
    pub dir: String,
}

impl BufferName {
    /// How names of such files begin.
    pub const FILE_PREFIX: &str = "write-buffer-";

    /// Name of the file in its directory.
    pub fn file(&self) -> String {
        format!("{}{}", Self::FILE_PREFIX, self.nonce)
    }
}

/// A chain of records: the last one, each linking to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain {
    /// Packed entry of the last record; 0 when there is none.
    pub last: u64,
    /// Records in the chain.
    pub records: u32,
}

/// A superblock; `docs/disk-format.md`, section "Superblock".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// The store.
    pub store: Uuid,
    /// The newer of two valid ones counts.
    pub generation: u64,
    /// Everything up to and including this LSN is in the maps.
    pub checkpoint_lsn: u64,
    /// Segments with a generation from here on were made after the checkpoint.
    pub next_segment_generation: u64,
    /// Bytes of a segment file.
    pub segment_size: u32,
    /// Segment table.
    pub table: Chain,
    /// Catalogue.
    pub catalogue: Chain,
    /// The write buffer in use, none after a clean stop.
    pub buffer: Option<BufferName>,
    /// Seconds since 1970 at which the store was made.
    pub created: u64,
}

impl Superblock {
    /// One page. Fails when the write buffer's path is too long.
    pub fn encode(&self) -> Result<[u8; SUPERBLOCK_SIZE], FormatError> {
        let mut out = [0; SUPERBLOCK_SIZE];
        put(&mut out, 0, &MAGIC);
        put(&mut out, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut out, 12, &self.segment_size.to_le_bytes());
        put(&mut out, 16, self.store.as_bytes());
        put(&mut out, 32, &self.generation.to_le_bytes());
        // 40, 48, 56: compat, ro-compat and incompat masks; none of format 1 is set.
        put(&mut out, 64, &self.checkpoint_lsn.to_le_bytes());
        put(&mut out, 72, &self.next_segment_generation.to_le_bytes());
        put(&mut out, 80, &self.table.last.to_le_bytes());
        put(&mut out, 88, &self.table.records.to_le_bytes());
        put(&mut out, 92, &self.catalogue.records.to_le_bytes());
        put(&mut out, 96, &self.catalogue.last.to_le_bytes());
        put(&mut out, 104, &self.created.to_le_bytes());
        // 112..128: encryption key id, zero: not encrypted.
        if let Some(b) = &self.buffer {
            if b.dir.len() > PATH_MAX {
                return Err(FormatError::new(
                    WHAT,
                    "the write buffer's path is too long; choose a shorter run directory",
                ));
            }
            put(&mut out, 128, b.boot.as_bytes());
            put(&mut out, 144, b.nonce.as_bytes());
            put(&mut out, 160, &b.layout.to_le_bytes());
            put(&mut out, 168, &b.len.to_le_bytes());
            put(&mut out, 164, &(b.dir.len() as u32).to_le_bytes());
            put(&mut out, PATH_AT, b.dir.as_bytes());
        }
        put_checksum(&mut out, CHECKSUM_AT);
        Ok(out)
    }

    /// Decodes one page.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let f = Fields::new(WHAT, bytes);
        if f.array(0)? != MAGIC {
            return Err(f.error("not a superblock"));
        }
        f.checksum(CHECKSUM_AT)?;
        let version = f.u32(8)?;
        if version > FORMAT_VERSION {
            return Err(f.error(format!(
                "format {version} is newer than this program's {FORMAT_VERSION}; use a newer firn"
            )));
        }
        if version == 0
            || [32, 64, 72]
                .iter()
                .any(|at| f.u64(*at).is_ok_and(|n| n > MAX_NUMBER))
        {
            return Err(f.error("impossible version, generation or LSN"));
        }
        let incompat = f.u64(56)?;
        if incompat & !KNOWN_INCOMPAT != 0 || f.u64(48)? != 0 || f.array::<16>(112)? != [0; 16] {
            return Err(f.error(format!(
                "needs features {incompat:x} that this program lacks; use a newer firn"
            )));
        }
        let chain = |last, records| -> Result<Chain, FormatError> {
            Entry::unpack(last)?;
            Ok(Chain { last, records })
        };
        let nonce = Uuid::from_bytes(f.array(144)?);
        let buffer = if nonce.is_nil() {
            None
        } else {
            let len = f.u32(164)? as usize;
            let path = f.slice(PATH_AT, len.min(PATH_MAX))?;
            Some(BufferName {
                boot: Uuid::from_bytes(f.array(128)?),
                nonce,
                layout: f.u32(160)?,
                len: f.u64(168)?,
                dir: String::from_utf8(path.to_vec())
                    .map_err(|_| f.error("the write buffer's path is no text"))?,
            })
        };
        let segment_size = f.u32(12)?;
        if !segment_size.is_multiple_of(PAGE as u32)
            || !(1 << 18..=64 << 20).contains(&segment_size)
        {
            return Err(f.error(format!("impossible segment size {segment_size}")));
        }
        Ok(Self {
            store: Uuid::from_bytes(f.array(16)?),
            generation: f.u64(32)?,
            checkpoint_lsn: f.u64(64)?,
            next_segment_generation: f.u64(72)?,
            segment_size,
            table: chain(f.u64(80)?, f.u32(88)?)?,
            catalogue: chain(f.u64(96)?, f.u32(92)?)?,
            buffer,
            created: f.u64(104)?,
        })
    }
}

/// The newer valid one of a file's two superblocks; where there is none, why. A newer format wins over an older
/// valid superblock: it must not be opened by what does not know it.
pub fn newest(bytes: &[u8]) -> Result<Superblock, FormatError> {
    let mut best: Option<Superblock> = None;
    let mut errors = Vec::new();
    for page in bytes.chunks_exact(SUPERBLOCK_SIZE).take(2) {
        match Superblock::decode(page) {
            Ok(s) if best.as_ref().is_none_or(|b| b.generation < s.generation) => best = Some(s),
            Ok(_) => {}
            Err(e) => errors.push(e),
        }
    }
    if let Some(newer) = errors.iter().find(|e| e.why.contains("newer firn")) {
        return Err(newer.clone());
    }
    match best {
        Some(s) => Ok(s),
        None => {
            let why: Vec<_> = errors.iter().map(|e| e.why.as_str()).collect();
            Err(FormatError::new(
                WHAT,
                format!("neither of the two is valid: {}", why.join("; ")),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(generation: u64) -> Superblock {
        Superblock {
            store: Uuid::from_u128(1),
            generation,
            checkpoint_lsn: 9,
            next_segment_generation: 4,
            segment_size: 64 << 20,
            table: Chain::default(),
            catalogue: Chain::default(),
            buffer: Some(BufferName {
                boot: Uuid::from_u128(2),
                nonce: Uuid::from_u128(3),
                layout: 1,
                len: 1 << 20,
                dir: "/run/firn".into(),
            }),
            created: 5,
        }
    }

    #[test]
    fn round_trip() {
        for s in [
            sample(1),
            Superblock {
                buffer: None,
                ..sample(2)
            },
        ] {
            assert_eq!(Superblock::decode(&s.encode().unwrap()), Ok(s));
        }
    }

    #[test]
    fn the_newest_valid_one_counts() {
        let mut file = [sample(2).encode().unwrap(), sample(3).encode().unwrap()].concat();
        assert_eq!(newest(&file).unwrap().generation, 3);
        file[SUPERBLOCK_SIZE + 300] ^= 1;
        assert_eq!(newest(&file).unwrap().generation, 2);
        file[17] ^= 1;
        assert!(newest(&file).unwrap_err().why.contains("neither"));
    }

    #[test]
    fn newer_formats_are_refused() {
        for at in [8, 48, 56, 112] {
            let mut page = sample(7).encode().unwrap();
            page[at] = 9;
            put_checksum(&mut page, CHECKSUM_AT);
            let file = [sample(6).encode().unwrap(), page].concat();
            assert!(
                newest(&file).unwrap_err().why.contains("newer firn"),
                "byte {at}"
            );
        }
    }
}
