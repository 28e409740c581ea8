//! Little-endian fields at fixed offsets.

use super::FormatError;

/// Reads fields of one structure; every access is checked.
pub(super) struct Fields<'a> {
    what: &'static str,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes }
    }

    pub(super) fn slice(&self, at: usize, len: usize) -> Result<&'a [u8], FormatError> {
        at.checked_add(len)
            .and_then(|end| self.bytes.get(at..end))
            .ok_or_else(|| {
                FormatError::new(
                    self.what,
                    format!("ends before byte {}", at.saturating_add(len)),
                )
            })
    }

    pub(super) fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(at, N)?);
        Ok(out)
    }

    pub(super) fn u8(&self, at: usize) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.array(at)?))
    }

    pub(super) fn u32(&self, at: usize) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    pub(super) fn u64(&self, at: usize) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    pub(super) fn error(&self, why: impl Into<String>) -> FormatError {
        FormatError::new(self.what, why)
    }

    /// Checks that the `crc32c` of all bytes before `at` stands at `at`.
    pub(super) fn checksum(&self, at: usize) -> Result<(), FormatError> {
        let want = self.u32(at)?;
        let have = crc32c::crc32c(self.slice(0, at)?);
        if want == have {
            Ok(())
        } else {
            Err(self.error(format!("checksum {have:08x} instead of {want:08x}")))
        }
    }
}

/// Writes `field` at `at` of a structure whose size the caller has fixed.
pub(super) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at.saturating_add(field.len())) {
        to.copy_from_slice(field);
    } else {
        debug_assert!(
            false,
            "field at {at} is outside of a structure of {} bytes",
            bytes.len()
        );
    }
}

/// Writes the `crc32c` of all bytes before `at` at `at`.
pub(super) fn put_checksum(bytes: &mut [u8], at: usize) {
    let sum = crc32c::crc32c(bytes.get(..at).unwrap_or_default());
    put(bytes, at, &sum.to_le_bytes());
}
