//! The caller's memory, as the store sees it.

/// Memory that a request reads into or writes from: guest memory behind a descriptor chain, or a plain buffer.
///
/// Guest memory may change at any time and may go away: the store copies each byte exactly once, into or out
/// of memory of its own, and never forms a reference to it.
pub trait Payload: Send {
    /// Length in bytes; constant while the request is in flight.
    fn len(&self) -> usize;
    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Copies `dst.len()` bytes that start at `offset` out of the caller's memory.
    fn copy_out(&self, offset: usize, dst: &mut [u8]) -> Result<(), PayloadError>;
    /// Copies `src` into the caller's memory at `offset`.
    fn copy_in(&mut self, offset: usize, src: &[u8]) -> Result<(), PayloadError>;
}

/// The caller's memory could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request's memory can't be reached")]
pub struct PayloadError;

/// A plain buffer: for import, export, tools and tests.
impl Payload for Vec<u8> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn copy_out(&self, offset: usize, dst: &mut [u8]) -> Result<(), PayloadError> {
        let end = offset.checked_add(dst.len()).ok_or(PayloadError)?;
        dst.copy_from_slice(self.get(offset..end).ok_or(PayloadError)?);
        Ok(())
    }

    fn copy_in(&mut self, offset: usize, src: &[u8]) -> Result<(), PayloadError> {
        let end = offset.checked_add(src.len()).ok_or(PayloadError)?;
        self.get_mut(offset..end)
            .ok_or(PayloadError)?
            .copy_from_slice(src);
        Ok(())
    }
}
