//! One history.

mod check;
mod guest;
mod requests;
mod revert;
mod scrub;
mod snapshots;

use crate::between::{self, Phase};
use crate::hook::Hooks;
use crate::model::{Model, Value};
use crate::sim::SimHost;
use block_store::defrag::Spot;
use block_store::io::sim::{Op, SimDisk};
use block_store::snapshot::{build_one, tidy};
use block_store::write::Packer;
use block_store::{InitOptions, Lane, OpenConfig, Store, StoreError, VDisk, VDiskSpec};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use revert::Reverting;
use snapshots::{PRUNED, Snapshot};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

/// What happened in all histories.
#[derive(Debug, Default)]
pub struct Totals {
    pub requests: u64,
    pub kills: u64,
    pub power_losses: u64,
    pub crashes_in_recovery: u64,
    pub checkpoints: u64,
    pub stalls: u64,
    /// Steps taken in the middle of a checkpoint or of upkeep.
    pub between: u64,
    /// vDisks deleted, and of these in the middle of a checkpoint.
    pub deletions: u64,
    pub deletions_between: u64,
    /// Clones made, and of these made independent.
    pub clones: u64,
    pub flattened: u64,
    /// vDisks that became again what a snapshot was.
    pub reverts: u64,
    /// Snapshots taken, and deleted.
    pub snapshots: u64,
    pub forgotten: u64,
    /// Snapshots taken by a schedule, deleted by its rules, and by those for the rest.
    pub scheduled: u64,
    pub retired: u64,
    pub pruned: u64,
    /// Bytes that spot defragmentation has put together.
    pub coalesced: u64,
    pub relocated: u64,
    pub settled: u64,
    /// Extents verified by scrubbing, and passes that came to their end.
    pub scrubbed: u64,
    pub passes: u64,
    /// I/O errors ordered, and processes that ended because of one.
    pub faults: u64,
    pub failed: u64,
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
        self.between += o.between;
        self.deletions += o.deletions;
        self.deletions_between += o.deletions_between;
        self.clones += o.clones;
        self.flattened += o.flattened;
        self.reverts += o.reverts;
        self.snapshots += o.snapshots;
        self.forgotten += o.forgotten;
        self.scheduled += o.scheduled;
        self.retired += o.retired;
        self.pruned += o.pruned;
        self.coalesced += o.coalesced;
        self.relocated += o.relocated;
        self.settled += o.settled;
        self.scrubbed += o.scrubbed;
        self.passes += o.passes;
        self.faults += o.faults;
        self.failed += o.failed;
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
        begun: u64,
        before: Vec<Vec<Value>>,
    },
    Flush {
        vdisk: usize,
        submitted: u64,
    },
}

struct Running {
    store: Arc<Store>,
    vdisks: BTreeMap<usize, Arc<VDisk>>,
    lanes: Vec<Lane<Vec<u8>>>,
    pending: HashMap<u64, Pending>,
    next_tag: u64,
    /// Keeps a layer that somebody looks at.
    reader: Option<Arc<()>>,
}

/// The vDisk that comes and goes, by its number: each time it is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    Gone,
    There(usize),
    /// Its creation or deletion has not succeeded, or not yet: the next process will see.
    Unsure(usize),
}

pub type Deletion = JoinHandle<Result<(), StoreError>>;

pub struct History {
    pub rng: SmallRng,
    pub disk: SimDisk,
    hooks: Hooks,
    uuids: Arc<AtomicU64>,
    clock: Arc<AtomicU64>,
    model: Model,
    pub totals: Totals,
    run: Option<Running>,
    tight: bool,
    /// What is under way while others have their turn.
    pub phase: Phase,
    /// How often others have their turn.
    pub nest: f64,
    /// Under way in a thread of its own: it waits for the end of the checkpoint.
    pub deletion: Option<Deletion>,
    guest: Guest,
    next_guest: usize,
    reverting: Option<Reverting>,
    snapshots: Vec<Snapshot>,
    next_snapshot: usize,
    /// Those that nobody knew about before rules were applied.
    unsure_before: Vec<String>,
    /// Acknowledged writes of vDisk 0 are durable.
    write_through: bool,
    /// Some operation of this process fails.
    faulty: bool,
    faults: bool,
    /// How often a write may overlap those under way.
    overlap: f64,
    trace: bool,
}

fn name_of(vdisk: usize) -> String {
    format!("v{vdisk}")
}

fn is_small(vdisk: usize) -> bool {
    vdisk != 1
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
    let hooks = Hooks::default();
    let segment_size = 256 << 10;
    let clock = Arc::new(AtomicU64::new(1_700_000_000));
    let host = SimHost::new(hooks.around(disk.clone()), disk.clone(), &uuids, &clock);
    Store::init_on(&host, &InitOptions { segment_size }).unwrap();
    let mut h = History {
        nest: [0.0, 0.05, 0.2, 0.5][rng.random_range(0..4)],
        write_through: rng.random_bool(0.2),
        faults: rng.random_bool(0.15),
        overlap: [0.0, 0.5, 1.0][rng.random_range(0..3)],
        rng,
        disk,
        hooks,
        uuids,
        clock,
        model: Model::default(),
        totals: Totals::default(),
        run: None,
        tight,
        phase: Phase::Idle,
        deletion: None,
        guest: Guest::Gone,
        next_guest: SIZES.len(),
        reverting: None,
        snapshots: Vec::new(),
        next_snapshot: 0,
        unsure_before: Vec::new(),
        faulty: false,
        trace: std::env::var_os("FIRN_TRACE").is_some(),
    };
    h.open();
    let run = h.run.as_mut().unwrap();
    for (n, size) in SIZES.iter().enumerate() {
        let vdisk = run.store.create_vdisk(&spec(n, *size)).unwrap();
        run.vdisks.insert(n, vdisk);
    }
    if h.write_through {
        run.store.set_write_cache("v0", false).unwrap();
    }
    h.make_schedule();
    let lives = h.rng.random_range(1..6);
    let hooks = h.hooks.clone();
    let h = Arc::new(Mutex::new(h));
    let shared = Arc::downgrade(&h);
    hooks.watch(move |event, name| {
        if let Some(h) = shared.upgrade() {
            between::turn(&h, event, name);
        }
    });
    for _ in 0..lives {
        live(&h);
        h.lock().crash();
    }
    let mut h = h.lock();
    h.settle();
    h.verify();
    std::mem::take(&mut h.totals)
}

fn spec(vdisk: usize, size: u64) -> VDiskSpec {
    VDiskSpec {
        name: name_of(vdisk),
        size,
        hidden: false,
    }
}

fn live(h: &Mutex<History>) {
    let steps = h.lock().begin_life();
    for _ in 0..steps {
        let mut now = h.lock();
        if now.disk.is_crashed() || now.has_failed() {
            return;
        }
        if let Some(phase) = now.step() {
            drop(now);
            background(h, phase);
        }
    }
}

/// What the store's other threads do: between its phases the history goes on.
pub fn background(h: &Mutex<History>, phase: Phase) {
    let mut now = h.lock();
    let store = now.store();
    let before = std::mem::replace(&mut now.phase, phase);
    now.tell(|| format!("{phase:?} begins"));
    match phase {
        Phase::Idle => {}
        Phase::Checkpoint => {
            now.totals.checkpoints += 1;
            drop(now);
            drop(store.checkpoint());
        }
        Phase::Upkeep => {
            drop(now);
            drop(store.upkeep());
        }
        Phase::Create => {
            let (vdisk, source) = now.new_guest();
            drop(now);
            let made = match &source {
                Some(snapshot) => store.clone_vdisk(&name_of(0), snapshot, &name_of(vdisk)),
                None => store.create_vdisk(&spec(vdisk, SIZES[0])),
            };
            h.lock().created(vdisk, source.is_some(), made);
        }
        Phase::Flatten => {
            let Guest::There(vdisk) = now.guest else {
                now.phase = before;
                return;
            };
            drop(now);
            let outcome = store.flatten_vdisk(&name_of(vdisk));
            h.lock().flattened(outcome);
        }
        Phase::Revert => {
            let Some((vdisk, name)) = now.begin_revert() else {
                now.phase = before;
                return;
            };
            drop(now);
            let outcome = store.revert_vdisk(&name_of(vdisk), &name, None);
            h.lock().reverted(outcome);
        }
        Phase::Delete => {
            let Some(vdisk) = now.begin_deletion() else {
                now.phase = before;
                return;
            };
            drop(now);
            let outcome = store.delete_vdisk(&name_of(vdisk));
            h.lock().deleted(outcome);
        }
        Phase::Snapshot => {
            let Some((name, vdisks)) = now.new_snapshot() else {
                now.phase = before;
                return;
            };
            drop(now);
            let names: Vec<String> = vdisks.iter().map(|v| name_of(*v)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let cut = store.cut_snapshot(&names, &name);
            let cut = h.lock().cut(name.clone(), vdisks, cut);
            if let Some(cut) = cut {
                let made = store.complete_snapshot(cut);
                h.lock().completed(&name, made);
            }
        }
        Phase::Forget => {
            let Some((name, vdisks)) = now.begin_forgetting() else {
                now.phase = before;
                return;
            };
            drop(now);
            for vdisk in vdisks {
                let outcome = store.delete_snapshots(&name_of(vdisk), &[&name], true);
                h.lock().forgotten(&name, vdisk, outcome.map(drop));
            }
        }
        Phase::Tend => {
            let time = now.time_passes();
            drop(now);
            let cuts = store.cut_scheduled(time);
            if h.lock().scheduled(&cuts) {
                let tended = store.complete_scheduled(cuts);
                h.lock().tended(&tended);
            }
        }
        Phase::Prune => {
            let vdisk = now.begin_pruning();
            drop(now);
            let pruned = store.prune_snapshots(&name_of(vdisk), &PRUNED, false);
            h.lock().pruned(vdisk, pruned);
        }
    }
    let mut now = h.lock();
    now.phase = before;
    now.tell(|| format!("{phase:?} ends"));
    if let Some(deletion) = now.deletion.take() {
        now.phase = Phase::Delete;
        drop(now);
        let outcome = deletion.join().unwrap();
        now = h.lock();
        now.phase = before;
        now.deleted(outcome);
    }
}

impl History {
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>5} {}", self.disk.counters().operations(), what());
        }
    }

    /// Opens the store, however often it is killed, or fails, in the middle of that.
    fn open(&mut self) {
        loop {
            if self.rng.random_bool(0.2) {
                self.disk.crash_after(Some(self.rng.random_range(0..60)));
            }
            if self.faults && self.rng.random_bool(0.3) {
                self.order_fault(12);
            }
            let host = SimHost::new(
                self.hooks.around(self.disk.clone()),
                self.disk.clone(),
                &self.uuids,
                &self.clock,
            );
            match Store::open_on(Box::new(host), config(self.tight), None) {
                Ok(store) => {
                    self.disk.crash_after(None);
                    self.disk.lift_faults();
                    self.faulty = false;
                    if self.disk.is_crashed() {
                        drop(store);
                        self.totals.crashes_in_recovery += 1;
                        self.die();
                        continue;
                    }
                    self.snapshots_of(&store);
                    let headroom = [100, 100, 0][self.rng.random_range(0..3)];
                    store.core().cpu_headroom.store(headroom, Relaxed);
                    self.run = Some(Running {
                        vdisks: self.vdisks_of(&store),
                        lanes: (0..2).map(|_| store.lane(4).unwrap()).collect(),
                        store,
                        pending: HashMap::new(),
                        next_tag: 0,
                        reader: None,
                    });
                    return;
                }
                Err(error) => {
                    let excused = self.disk.is_crashed() || self.faulty;
                    assert!(excused, "the store can't be opened: {error}");
                    self.totals.crashes_in_recovery += 1;
                    self.die();
                }
            }
        }
    }

    fn order_fault(&mut self, within: u64) {
        let op = [Op::Read, Op::Write, Op::Sync, Op::Name][self.rng.random_range(0..4)];
        let n = self.rng.random_range(1..within);
        self.tell(|| format!("{op:?} {n} from now will fail"));
        self.disk.fail_nth(op, n);
        self.faulty = true;
        self.totals.faults += 1;
    }

    fn has_failed(&self) -> bool {
        let run = self.run.as_ref().unwrap();
        run.store.core().state.lock().failed.is_some()
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
        self.tell(|| if power { "power loss" } else { "kill" }.to_string());
        self.disk = self.disk.restart();
        self.faulty = false;
        power
    }

    fn begin_life(&mut self) -> usize {
        if self.rng.random_bool(0.7) {
            self.disk.crash_after(Some(self.rng.random_range(1..400)));
        }
        if self.faults && self.rng.random_bool(0.5) {
            self.order_fault(60);
        }
        self.rng.random_range(20..300)
    }

    /// One step, or what is to be done by others.
    fn step(&mut self) -> Option<Phase> {
        if self.rng.random_bool(0.04) {
            self.scrub();
            return None;
        }
        if self.rng.random_bool(0.02) {
            self.merge_a_little();
            return None;
        }
        match self.rng.random_range(0..100) {
            0..52 => self.submit(),
            52 if self.rng.random_bool(0.2) => {
                return Some(match self.rng.random_bool(0.5) {
                    true => Phase::Revert,
                    false => Phase::Flatten,
                });
            }
            52 => return Some(Phase::Forget),
            53..55 => return Some(Phase::Snapshot),
            55 => return Some(Phase::Tend),
            56 if self.rng.random_bool(0.3) => return Some(Phase::Prune),
            56..80 => self.poll(),
            80..88 => drop(self.store().core().drain_step()),
            88..90 => drop(self.store().core().commit()),
            90 => drop(self.store().core().commit_flushes()),
            92 => {
                let core = self.store().core().clone();
                drop((core.allocate_ready(), core.give_back_step()));
            }
            91 => self.coalesce(),
            93 => drop(build_one(self.store().core(), &|| true)),
            94..97 => return Some(Phase::Checkpoint),
            97 => {
                return Some(match self.guest {
                    Guest::Gone => Phase::Create,
                    _ => Phase::Delete,
                });
            }
            _ => return Some(Phase::Upkeep),
        }
        None
    }

    /// Merges stop after a few steps, and somebody looks at a layer meanwhile: while its usage is being asked for it stays.
    fn merge_a_little(&mut self) {
        let core = Arc::clone(self.store().core());
        let limit = self.rng.random_range(1..4);
        drop(tidy(&core, limit));
        if self.rng.random_bool(0.5) {
            self.run.as_mut().unwrap().reader = None;
            return;
        }
        let mut state = core.state.lock();
        let live: Vec<u32> = state.catalogue.vdisks.iter().map(|v| v.layer).collect();
        let sealed = state.catalogue.layers.keys().filter(|l| !live.contains(l));
        let sealed: Vec<u32> = sealed.copied().collect();
        if sealed.is_empty() {
            return;
        }
        let layer = sealed[self.rng.random_range(0..sealed.len())];
        let reader = Arc::new(());
        state.readers.push((layer, Arc::downgrade(&reader)));
        state.presence.of(layer);
        self.run.as_mut().unwrap().reader = Some(reader);
    }

    /// What the thread of spot defragmentation does.
    pub fn coalesce(&mut self) {
        let mut packer = Packer::new().unwrap();
        let core = Arc::clone(self.store().core());
        drop(Spot::step(&core, &mut packer));
        self.totals.coalesced += core.counters.coalesced_bytes.swap(0, Relaxed);
    }

    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.run.as_ref().unwrap().store)
    }
}
