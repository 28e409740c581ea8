//! What a guest asks for.
//!
//! A driver may cut its buffers as it likes (virtio 2.7.4): header and data may share a descriptor, the status byte may
//! be the last byte of the data's. So only lengths count here: the first 16 readable bytes are the header, the last
//! writable byte is the status, what is between is data.

use virtio_bindings::virtio_blk as vb;

use super::config::{Features, MAX_RANGE_SECTORS, MAX_RANGES, SECTOR, SEG_MAX, SIZE_MAX};
use super::token::Status;
use crate::memory::GuestMemory;
use crate::virtq::chain::{Chain, Span};

/// Bytes of the header: type u32, priority u32, sector u64.
pub const HEADER_LEN: u64 = 16;
/// Bytes of a range in a discard or write-zeroes request: sector u64, sectors u32, flags u32.
const RANGE_LEN: u64 = 16;
/// In a range's flags.
const UNMAP: u32 = 1;
/// Bytes of data in one request, at most: what a driver that keeps to the device's own limits can ask for.
const MAX_DATA: u64 = SEG_MAX as u64 * SIZE_MAX as u64;
/// Bytes of an identity.
pub const ID_LEN: u64 = 20;

/// A part of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRange {
    /// Bytes from the start of the disk.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Whether the space may be given back (write-zeroes only).
    pub unmap: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Read `len` bytes at `offset` into the chain's writable part.
    Read {
        /// Bytes from the start of the disk.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Write `len` bytes from the chain's readable part, behind the header.
    Write {
        /// Bytes from the start of the disk.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Make all completed writes durable.
    Flush,
    /// Forget the content of ranges.
    Discard(Vec<DiskRange>),
    /// Make ranges read as zeroes.
    WriteZeroes(Vec<DiskRange>),
    /// Tell the serial; `len` bytes of it fit.
    GetId {
        /// Bytes.
        len: u32,
    },
}

/// What a request is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What was negotiated.
    pub features: Features,
    /// Bytes of the disk.
    pub size: u64,
    /// Whether it refuses writes.
    pub read_only: bool,
}

/// Guest address of the status byte, if the chain has one.
pub fn status_address(chain: &Chain) -> Option<u64> {
    let Span { addr, len } = *chain.writable.last()?;
    addr.checked_add(u64::from(len.checked_sub(1)?))
}

/// Finds out what a chain asks for, or with which status it is to be refused.
pub fn parse(memory: &GuestMemory, chain: &Chain, rules: Rules) -> Result<Request, Status> {
    let mut header = [0; HEADER_LEN as usize];
    read_spans(memory, &chain.readable, 0, &mut header).ok_or(Status::IoError)?;
    let kind = u32_at(&header, 0);
    let sector = u64_at(&header, 8);
    let data_out = chain.readable_len() - HEADER_LEN;
    let data_in = chain.writable_len().checked_sub(1).ok_or(Status::IoError)?;
    match kind {
        vb::VIRTIO_BLK_T_IN => {
            let (offset, len) = transfer(sector, data_in, rules)?;
            Ok(Request::Read { offset, len })
        }
        vb::VIRTIO_BLK_T_OUT => {
            let (offset, len) = transfer(sector, data_out, rules)?;
            writable(rules)?;
            Ok(Request::Write { offset, len })
        }
        vb::VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        vb::VIRTIO_BLK_T_GET_ID => {
            let len = u32::try_from(data_in.min(ID_LEN)).map_err(|_| Status::IoError)?;
            Ok(Request::GetId { len })
        }
        vb::VIRTIO_BLK_T_DISCARD if rules.features.has(Features::DISCARD) => {
            writable(rules)?;
            ranges(memory, chain, data_out, rules, 0).map(Request::Discard)
        }
        vb::VIRTIO_BLK_T_WRITE_ZEROES if rules.features.has(Features::WRITE_ZEROES) => {
            writable(rules)?;
            ranges(memory, chain, data_out, rules, UNMAP).map(Request::WriteZeroes)
        }
        _ => Err(Status::Unsupported),
    }
}

fn writable(rules: Rules) -> Result<(), Status> {
    if rules.read_only {
        Err(Status::IoError)
    } else {
        Ok(())
    }
}

fn on_disk(sector: u64, len: u64, rules: Rules) -> Result<u64, Status> {
    let offset = sector.checked_mul(SECTOR).ok_or(Status::IoError)?;
    let end = offset.checked_add(len).ok_or(Status::IoError)?;
    if end > rules.size {
        Err(Status::IoError)
    } else {
        Ok(offset)
    }
}

fn transfer(sector: u64, len: u64, rules: Rules) -> Result<(u64, u32), Status> {
    if len > MAX_DATA || !len.is_multiple_of(SECTOR) {
        return Err(Status::IoError);
    }
    let offset = on_disk(sector, len, rules)?;
    Ok((offset, u32::try_from(len).map_err(|_| Status::IoError)?))
}

/// All ranges are checked before the first one is carried out.
fn ranges(
    memory: &GuestMemory,
    chain: &Chain,
    len: u64,
    rules: Rules,
    known_flags: u32,
) -> Result<Vec<DiskRange>, Status> {
    if len == 0 || !len.is_multiple_of(RANGE_LEN) || len / RANGE_LEN > u64::from(MAX_RANGES) {
        return Err(Status::IoError);
    }
    let mut out = Vec::new();
    for index in 0..len / RANGE_LEN {
        let mut raw = [0; RANGE_LEN as usize];
        let at = HEADER_LEN + index * RANGE_LEN;
        read_spans(memory, &chain.readable, at, &mut raw).ok_or(Status::IoError)?;
        let (sector, sectors, flags) = (u64_at(&raw, 0), u32_at(&raw, 8), u32_at(&raw, 12));
        if flags & !known_flags != 0 {
            return Err(Status::Unsupported);
        }
        if sectors > MAX_RANGE_SECTORS {
            return Err(Status::IoError);
        }
        let len = u64::from(sectors) * SECTOR;
        let offset = on_disk(sector, len, rules)?;
        if len > 0 {
            out.push(DiskRange {
                offset,
                len,
                unmap: flags & UNMAP != 0,
            });
        }
    }
    Ok(out)
}

/// Reads `into.len()` bytes that begin `skip` bytes into the spans.
fn read_spans(memory: &GuestMemory, spans: &[Span], mut skip: u64, into: &mut [u8]) -> Option<()> {
    let mut rest = into;
    for span in spans {
        if rest.is_empty() {
            break;
        }
        let len = u64::from(span.len);
        if skip >= len {
            skip -= len;
            continue;
        }
        let here = usize::try_from(len - skip).ok()?.min(rest.len());
        let (head, tail) = rest.split_at_mut_checked(here)?;
        memory.read(span.addr.checked_add(skip)?, head)?;
        rest = tail;
        skip = 0;
    }
    rest.is_empty().then_some(())
}

fn u32_at(bytes: &[u8; 16], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8; 16], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u64::from_le_bytes(*b))
}
