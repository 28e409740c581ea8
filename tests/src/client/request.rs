//! virtio-blk requests, their completions, and the device's configuration space.

/// Bytes in a sector, the unit of virtio-blk addresses.
pub const SECTOR: u64 = 512;

/// Feature bits of virtio and virtio-blk, by their numbers in the specification.
#[allow(missing_docs, reason = "named as in the specification")]
pub mod feature {
    pub const SIZE_MAX: u64 = 1 << 1;
    pub const SEG_MAX: u64 = 1 << 2;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const CONFIG_WCE: u64 = 1 << 11;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
    pub const LOG_ALL: u64 = 1 << 26;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
}

/// Bits of the vhost-user protocol features.
#[allow(missing_docs, reason = "named as in the specification")]
pub mod protocol {
    pub const MQ: u64 = 1 << 0;
    pub const LOG_SHMFD: u64 = 1 << 1;
    pub const REPLY_ACK: u64 = 1 << 3;
    pub const CONFIG: u64 = 1 << 9;
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub enum Op {
    Read,
    Write,
    Flush,
    GetId,
    Discard,
    WriteZeroes { unmap: bool },
}

/// A request of one range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// First sector (of 512 bytes); ignored by [`Op::Flush`] and [`Op::GetId`].
    pub sector: u64,
    /// Length of the range in bytes, a multiple of 512; ignored likewise.
    pub bytes: u32,
}

impl Request {
    /// A read of `bytes` from `sector`.
    pub fn read(sector: u64, bytes: u32) -> Self {
        Self {
            op: Op::Read,
            sector,
            bytes,
        }
    }

    /// A write of `bytes` to `sector`.
    pub fn write(sector: u64, bytes: u32) -> Self {
        Self {
            op: Op::Write,
            sector,
            bytes,
        }
    }

    /// A flush.
    pub fn flush() -> Self {
        Self {
            op: Op::Flush,
            sector: 0,
            bytes: 0,
        }
    }

    /// Sectors of the range.
    pub fn sectors(&self) -> u64 {
        u64::from(self.bytes) / SECTOR
    }

    /// Whether the range has new contents afterwards.
    pub fn changes_data(&self) -> bool {
        matches!(self.op, Op::Write | Op::Discard | Op::WriteZeroes { .. })
    }

    /// The request type of the header.
    pub(super) fn kind(&self) -> u32 {
        match self.op {
            Op::Read => 0,
            Op::Write => 1,
            Op::Flush => 4,
            Op::GetId => 8,
            Op::Discard => 11,
            Op::WriteZeroes { .. } => 13,
        }
    }

    /// Bytes of the data part of the chain, and whether the device writes them.
    pub(super) fn data(&self) -> (u32, bool) {
        match self.op {
            Op::Read => (self.bytes, true),
            Op::Write => (self.bytes, false),
            Op::Flush => (0, false),
            Op::GetId => (20, true),
            Op::Discard | Op::WriteZeroes { .. } => (16, false),
        }
    }

    /// The `virtio_blk_discard_write_zeroes` that such a request carries as its data.
    pub(super) fn range_descriptor(&self) -> Option<[u8; 16]> {
        let flags = match self.op {
            Op::Discard => 0u32,
            Op::WriteZeroes { unmap } => u32::from(unmap),
            _ => return None,
        };
        let mut range = [0; 16];
        range[..8].copy_from_slice(&self.sector.to_le_bytes());
        range[8..12].copy_from_slice(&(self.bytes / SECTOR as u32).to_le_bytes());
        range[12..].copy_from_slice(&flags.to_le_bytes());
        Some(range)
    }

    /// What the used ring must report as written by the device when the request succeeds.
    pub fn used_len(&self) -> u32 {
        match self.data() {
            (len, true) => len + 1,
            (_, false) => 1,
        }
    }
}

/// VIRTIO_BLK_S_OK.
pub const STATUS_OK: u8 = 0;
/// VIRTIO_BLK_S_IOERR.
pub const STATUS_IOERR: u8 = 1;
/// VIRTIO_BLK_S_UNSUPP.
pub const STATUS_UNSUPP: u8 = 2;
/// What the client puts into the status byte before it submits: no backend returns it.
pub const STATUS_UNTOUCHED: u8 = 0xee;

/// A finished request.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    /// The slot that [`super::Queue::reserve`] gave.
    pub tag: u16,
    /// The request as it was submitted.
    pub request: Request,
    /// The status byte: [`STATUS_OK`] and its siblings.
    pub status: u8,
    /// Bytes the device says it wrote.
    pub used_len: u32,
}

/// The part of `virtio_blk_config` that tests look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct BlockConfig {
    /// In sectors of 512 bytes, whatever `blk_size` says.
    pub capacity: u64,
    pub size_max: u32,
    pub seg_max: u32,
    pub blk_size: u32,
    pub wce: u8,
    pub num_queues: u16,
    pub max_discard_sectors: u32,
    pub max_discard_seg: u32,
    pub discard_sector_alignment: u32,
    pub max_write_zeroes_sectors: u32,
    pub max_write_zeroes_seg: u32,
    pub write_zeroes_may_unmap: u8,
}

impl BlockConfig {
    /// Bytes of the configuration space up to `write_zeroes_may_unmap` and its padding: what QEMU asks for.
    pub const LEN: u32 = 60;
    /// Offset of the writable `wce` byte.
    pub const WCE_OFFSET: u32 = 32;

    /// Decodes at least [`BlockConfig::LEN`] bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            capacity: u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?),
            size_max: u32_at(8)?,
            seg_max: u32_at(12)?,
            blk_size: u32_at(20)?,
            wce: *bytes.get(32)?,
            num_queues: u16::from_le_bytes(bytes.get(34..36)?.try_into().ok()?),
            max_discard_sectors: u32_at(36)?,
            max_discard_seg: u32_at(40)?,
            discard_sector_alignment: u32_at(44)?,
            max_write_zeroes_sectors: u32_at(48)?,
            max_write_zeroes_seg: u32_at(52)?,
            write_zeroes_may_unmap: *bytes.get(56)?,
        })
    }
}
