//! Everything comes to its end, and reads as it may.

use super::History;
use crate::model::{SECTOR, Value, content};
use block_store::{Command, VDisk};
use rand::Rng;
use std::collections::HashMap;
use std::sync::Arc;

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
            content(value, vdisk, sector, &mut want);
            if bytes == want {
                return *value;
            }
        }
        let other = (0..self.model.now()).find(|version| {
            content(
                &Value {
                    version: *version,
                    zero: *version == 0,
                    acked: None,
                },
                vdisk,
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
            let sectors = self.model.sectors(vdisk);
            let blocks: std::collections::BTreeSet<u64> = sectors.iter().map(|s| s / 8).collect();
            let mut data = HashMap::new();
            for block in &blocks {
                data.insert(*block, self.read_block(vdisk, *block));
            }
            for sector in sectors {
                let allowed = if power {
                    self.model.possible(vdisk, sector)
                } else {
                    self.model.current(vdisk, sector)
                };
                let at = (sector % 8 * SECTOR) as usize;
                let bytes = &data[&(sector / 8)][at..at + SECTOR as usize];
                let seen = self.match_value(vdisk, sector, bytes, &allowed, when);
                self.totals.sectors_checked += 1;
                if crashed {
                    self.model.observed(vdisk, sector, seen);
                }
            }
        }
        self.check_snapshots(when);
    }

    pub(super) fn read_block(&mut self, vdisk: usize, block: u64) -> Vec<u8> {
        let disk = Arc::clone(&self.run.as_ref().unwrap().vdisks[&vdisk]);
        self.read_block_of(&disk, block)
    }

    pub(super) fn read_block_of(&mut self, disk: &Arc<VDisk>, block: u64) -> Vec<u8> {
        let run = self.run.as_mut().unwrap();
        let mut done = Vec::new();
        let command = Command::Read {
            offset: block * 4096,
            into: vec![0xee; 4096],
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
