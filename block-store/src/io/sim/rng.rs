//! Random numbers for histories that replay from a seed.

/// SplitMix64 (Steele, Lea and Flood, 2014): one 64-bit state, any seed is good.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number in `0..end`; 0 if that is empty.
    pub fn below(&mut self, end: usize) -> usize {
        // The bias is at most end / 2^64.
        (self.bits() % (end.max(1) as u64)) as usize
    }

    /// True in one of two cases.
    pub fn coin(&mut self) -> bool {
        self.bits() & 1 == 1
    }
}
