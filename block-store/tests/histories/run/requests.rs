//! Requests, and what may come of them.

use super::{History, Pending, SIZES, SPOTS, is_small};
use crate::model::{SECTOR, Value, content};
use block_store::{Command, Done};
use rand::Rng;
use std::ops::Range;
use std::sync::Arc;

impl History {
    pub fn submit(&mut self) {
        let vdisks: Vec<usize> = self.run.as_ref().unwrap().vdisks.keys().copied().collect();
        let vdisk = vdisks[self.rng.random_range(0..vdisks.len())];
        let kind = self.rng.random_range(0..20);
        let spot = if is_small(vdisk) {
            0
        } else {
            SPOTS[self.rng.random_range(0..SPOTS.len())]
        };
        let window = if is_small(vdisk) { SIZES[0] } else { 128 << 10 } / SECTOR;
        let len = match self.rng.random_range(0..10) {
            0..5 => 8,
            5..7 => self.rng.random_range(1..24),
            7..9 => 8 * self.rng.random_range(1..32),
            _ => self.rng.random_range(1..512),
        }
        .min(window);
        let align = if self.rng.random_bool(0.6) { 8 } else { 1 };
        let from = (self.rng.random_range(0..=window - len) / align * align).min(window - len);
        let sectors = spot / SECTOR + from..spot / SECTOR + from + len;
        let run = self.run.as_mut().unwrap();
        let (tag, lane) = (run.next_tag, self.rng.random_range(0..run.lanes.len()));
        run.next_tag += 1;
        self.totals.requests += 1;
        let disk = Arc::clone(&run.vdisks[&vdisk]);
        if kind == 0 {
            run.pending.insert(
                tag,
                Pending::Flush {
                    vdisk,
                    submitted: self.model.now(),
                },
            );
            return run.lanes[lane].submit(&disk, Command::Flush, tag);
        }
        let overlaps = |r: &Range<u64>| r.start < sectors.end && sectors.start < r.end;
        let busy = run.pending.values().any(|p| match p {
            Pending::Write {
                vdisk: v,
                sectors: s,
                ..
            } => *v == vdisk && overlaps(s),
            _ => false,
        });
        let (offset, bytes) = (sectors.start * SECTOR, (len * SECTOR) as usize);
        // What overlaps may end in either order.
        if kind < 6 || busy && !self.rng.random_bool(self.overlap) {
            let begun = self.model.now();
            let before = sectors
                .clone()
                .map(|s| self.model.current(vdisk, s))
                .collect();
            run.pending.insert(
                tag,
                Pending::Read {
                    vdisk,
                    first: sectors.start,
                    begun,
                    before,
                },
            );
            return run.lanes[lane].submit(
                &disk,
                Command::Read {
                    offset,
                    into: vec![0xee; bytes],
                },
                tag,
            );
        }
        let (command, touched, zero) = match kind {
            6 => {
                let whole = sectors.start.next_multiple_of(8)..sectors.end / 8 * 8;
                (
                    Command::Discard {
                        offset,
                        len: bytes as u64,
                    },
                    whole.start..whole.end.max(whole.start),
                    true,
                )
            }
            7 => (
                Command::WriteZeroes {
                    offset,
                    len: bytes as u64,
                    unmap: false,
                },
                sectors.clone(),
                true,
            ),
            _ => (
                Command::Write {
                    offset,
                    from: vec![0; bytes],
                },
                sectors.clone(),
                false,
            ),
        };
        let version = self.model.begin(vdisk, touched.clone(), zero);
        if self.trace {
            println!(
                "      vDisk {vdisk}: version {version} to sectors {touched:?} by request {tag}"
            );
        }
        let command = match command {
            Command::Write { offset, mut from } => {
                let value = Value {
                    version,
                    zero,
                    begun: 0,
                    acked: None,
                };
                for (n, sector) in from.chunks_exact_mut(SECTOR as usize).enumerate() {
                    content(&value, sectors.start + n as u64, sector);
                }
                Command::Write { offset, from }
            }
            other => other,
        };
        run.pending.insert(
            tag,
            Pending::Write {
                vdisk,
                sectors: touched,
                version,
            },
        );
        run.lanes[lane].submit(&disk, command, tag);
    }

    pub fn poll(&mut self) {
        let mut done: Vec<Done<Vec<u8>>> = Vec::new();
        let run = self.run.as_mut().unwrap();
        let lane = self.rng.random_range(0..run.lanes.len());
        run.lanes[lane].poll(&mut done);
        for d in done {
            self.complete(d);
        }
    }

    pub(super) fn complete(&mut self, done: Done<Vec<u8>>) {
        let pending = self
            .run
            .as_mut()
            .unwrap()
            .pending
            .remove(&done.tag)
            .expect("completed once");
        if self.disk.is_crashed() {
            // Nobody hears a dead process: the request stays undecided.
            return;
        }
        self.tell(|| format!("    request {} ends: {:?}", done.tag, done.result));
        let vdisk = match &pending {
            Pending::Write { vdisk, .. }
            | Pending::Read { vdisk, .. }
            | Pending::Flush { vdisk, .. } => *vdisk,
        };
        if !self.run.as_ref().unwrap().vdisks.contains_key(&vdisk) {
            // Deleted meanwhile, or about to be: whatever it says.
            return;
        }
        if let Err(error) = done.result {
            // It may have happened or not.
            assert!(self.faulty, "request failed: {error}");
            return;
        }
        match pending {
            Pending::Write {
                vdisk,
                sectors,
                version,
            } => {
                self.model.ack(vdisk, sectors.clone(), version);
                if vdisk == 0 && self.write_through {
                    self.tell_reads();
                    self.model.durable(vdisk, sectors, version);
                }
            }
            Pending::Flush { vdisk, submitted } => {
                self.tell_reads();
                self.model.flushed(vdisk, submitted);
            }
            Pending::Read {
                vdisk,
                first,
                begun,
                before,
            } => {
                let data = done.payload.unwrap();
                for (n, bytes) in data.chunks_exact(SECTOR as usize).enumerate() {
                    let sector = first + n as u64;
                    // Whatever was written while the read was under way goes too.
                    let mut allowed = before[n].clone();
                    let since = self.model.possible(vdisk, sector);
                    allowed.extend(since.into_iter().filter(|v| v.begun > begun));
                    self.match_value(vdisk, sector, bytes, &allowed, "read");
                }
            }
        }
    }

    /// Reads under way may see what the model is about to forget.
    fn tell_reads(&mut self) {
        let Some(run) = &mut self.run else { return };
        for pending in run.pending.values_mut() {
            let Pending::Read {
                vdisk,
                first,
                begun,
                before,
            } = pending
            else {
                continue;
            };
            for (sector, seen) in (*first..).zip(before) {
                let since = self.model.possible(*vdisk, sector).into_iter();
                let new: Vec<_> = since
                    .filter(|v| v.begun > *begun && seen.iter().all(|s| s.version != v.version))
                    .collect();
                seen.extend(new);
            }
        }
    }
}
