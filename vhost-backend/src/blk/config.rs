//! Features and configuration space.

use virtio_bindings::{virtio_blk, virtio_config, virtio_ring};

/// Bytes of a sector: the unit of virtio-blk, whatever the logical block size.
pub const SECTOR: u64 = 512;
/// Queues that a front end may use. QEMU asks for one per vCPU, and fails with a back end that has fewer.
pub const MAX_QUEUES: u16 = control_api::limits::QUEUES_MAX;
/// The largest ring: QEMU's largest too.
pub const MAX_QUEUE_SIZE: u16 = 1024;
/// Buffers of data per request: QEMU's default ring of 128 without indirect descriptors, less header and status.
pub const SEG_MAX: u32 = 126;
/// Bytes per buffer of data.
pub const SIZE_MAX: u32 = 1 << 20;
/// Ranges in one discard or write-zeroes request.
pub const MAX_RANGES: u32 = 64;
/// Sectors in one range of a discard or write-zeroes request: 2 TiB, whole blocks.
pub const MAX_RANGE_SECTORS: u32 = u32::MAX - 7;
/// Sectors in one 4 KiB block.
const BLOCK_SECTORS: u32 = 8;
/// log2 of the sectors in one physical block.
const PHYSICAL_BLOCK_EXP: u8 = 3;
/// The least that is read and written without reading more than was asked for: one block, in sectors.
const MIN_IO_SECTORS: u16 = 8;
/// What is read and written best at once: 64 KiB, in sectors.
const OPT_IO_SECTORS: u32 = 128;

/// Where the write-cache switch lies in the configuration space.
pub const WRITEBACK_AT: u32 = 32;
/// Bytes of the configuration space that mean something; what is behind them reads as zero.
pub const CONFIG_LEN: usize = 60;

/// Feature bits as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(pub u64);

impl Features {
    /// SIZE_MAX.
    pub const SIZE_MAX: u32 = virtio_blk::VIRTIO_BLK_F_SIZE_MAX;
    /// SEG_MAX.
    pub const SEG_MAX: u32 = virtio_blk::VIRTIO_BLK_F_SEG_MAX;
    /// RO.
    pub const RO: u32 = virtio_blk::VIRTIO_BLK_F_RO;
    /// BLK_SIZE.
    pub const BLK_SIZE: u32 = virtio_blk::VIRTIO_BLK_F_BLK_SIZE;
    /// FLUSH.
    pub const FLUSH: u32 = virtio_blk::VIRTIO_BLK_F_FLUSH;
    /// TOPOLOGY.
    pub const TOPOLOGY: u32 = virtio_blk::VIRTIO_BLK_F_TOPOLOGY;
    /// CONFIG_WCE.
    pub const CONFIG_WCE: u32 = virtio_blk::VIRTIO_BLK_F_CONFIG_WCE;
    /// MQ.
    pub const MQ: u32 = virtio_blk::VIRTIO_BLK_F_MQ;
    /// DISCARD.
    pub const DISCARD: u32 = virtio_blk::VIRTIO_BLK_F_DISCARD;
    /// WRITE_ZEROES.
    pub const WRITE_ZEROES: u32 = virtio_blk::VIRTIO_BLK_F_WRITE_ZEROES;
    /// INDIRECT_DESC.
    pub const INDIRECT_DESC: u32 = virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
    /// EVENT_IDX.
    pub const EVENT_IDX: u32 = virtio_ring::VIRTIO_RING_F_EVENT_IDX;
    /// VERSION_1.
    pub const VERSION_1: u32 = virtio_config::VIRTIO_F_VERSION_1;
    /// LOG_ALL: vhost's own, "note every write to guest memory".
    pub const LOG_ALL: u32 = 26;
    /// PROTOCOL_FEATURES: vhost-user's own.
    pub const PROTOCOL_FEATURES: u32 = 30;

    const ALWAYS: [u32; 14] = [
        Self::SIZE_MAX,
        Self::SEG_MAX,
        Self::BLK_SIZE,
        Self::FLUSH,
        Self::TOPOLOGY,
        Self::CONFIG_WCE,
        Self::MQ,
        Self::DISCARD,
        Self::WRITE_ZEROES,
        Self::INDIRECT_DESC,
        Self::EVENT_IDX,
        Self::VERSION_1,
        Self::LOG_ALL,
        Self::PROTOCOL_FEATURES,
    ];

    /// What a vDisk offers.
    pub fn offered(read_only: bool) -> Self {
        let all = Self::ALWAYS.iter().fold(0, |bits, bit| bits | 1 << bit);
        Self(if read_only { all | 1 << Self::RO } else { all })
    }

    /// Whether a bit is set.
    pub fn has(self, bit: u32) -> bool {
        self.0 & (1 << bit) != 0
    }
}

/// What the configuration space tells.
#[derive(Debug, Clone, Copy)]
pub struct DiskShape {
    /// Bytes.
    pub size: u64,
    /// Whether writes may wait in a volatile cache until a flush.
    pub write_cache: bool,
}

impl DiskShape {
    /// The configuration space (struct virtio_blk_config), little-endian.
    pub fn config_space(&self) -> [u8; CONFIG_LEN] {
        let mut out = [0; CONFIG_LEN];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(field) = out.get_mut(at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        put(0, &(self.size / SECTOR).to_le_bytes()); // capacity
        put(8, &SIZE_MAX.to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        // 16: geometry, not offered
        put(20, &512u32.to_le_bytes()); // blk_size
        put(24, &[PHYSICAL_BLOCK_EXP, 0]); // and alignment_offset
        put(26, &MIN_IO_SECTORS.to_le_bytes()); // min_io_size
        put(28, &OPT_IO_SECTORS.to_le_bytes()); // opt_io_size
        put(WRITEBACK_AT as usize, &[u8::from(self.write_cache)]);
        put(34, &MAX_QUEUES.to_le_bytes()); // num_queues
        put(36, &MAX_RANGE_SECTORS.to_le_bytes()); // max_discard_sectors
        put(40, &MAX_RANGES.to_le_bytes()); // max_discard_seg
        put(44, &BLOCK_SECTORS.to_le_bytes()); // discard_sector_alignment
        put(48, &MAX_RANGE_SECTORS.to_le_bytes()); // max_write_zeroes_sectors
        put(52, &MAX_RANGES.to_le_bytes()); // max_write_zeroes_seg
        put(56, &[1]); // write_zeroes_may_unmap
        out
    }

    /// `len` bytes of it at `offset`, as GET_CONFIG asks for them. A front end may know fields that came later:
    /// they read as zero.
    pub fn read_config(&self, offset: u32, len: u32) -> Vec<u8> {
        let mut out = vec![0; len as usize];
        let space = self.config_space();
        let known = space.get(offset as usize..).unwrap_or_default();
        for (to, from) in out.iter_mut().zip(known) {
            *to = *from;
        }
        out
    }
}

/// Whether the device must behave as if it had no volatile cache (virtio 5.2.6.2): a driver that didn't take FLUSH has
/// no means to make its writes durable, whatever the switch says.
pub fn write_through(features: Features) -> bool {
    !features.has(Features::FLUSH)
}

#[cfg(test)]
mod tests;
