//! Everything comes to its end, and reads as it may.

use super::History;
use crate::model::{SECTOR, Value, content};
use block_store::log::Cause;
use block_store::{Command, VDisk};
use rand::Rng;
use std::sync::Arc;

/// Bytes that are read at a time: fewer than what has scattered blocks put together.
const NEAR: u64 = 32 << 10;

/// What the last read at rest has brought.
#[derive(Default)]
pub(super) struct Near {
    offset: u64,
    bytes: Vec<u8>,
}

impl History {
    pub(super) fn match_value(
        &mut self,
        vdisk: usize,
        sector: u64,
        bytes: &[u8],
        allowed: &[Value],
        when: &str,
    ) -> Value {
        let mut want = [0; SECTOR as usize];
        for value in allowed.iter().rev() {
            content(value, sector, &mut want);
            if bytes == want {
                return *value;
            }
        }
        let other = (0..self.model.now()).find(|version| {
            content(
                &Value {
                    version: *version,
                    zero: *version == 0,
                    begun: 0,
                    acked: None,
                },
                sector,
                &mut want,
            );
            bytes == want
        });
        panic!(
            "{when}: version {other:?} in vDisk {vdisk}, sector {sector} reads {:02x?}, allowed are {allowed:?}",
            &bytes[..16]
        );
    }

    /// Everything in flight must come to its end: nothing may hang.
    pub(super) fn settle(&mut self) {
        self.disk.lift_faults();
        for round in 0..2000 {
            if self.run.as_ref().unwrap().pending.is_empty() {
                return;
            }
            for _ in 0..4 {
                self.poll();
            }
            let core = Arc::clone(self.store().core());
            if core.flushes_waiting() > 0 {
                core.commit_flushes().unwrap();
            }
            core.drain_step().unwrap();
            core.allocate_ready().unwrap();
            if round % 4 == 3 {
                self.totals.stalls += 1;
                let _ = self.store().upkeep();
            }
            if round == 1000 {
                // Full for good: there is only so much that may be written to a small disk.
                self.disk.set_capacity(64 << 20);
            }
        }
        panic!("requests hang: {:?}", self.store().status());
    }

    pub(super) fn crash(&mut self) {
        if !self.disk.is_crashed() && self.has_failed() {
            assert!(self.faulty, "the store has failed by itself");
            self.totals.failed += 1;
        } else if !self.disk.is_crashed() && self.rng.random_bool(0.3) {
            self.disk.crash_after(None);
            self.settle();
            self.verify();
        }
        self.disk.crash_after(None);
        let core = Arc::clone(self.store().core());
        self.totals.relocated += core.counters.written.of(Cause::Compaction);
        self.totals.settled += core.counters.written.of(Cause::Packing);
        drop(core);
        self.run = None;
        let mut power = self.die();
        let before = self.totals.power_losses;
        self.open();
        power |= self.totals.power_losses > before;
        self.verify_after_crash(power);
    }

    pub(super) fn verify(&mut self) {
        self.check_all(false, "at rest", false);
    }

    pub(super) fn verify_after_crash(&mut self, power: bool) {
        self.check_all(
            power,
            if power {
                "after loss of power"
            } else {
                "after a kill"
            },
            true,
        );
    }

    pub(super) fn check_all(&mut self, power: bool, when: &str, crashed: bool) {
        let vdisks: Vec<usize> = self.run.as_ref().unwrap().vdisks.keys().copied().collect();
        for vdisk in vdisks {
            let disk = Arc::clone(&self.run.as_ref().unwrap().vdisks[&vdisk]);
            let mut near = Near::default();
            for sector in self.model.sectors(vdisk) {
                let allowed = if power {
                    self.model.possible(vdisk, sector)
                } else {
                    self.model.current(vdisk, sector)
                };
                let bytes = self.read_sector(&disk, sector, &mut near);
                let seen = self.match_value(vdisk, sector, &bytes, &allowed, when);
                self.totals.sectors_checked += 1;
                if crashed {
                    self.model.observed(vdisk, sector, seen);
                }
            }
        }
        let store = self.store();
        let miscounted = store.core().state.lock().segments.miscounted();
        assert_eq!(miscounted, 0, "{when}: entries let go of twice");
        self.check_snapshots(when);
    }

    /// A sector, read together with those beside it: `near` keeps what one read has brought.
    pub(super) fn read_sector(
        &mut self,
        disk: &Arc<VDisk>,
        sector: u64,
        near: &mut Near,
    ) -> [u8; SECTOR as usize] {
        let (offset, reach) = (sector * SECTOR, near.offset + near.bytes.len() as u64);
        if !(near.offset..reach).contains(&offset) {
            near.offset = offset / NEAR * NEAR;
            let len = NEAR.min(disk.size() - near.offset);
            near.bytes = self.read_at_rest(disk, near.offset, len as usize);
        }
        let at = (offset - near.offset) as usize;
        near.bytes[at..][..SECTOR as usize].try_into().unwrap()
    }

    fn read_at_rest(&mut self, disk: &Arc<VDisk>, offset: u64, len: usize) -> Vec<u8> {
        let run = self.run.as_mut().unwrap();
        let mut done = Vec::new();
        let command = Command::Read {
            offset,
            into: vec![0xee; len],
        };
        run.lanes[0].submit(disk, command, u64::MAX);
        for _ in 0..1000 {
            run.lanes[0].poll(&mut done);
            if let Some(d) = done.pop() {
                d.result.expect("a read at rest");
                return d.payload.unwrap();
            }
        }
        panic!("a read hangs");
    }
}
