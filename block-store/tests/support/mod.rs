//! What the tests of single properties share: a simulated machine, a client that steps the store itself, content.
#![allow(dead_code, reason = "no test file uses all of it")]

mod hook;

use block_store::check::{CheckOptions, check};
use block_store::io::sim::{Damage, SimDisk};
use block_store::io::{Disk, Runtime};
use block_store::recover::{Scanned, scan};
use block_store::{
    Command, Done, Host, InitOptions, Lane, OpenConfig, RequestError, Store, StoreError, VDisk,
    VDiskSpec,
};
#[allow(unused_imports, reason = "not every test acts in the middle")]
pub use hook::Event;
pub use hook::Hooks;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use uuid::Uuid;

pub const BLOCK: usize = 4096;
/// Segments of simulated stores: as small as they can be.
pub const SEGMENT: u32 = 256 << 10;

/// What the simulated clock says at first: 2023-11-14 22:13:20 UTC.
pub const NOW: u64 = 1_700_000_000;

/// Files by name.
pub type Files = std::collections::BTreeMap<String, Vec<u8>>;

/// A simulated machine with a store on it.
pub struct Machine {
    pub disk: SimDisk,
    pub run_dir: String,
    pub hooks: Hooks,
    /// Seconds since 1970.
    pub clock: Arc<AtomicU64>,
    uuids: Arc<AtomicU64>,
}

struct SimHost {
    disk: Arc<dyn Disk>,
    runtime: SimDisk,
    run_dir: String,
    clock: Arc<AtomicU64>,
    uuids: Arc<AtomicU64>,
}

impl Host for SimHost {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    fn runtime(&self) -> &dyn Runtime {
        &self.runtime
    }

    fn run_dir(&self) -> &str {
        &self.run_dir
    }

    fn now(&self) -> u64 {
        self.clock.load(Relaxed)
    }

    fn new_uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.uuids.fetch_add(1, Relaxed)) | 1 << 100)
    }
}

impl Machine {
    /// A machine with an empty store, on a disk of `capacity` bytes.
    pub fn new(seed: u64, capacity: u64) -> Self {
        Self::with_segments(seed, capacity, SEGMENT)
    }

    /// Nothing is wrong on the disk, live counts included.
    pub fn assert_sound(&self, what: &str) {
        let options = CheckOptions {
            decode: true,
            ..CheckOptions::default()
        };
        let report = check(&self.disk, &options, &mut ()).unwrap();
        assert_eq!(report.damage, 0, "{what}: {:#?}", report.findings);
    }

    pub fn with_segments(seed: u64, capacity: u64, segment_size: u32) -> Self {
        let _ = env_logger::builder().is_test(true).try_init();
        let machine = Self {
            disk: SimDisk::new(seed, capacity),
            run_dir: "/run/firn".into(),
            hooks: Hooks::default(),
            clock: Arc::new(AtomicU64::new(NOW)),
            uuids: Arc::new(AtomicU64::new(1)),
        };
        Store::init_on(&*machine.host(), &InitOptions { segment_size }).unwrap();
        machine
    }

    /// Another machine, after a loss of power, with these files on its disk.
    pub fn holding(files: &Files) -> Self {
        let _ = env_logger::builder().is_test(true).try_init();
        let mut machine = Self {
            disk: SimDisk::new(1, 64 << 20),
            run_dir: "/run/firn".into(),
            hooks: Hooks::default(),
            clock: Arc::new(AtomicU64::new(NOW)),
            // Names of the machine before are not to come again.
            uuids: Arc::new(AtomicU64::new(1 << 32)),
        };
        for (name, bytes) in files {
            let len = bytes.len().max(BLOCK) as u64;
            let file = machine.disk.create(name, len).unwrap();
            // What was never written reads as zero anyway.
            for (n, page) in bytes.chunks(BLOCK).enumerate() {
                if page.iter().any(|b| *b != 0) {
                    file.write_at(page, (n * BLOCK) as u64).unwrap();
                }
            }
            file.sync().unwrap();
            drop(file);
            let cut = Damage::Truncate(bytes.len() as u64);
            machine.disk.damage(name, cut).unwrap();
        }
        machine.disk.sync_dir().unwrap();
        machine.power_loss();
        machine
    }

    /// All files.
    pub fn files(&self) -> Files {
        let names = self.disk.list().unwrap().into_iter();
        names
            .map(|name| {
                let file = self.disk.open(&name).unwrap();
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_at(&mut bytes, 0).unwrap();
                (name, bytes)
            })
            .collect()
    }

    pub fn host(&self) -> Box<dyn Host> {
        Box::new(SimHost {
            disk: self.hooks.around(self.disk.clone()),
            runtime: self.disk.clone(),
            run_dir: self.run_dir.clone(),
            clock: Arc::clone(&self.clock),
            uuids: Arc::clone(&self.uuids),
        })
    }

    pub fn try_open(&self, change: impl FnOnce(&mut OpenConfig)) -> Result<Arc<Store>, StoreError> {
        let mut config = OpenConfig {
            map_memory: 4 << 20,
            checkpoint_log: 64 << 20,
            ..OpenConfig::new("/store", "/run/firn")
        };
        change(&mut config);
        Store::open_on(self.host(), config, None)
    }

    pub fn open(&self) -> Arc<Store> {
        self.try_open(|_| {}).unwrap()
    }

    /// SIGKILL. The store and its lanes must be dropped before the next one is opened.
    pub fn kill(&mut self) {
        self.disk.kill();
        self.disk = self.disk.restart();
    }

    pub fn power_loss(&mut self) {
        self.disk.power_loss();
        self.disk = self.disk.restart();
    }

    /// Names of the segments' files.
    pub fn segments(&self) -> Vec<String> {
        let mut names = self.disk.list().unwrap();
        names.retain(|n| n.starts_with("seg-"));
        names
    }

    /// The records of a segment, as its own headers tell.
    pub fn records(&self, name: &str) -> Vec<Scanned> {
        let file = self.disk.open(name).unwrap();
        let mut page = vec![0; BLOCK];
        file.read_at(&mut page, 0).unwrap();
        let header = block_store::format::SegmentHeader::decode(&page).unwrap();
        scan_all(&*file, header.id, header.generation)
    }
}

fn scan_all(file: &dyn block_store::io::DiskFile, id: u32, generation: u64) -> Vec<Scanned> {
    scan(
        file,
        id,
        generation,
        block_store::format::SEGMENT_DATA_START,
    )
    .unwrap()
    .records
}

pub fn vdisk(store: &Store, name: &str, size: u64) -> Arc<VDisk> {
    let spec = VDiskSpec {
        name: name.into(),
        size,
        hidden: false,
    };
    store.create_vdisk(&spec).unwrap()
}

/// One request at a time on a store without threads: what the threads would do is done while it waits.
pub struct Client {
    pub store: Arc<Store>,
    pub lane: Lane<Vec<u8>>,
}

impl Client {
    pub fn new(store: &Arc<Store>) -> Self {
        Self {
            store: Arc::clone(store),
            lane: store.lane(8).unwrap(),
        }
    }

    /// Runs a command; `None`: it is still waiting after everything that could help was tried many times.
    pub fn try_run(
        &mut self,
        vdisk: &Arc<VDisk>,
        command: Command<Vec<u8>>,
    ) -> Option<Done<Vec<u8>>> {
        self.lane.submit(vdisk, command, 7);
        self.wait(200)
    }

    /// Goes on waiting for a request that was submitted before.
    pub fn wait(&mut self, rounds: usize) -> Option<Done<Vec<u8>>> {
        let mut done = Vec::new();
        for round in 0..rounds {
            for _ in 0..8 {
                self.lane.poll(&mut done);
                if let Some(done) = done.pop() {
                    return Some(done);
                }
            }
            step(&self.store, round % 4 == 3);
        }
        None
    }

    pub fn run(
        &mut self,
        vdisk: &Arc<VDisk>,
        command: Command<Vec<u8>>,
    ) -> Result<Vec<u8>, RequestError> {
        let done = self.try_run(vdisk, command).expect("a request hangs");
        done.result.map(|()| done.payload.unwrap_or_default())
    }

    pub fn write(
        &mut self,
        vdisk: &Arc<VDisk>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), RequestError> {
        let from = bytes.to_vec();
        self.run(vdisk, Command::Write { offset, from }).map(drop)
    }

    pub fn read(
        &mut self,
        vdisk: &Arc<VDisk>,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, RequestError> {
        let into = vec![0xee; len];
        self.run(vdisk, Command::Read { offset, into })
    }

    pub fn flush(&mut self, vdisk: &Arc<VDisk>) -> Result<(), RequestError> {
        self.run(vdisk, Command::Flush).map(drop)
    }

    pub fn discard(
        &mut self,
        vdisk: &Arc<VDisk>,
        offset: u64,
        len: u64,
    ) -> Result<(), RequestError> {
        self.run(vdisk, Command::Discard { offset, len }).map(drop)
    }

    pub fn write_zeroes(
        &mut self,
        vdisk: &Arc<VDisk>,
        offset: u64,
        len: u64,
    ) -> Result<(), RequestError> {
        let unmap = false;
        self.run(vdisk, Command::WriteZeroes { offset, len, unmap })
            .map(drop)
    }
}

/// What the store's threads would do.
pub fn step(store: &Arc<Store>, upkeep: bool) {
    let core = store.core();
    if core.flushes_waiting() > 0 {
        let _ = core.commit_flushes();
    }
    while core.drain_step().unwrap_or(false) {}
    let _ = core.allocate_ready();
    while core.give_back_step() {}
    let _ = block_store::snapshot::build_one(core, &|| true);
    if upkeep {
        let _ = store.upkeep();
    }
}

/// `blocks` blocks that tell their place and version; half of every block compresses away.
pub fn content(version: u64, first: u64, blocks: u64) -> Vec<u8> {
    let mut out = vec![7; blocks as usize * BLOCK];
    for (n, block) in out.chunks_exact_mut(BLOCK).enumerate() {
        let mut x = (version + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (first + n as u64) << 20;
        for chunk in block.chunks_exact_mut(16) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            chunk[..8].copy_from_slice(&x.to_le_bytes());
        }
    }
    out
}

/// Bytes that nothing compresses.
pub fn noise(version: u64, len: usize) -> Vec<u8> {
    let mut x = (version + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(len);
    out
}
