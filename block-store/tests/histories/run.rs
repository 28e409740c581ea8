//! One history.

use crate::model::{Model, SECTOR, Value, content};
use crate::sim::SimHost;
use block_store::io::sim::SimDisk;
use block_store::{Command, Done, InitOptions, Lane, OpenConfig, Store, VDisk, VDiskSpec};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What happened in all histories.
#[derive(Debug, Default)]
pub struct Totals {
    pub requests: u64,
    pub kills: u64,
    pub power_losses: u64,
    pub crashes_in_recovery: u64,
    pub checkpoints: u64,
    pub stalls: u64,
    pub sectors_checked: u64,
}

impl Totals {
    pub fn add(&mut self, o: &Self) {
        self.requests += o.requests;
        self.kills += o.kills;
        self.power_losses += o.power_losses;
        self.crashes_in_recovery += o.crashes_in_recovery;
        self.checkpoints += o.checkpoints;
        self.stalls += o.stalls;
        self.sectors_checked += o.sectors_checked;
    }
}

const SIZES: [u64; 2] = [1 << 20, 64 << 40];
/// Where the large vDisk is touched.
const SPOTS: [u64; 4] = [0, (2 << 20) - (64 << 10), 1 << 39, (64 << 40) - (128 << 10)];

enum Pending {
    Write {
        vdisk: usize,
        sectors: Range<u64>,
        version: u64,
    },
    /// With what each sector may have read as when the read was submitted.
    Read {
        vdisk: usize,
        first: u64,
        before: Vec<Vec<Value>>,
    },
    Flush {
        submitted: u64,
    },
}

struct Running {
    store: Arc<Store>,
    vdisks: Vec<Arc<VDisk>>,
    lanes: Vec<Lane<Vec<u8>>>,
    pending: HashMap<u64, Pending>,
    next_tag: u64,
}

struct History {
    rng: SmallRng,
    disk: SimDisk,
    uuids: Arc<AtomicU64>,
    model: Model,
    totals: Totals,
    run: Option<Running>,
    tight: bool,
}

fn config(tight: bool) -> OpenConfig {
    OpenConfig {
        map_memory: if tight { 1 } else { 4 << 20 },
        write_buffer: 1,
        checkpoint_log: 256 << 10,
        ..OpenConfig::new("/store", "/run/firn")
    }
}

pub fn history(seed: u64) -> Totals {
    let mut rng = SmallRng::seed_from_u64(seed);
    let tight = rng.random_bool(0.3);
    let disk = SimDisk::new(seed, if tight { 4 << 20 } else { 256 << 20 });
    let uuids = Arc::new(AtomicU64::new(1));
    Store::init_on(
        &SimHost::new(disk.clone(), &uuids),
        &InitOptions {
            segment_size: 256 << 10,
        },
    )
    .unwrap();
    let mut h = History {
        rng,
        disk,
        uuids,
        model: Model::default(),
        totals: Totals::default(),
        run: None,
        tight,
    };
    h.open();
    let run = h.run.as_mut().unwrap();
    for (n, size) in SIZES.iter().enumerate() {
        let spec = VDiskSpec {
            name: format!("v{n}"),
            size: *size,
            hidden: false,
        };
        run.vdisks.push(run.store.create_vdisk(&spec).unwrap());
    }
    for _ in 0..h.rng.random_range(1..6) {
        h.live();
        h.crash();
    }
    h.settle();
    h.verify(true);
    h.totals
}

impl History {
    /// Opens the store, however often it is killed in the middle of that.
    fn open(&mut self) {
        loop {
            if self.rng.random_bool(0.2) {
                self.disk.crash_after(Some(self.rng.random_range(0..60)));
            }
            let host = Box::new(SimHost::new(self.disk.clone(), &self.uuids));
            match Store::open_on(host, config(self.tight), None) {
                Ok(store) => {
                    let vdisks: Vec<_> = (0..SIZES.len())
                        .filter_map(|n| store.vdisk(&format!("v{n}")).ok())
                        .collect();
                    self.disk.crash_after(None);
                    if self.disk.is_crashed() {
                        drop((store, vdisks));
                        self.totals.crashes_in_recovery += 1;
                        self.die();
                        continue;
                    }
                    let lanes = (0..2).map(|_| store.lane(4).unwrap()).collect();
                    self.run = Some(Running {
                        store,
                        vdisks,
                        lanes,
                        pending: HashMap::new(),
                        next_tag: 0,
                    });
                    return;
                }
                Err(error) => {
                    assert!(self.disk.is_crashed(), "the store can't be opened: {error}");
                    self.totals.crashes_in_recovery += 1;
                    self.die();
                }
            }
        }
    }

    /// The process or the machine dies; what was in flight stays undecided in the model.
    fn die(&mut self) -> bool {
        let power = self.rng.random_bool(0.5);
        if power {
            self.disk.power_loss();
            self.totals.power_losses += 1;
        } else {
            self.disk.kill();
            self.totals.kills += 1;
        }
        self.disk = self.disk.restart();
        power
    }

    fn live(&mut self) {
        if self.rng.random_bool(0.7) {
            self.disk.crash_after(Some(self.rng.random_range(1..400)));
        }
        for _ in 0..self.rng.random_range(20..300) {
            if self.disk.is_crashed() {
                return;
            }
            self.step();
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..55 => self.submit(),
            55..80 => self.poll(),
            80..88 => drop(self.store().core().drain_step()),
            88..92 => drop(self.store().core().commit()),
            92..95 => drop(self.store().core().allocate_ready()),
            95..98 => {
                self.totals.checkpoints += 1;
                drop(self.store().checkpoint());
            }
            _ => drop(self.store().upkeep()),
        }
    }

    fn store(&self) -> Arc<Store> {
        Arc::clone(&self.run.as_ref().unwrap().store)
    }

    fn submit(&mut self) {
        let vdisk = self.rng.random_range(0..SIZES.len());
        let kind = self.rng.random_range(0..20);
        let spot = if vdisk == 0 {
            0
        } else {
            SPOTS[self.rng.random_range(0..SPOTS.len())]
        };
        let window = if vdisk == 0 { SIZES[0] } else { 128 << 10 } / SECTOR;
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
        let disk = Arc::clone(&run.vdisks[vdisk]);
        if kind == 0 {
            run.pending.insert(
                tag,
                Pending::Flush {
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
        if kind < 6 || busy {
            let before = sectors
                .clone()
                .map(|s| self.model.current(vdisk, s))
                .collect();
            run.pending.insert(
                tag,
                Pending::Read {
                    vdisk,
                    first: sectors.start,
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
        let command = match command {
            Command::Write { offset, mut from } => {
                let value = Value {
                    version,
                    zero,
                    acked: None,
                };
                for (n, sector) in from.chunks_exact_mut(SECTOR as usize).enumerate() {
                    content(&value, vdisk, sectors.start + n as u64, sector);
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

    fn poll(&mut self) {
        let mut done: Vec<Done<Vec<u8>>> = Vec::new();
        let run = self.run.as_mut().unwrap();
        let lane = self.rng.random_range(0..run.lanes.len());
        run.lanes[lane].poll(&mut done);
        for d in done {
            self.complete(d);
        }
    }

    fn complete(&mut self, done: Done<Vec<u8>>) {
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
        if let Err(error) = done.result {
            panic!("request failed: {error}");
        }
        match pending {
            Pending::Write {
                vdisk,
                sectors,
                version,
            } => self.model.ack(vdisk, sectors, version),
            Pending::Flush { submitted } => self.model.flushed(submitted),
            Pending::Read {
                vdisk,
                first,
                before,
            } => {
                let data = done.payload.unwrap();
                for (n, bytes) in data.chunks_exact(SECTOR as usize).enumerate() {
                    let sector = first + n as u64;
                    // Whatever was written while the read was under way goes too.
                    let oldest = before[n][0].version;
                    let mut allowed = before[n].clone();
                    allowed.extend(
                        self.model
                            .possible(vdisk, sector)
                            .into_iter()
                            .filter(|v| v.version > oldest),
                    );
                    self.match_value(vdisk, sector, bytes, &allowed, "read");
                }
            }
        }
    }

    fn match_value(
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
    fn settle(&mut self) {
        for round in 0..2000 {
            if self.run.as_ref().unwrap().pending.is_empty() {
                return;
            }
            for _ in 0..4 {
                self.poll();
            }
            let core = Arc::clone(self.store().core());
            if core.flush_is_wanted() {
                core.commit().unwrap();
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

    fn crash(&mut self) {
        if !self.disk.is_crashed() && self.rng.random_bool(0.3) {
            self.disk.crash_after(None);
            self.settle();
            self.verify(false);
        }
        self.disk.crash_after(None);
        self.run = None;
        let mut power = self.die();
        let before = self.totals.power_losses;
        self.open();
        power |= self.totals.power_losses > before;
        self.verify_after_crash(power);
    }

    fn verify(&mut self, _last: bool) {
        self.check_all(false, "at rest", false);
    }

    fn verify_after_crash(&mut self, power: bool) {
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

    fn check_all(&mut self, power: bool, when: &str, crashed: bool) {
        for vdisk in 0..SIZES.len() {
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
    }

    fn read_block(&mut self, vdisk: usize, block: u64) -> Vec<u8> {
        let run = self.run.as_mut().unwrap();
        let mut done = Vec::new();
        let command = Command::Read {
            offset: block * 4096,
            into: vec![0xee; 4096],
        };
        run.lanes[0].submit(&run.vdisks[vdisk], command, u64::MAX);
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
