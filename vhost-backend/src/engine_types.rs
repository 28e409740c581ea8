#![allow(missing_docs)]
pub enum Command<P> {
    Read { offset: u64, into: P },
    Write { offset: u64, from: P },
    Flush,
    Discard { offset: u64, len: u64 },
    WriteZeroes { offset: u64, len: u64, unmap: bool },
}
pub struct Done<P> {
    pub tag: u64,
    pub payload: Option<P>,
    pub result: Result<(), RequestError>,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    OutOfRange,
    Unaligned,
    Payload,
    ReadOnly,
    NoSpace,
    Io,
    Cancelled,
}
#[path = "../../block-store/src/payload.rs"]
pub mod payload;
