//! Checking a store while it is served: nothing that is right is called damaged, whatever goes on meanwhile; a pass survives its
//! process.

#[path = "../support/mod.rs"]
mod support;

use block_store::check::{Begun, Finding, Kind};
use block_store::defrag::Spot;
use block_store::format::{Entry, Location, RecordKind, segment_file_name};
use block_store::io::sim::{Damage, Rng};
use block_store::snapshot::tidy;
use block_store::state::Blocked;
use block_store::write::Packer;
use block_store::{ScrubOptions, ScrubPass, Store, VDisk};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use support::{BLOCK, Client, Event, Machine, content, step, vdisk};

const BLOCKS: usize = 1500;

/// Steps until the pass ends, and returns what has become of it.
fn finish(store: &Store) -> ScrubPass {
    for _ in 0..100_000 {
        if store.scrub_step().is_none_or(|stepped| stepped.ended) {
            return store.scrub_status().last.unwrap();
        }
    }
    panic!("it does not end: {:?}", store.scrub_status());
}

fn scrub(store: &Store) -> ScrubPass {
    let again = ScrubOptions {
        again: true,
        decode: true,
        ..ScrubOptions::default()
    };
    assert_eq!(store.start_scrub(again), Begun::Started);
    finish(store)
}

/// What guests and people do, at random; none of it may wait for what a scrub holds.
struct Life {
    store: Arc<Store>,
    disk: Arc<VDisk>,
    client: Client,
    rng: Rng,
    version: u64,
    snapshots: Vec<String>,
    packer: Packer,
}

impl Life {
    fn new(store: &Arc<Store>, disk: &Arc<VDisk>, seed: u64) -> Self {
        Self {
            store: Arc::clone(store),
            disk: Arc::clone(disk),
            client: Client::new(store),
            rng: Rng::new(seed),
            version: 1,
            snapshots: Vec::new(),
            packer: Packer::new().unwrap(),
        }
    }

    fn write(&mut self, blocks: u64) {
        self.version += 1;
        let first = self.rng.below(BLOCKS - blocks as usize) as u64;
        let bytes = content(self.version, first, blocks);
        let offset = first * BLOCK as u64;
        self.client.write(&self.disk, offset, &bytes).unwrap();
    }

    fn act(&mut self) {
        match self.rng.below(24) {
            0..8 => self.write(1),
            8..10 => self.write(32),
            10 => self.write(200),
            11 => {
                let first = self.rng.below(BLOCKS - 300) as u64;
                let len = 1 + self.rng.below(300) as u64;
                let (offset, len) = (first * BLOCK as u64, len * BLOCK as u64);
                self.client.discard(&self.disk, offset, len).unwrap();
            }
            12 => drop(self.client.flush(&self.disk)),
            13 | 14 => self.store.checkpoint().unwrap(),
            15 | 16 => step(&self.store, true),
            17 => {
                self.version += 1;
                let name = format!("s{}", self.version);
                self.store.create_snapshot(&["a"], &name).unwrap();
                self.snapshots.push(name);
            }
            18 if !self.snapshots.is_empty() => {
                let n = self.rng.below(self.snapshots.len());
                let name = self.snapshots.swap_remove(n);
                self.store.delete_snapshots("a", &[&name], false).unwrap();
            }
            19 => drop(tidy(self.store.core(), 1 + self.rng.below(3))),
            20 => {
                // Scattered by the small writes: gathered.
                let first = self.rng.below(BLOCKS - 64) as u64;
                let read = self
                    .client
                    .read(&self.disk, first * BLOCK as u64, 64 * BLOCK);
                read.unwrap();
            }
            21 | 22 => drop(Spot::step(self.store.core(), &mut self.packer)),
            _ => drop(self.store.core().drain_step()),
        }
    }
}

/// Writes, snapshots, deletions, merges, compaction, coalescing and checkpoints between the steps of a pass and in the middle of its
/// reads: nothing is found.
#[test]
fn whatever_moves_is_no_damage() {
    let (mut coalesced, mut relocated, mut extents, mut between) = (0, 0, 0, 0);
    let seeds = std::env::var("FIRN_SEED").ok().map(|s| s.parse().unwrap());
    for seed in seeds.map_or(0..60, |seed: u64| seed..seed + 1) {
        let m = Machine::new(seed, 96 << 20);
        // Always short of space: compaction has work at every turn.
        let store = m
            .try_open(|config| {
                config.low_space_percent = 100;
                config.coalesce_rate = 1 << 40;
                if seed % 3 == 0 {
                    config.map_memory = 1;
                }
            })
            .unwrap();
        let disk = vdisk(&store, "a", 1 << 30);
        let mut life = Life::new(&store, &disk, seed);
        for _ in 0..60 {
            life.act();
        }
        // What truly is damaged is found in spite of all.
        let broken = (seed % 2 == 1).then(|| cold(&m, &store, seed));
        let is_right = |pass: &ScrubPass| match broken {
            None => pass.findings.is_empty(),
            Some(block) => {
                pass.findings.len() == 1 && pass.findings.iter().all(|f| is_of_cold(f, block))
            }
        };
        let mut rng = Rng::new(seed ^ 99);
        store.scrub_in_batches_of(1 + rng.below(60));
        let life = Arc::new(Mutex::new(life));
        let reading = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(AtomicU64::new(0));
        let (theirs, now, count, of) = (
            Arc::downgrade(&life),
            Arc::clone(&reading),
            Arc::clone(&turns),
            Arc::clone(&store),
        );
        m.hooks.watch(move |event, name| {
            // Not within one's own steps, and not while a checkpoint would wait.
            if event != Event::Read || !name.starts_with("seg-") || !now.load(SeqCst) {
                return;
            }
            let (Some(life), Some(pass)) = (theirs.upgrade(), of.scrub_status().pass) else {
                return;
            };
            let Some(mut life) = life.try_lock() else {
                return;
            };
            if pass.stage != "roots" && life.rng.below(3) == 0 {
                let acts = life.rng.below(6);
                for _ in 0..acts {
                    life.act();
                }
                count.fetch_add(acts as u64, SeqCst);
            }
        });
        for _ in 0..2 {
            store.start_scrub(ScrubOptions::default());
            loop {
                reading.store(true, SeqCst);
                let stepped = store.scrub_step();
                reading.store(false, SeqCst);
                if rng.below(2) == 0 {
                    life.lock().act();
                }
                match stepped {
                    Some(stepped) if !stepped.ended => {}
                    _ => break,
                }
            }
            let pass = store.scrub_status().last.unwrap();
            assert!(
                is_right(&pass),
                "seed {seed}, {broken:?}: {:#?}",
                pass.findings
            );
            extents += pass.extents;
        }
        // And at rest all of it is there to be found.
        store.checkpoint().unwrap();
        let (clean, blocks) = (scrub(&store), store.status().live_bytes / BLOCK as u64);
        assert!(
            is_right(&clean),
            "seed {seed}, {broken:?}: {:#?}",
            clean.findings
        );
        assert!(clean.blocks <= blocks, "seed {seed}");
        let counters = &store.core().counters;
        coalesced += counters.coalesced_bytes.load(SeqCst);
        relocated += block_store::defrag::bytes_moved(store.core());
        between += turns.load(SeqCst);
        m.hooks.watch(|_, _| {});
    }
    println!("{extents} extents, {between} acts between, {coalesced} coalesced, {relocated} moved");
    if seeds.is_none() {
        assert!(coalesced > 0 && relocated > 0 && between > 1000 && extents > 5000);
    }
}

/// Data that nobody touches, all over the address space, with one flipped bit: in which block.
fn cold(m: &Machine, store: &Arc<Store>, seed: u64) -> u64 {
    let disk = vdisk(store, "cold", 64 << 30);
    let mut client = Client::new(store);
    for n in 0..40u64 {
        let (first, bytes) = (n * 400_000, content(n, n, 1));
        client.write(&disk, first * BLOCK as u64, &bytes).unwrap();
    }
    store.checkpoint().unwrap();
    let block = seed % 40 * 400_000;
    let layer = {
        let state = store.core().state.lock();
        let mut vdisks = state.catalogue.vdisks.iter();
        vdisks.find(|v| v.name == "cold").unwrap().layer
    };
    flip(m, store, layer, block);
    block
}

fn is_of_cold(finding: &Finding, block: u64) -> bool {
    let place = (
        finding.vdisk.as_deref(),
        finding.first_block,
        finding.blocks,
    );
    finding.kind == Kind::Extent && place == (Some("cold"), Some(block), Some(1))
}

/// A bit of the extent that a layer has for a block: where it lies.
fn flip(m: &Machine, store: &Store, layer: u32, block: u64) -> Location {
    let bits = store
        .core()
        .with_nodes(|state| state.map.lookup(layer, block).map_err(Blocked::Node))
        .unwrap()
        .unwrap();
    let Ok(Entry::Stored { at, .. }) = Entry::unpack(bits) else {
        panic!("block {block} is not stored");
    };
    let offset = u64::from(at.offset) + 70;
    let name = segment_file_name(at.segment);
    m.disk
        .damage(&name, Damage::Rot { offset, len: 1 })
        .unwrap();
    at
}

/// A store at rest with two vDisks and a snapshot.
fn still(seed: u64) -> (Machine, Arc<Store>) {
    let m = Machine::new(seed, 512 << 20);
    let store = m.open();
    for name in ["a", "b"] {
        let disk = vdisk(&store, name, 1 << 30);
        let mut client = Client::new(&store);
        for n in 0..40 {
            let first = n * 37 % 1400;
            let bytes = content(n, first, 20);
            client.write(&disk, first * BLOCK as u64, &bytes).unwrap();
            if name == "a" && n == 20 {
                store.create_snapshot(&["a"], "old").unwrap();
            }
        }
    }
    store.checkpoint().unwrap();
    (m, store)
}

#[test]
fn everything_that_is_stored_is_looked_at() {
    let (mut m, store) = still(1);
    let pass = scrub(&store);
    assert_eq!(pass.damage + pass.notes, 0, "{:#?}", pass.findings);
    // As much as a check of what is on the disk finds.
    drop(store);
    m.kill();
    let options = block_store::check::CheckOptions::default();
    let check = block_store::check::check(&m.disk, &options, &mut ()).unwrap();
    assert_eq!(
        (pass.nodes, pass.extents, pass.blocks),
        (check.nodes, check.extents, check.blocks)
    );
    assert!(pass.extents > 50 && pass.nodes > 8 && pass.segments > 5);
    assert_eq!(pass.verified_bytes, pass.total_bytes);
}

/// In a snapshot that nobody reads, and named as the snapshot's.
#[test]
fn a_flipped_bit_in_cold_data_is_found() {
    let (m, store) = still(2);
    let layer = store.core().state.lock().catalogue.snapshots[0].layer;
    let at = flip(&m, &store, layer, 5);
    let pass = scrub(&store);
    let [finding] = pass.findings.as_slice() else {
        panic!("{:#?}", pass.findings);
    };
    assert_eq!((finding.kind, pass.damage), (Kind::Extent, 1));
    assert_eq!(finding.vdisk.as_deref(), Some("a"));
    assert_eq!(finding.snapshot.as_deref(), Some("old"));
    assert_eq!(
        (finding.segment, finding.offset),
        (Some(at.segment), Some(at.offset.into()))
    );
    let first = finding.first_block.unwrap();
    assert!((first..first + finding.blocks.unwrap()).contains(&5));
    assert_eq!(store.status().scrub.last_damage, 1);
    // The next pass finds it again.
    assert_eq!(scrub(&store).findings, pass.findings);
}

#[test]
fn a_pass_survives_its_process() {
    for power in [false, true] {
        let (mut m, store) = still(3);
        let whole = scrub(&store);
        store.scrub_in_batches_of(10);
        store.start_scrub(ScrubOptions {
            rate: Some(77),
            again: true,
            ..ScrubOptions::default()
        });
        // Damage in front of the position is not forgotten either.
        let is_data = |name: &&String| {
            let records = m.records(name);
            records.iter().any(|r| r.header.kind == RecordKind::Extent)
        };
        let name = m.segments().iter().find(is_data).unwrap().clone();
        let header = Damage::Rot { offset: 20, len: 1 };
        m.disk.damage(&name, header).unwrap();
        let extents = |store: &Store| store.scrub_status().pass.map_or(0, |pass| pass.extents);
        while extents(&store) < whole.extents / 2 {
            store.scrub_step().unwrap();
        }
        store.checkpoint().unwrap();
        let before = store.scrub_status().pass.unwrap();
        assert_eq!(
            (before.rate, before.damage),
            (77, 1),
            "{:?}",
            before.findings
        );
        drop(store);
        if power {
            m.power_loss();
        } else {
            m.kill();
        }
        let store = m.open();
        store.scrub_in_batches_of(10);
        let after = store.scrub_status().pass.unwrap();
        assert!(after.running && after.stage == "data" && after.rate == 77);
        assert!(after.extents > 0 && after.extents <= before.extents);
        assert_eq!(after.findings, before.findings);
        assert_eq!(
            store.scrub_status().last.map(|last| last.extents),
            Some(whole.extents)
        );
        let pass = finish(&store);
        assert_eq!((pass.extents, pass.blocks), (whole.extents, whole.blocks));
        assert_eq!((pass.damage, pass.started), (1, before.started));
    }
}

/// However slow it is: a batch is not longer than what is soon verified.
#[test]
fn a_slow_pass_survives_its_process_too() {
    let (mut m, store) = still(6);
    store.start_scrub(ScrubOptions {
        rate: Some(1),
        ..ScrubOptions::default()
    });
    let verified = |store: &Store| store.scrub_status().pass.unwrap().verified_bytes;
    while verified(&store) < 5 << 19 {
        store.scrub_step().unwrap();
    }
    store.checkpoint().unwrap();
    drop(store);
    m.kill();
    let store = m.open();
    assert!(verified(&store) >= 1 << 20, "{:?}", store.scrub_status());
}

#[test]
fn a_pass_can_be_stopped_and_goes_on() {
    let (_m, store) = still(4);
    let whole = scrub(&store);
    store.scrub_in_batches_of(10);
    assert!(!store.stop_scrub() && store.scrub_step().is_none());
    assert_eq!(store.start_scrub(ScrubOptions::default()), Begun::Started);
    for _ in 0..20 {
        store.scrub_step().unwrap();
    }
    assert!(store.stop_scrub() && !store.stop_scrub());
    let stopped = store.scrub_status().pass.unwrap();
    assert!(!stopped.running && stopped.stopped.is_some() && store.scrub_step().is_none());
    assert!(store.status().scrub.stopped && !store.status().scrub.running);
    assert_eq!(store.start_scrub(ScrubOptions::default()), Begun::Continued);
    assert_eq!(store.start_scrub(ScrubOptions::default()), Begun::Running);
    assert_eq!(finish(&store).extents, whole.extents);
}

/// Segments that were made since a pass began are the next one's: else it might never end.
#[test]
fn what_is_written_meanwhile_is_the_next_passes() {
    let (_m, store) = still(5);
    let disk = store.vdisk("a").unwrap();
    let mut client = Client::new(&store);
    let before = scrub(&store).blocks;
    store.start_scrub(ScrubOptions::default());
    while store.scrub_status().pass.unwrap().stage != "data" {
        store.scrub_step().unwrap();
    }
    let written = 64 * 80;
    for n in 0..written / 64 {
        let (first, bytes) = (2000 + n * 64, content(n, n * 64, 64));
        client.write(&disk, first * BLOCK as u64, &bytes).unwrap();
    }
    // But for those that stood ready.
    let now = finish(&store);
    assert!(now.blocks < before + 1500, "{before} {now:?}");
    let next = scrub(&store);
    assert_eq!((next.blocks, next.damage), (before + written, 0));
}

/// All nodes of a map move, and their segments go, in the middle of reading some of them: none is called damaged, and what is below
/// them is not forgotten.
#[test]
fn nodes_that_move_while_they_are_read_are_met_again() {
    for target in 0..8 {
        let m = Machine::new(target, 512 << 20);
        let store = m.try_open(|config| config.map_memory = 1).unwrap();
        let disk = vdisk(&store, "a", 1 << 30);
        let mut client = Client::new(&store);
        let leaf = 512 * BLOCK as u64;
        for n in 0..40 {
            let bytes = content(n, n * 512, 32);
            client.write(&disk, n * leaf, &bytes).unwrap();
            // Records of the leaves lie apart.
            for _ in 0..if n % 4 == 3 { 20 } else { 0 } {
                store.checkpoint().unwrap();
            }
        }
        store.start_scrub(ScrubOptions::default());
        while store.scrub_status().pass.unwrap().stage != "data" {
            store.scrub_step().unwrap();
        }
        for _ in 0..target {
            store.scrub_step().unwrap();
        }
        let segments = m.segments();
        let (of, disk) = (Arc::clone(&store), Arc::clone(&disk));
        m.hooks.before(Event::Read, "seg-", move || {
            let mut client = Client::new(&of);
            for round in 0..60 {
                for n in 0..40 {
                    let bytes = content(round, n, 1);
                    let offset = n * leaf + 100 * BLOCK as u64;
                    client.write(&disk, offset, &bytes).unwrap();
                }
                of.checkpoint().unwrap();
            }
        });
        let pass = finish(&store);
        assert!(m.hooks.all_ran());
        let gone = segments.iter().filter(|name| !m.segments().contains(name));
        assert!(gone.count() > 1, "no segment went");
        assert_eq!(pass.findings, [], "{target}");
        assert!(pass.blocks >= 40 * 32, "{target}: {pass:?}");
    }
}
