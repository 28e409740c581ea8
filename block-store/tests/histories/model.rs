//! What every sector may read as.

use std::collections::BTreeMap;

pub const SECTOR: u64 = 512;

/// One value that was written to a sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// Unique; 0: never written.
    pub version: u64,
    pub zero: bool,
    /// Logical time at which its write began.
    pub begun: u64,
    /// That of the acknowledgement; `None` while in flight.
    pub acked: Option<u64>,
}

impl Value {
    /// What was never written.
    pub const VIRGIN: Self = Self {
        version: 0,
        zero: true,
        begun: 0,
        acked: Some(0),
    };

    /// Whether this one was acknowledged before that one began: where both are there, nobody may see this one.
    fn precedes(&self, other: &Self) -> bool {
        self.acked.is_some_and(|acked| acked < other.begun)
    }
}

/// Lets go of what was overwritten by those that `by` says. Writes that were under way together may end in either order.
fn overwritten(history: &mut Vec<Value>, by: impl Fn(&Value) -> bool) {
    let later: Vec<Value> = history.iter().copied().filter(by).collect();
    history.retain(|v| !later.iter().any(|l| v.precedes(l)));
}

/// What was under way at the cut has happened or not: nothing of it will, and nobody knows which of all that is.
fn at_rest(mut values: Vec<Value>, now: u64) -> Vec<Value> {
    for value in &mut values {
        value.begun = 0;
        value.acked = value.acked.or(Some(now));
    }
    values
}

/// Sectors of all vDisks: their values since the last flush that covers them, in the order in which they began.
#[derive(Default)]
pub struct Model {
    sectors: BTreeMap<(usize, u64), Vec<Value>>,
    time: u64,
    next_version: u64,
}

/// The bytes of a value: half of them follow the version, half are alike, so that it compresses. A version belongs to one vDisk and to
/// what was cloned from it.
pub fn content(value: &Value, sector: u64, out: &mut [u8]) {
    out.fill(0);
    if value.zero {
        return;
    }
    let mut x = value.version.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ sector << 20;
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
        let begun = self.now();
        for s in sectors {
            self.history(vdisk, s).push(Value {
                version,
                zero,
                begun,
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
            overwritten(self.history(vdisk, s), |v| v.version == version);
        }
    }

    /// The vDisk begins as a snapshot of another one.
    pub fn clone_of(&mut self, vdisk: usize, image: impl Iterator<Item = (u64, Vec<Value>)>) {
        self.forget(vdisk);
        let now = self.now();
        let image = image.map(|(sector, values)| ((vdisk, sector), at_rest(values, now)));
        self.sectors.extend(image);
    }

    /// What it was before it was changed.
    pub fn put_back(&mut self, vdisk: usize, image: BTreeMap<u64, Vec<Value>>) {
        self.forget(vdisk);
        let image = image.into_iter();
        let image = image.map(|(sector, values)| ((vdisk, sector), values));
        self.sectors.extend(image);
    }

    /// All that a vDisk may be.
    pub fn image_of(&self, vdisk: usize) -> BTreeMap<u64, Vec<Value>> {
        let of_vdisk = self.sectors.range((vdisk, 0)..(vdisk + 1, 0));
        of_vdisk
            .map(|((_, s), values)| (*s, values.clone()))
            .collect()
    }

    /// The vDisk is gone.
    pub fn forget(&mut self, vdisk: usize) {
        self.sectors.retain(|(v, _), _| *v != vdisk);
    }

    /// A flush of this vDisk, submitted then, has ended: it covers what had been acknowledged.
    pub fn flushed(&mut self, vdisk: usize, submitted: u64) {
        let of_vdisk = self.sectors.range_mut((vdisk, 0)..(vdisk + 1, 0));
        for (_, history) in of_vdisk {
            overwritten(history, |v| v.acked.is_some_and(|t| t < submitted));
        }
    }

    /// What a read may see now: what was acknowledged last, or is in flight.
    pub fn current(&mut self, vdisk: usize, sector: u64) -> Vec<Value> {
        let mut values = self.history(vdisk, sector).clone();
        overwritten(&mut values, |v| v.acked.is_some());
        values
    }

    /// What a read may see after loss of power: any value since the last flush.
    pub fn possible(&mut self, vdisk: usize, sector: u64) -> Vec<Value> {
        self.history(vdisk, sector).clone()
    }

    /// After a crash the sector was seen to have this value: what was in flight is decided. What the last flush covers may still come
    /// back, once power is lost.
    pub fn observed(&mut self, vdisk: usize, sector: u64, value: Value) {
        let (ended, begun, acked) = (self.now(), self.now(), self.now());
        let history = self.history(vdisk, sector);
        let all = history.clone();
        history.retain(|v| v.version != value.version && !all.iter().any(|w| w.precedes(v)));
        for other in history.iter_mut() {
            other.acked = other.acked.or(Some(ended));
        }
        history.push(Value {
            begun,
            acked: Some(acked),
            ..value
        });
    }

    /// The vDisk is becoming what this image says, or stays what it is.
    pub fn reverting(&mut self, vdisk: usize, image: &BTreeMap<u64, Vec<Value>>) {
        let mut sectors: Vec<u64> = self.sectors(vdisk);
        sectors.extend(image.keys());
        for sector in sectors {
            let begun = self.now();
            let was = image.get(&sector).cloned();
            let history = self.history(vdisk, sector);
            for value in was.unwrap_or_else(|| vec![Value::VIRGIN]) {
                // Even one that it had before: it is not overwritten any more.
                history.push(Value {
                    begun,
                    acked: None,
                    ..value
                });
            }
        }
    }

    /// It has become that.
    pub fn reverted(&mut self, vdisk: usize, image: &BTreeMap<u64, Vec<Value>>) {
        for sector in self.sectors(vdisk) {
            let (was, now) = (image.get(&sector).cloned(), self.now());
            let was = was.unwrap_or_else(|| vec![Value::VIRGIN]);
            *self.history(vdisk, sector) = at_rest(was, now);
        }
    }

    pub fn sectors(&self, vdisk: usize) -> Vec<u64> {
        self.sectors
            .range((vdisk, 0)..(vdisk + 1, 0))
            .map(|((_, s), _)| *s)
            .collect()
    }
}
