//! Block contents that describe themselves.
//!
//! Every 512-byte sector begins with a stamp (which vDisk, which sector, which version of it), and all
//! its other bytes follow from the stamp and the [`Kind`]. A check therefore regenerates the sector and
//! compares: a sector torn between two versions, or out of place, cannot pass. Version 0 is a sector of
//! zeroes: never written, discarded or zeroed.
//!
//! ```text
//! 0        4      6    7     8          16                          512
//! | version | vdisk | kind | 0x46 | sector | bytes that follow from these |
//! ```
//!
//! # Compressibility
//! [`Kind::Random`] does not compress, its stamp (which is scrambled) included. Of [`Kind::Half`], zstd at level 1 makes one half, over 64 KiB that
//! begin at a multiple of 4 KiB; other codecs and shorter extents make a little more. Half of its sectors
//! (the first four of each 4 KiB) are random up to a short run of text at their ends, the others hold
//! lines of text that repeat, as in a log. No two blocks of a vDisk and no two versions of one are equal.

use std::sync::OnceLock;

/// Bytes in a sector.
pub const SECTOR: usize = 512;
/// Bytes of the stamp.
const STAMP: usize = 16;
const MARK: u8 = 0x46;
/// Random bytes in a random sector of [`Kind::Half`]: what makes zstd's ratio over 64 KiB 2.0.
const HALF_RANDOM: usize = 488;
const LINES: usize = 16;
/// What [`Kind::Tiny`] is made of.
const FILLER: u8 = b'.';

/// How well contents compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 2.0 : 1.
    Half,
    /// Not at all.
    Random,
    /// As well as a block can that is like no other one: some 25 bytes of 4 KiB. Only the first sector of each
    /// block has a stamp; the others say nothing of themselves. For maps of vDisks larger than the disk.
    Tiny,
}

/// What a sector holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Zeroes only.
    Zero,
    /// Whole contents as generated.
    Version {
        /// The vDisk's number that the writer used.
        vdisk: u16,
        /// The sector it was written to.
        sector: u64,
        /// The version.
        version: u32,
    },
    /// No stamp, or contents that do not follow from the stamp.
    Garbage,
}

/// Fills whole sectors with contents for `sector` and the following ones.
///
/// # Panics
/// When the buffer is not a multiple of 512 bytes, or for version 0.
pub fn fill(buffer: &mut [u8], kind: Kind, vdisk: u16, sector: u64, version: u32) {
    assert!(buffer.len().is_multiple_of(SECTOR) && version != 0);
    for (sector, bytes) in (sector..).zip(buffer.chunks_exact_mut(SECTOR)) {
        fill_sector(bytes, kind, vdisk, sector, version);
    }
}

/// Reads a sector's stamp and checks that all of it follows from the stamp.
///
/// # Panics
/// When `bytes` is not one sector.
pub fn inspect(bytes: &[u8]) -> Found {
    assert_eq!(bytes.len(), SECTOR);
    if bytes.iter().all(|&b| b == 0) {
        return Found::Zero;
    }
    for Stamp {
        kind,
        vdisk,
        sector,
        version,
    } in Stamp::decode(bytes).into_iter().flatten()
    {
        let mut expected = [0; SECTOR];
        fill_sector(&mut expected, kind, vdisk, sector, version);
        if expected == bytes {
            return Found::Version {
                vdisk,
                sector,
                version,
            };
        }
    }
    Found::Garbage
}

struct Stamp {
    kind: Kind,
    vdisk: u16,
    sector: u64,
    version: u32,
}

impl Stamp {
    fn encode(&self) -> [u8; STAMP] {
        let random = self.kind == Kind::Random;
        let kind: u64 = match self.kind {
            Kind::Half => 0,
            Kind::Random => 1,
            Kind::Tiny => 2,
        };
        let low = u64::from(self.version)
            | u64::from(self.vdisk) << 32
            | kind << 48
            | u64::from(MARK) << 56;
        let (low, high) = if random {
            scramble(low, self.sector)
        } else {
            (low, self.sector)
        };
        let mut bytes = [0; STAMP];
        bytes[..8].copy_from_slice(&low.to_le_bytes());
        bytes[8..].copy_from_slice(&high.to_le_bytes());
        bytes
    }

    /// What the bytes may begin with: once in 65,536 times a scrambled stamp looks like a plain one.
    fn decode(bytes: &[u8]) -> [Option<Self>; 3] {
        const PLAIN: u64 = (MARK as u64) << 8;
        let word = |at: usize| {
            bytes[at..at + 8]
                .iter()
                .rev()
                .fold(0, |n, &b| n << 8 | u64::from(b))
        };
        let stamp = |kind, mark, (low, sector): (u64, u64)| {
            (low >> 48 == mark).then_some(Self {
                kind,
                vdisk: (low >> 32) as u16,
                sector,
                version: low as u32,
            })
        };
        let raw = (word(0), word(8));
        [
            stamp(Kind::Half, PLAIN, raw),
            stamp(Kind::Random, PLAIN | 1, unscramble(raw.0, raw.1)),
            stamp(Kind::Tiny, PLAIN | 2, raw),
        ]
    }
}

/// Makes a stamp look random, reversibly.
fn scramble(low: u64, high: u64) -> (u64, u64) {
    let high = high ^ mix(low, 0xe703_7ed1_a0b4_28db);
    (low ^ mix(high, 0x8ebc_6af0_9c88_c6e3), high)
}

fn unscramble(low: u64, high: u64) -> (u64, u64) {
    let low = low ^ mix(high, 0x8ebc_6af0_9c88_c6e3);
    (low, high ^ mix(low, 0xe703_7ed1_a0b4_28db))
}

fn fill_sector(bytes: &mut [u8], kind: Kind, vdisk: u16, sector: u64, version: u32) {
    if kind == Kind::Tiny && !sector.is_multiple_of(8) {
        return bytes.fill(FILLER);
    }
    let (stamp, body) = bytes.split_at_mut(STAMP);
    stamp.copy_from_slice(
        &Stamp {
            kind,
            vdisk,
            sector,
            version,
        }
        .encode(),
    );
    if kind == Kind::Tiny {
        return body.fill(FILLER);
    }
    let seed = mix(sector ^ u64::from(vdisk) << 48, u64::from(version) << 8 | 1);
    if kind == Kind::Random {
        return fill_random(body, seed);
    }
    // One choice for all sectors of a block, so that the text of a block repeats.
    let line = &text()[(mix(sector / 8, u64::from(version)) as usize) % LINES];
    if sector % 8 < 4 {
        let (random, rest) = body.split_at_mut(HALF_RANDOM);
        fill_random(random, seed);
        let len = rest.len();
        rest.copy_from_slice(&line[..len]);
    } else {
        let len = body.len();
        body.copy_from_slice(&line[..len]);
    }
}

fn fill_random(bytes: &mut [u8], seed: u64) {
    let mut state = seed;
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&mix(state, 0xd6e8_feb8_6659_fd93).to_le_bytes());
    }
    let rest = words.into_remainder();
    let len = rest.len();
    rest.copy_from_slice(&mix(state, 0xa076_1d64_78bd_642f).to_le_bytes()[..len]);
}

/// Both halves of a 128-bit product folded: one multiplication for 8 bytes that no codec can shorten.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x2d35_8dcc_aa6c_78a5) * u128::from(b ^ 0x8bb8_4b93_962e_acc9);
    product as u64 ^ (product >> 64) as u64
}

/// Lines of text, each repeated to a sector's length.
fn text() -> &'static [[u8; SECTOR]; LINES] {
    static TEXT: OnceLock<[[u8; SECTOR]; LINES]> = OnceLock::new();
    TEXT.get_or_init(|| {
        const WORDS: [&str; 16] = [
            "accepted",
            "request",
            "from",
            "worker",
            "snow",
            "layer",
            "compacted",
            "segment",
            "index",
            "written",
            "after",
            "waiting",
            "queue",
            "status",
            "ready",
            "closed",
        ];
        std::array::from_fn(|at| {
            let mut line = Vec::new();
            let mut state = at as u64 + 1;
            while line.len() < 96 {
                state = mix(state, 0x9e37_79b9_7f4a_7c15);
                line.extend_from_slice(WORDS[(state % 16) as usize].as_bytes());
                line.push(b' ');
            }
            line.push(b'\n');
            std::array::from_fn(|i| line[i % line.len()])
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: usize = 64 << 10;

    fn sample(kind: Kind, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (at, block) in bytes.chunks_exact_mut(4096).enumerate() {
            fill(block, kind, 3, 8 * at as u64, 7 + at as u32);
        }
        bytes
    }

    fn ratio(bytes: &[u8], extent: usize, compress: impl Fn(&[u8]) -> usize) -> f64 {
        let small: usize = bytes.chunks(extent).map(|e| compress(e).min(e.len())).sum();
        bytes.len() as f64 / small as f64
    }

    fn zstd1(extent: &[u8]) -> usize {
        zstd::bulk::compress(extent, 1).unwrap().len()
    }

    #[test]
    fn half_is_two_to_one_for_zstd_over_64_kib() {
        let bytes = sample(Kind::Half, 8 << 20);
        let at_64k = ratio(&bytes, EXTENT, zstd1);
        let lz4 = |e: &[u8]| lz4::block::compress(e, None, false).unwrap().len();
        println!(
            "2.0 by zstd-1: {:.3} (64 KiB) {:.3} (16 KiB) {:.3} (4 KiB); lz4: {:.3} {:.3} {:.3}",
            at_64k,
            ratio(&bytes, 16384, zstd1),
            ratio(&bytes, 4096, zstd1),
            ratio(&bytes, EXTENT, lz4),
            ratio(&bytes, 16384, lz4),
            ratio(&bytes, 4096, lz4),
        );
        assert!((1.97..2.03).contains(&at_64k), "{at_64k}");
    }

    #[test]
    fn random_does_not_compress() {
        let ratio = ratio(&sample(Kind::Random, 1 << 20), EXTENT, zstd1);
        assert!(ratio < 1.001, "{ratio}");
    }

    #[test]
    fn tiny_blocks_are_tiny_and_say_what_they_are() {
        let bytes = sample(Kind::Tiny, 1 << 20);
        for (at, block) in bytes.chunks_exact(4096).enumerate() {
            assert!(lz4::block::compress(block, None, false).unwrap().len() <= 64);
            let found = inspect(&block[..SECTOR]);
            let wanted = 8 * at as u64;
            assert!(
                matches!(found, Found::Version { sector, .. } if sector == wanted),
                "{wanted}: {found:?}"
            );
        }
    }

    #[test]
    fn a_sector_says_what_it_is() {
        let bytes = sample(Kind::Half, 8192);
        assert_eq!(
            inspect(&bytes[512..1024]),
            Found::Version {
                vdisk: 3,
                sector: 1,
                version: 7
            }
        );
        assert_eq!(
            inspect(&bytes[7680..]),
            Found::Version {
                vdisk: 3,
                sector: 15,
                version: 8
            }
        );
        assert_eq!(inspect(&[0; 512]), Found::Zero);
    }

    #[test]
    fn every_sector_is_recognised() {
        let mut bytes = [0; SECTOR];
        for sector in 0..300_000 {
            for kind in [Kind::Half, Kind::Random] {
                fill(&mut bytes, kind, 1, sector, 164);
                let found = inspect(&bytes);
                assert!(
                    matches!(found, Found::Version { sector: at, .. } if at == sector),
                    "{sector}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn torn_and_rotten_sectors_are_garbage() {
        for kind in [Kind::Half, Kind::Random] {
            for sector in [0, 6] {
                let mut old = [0; SECTOR];
                let mut new = [0; SECTOR];
                fill(&mut old, kind, 1, sector, 1);
                fill(&mut new, kind, 1, sector, 2);
                let mut torn = old;
                torn[..256].copy_from_slice(&new[..256]);
                assert_eq!(inspect(&torn), Found::Garbage);
                let mut rotten = old;
                rotten[500] ^= 1;
                assert_eq!(inspect(&rotten), Found::Garbage);
            }
        }
        let mut nearly_zero = [0; SECTOR];
        nearly_zero[511] = 1;
        assert_eq!(inspect(&nearly_zero), Found::Garbage);
    }

    /// The generator must not be what a benchmark measures: run it in release mode with `--nocapture`.
    #[test]
    fn generation_speed() {
        let mut buffer = vec![0; 1 << 20];
        let start = std::time::Instant::now();
        for version in 1..=64 {
            fill(&mut buffer, Kind::Half, 1, 0, version);
        }
        println!(
            "fill: {:.1} GB/s",
            0.064 * 1.048576 / start.elapsed().as_secs_f64()
        );
        let start = std::time::Instant::now();
        let good = (0..64)
            .flat_map(|_| buffer.chunks_exact(SECTOR))
            .filter(|s| inspect(s) != Found::Garbage)
            .count();
        println!(
            "check: {:.1} GB/s",
            0.064 * 1.048576 / start.elapsed().as_secs_f64()
        );
        assert_eq!(good, 64 << 11);
    }
}
