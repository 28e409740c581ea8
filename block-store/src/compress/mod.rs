//! Compression in the I/O command: what to compress, how, and doing it.
//!
//! A write's data is [`classify`]d, the [`Rules`] choose a codec and an extent size for it, a [`Compressor`] forms
//! the payload; a [`Decompressor`] takes it apart again. Nothing here does I/O.
//!
//! # Figures
//! One core, MB/s of uncompressed data in and out, ratio; three kinds of data, each about 2.0-compressible by zstd:
//! *half* is 2 KiB random and 2 KiB of one byte in turns, *comb* 16 random bytes and 16 of one value, *words*
//! random words of a 3000-word vocabulary. lz4 C is liblz4 1.10, which is used; lz4 is `lz4_flex` with its safe features, which was.
//!
//! | data | size | lz4 | lz4 C | zstd:-1 | zstd:1 | zstd:3 |
//! |---|---|---|---|---|---|---|
//! | half | 4 KiB | 4075 / 3276 / 1.96 | 3954 / 28529 / 1.97 | 1674 / 11580 / 1.98 | 1262 / 11421 / 1.98 | 933 / 12077 / 1.98 |
//! | half | 64 KiB | 4338 / 3078 / 1.97 | 4346 / 13818 / 1.97 | 3222 / 11652 / 1.98 | 2076 / 11029 / 1.98 | 799 / 7963 / 1.99 |
//! | comb | 4 KiB | 999 / 5172 / 1.61 | 1175 / 10785 / 1.61 | 704 / 2595 / 1.93 | 425 / 2610 / 1.93 | 334 / 2565 / 1.92 |
//! | comb | 64 KiB | 857 / 5882 / 1.64 | 1093 / 8304 / 1.65 | 859 / 3708 / 1.98 | 763 / 3698 / 1.98 | 362 / 3508 / 1.94 |
//! | words | 4 KiB | 889 / 5479 / 1.08 | 804 / 5100 / 1.10 | 492 / 2365 / 1.11 | 332 / 780 / 1.79 | 240 / 779 / 1.79 |
//! | words | 64 KiB | 471 / 3348 / 1.47 | 482 / 3848 / 1.76 | 398 / 1814 / 1.57 | 337 / 1365 / 2.43 | 238 / 1217 / 2.61 |
//!
//! Compressing, the C library is between 10 % slower and 28 % faster; decoding, it is up to four times as fast, and on a
//! quick disk decoding bounds sequential reads: 3,000 MiB/s instead of 2,000. Extents are hostile bytes; its decoder is
//! made for these and fuzzed by others all the time, as zstd's is, and by `fuzz/` together with the rest.

mod classify;
mod coalesce;
mod codec;
mod explain;
mod rules;

pub use classify::{Class, classify, is_zero};
pub use coalesce::{Coalesce, CoalesceRule, Touch, Touched, Touching, coalesces};
pub use codec::{Codec, Compressor, DecodeError, Decompressor, MAX_CONTENT, ParseCodecError};
pub use explain::Explained;
pub use rules::{Action, Choice, Match, Rule, Rules, RulesError, WriteTraits};
