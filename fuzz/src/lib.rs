//! What the targets share.

use std::fs::File;

/// Takes an input apart. Past its end everything reads as zero, so that every prefix of an input means something.
#[derive(Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// From the start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes, or what is left.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(len.min(self.0.len()));
        self.0 = tail;
        head
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let bytes = self.bytes(N);
        out[..bytes.len()].copy_from_slice(bytes);
        out
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Little-endian.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Little-endian.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

/// Shared memory of so many bytes.
pub fn memfd(len: u64) -> File {
    let fd = rustix::fs::memfd_create(
        "fuzz",
        rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING,
    );
    let file = File::from(fd.expect("memfd_create"));
    file.set_len(len).expect("ftruncate");
    file
}

/// An eventfd that does not block.
pub fn eventfd() -> File {
    use rustix::event::{EventfdFlags, eventfd};
    File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("eventfd"))
}

/// Writes the `crc32c` of all bytes before `at` at `at`.
pub fn seal(bytes: &mut [u8], at: usize) {
    let sum = crc32c::crc32c(&bytes[..at]);
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Puts the checksum of a record's header right for its place.
pub fn seal_record(bytes: &mut [u8], segment: u32, generation: u64, offset: u32) {
    let mut seed = [0; 16];
    seed[..8].copy_from_slice(&generation.to_le_bytes());
    seed[8..12].copy_from_slice(&segment.to_le_bytes());
    seed[12..].copy_from_slice(&offset.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&seed), &bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
}
