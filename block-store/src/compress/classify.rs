//! A quick look at a block before time is spent on it.
//!
//! # Method
//! Both tests look at samples only. An eighth of the bytes, in short runs at irregular distances (a regular stride
//! can fall in step with a record length and see the same field for ever), tells how often two bytes drawn at
//! random are equal: the index of coincidence (W. F. Friedman, 1922), which is 1/256 for uniform bytes and larger
//! for any others; unlike entropy it needs no logarithms. Sampling a histogram is what btrfs does before it
//! compresses (fs/btrfs/compression.c), with other statistics.
//!
//! Uniform bytes may still repeat in long pieces. 128 words at equal distances (32 bytes apart in a
//! 4 KiB block) go into a small hash table; as many consecutive offsets as that distance must then meet one of them
//! wherever they lie in a repetition, however far apart the copies are.
//!
//! # Errors
//! Both err on the side of "compressible", at the cost of compressing in vain: that is noticed by the
//! [`super::Compressor`]. The reverse would waste space for good.

use super::codec::MAX_CONTENT;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a block looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Nothing but zeros.
    Zero,
    /// Compressing it would be in vain.
    Incompressible,
    /// Worth trying.
    Compressible,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Zero => "zero",
            Class::Incompressible => "incompressible",
            Class::Compressible => "compressible",
        })
    }
}

/// Bytes of which one run is sampled.
const STRIDE: usize = 256;

/// Bytes in a sampled run.
const RUN: usize = 32;

/// Shorter blocks give too few samples.
const MIN_LEN: usize = 2048;

/// How much more often than in uniform bytes two bytes must be equal, in 1/256: 25 % more. With the 512 samples of
/// a 4 KiB block, that is over five standard deviations for random data, and 3 % of bytes of a single value.
const COINCIDENCE: u64 = 320;

/// Words that are looked for again, however long the block, and the least distance between them.
const WORDS: usize = 128;
const MIN_WORD_STRIDE: usize = 32;

/// Distance of the places where repetitions are looked for, in word strides. Odd, so that the places don't all lie
/// at the same point of a repetition whose length is a power of two.
const PLACE_STRIDE: usize = 15;

/// Slots of the table of words; a power of two, and enough that few words drive each other out.
const SLOTS: usize = 1024;

/// Tells what `block` looks like, in less than a microsecond per 4 KiB. Any length will do; of 4 KiB blocks
/// that are to be compressed together, show the whole.
pub fn classify(block: &[u8]) -> Class {
    // In pieces, so that the sums below fit 32 bits.
    let random = |piece: &[u8]| piece.len() >= MIN_LEN && looks_uniform(piece) && !repeats(piece);
    if is_zero(block) {
        Class::Zero
    } else if block.chunks(MAX_CONTENT).all(random) {
        Class::Incompressible
    } else {
        Class::Compressible
    }
}

/// Whether all bytes are zero (an empty block is).
pub fn is_zero(block: &[u8]) -> bool {
    // Most blocks that aren't zero show it at once; the rest is written for the vector unit.
    let (head, rest) = block.split_at(block.len().min(16));
    let any = |bytes: &[u8]| bytes.iter().fold(0, |any, byte| any | byte) != 0;
    !any(head) && !rest.chunks(256).any(any)
}

/// Whether sampled bytes are as evenly spread as random ones.
fn looks_uniform(block: &[u8]) -> bool {
    // Two histograms: runs of one value would otherwise wait for their own last store.
    let mut even = [0u32; 256];
    let mut odd = [0u32; 256];
    let mut samples = 0;
    for (index, stride) in block.chunks_exact(STRIDE).enumerate() {
        // The multiplier (2^32 / golden ratio) spreads the runs evenly over all positions in the stride.
        let jitter = (index as u32).wrapping_mul(0x9e37_79b1) >> 24;
        let start = jitter as usize * (STRIDE - RUN) / 255;
        let run = stride.get(start..start + RUN).unwrap_or(stride);
        for pair in run.as_chunks::<2>().0 {
            count(&mut even, pair[0]);
            count(&mut odd, pair[1]);
        }
        samples += run.len() as u64;
    }
    let pairs: u32 = even
        .iter()
        .zip(&odd)
        .map(|(even, odd)| (even + odd) * (even + odd))
        .sum();
    let pairs = u64::from(pairs);
    // pairs - samples of samples * (samples - 1) ordered pairs are equal; uniform bytes have 1 in 256.
    pairs.saturating_sub(samples) * 256 * 256 < samples * samples.saturating_sub(1) * COINCIDENCE
}

fn count(histogram: &mut [u32; 256], byte: u8) {
    if let Some(count) = histogram.get_mut(usize::from(byte)) {
        *count += 1;
    }
}

/// Whether some sampled place is a copy of another one.
fn repeats(block: &[u8]) -> bool {
    let stride = (block.len() / WORDS).max(MIN_WORD_STRIDE);
    // Number of the word + 1: there are few more than `WORDS`.
    let mut table = [0u8; SLOTS];
    for (offset, number) in (0..block.len()).step_by(stride).zip(1..) {
        if let Some(slot) = word(block, offset).and_then(|word| table.get_mut(slot_of(word))) {
            *slot = number;
        }
    }
    let is_copy = |offset: usize| {
        let here = word(block, offset);
        let slot = here.and_then(|word| table.get(slot_of(word)));
        let found = slot
            .and_then(|slot| slot.checked_sub(1))
            .map(|number| usize::from(number) * stride);
        found.is_some_and(|found| found != offset && word(block, found) == here)
    };
    let places = (0..block.len()).step_by(stride * PLACE_STRIDE);
    places.flat_map(|place| place..place + stride).any(is_copy)
}

fn word(block: &[u8], offset: usize) -> Option<u64> {
    block
        .get(offset..)?
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
}

fn slot_of(word: u64) -> usize {
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % SLOTS
}

/// Data of known compressibility.
#[cfg(test)]
pub(super) mod samples {
    use rand::rngs::SmallRng;
    use rand::{Rng, RngCore, SeedableRng};

    pub fn random_of(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    pub fn random(len: usize) -> Vec<u8> {
        random_of(7, len)
    }

    /// `random` random bytes and `fixed` equal ones in turns.
    pub fn turns(seed: u64, len: usize, random: usize, fixed: usize) -> Vec<u8> {
        let mut bytes = random_of(seed, len);
        for (index, byte) in bytes.iter_mut().enumerate() {
            if index % (random + fixed) >= random {
                *byte = 0x55;
            }
        }
        bytes
    }

    pub fn half_random(len: usize) -> Vec<u8> {
        turns(3, len, 2048, 2048)
    }

    pub fn words(len: usize) -> Vec<u8> {
        let mut rng = SmallRng::seed_from_u64(5);
        let vocabulary: Vec<Vec<u8>> = (0..3000)
            .map(|_| {
                (0..rng.random_range(3..11))
                    .map(|_| rng.random_range(b'a'..=b'z'))
                    .collect()
            })
            .collect();
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let frequent = rng.random_range(0..3000) * rng.random_range(0..3000) / 3000;
            bytes.extend_from_slice(&vocabulary[frequent]);
            bytes.push(b' ');
        }
        bytes.truncate(len);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENS: [usize; 4] = [4096, 8192, 65536, 131_072];

    #[test]
    fn zeros_are_zero_and_a_single_bit_is_not() {
        for len in [0, 1, 15, 16, 17, 512, 4096, 65536] {
            let mut block = vec![0; len];
            assert_eq!(classify(&block), Class::Zero);
            for at in [0, len / 2, len.saturating_sub(1)] {
                if let Some(byte) = block.get_mut(at) {
                    *byte = 1;
                    assert_eq!(classify(&block), Class::Compressible, "{len} {at}");
                    block[at] = 0;
                }
            }
        }
    }

    #[test]
    fn random_data_is_not_compressible() {
        for seed in 0..2000 {
            assert_eq!(
                classify(&samples::random_of(seed, 4096)),
                Class::Incompressible,
                "{seed}"
            );
        }
        for len in LENS {
            for seed in 0..50 {
                assert_eq!(
                    classify(&samples::random_of(seed, len)),
                    Class::Incompressible,
                    "{seed} {len}"
                );
            }
        }
    }

    #[test]
    fn compressed_data_is_not_compressible() {
        let text = samples::words(4 << 20);
        for level in [1, 3, 9] {
            let packed = zstd::bulk::compress(&text, level).unwrap();
            let blocks = packed.chunks_exact(4096);
            let all = blocks.len();
            let seen = blocks
                .filter(|block| classify(block) == Class::Incompressible)
                .count();
            assert!(seen * 100 > all * 90, "level {level}: {seen} of {all}");
        }
    }

    #[test]
    fn half_random_data_is_compressible_whatever_its_grain() {
        for len in LENS {
            for grain in [
                1, 2, 3, 4, 8, 16, 24, 31, 32, 64, 100, 128, 192, 256, 300, 512, 1024, 2048,
            ] {
                for seed in 0..40 {
                    let mut block = samples::turns(seed, len, grain, grain);
                    assert_eq!(
                        classify(&block),
                        Class::Compressible,
                        "{len} {grain} {seed}"
                    );
                    block.rotate_left(seed as usize * 37);
                    assert_eq!(
                        classify(&block),
                        Class::Compressible,
                        "{len} {grain} {seed} rotated"
                    );
                }
            }
        }
    }

    #[test]
    fn text_is_compressible() {
        for block in samples::words(1 << 20).chunks(4096) {
            assert_eq!(classify(block), Class::Compressible);
        }
    }

    #[test]
    fn repetitions_of_random_data_are_compressible_at_any_distance() {
        for period in [8, 100, 511, 512, 777, 1024, 1333, 2000, 2048] {
            for seed in 0..100 {
                let once = samples::random_of(seed, period);
                let block: Vec<u8> = once.iter().copied().cycle().take(4096).collect();
                assert_eq!(classify(&block), Class::Compressible, "{period} {seed}");
            }
        }
        for seed in 0..100 {
            let block = samples::random_of(seed, 32768).repeat(2);
            assert_eq!(classify(&block), Class::Compressible, "{seed}");
        }
    }

    /// 16-byte records out of 200 at random: uniform bytes, and a third of them at most is news.
    #[test]
    fn records_out_of_a_small_set_are_compressible() {
        let set = samples::random_of(1, 200 * 16);
        for seed in 0..100 {
            for len in LENS {
                let picks = samples::random_of(seed, len / 16);
                let records = picks
                    .iter()
                    .map(|pick| &set[usize::from(pick % 200) * 16..][..16]);
                assert_eq!(
                    classify(&records.collect::<Vec<_>>().concat()),
                    Class::Compressible,
                    "{seed} {len}"
                );
            }
        }
    }

    /// Prints the cost; run it alone, optimised: `cargo test --release -- --ignored --nocapture classify_takes`.
    #[test]
    #[ignore = "a measurement"]
    fn classify_takes() {
        let kinds = [
            ("random", samples::random(4096)),
            ("half", samples::turns(1, 4096, 16, 16)),
            ("zero", vec![0; 4096]),
        ];
        for (kind, block) in kinds {
            let start = std::time::Instant::now();
            for _ in 0..1_000_000 {
                std::hint::black_box(classify(std::hint::black_box(&block)));
            }
            println!("{kind}: {} ns", start.elapsed().as_nanos() / 1_000_000);
        }
    }

    #[test]
    fn one_compressible_piece_of_a_long_block_is_enough() {
        let mut block = samples::random(1 << 20);
        assert_eq!(classify(&block), Class::Incompressible);
        block[500_000..520_000].fill(1);
        assert_eq!(classify(&block), Class::Compressible);
        assert_eq!(classify(&vec![1; 1 << 20]), Class::Compressible);
    }

    #[test]
    fn few_values_are_compressible() {
        for mask in [0x7f, 0xfe, 0x3f, 0x0f] {
            let block: Vec<u8> = samples::random(4096)
                .iter()
                .map(|byte| byte & mask)
                .collect();
            assert_eq!(classify(&block), Class::Compressible, "{mask:x}");
        }
    }
}
