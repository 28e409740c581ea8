//! Faults of the host, one at every operation of a small life: the disk fails, or is full, at the n-th operation, for every n.
//! What was acknowledged stays, what was flushed survives the power, and the store says what it can't do.

mod support;

use block_store::io::sim::Op;
use block_store::io::{Disk, Runtime};
use block_store::{
    Command, Host, OnFull, OpenConfig, RequestError, Store, StoreError, VDisk, VDiskSpec,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use support::{BLOCK, Client, Machine, noise, step};

const SIZE: u64 = 8 << 20;
/// What a life may come to before it is over.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    /// The store takes no more writes, and has said so.
    Failed,
}

/// A small life of a store, and what its blocks may read as.
struct Life {
    m: Machine,
    on_full: OnFull,
    /// By vDisk and block: versions that may be seen; 0 is zeroes. More than one: a request failed.
    want: BTreeMap<(&'static str, u64), Vec<u64>>,
    /// vDisks whose creation or deletion has failed.
    unsure: Vec<&'static str>,
    /// Some operation fails.
    faulty: bool,
    /// Requests that were told there is no space, or had to wait for it.
    short_of_space: u64,
    failures: u64,
    /// One that may be waiting for space, and another.
    clients: Vec<Client>,
}

fn block_of(version: u64, block: u64) -> Vec<u8> {
    match version {
        0 => vec![0; BLOCK],
        v => noise(v << 32 | block, BLOCK),
    }
}

fn bytes_of(version: u64, first: u64, blocks: u64) -> Vec<u8> {
    let each = (first..first + blocks).map(|b| block_of(version, b));
    each.collect::<Vec<_>>().concat()
}

impl Life {
    fn new(on_full: OnFull) -> Self {
        Self {
            m: Machine::new(1, 64 << 20),
            on_full,
            want: BTreeMap::new(),
            unsure: Vec::new(),
            faulty: false,
            short_of_space: 0,
            failures: 0,
            clients: Vec::new(),
        }
    }

    fn open(&mut self) -> Result<Arc<Store>, StoreError> {
        let store = self.m.try_open(|c| {
            c.on_full = self.on_full;
            // Compaction whenever there is something to compact.
            c.low_space_percent = 100;
            c.map_memory = 1;
            c.write_buffer = 1;
        })?;
        // Of two lanes at most one can't be made.
        for _ in 0..3 {
            if self.clients.len() < 2
                && let Ok(lane) = store.lane(8)
            {
                let store = Arc::clone(&store);
                self.clients.push(Client { store, lane });
            }
        }
        Ok(store)
    }

    fn close(&mut self, store: Arc<Store>) {
        self.clients.clear();
        drop(store);
        self.m.kill();
    }

    /// Everything that takes space, reads or writes: creation, writes, flushes, checkpoints, compaction, deletion, a clean stop.
    fn live(&mut self, store: &Arc<Store>) -> End {
        for round in 1..3u64 {
            for name in ["a", "b"] {
                if store.vdisk(name).is_err() {
                    self.create(store, name);
                }
                for first in (0..128).step_by(32) {
                    self.write(store, name, first, 32, round);
                }
                if self.ended(store) {
                    return End::Failed;
                }
            }
            self.flush(store);
            self.checkpoint(store);
            // Sparse segments.
            for first in (0..128).filter(|b| b % 4 != 0) {
                self.write(store, "a", first, 1, round * 10);
            }
            self.discard(store, "a", 64, 32);
            self.upkeep(store);
            if self.ended(store) {
                return End::Failed;
            }
            self.delete(store, "b");
            for _ in 0..3 {
                self.upkeep(store);
            }
            self.flush(store);
            if self.ended(store) {
                return End::Failed;
            }
        }
        End::Done
    }

    fn ended(&self, store: &Store) -> bool {
        let failed = store.status().failed;
        assert!(failed.is_none() || self.faulty, "{failed:?}");
        failed.is_some()
    }

    /// Something has failed, which it may.
    fn note<T>(&mut self, what: &str, outcome: Result<T, impl std::fmt::Display>) -> bool {
        if let Err(error) = &outcome {
            assert!(self.faulty, "{what}: {error}");
            assert!(!error.to_string().is_empty());
            self.failures += 1;
        }
        outcome.is_ok()
    }

    fn request(
        &mut self,
        store: &Arc<Store>,
        disk: &Arc<VDisk>,
        command: Command<Vec<u8>>,
    ) -> bool {
        let flush = matches!(command, Command::Flush);
        self.clients[0].lane.submit(disk, command, 1);
        let done = match self.clients[0].wait(60) {
            Some(done) => done,
            None => {
                // It waits for space; everybody else is served, and it completes when there is some.
                assert!(self.m.hooks.is_full() && self.on_full == OnFull::Stall && !flush);
                self.short_of_space += 1;
                self.check(store, false);
                self.clients[1].flush(disk).unwrap();
                self.m.hooks.full_after(None);
                let done = self.clients[0].wait(200);
                done.expect("space has returned, yet it waits")
            }
        };
        if done.result == Err(RequestError::NoSpace) {
            assert!(self.m.hooks.is_full() && self.on_full == OnFull::Error);
            self.short_of_space += 1;
            if self.short_of_space == 1 {
                self.check(store, false);
            }
        }
        self.note("a request", done.result)
    }

    fn write(
        &mut self,
        store: &Arc<Store>,
        name: &'static str,
        first: u64,
        blocks: u64,
        version: u64,
    ) {
        let Ok(disk) = store.vdisk(name) else { return };
        let (offset, from) = (first * BLOCK as u64, bytes_of(version, first, blocks));
        self.wrote(name, first..first + blocks, version, false);
        let done = self.request(store, &disk, Command::Write { offset, from });
        self.wrote(name, first..first + blocks, version, done);
    }

    fn discard(&mut self, store: &Arc<Store>, name: &'static str, first: u64, blocks: u64) {
        let Ok(disk) = store.vdisk(name) else { return };
        let (offset, len) = (first * BLOCK as u64, blocks * BLOCK as u64);
        self.wrote(name, first..first + blocks, 0, false);
        let done = self.request(store, &disk, Command::Discard { offset, len });
        self.wrote(name, first..first + blocks, 0, done);
    }

    fn wrote(
        &mut self,
        name: &'static str,
        blocks: std::ops::Range<u64>,
        version: u64,
        done: bool,
    ) {
        for block in blocks {
            let allowed = self.want.entry((name, block)).or_insert_with(|| vec![0]);
            if done {
                allowed.clear();
            }
            allowed.push(version);
        }
    }

    fn flush(&mut self, store: &Arc<Store>) {
        if let Ok(disk) = store.vdisk("a") {
            self.request(store, &disk, Command::Flush);
        }
    }

    fn checkpoint(&mut self, store: &Store) {
        let outcome = store.checkpoint();
        self.note("a checkpoint", outcome);
    }

    fn upkeep(&mut self, store: &Arc<Store>) {
        let outcome = store.upkeep();
        self.note("upkeep", outcome);
        step(store, false);
    }

    fn create(&mut self, store: &Store, name: &'static str) {
        let spec = VDiskSpec {
            name: name.into(),
            size: SIZE,
            hidden: false,
        };
        let outcome = store.create_vdisk(&spec).map(drop);
        if !self.note("creating", outcome) {
            self.unsure.push(name);
        }
    }

    fn delete(&mut self, store: &Store, name: &'static str) {
        if store.vdisk(name).is_err() {
            return;
        }
        let outcome = store.delete_vdisk(name);
        if !self.note("deleting", outcome) {
            self.unsure.push(name);
        }
        self.want.retain(|(n, _), _| *n != name);
    }

    /// Every block reads as it may. `settle`: and as nothing else from now on.
    fn check(&mut self, store: &Arc<Store>, settle: bool) {
        let client = &mut self.clients[1];
        for ((name, block), allowed) in &mut self.want {
            let Ok(disk) = store.vdisk(name) else {
                assert!(self.unsure.contains(name), "vDisk {name} is gone");
                continue;
            };
            let offset = block * BLOCK as u64;
            let data = match client.read(&disk, offset, BLOCK) {
                Ok(data) => data,
                // Once: the fault was meant for it.
                Err(_) if self.faulty => client.read(&disk, offset, BLOCK).unwrap(),
                Err(error) => panic!("vDisk {name}, block {block}: {error}"),
            };
            let seen = allowed
                .iter()
                .copied()
                .find(|v| data == block_of(*v, *block));
            let seen = seen
                .unwrap_or_else(|| panic!("vDisk {name}, block {block} is none of {allowed:?}"));
            if settle {
                *allowed = vec![seen];
            }
        }
    }
}

/// A life with a fault at the n-th operation of a kind; `in_opening`: of the opening after a kill. `false`: it had not so many.
fn with_fault(op: Op, n: u64, in_opening: bool) -> bool {
    let mut life = Life::new(OnFull::Stall);
    let mut store = life.open().unwrap();
    life.create(&store, "a");
    let count = |m: &Machine| {
        let c = m.disk.counters();
        match op {
            Op::Read => c.reads,
            Op::Write => c.writes,
            Op::Sync => c.syncs,
            Op::Name => c.others,
        }
    };
    if in_opening {
        assert_eq!(life.live(&store), End::Done);
        // Written and not synced: nothing but this process's promise to its guest.
        // More than the write buffer holds of a segment: the rest is in the page cache.
        for first in (0..256).step_by(16) {
            life.write(&store, "a", first, 16, 77);
            step(&store, false);
        }
        life.close(store);
        life.faulty = true;
        life.m.disk.fail_nth(op, n);
        let before = count(&life.m);
        let opened = life.open();
        let hit = count(&life.m) - before >= n;
        store = match opened {
            Ok(store) => store,
            Err(error) => {
                assert!(hit && !error.to_string().is_empty(), "{error}");
                life.clients.clear();
                life.m.kill();
                life.open().expect("the fault is over")
            }
        };
        finish(life, store);
        return hit;
    }
    life.faulty = true;
    life.m.disk.fail_nth(op, n);
    let before = count(&life.m);
    if life.live(&store) == End::Failed {
        // It stays so, whatever the disk does now.
        let disk = store.vdisk("a").unwrap();
        let client = &mut life.clients[1];
        assert_eq!(client.write(&disk, 0, &[1; BLOCK]), Err(RequestError::Io));
        assert_eq!(client.flush(&disk), Err(RequestError::Io));
        assert!(store.checkpoint().is_err());
        life.check(&store, false);
    }
    let hit = count(&life.m) - before >= n;
    life.m.disk.lift_faults();
    finish(life, store);
    hit
}

/// What was acknowledged is there for the next process; what that one flushes survives the power.
fn finish(mut life: Life, store: Arc<Store>) {
    life.close(store);
    let store = life.open().expect("the fault is over");
    life.faulty = false;
    life.check(&store, true);
    life.flush(&store);
    life.clients.clear();
    drop(store);
    life.m.power_loss();
    let store = life.open().unwrap();
    life.check(&store, false);
    life.unsure.clear();
    for block in 0..64 {
        life.write(&store, "a", block, 1, 99);
    }
    store.shutdown().unwrap();
    life.close(store);
    let store = life.open().unwrap();
    life.check(&store, false);
}

fn every(op: Op, step: usize) {
    for in_opening in [false, true] {
        let mut n = 1;
        while with_fault(op, n, in_opening) {
            // All of an opening; of a life every few, since each one takes a while.
            n += if in_opening { 1 } else { step as u64 };
        }
        println!("{op:?}, opening {in_opening}: {n}");
        assert!(n > 3, "{op:?}: {n}");
    }
}

#[test]
fn eio_at_every_read() {
    every(Op::Read, 7);
}

#[test]
fn eio_at_every_write() {
    every(Op::Write, 1);
}

#[test]
fn eio_at_every_sync() {
    every(Op::Sync, 1);
}

#[test]
fn eio_at_every_other_operation() {
    every(Op::Name, 3);
}

/// No space from the n-th file on, for every n, until somebody makes room.
#[test]
fn no_space_at_every_allocation() {
    for on_full in [OnFull::Stall, OnFull::Error] {
        let (mut n, mut short, mut failures) = (0, 0, 0);
        loop {
            let mut life = Life::new(on_full);
            let store = life.open().unwrap();
            life.create(&store, "a");
            life.faulty = true;
            life.m.hooks.full_after(Some(n));
            // A store that is short of space has not failed.
            assert_eq!(life.live(&store), End::Done, "{n}: {:?}", store.status());
            let hit = life.m.hooks.is_full() || life.short_of_space > 0;
            (short, failures) = (short + life.short_of_space, failures + life.failures);
            life.m.hooks.full_after(None);
            // As the store's own threads do, until it has noticed.
            for _ in 0..4 {
                step(&store, true);
            }
            life.faulty = false;
            life.check(&store, false);
            life.write(&store, "a", 0, 32, 55);
            life.flush(&store);
            store.checkpoint().unwrap();
            finish(life, store);
            if !hit {
                break;
            }
            n += 1;
        }
        println!(
            "{on_full:?}: {n} allocations, {short} requests short of space, {failures} failures"
        );
        assert!(n > 15 && short > 5, "{n} {short}");
    }
}

/// A segment whose header can't be made durable is not left behind: each attempt would take another one's space.
#[test]
fn failed_allocations_leave_nothing_behind() {
    let mut life = Life::new(OnFull::Stall);
    let store = life.open().unwrap();
    let segments = life.m.segments().len();
    for (op, n) in [(Op::Write, 1), (Op::Sync, 1), (Op::Sync, 2)] {
        let wanted = store.status().spare_segments;
        assert!(wanted < 5, "nothing to allocate");
        life.m.disk.fail_nth(op, n);
        assert!(store.core().allocate_step().is_err());
        assert_eq!(life.m.segments().len(), segments, "{op:?} {n}");
    }
    store.core().allocate_ready().unwrap();
}

/// A checkpoint that can't remove what it has replaced counts all the same, and the next one removes it.
#[test]
fn a_checkpoint_that_cannot_remove_segments_counts() {
    for op in [Op::Name, Op::Sync] {
        let mut life = Life::new(OnFull::Stall);
        let store = life.open().unwrap();
        life.create(&store, "a");
        for round in 1..3 {
            for first in (0..128).step_by(32) {
                life.write(&store, "a", first, 32, round);
            }
            step(&store, false);
        }
        let disk = life.m.disk.clone();
        life.m
            .hooks
            .before(support::Event::Remove, "seg-", move || disk.fail_nth(op, 1));
        store.checkpoint().unwrap();
        assert!(life.m.hooks.all_ran());
        let after = life.m.segments().len();
        store.checkpoint().unwrap();
        if op == Op::Name {
            assert!(life.m.segments().len() < after, "{after}");
        }
        life.check(&store, false);
        finish(life, store);
    }
}

/// A machine whose wall clock jumps at every look at it: to the beginning of time, to its end, and back.
struct Jumping(Box<dyn Host>, AtomicU64);

impl Host for Jumping {
    fn disk(&self) -> Arc<dyn Disk> {
        self.0.disk()
    }

    fn runtime(&self) -> &dyn Runtime {
        self.0.runtime()
    }

    fn run_dir(&self) -> &str {
        self.0.run_dir()
    }

    fn now(&self) -> u64 {
        let times = [u64::MAX, 0, 1_700_000_000, 1, 4_000_000_000];
        times[self.1.fetch_add(1, Relaxed) as usize % times.len()]
    }

    fn new_uuid(&self) -> uuid::Uuid {
        self.0.new_uuid()
    }
}

#[test]
fn nothing_depends_on_the_wall_clock() {
    let mut life = Life::new(OnFull::Stall);
    for start in 0..5 {
        let host = Jumping(life.m.host(), AtomicU64::new(start));
        let config = OpenConfig::new("/store", "/run/firn");
        let store = Store::open_on(Box::new(host), config, None).unwrap();
        for _ in 0..2 {
            let store = Arc::clone(&store);
            let lane = store.lane(8).unwrap();
            life.clients.push(Client { store, lane });
        }
        life.check(&store, false);
        assert_eq!(life.live(&store), End::Done);
        life.check(&store, false);
        life.close(store);
    }
    // What there is of durations is measured by a clock that does not jump: one place asks for the date.
    let mut asks = Vec::new();
    let mut dirs = vec![std::path::PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src"
    ))];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if std::fs::read_to_string(&path)
                .unwrap()
                .contains("SystemTime")
            {
                asks.push(path.file_name().unwrap().to_owned());
            }
        }
    }
    assert_eq!(asks, ["host.rs"]);
}
