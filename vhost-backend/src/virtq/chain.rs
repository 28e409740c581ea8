//! Walking a descriptor chain.
//!
//! Why not `virtio-queue`'s: its `DescriptorChain::new` is private to that crate, so a head that comes from the
//! in-flight region instead of the avail ring can't be walked with it.
//!
//! What bounds a walk: at most `limits.descriptors` descriptors are read, whatever their `next` fields say, so a
//! loop ends as [`ChainError::TooLong`]. Each descriptor is read exactly once. Spans are guest addresses that
//! nobody has checked yet; they are checked where they become memory.

/// `next` is valid.
const NEXT: u16 = 1;
/// The device writes the buffer.
const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
const INDIRECT: u16 = 4;
/// Bytes of a descriptor.
pub const DESCRIPTOR_LEN: u64 = 16;

/// A descriptor as the guest wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest address of the buffer.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
    /// NEXT, WRITE, INDIRECT.
    pub flags: u16,
    /// Index of the next one.
    pub next: u16,
}

impl Descriptor {
    /// From the two little-endian words of a descriptor.
    pub fn from_words([addr, rest]: [u64; 2]) -> Self {
        let (addr, rest) = (u64::from_le(addr), u64::from_le(rest));
        Self {
            addr,
            #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
            len: rest as u32,
            #[expect(clippy::cast_possible_truncation, reason = "bits 32 to 47 are meant")]
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        }
    }
}

/// Where descriptors are read from.
pub trait DescriptorSource {
    /// Descriptor `index` of the ring's own table, or nothing if it can't be read.
    fn table(&self, index: u16) -> Option<Descriptor>;
    /// Descriptor `index` of the indirect table at guest address `table`, or nothing if it can't be read.
    fn indirect(&self, table: u64, index: u16) -> Option<Descriptor>;
}

/// What a chain may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Descriptors in the ring's table.
    pub queue_size: u16,
    /// Buffers that one chain may have, indirect ones included.
    pub descriptors: u16,
    /// Whether indirect descriptors were negotiated.
    pub indirect: bool,
}

/// A range of guest addresses, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Guest address.
    pub addr: u64,
    /// Bytes; never 0.
    pub len: u32,
}

/// The buffers of a chain, in order, by direction. Reused from chain to chain.
#[derive(Debug, Default)]
pub struct Chain {
    /// What the device may read.
    pub readable: Vec<Span>,
    /// What the device may write.
    pub writable: Vec<Span>,
}

/// Why a chain can't be walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// An index outside its table.
    #[error("descriptor index {0} is outside its table")]
    Index(u16),
    /// More descriptors than a chain may have, or a loop.
    #[error("more than {0} descriptors in one chain, or a loop")]
    TooLong(u16),
    /// A descriptor lies outside the guest's memory.
    #[error("a descriptor table is not in the guest's memory")]
    Memory,
    /// An indirect table that is empty, odd or too long.
    #[error("an indirect table of {0} bytes")]
    IndirectLength(u32),
    /// Indirect in indirect, indirect with a successor, or indirect without its feature.
    #[error("an indirect descriptor where none may be")]
    IndirectPlace,
    /// A buffer for the device to read after one for it to write.
    #[error("a readable buffer behind a writable one")]
    Order,
}

impl Chain {
    /// Forgets the last chain.
    pub fn clear(&mut self) {
        self.readable.clear();
        self.writable.clear();
    }

    /// Bytes that the device may read.
    pub fn readable_len(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes that the device may write.
    pub fn writable_len(&self) -> u64 {
        total(&self.writable)
    }

    fn add(&mut self, descriptor: Descriptor) -> Result<(), ChainError> {
        let span = Span {
            addr: descriptor.addr,
            len: descriptor.len,
        };
        if descriptor.flags & WRITE != 0 {
            if span.len > 0 {
                self.writable.push(span);
            }
        } else if !self.writable.is_empty() {
            return Err(ChainError::Order);
        } else if span.len > 0 {
            self.readable.push(span);
        }
        Ok(())
    }
}

fn total(spans: &[Span]) -> u64 {
    // At most 65535 spans of at most 4 GiB each.
    spans.iter().map(|s| u64::from(s.len)).sum()
}

/// Walks the chain that begins at `head` into `chain`, which is cleared first.
pub fn walk(
    source: &impl DescriptorSource,
    head: u16,
    limits: Limits,
    chain: &mut Chain,
) -> Result<(), ChainError> {
    chain.clear();
    let mut left = limits.descriptors;
    let mut index = head;
    loop {
        if index >= limits.queue_size {
            return Err(ChainError::Index(index));
        }
        left = left
            .checked_sub(1)
            .ok_or(ChainError::TooLong(limits.descriptors))?;
        let descriptor = source.table(index).ok_or(ChainError::Memory)?;
        if descriptor.flags & INDIRECT != 0 {
            // The specification forbids NEXT beside it.
            if !limits.indirect || descriptor.flags & NEXT != 0 {
                return Err(ChainError::IndirectPlace);
            }
            return walk_indirect(source, descriptor, limits, chain);
        }
        chain.add(descriptor)?;
        if descriptor.flags & NEXT == 0 {
            return Ok(());
        }
        index = descriptor.next;
    }
}

fn walk_indirect(
    source: &impl DescriptorSource,
    table: Descriptor,
    limits: Limits,
    chain: &mut Chain,
) -> Result<(), ChainError> {
    let bad_length = ChainError::IndirectLength(table.len);
    if table.len == 0 || u64::from(table.len) % DESCRIPTOR_LEN != 0 {
        return Err(bad_length);
    }
    let size = u16::try_from(u64::from(table.len) / DESCRIPTOR_LEN).map_err(|_| bad_length)?;
    let mut left = limits.descriptors;
    let mut index = 0u16;
    loop {
        if index >= size {
            return Err(ChainError::Index(index));
        }
        left = left
            .checked_sub(1)
            .ok_or(ChainError::TooLong(limits.descriptors))?;
        let descriptor = source
            .indirect(table.addr, index)
            .ok_or(ChainError::Memory)?;
        if descriptor.flags & INDIRECT != 0 {
            return Err(ChainError::IndirectPlace);
        }
        chain.add(descriptor)?;
        if descriptor.flags & NEXT == 0 {
            return Ok(());
        }
        index = descriptor.next;
    }
}

#[cfg(test)]
mod tests;
