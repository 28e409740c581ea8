//! Names of nodes.

use crate::format::NODE_SLOTS;
use std::hash::{BuildHasherDefault, Hasher};

/// Levels of a map: 512^4 blocks of 4 KiB are 256 TiB, four times the largest vDisk.
pub const LEVELS: usize = 4;
/// The root's level.
pub const ROOT_LEVEL: u8 = 3;
const NUMBER_BITS: u32 = 28;
const FANOUT_BITS: u32 = NODE_SLOTS.trailing_zeros();

/// A node's place: layer, level (0: leaf), and its number among the nodes of that level.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeKey(u64);

impl NodeKey {
    /// The node of `level` with this number. Ordered by layer, then level, then number.
    pub fn new(layer: u32, level: u8, number: u64) -> Self {
        Self(
            u64::from(layer) << 32
                | u64::from(level & 3) << NUMBER_BITS
                | number & ((1 << NUMBER_BITS) - 1),
        )
    }

    /// The leaf that holds `block`.
    pub fn leaf(layer: u32, block: u64) -> Self {
        Self::new(layer, 0, block >> FANOUT_BITS)
    }

    /// Its layer.
    pub fn layer(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Its level.
    pub fn level(self) -> u8 {
        (self.0 >> NUMBER_BITS & 3) as u8
    }

    /// Its number within the level.
    pub fn number(self) -> u64 {
        self.0 & ((1 << NUMBER_BITS) - 1)
    }

    /// The node above it; `None` for a root.
    pub fn parent(self) -> Option<Self> {
        (self.level() < ROOT_LEVEL)
            .then(|| Self::new(self.layer(), self.level() + 1, self.number() >> FANOUT_BITS))
    }

    /// The `n`-th node below it; `None` for a leaf.
    pub fn child(self, n: u64) -> Option<Self> {
        let level = self.level().checked_sub(1)?;
        Some(Self::new(
            self.layer(),
            level,
            self.number() << FANOUT_BITS | n & (NODE_SLOTS as u64 - 1),
        ))
    }

    /// Level and number as a record's header has them.
    pub fn identity(self) -> u64 {
        u64::from(self.level()) << 56 | self.number()
    }

    /// The node that a record's header names, if there can be one.
    pub fn from_identity(layer: u32, identity: u64) -> Option<Self> {
        let (level, number) = ((identity >> 56) as u8, identity & ((1 << 56) - 1));
        (level <= ROOT_LEVEL && number < 1 << NUMBER_BITS).then(|| Self::new(layer, level, number))
    }

    /// Blocks below one entry of a node of this level.
    pub fn blocks_per_slot(level: u8) -> u64 {
        1 << (FANOUT_BITS * u32::from(level))
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "node {} of level {} of layer {}",
            self.number(),
            self.level(),
            self.layer()
        )
    }
}

/// Multiplicative hashing (Knuth, TAOCP 6.4): node keys are small dense integers, the table is bounded by the map's
/// budget, and the same history must visit the same places in every run of the simulation.
#[derive(Default)]
pub struct KeyHasher(u64);

/// Hash builder for maps by node or layer.
pub type KeyHash = BuildHasherDefault<KeyHasher>;

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(26);
    }
}
