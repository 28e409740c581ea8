//! Whether an image can fit into the store, found out before it is sent.
//!
//! What it will take is only known once it has been compressed, so some of it is: pieces evenly spread over its
//! data, by zstd at the level of the shipped rules. What that says is a lower bound for rules that compress less hard; the
//! margin covers the sampling. An image that passes may still not fit: then the import fails and nothing of it
//! remains.

use super::{BLOCK, Source, is_zero};
use crate::failure::Failure;
use crate::units::bytes;
use block_store::compress::{Codec, Compressor};
use control_api::types::StoreStatus;

/// Pieces to look at.
const SAMPLES: u64 = 128;
/// Bytes of one.
const SAMPLE: usize = 64 << 10;
/// Only an image whose estimate exceeds the space by this factor is refused, in per cent.
const MARGIN: u64 = 115;

/// Refuses an image that can't fit.
pub fn check_fit(source: &Source, status: &StoreStatus) -> Result<(), Failure> {
    let ranges = source.data_ranges();
    let data: u64 = ranges.iter().map(|(from, to)| to - from).sum();
    if data <= status.free_bytes || !source.can_be_sampled() {
        return Ok(());
    }
    let Ok(percent) = stored_percent(source, &ranges, data) else {
        // Reading it will say what is wrong with it.
        return Ok(());
    };
    let needed = (u128::from(data) * u128::from(percent) / 100) as u64;
    match u128::from(needed) * 100 > u128::from(status.free_bytes) * u128::from(MARGIN) {
        false => Ok(()),
        true => Err(Failure::no_space(format!(
            "{} does not fit: it holds {} of data, about {} when compressed, and the store has {} free",
            source.path.display(),
            bytes(data),
            bytes(needed),
            bytes(status.free_bytes)
        ))
        .hint("delete snapshots or vDisks that are not needed, or give the store's filesystem more space")),
    }
}

/// What the data will take when stored, in per cent of its length.
fn stored_percent(source: &Source, ranges: &[(u64, u64)], data: u64) -> std::io::Result<u64> {
    let mut compressor = Compressor::new()?;
    let mut buf = vec![0; SAMPLE];
    let (mut seen, mut stored) = (0u64, 0u64);
    for number in 0..SAMPLES {
        // Evenly over the data, not over the holes.
        let Some(offset) = nth_byte(ranges, data / SAMPLES * number) else {
            continue;
        };
        let count = source.sample(&mut buf, offset / BLOCK as u64 * BLOCK as u64)?;
        let piece = buf.get(..count / BLOCK * BLOCK).unwrap_or(&[]);
        seen += piece.len() as u64;
        if !is_zero(piece) {
            let mut out = Vec::new();
            let length = compressor
                .compress(Codec::Zstd(1), piece, &mut out)
                .unwrap_or(piece.len());
            stored += length as u64;
        }
    }
    Ok((stored * 100).checked_div(seen).unwrap_or(100))
}

/// Where the `n`th data byte is.
fn nth_byte(ranges: &[(u64, u64)], n: u64) -> Option<u64> {
    let mut left = n;
    for (from, to) in ranges {
        if left < to - from {
            return Some(from + left);
        }
        left -= to - from;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_nth_byte_skips_holes() {
        let ranges = [(10, 20), (100, 105)];
        assert_eq!(nth_byte(&ranges, 0), Some(10));
        assert_eq!(nth_byte(&ranges, 9), Some(19));
        assert_eq!(nth_byte(&ranges, 10), Some(100));
        assert_eq!(nth_byte(&ranges, 15), None);
    }

    #[test]
    fn the_estimate_knows_noise_from_text() {
        let percent = |make: &dyn Fn(u64) -> u8| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let content: Vec<u8> = (0..4u64 << 20).map(make).collect();
            file.write_all(&content).unwrap();
            let source = Source::open(file.path(), None).unwrap();
            stored_percent(&source, &source.data_ranges(), source.len).unwrap()
        };
        // SplitMix64: no codec finds anything in it.
        let noise = |i: u64| {
            let z = i.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) as u8
        };
        assert!(percent(&noise) >= 90, "{}", percent(&noise));
        assert!(percent(&|i| if i % 4096 < 2048 { noise(i) } else { 7 }) < 65);
        assert_eq!(percent(&|_| 0), 0);
    }
}
