//! What every sector may read as.

use std::collections::BTreeMap;

pub const SECTOR: u64 = 512;

/// One value that was written to a sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// Unique; 0: never written.
    pub version: u64,
    pub zero: bool,
    /// Logical time of the acknowledgement; `None` while in flight.
    pub acked: Option<u64>,
}

impl Value {
    /// What was never written.
    pub const VIRGIN: Self = Self {
        version: 0,
        zero: true,
        acked: Some(0),
    };
}

/// Sectors of all vDisks: their values since the last flush that covers them, oldest first.
#[derive(Default)]
pub struct Model {
    sectors: BTreeMap<(usize, u64), Vec<Value>>,
    time: u64,
    next_version: u64,
}

/// The bytes of a value: half of them follow the version, half are alike, so that it compresses.
pub fn content(value: &Value, vdisk: usize, sector: u64, out: &mut [u8]) {
    out.fill(0);
    if value.zero {
        return;
    }
    let mut x = value.version.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ sector << 20 ^ vdisk as u64;
    for chunk in out.chunks_exact_mut(16) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        chunk[..8].copy_from_slice(&x.to_le_bytes());
        chunk[8..].fill(7);
    }
}

impl Model {
    pub fn now(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    fn history(&mut self, vdisk: usize, sector: u64) -> &mut Vec<Value> {
        self.sectors
            .entry((vdisk, sector))
            .or_insert_with(|| vec![Value::VIRGIN])
    }

    /// A write of these sectors begins; its version.
    pub fn begin(&mut self, vdisk: usize, sectors: std::ops::Range<u64>, zero: bool) -> u64 {
        self.next_version += 1;
        let version = self.next_version;
        for s in sectors {
            self.history(vdisk, s).push(Value {
                version,
                zero,
                acked: None,
            });
        }
        version
    }

    /// It was acknowledged.
    pub fn ack(&mut self, vdisk: usize, sectors: std::ops::Range<u64>, version: u64) {
        let now = self.now();
        for s in sectors {
            for v in self
                .history(vdisk, s)
                .iter_mut()
                .filter(|v| v.version == version)
            {
                v.acked = Some(now);
            }
        }
    }

    /// It was acknowledged by a vDisk without a write cache.
    pub fn durable(&mut self, vdisk: usize, sectors: std::ops::Range<u64>, version: u64) {
        for s in sectors {
            let history = self.history(vdisk, s);
            if let Some(n) = history.iter().position(|v| v.version == version) {
                history.drain(..n);
            }
        }
    }

    /// The vDisk is gone.
    pub fn forget(&mut self, vdisk: usize) {
        self.sectors.retain(|(v, _), _| *v != vdisk);
    }

    /// A flush of this vDisk, submitted then, has ended: it covers what had been acknowledged.
    pub fn flushed(&mut self, vdisk: usize, submitted: u64) {
        let of_vdisk = self.sectors.range_mut((vdisk, 0)..(vdisk + 1, 0));
        for (_, history) in of_vdisk {
            let last = history
                .iter()
                .rposition(|v| v.acked.is_some_and(|t| t < submitted));
            if let Some(n) = last {
                history.drain(..n);
            }
        }
    }

    /// What a read may see now: the last acknowledged value, or one that is in flight.
    pub fn current(&mut self, vdisk: usize, sector: u64) -> Vec<Value> {
        let history = self.history(vdisk, sector);
        let last = history.iter().rposition(|v| v.acked.is_some()).unwrap_or(0);
        history[last..].to_vec()
    }

    /// What a read may see after loss of power: any value since the last flush.
    pub fn possible(&mut self, vdisk: usize, sector: u64) -> Vec<Value> {
        self.history(vdisk, sector).clone()
    }

    /// After a crash the sector was seen to have this value: what was in flight is decided.
    pub fn observed(&mut self, vdisk: usize, sector: u64, value: Value) {
        let now = self.now();
        let history = self.history(vdisk, sector);
        let first = history[0];
        history.clear();
        history.push(first);
        if value.version != first.version {
            history.push(Value {
                acked: Some(now),
                ..value
            });
        }
    }

    pub fn sectors(&self, vdisk: usize) -> Vec<u64> {
        self.sectors
            .range((vdisk, 0)..(vdisk + 1, 0))
            .map(|((_, s), _)| *s)
            .collect()
    }
}
