//! Memory for reads, kept for the next ones.

use crate::io::AlignedBuf;
use std::io;

/// Sizes go by powers of two; this is the smallest, in bytes.
const SMALLEST: usize = 8 << 10;
/// Sizes that are kept: up to 512 KiB, one page read at its longest.
const SIZES: usize = 7;
/// Bytes kept at most, of all sizes together: a full queue of short reads, or some long ones.
const KEPT: usize = 4 << 20;

/// Buffers that wait for a read.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    sizes: [Vec<AlignedBuf>; SIZES],
    kept: usize,
}

impl Buffers {
    /// A buffer of `len` bytes, a multiple of a sector; what is in it is of no meaning.
    pub(super) fn take(&mut self, len: usize) -> io::Result<AlignedBuf> {
        let (index, size) = size_of(len);
        let mut buffer = match self.sizes.get_mut(index).and_then(Vec::pop) {
            Some(buffer) => {
                self.kept -= buffer.capacity();
                buffer
            }
            None => AlignedBuf::zeroed(size)?,
        };
        buffer.set_len(len)?;
        Ok(buffer)
    }

    /// Takes a buffer back.
    pub(super) fn keep(&mut self, buffer: AlignedBuf) {
        let (index, size) = size_of(buffer.capacity());
        if size == buffer.capacity()
            && self.kept + size <= KEPT
            && let Some(kept) = self.sizes.get_mut(index)
        {
            self.kept += size;
            kept.push(buffer);
        }
    }
}

/// Which size holds `len` bytes, and how long it is.
fn size_of(len: usize) -> (usize, usize) {
    let size = len.max(SMALLEST).next_power_of_two();
    ((size / SMALLEST).ilog2() as usize, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_again_up_to_a_limit() {
        let mut buffers = Buffers::default();
        let address = |b: &AlignedBuf| b.as_ptr() as usize;
        let first = buffers.take(512).unwrap();
        assert_eq!((first.len(), first.capacity()), (512, SMALLEST));
        let at = address(&first);
        buffers.keep(first);
        let again = buffers.take(SMALLEST).unwrap();
        assert_eq!((address(&again), again.len()), (at, SMALLEST));
        let larger = buffers.take(SMALLEST + 512).unwrap();
        assert_eq!(larger.capacity(), 2 * SMALLEST);
        let many: Vec<_> = (0..600).map(|_| buffers.take(SMALLEST).unwrap()).collect();
        many.into_iter().for_each(|b| buffers.keep(b));
        assert_eq!(buffers.kept, KEPT);
        buffers.keep(again);
        assert_eq!(buffers.kept, KEPT);
    }

    #[test]
    fn a_huge_one_is_not_kept() {
        let mut buffers = Buffers::default();
        let huge = buffers.take(3 << 20).unwrap();
        assert_eq!(huge.len(), 3 << 20);
        buffers.keep(huge);
        assert_eq!(buffers.kept, 0);
    }
}
