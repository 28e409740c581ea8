//! Where imported data comes from, and what of it has to be sent.

mod chunks;
mod fit;
mod source;

pub(crate) use chunks::{Chunk, Chunks, data_runs};
pub(crate) use fit::check_fit;
pub(crate) use source::Source;

/// Granularity of zero detection: a block of the store.
pub(crate) const BLOCK: usize = 4096;

/// Whether there is nothing but zeroes.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Whole words at a time: the optimiser makes vector instructions of it.
    let (head, words) = bytes.as_chunks::<16>();
    head.iter().all(|word| u128::from_ne_bytes(*word) == 0) && words.iter().all(|byte| *byte == 0)
}
