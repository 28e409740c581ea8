//! The traps of a log-structured store under crashes, one test each: what must hold, and what an obvious
//! implementation gets wrong.

mod support;

use block_store::io::sim::{Damage, Op};
use block_store::io::{Disk, Runtime};
use block_store::{Command, Done, Payload, PayloadError, RequestError, StoreError};
use parking_lot::Mutex;
use std::sync::Arc;
use support::{BLOCK, Client, Event, Machine, content, step, vdisk};

const SIZE: u64 = 16 << 20;

/// Guest memory that is rewritten the moment it has been read, and counts how often each byte was.
struct Restless(Arc<Mutex<(Vec<u8>, Vec<u32>)>>);

impl Payload for Restless {
    fn len(&self) -> usize {
        self.0.lock().0.len()
    }

    fn copy_out(&self, offset: usize, dst: &mut [u8]) -> Result<(), PayloadError> {
        let (bytes, copies) = &mut *self.0.lock();
        for (n, to) in dst.iter_mut().enumerate() {
            *to = bytes[offset + n];
            bytes[offset + n] ^= 0x5a;
            copies[offset + n] += 1;
        }
        Ok(())
    }

    fn copy_in(&mut self, _: usize, _: &[u8]) -> Result<(), PayloadError> {
        Err(PayloadError)
    }
}

#[test]
fn guest_memory_is_read_once_and_may_change_at_any_time() {
    let m = Machine::new(1, 64 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut want = content(1, 0, 512);
    client.write(&disk, 0, &want).unwrap();
    let mut lane = store.lane::<Restless>(4).unwrap();
    let mut done: Vec<Done<Restless>> = Vec::new();
    // Whole blocks, parts of blocks (their rest is read first), and more than the write buffer holds at a time.
    let writes = [
        (32u64, 16usize),
        (64 * 8 + 3, 2),
        (128 * 8 + 5, 700),
        (1, 3),
        (1200, 2500),
    ];
    for (n, (sector, sectors)) in writes.into_iter().enumerate() {
        let (at, len) = (sector as usize * 512, sectors * 512);
        let bytes = content(10 + n as u64, 0, 400)[..len].to_vec();
        want[at..at + len].copy_from_slice(&bytes);
        let memory = Arc::new(Mutex::new((bytes, vec![0; len])));
        let from = Restless(Arc::clone(&memory));
        let offset = at as u64;
        lane.submit(&disk, Command::Write { offset, from }, 0);
        while done.is_empty() {
            lane.poll(&mut done);
            step(&store, false);
        }
        done.pop().unwrap().result.unwrap();
        assert!(memory.lock().1.iter().all(|copies| *copies == 1));
    }
    assert!(client.read(&disk, 0, want.len()).unwrap() == want);
    client.flush(&disk).unwrap();
    assert!(client.read(&disk, 0, want.len()).unwrap() == want);
}

/// Random overlapping writes from two lanes. Large ones and small ones go to segments of their own, so that the order
/// of a block's versions is nowhere in the order of bytes.
#[test]
fn overlapping_writes_keep_their_winner() {
    for seed in 0..40u64 {
        let mut m = Machine::new(seed, 64 << 20);
        let store = m.open();
        let disk = vdisk(&store, "a", SIZE);
        let mut lanes = [
            store.lane::<Vec<u8>>(4).unwrap(),
            store.lane::<Vec<u8>>(4).unwrap(),
        ];
        let mut rng = block_store::io::sim::Rng::new(seed);
        let mut open = [0, 0];
        for n in 0..60u64 {
            let lane = rng.below(2);
            let blocks = [1, 2, 16, 40][rng.below(4)];
            let from = content(n, 0, blocks);
            let offset = rng.below(64) as u64 * BLOCK as u64 + [0, 512][rng.below(2)];
            lanes[lane].submit(&disk, Command::Write { offset, from }, n);
            open[lane] += 1;
            if rng.below(3) == 0 {
                step(&store, false);
            }
            let polled = rng.below(2);
            let mut done = Vec::new();
            lanes[polled].poll(&mut done);
            open[polled] -= done.len();
        }
        for lane in 0..2 {
            let mut done: Vec<Done<Vec<u8>>> = Vec::new();
            while done.len() < open[lane] {
                lanes[lane].poll(&mut done);
                step(&store, false);
            }
            assert!(done.iter().all(|d| d.result.is_ok()));
        }
        let mut client = Client::new(&store);
        let seen = client.read(&disk, 0, 110 * BLOCK).unwrap();
        drop((client, lanes, store, disk));
        m.kill();
        let store = m.open();
        let disk = store.vdisk("a").unwrap();
        let mut client = Client::new(&store);
        assert!(
            client.read(&disk, 0, 110 * BLOCK).unwrap() == seen,
            "seed {seed}, after a kill"
        );
        client.flush(&disk).unwrap();
        drop((client, store, disk));
        m.power_loss();
        let store = m.open();
        let disk = store.vdisk("a").unwrap();
        let mut client = Client::new(&store);
        assert!(
            client.read(&disk, 0, 110 * BLOCK).unwrap() == seen,
            "seed {seed}, after loss of power"
        );
    }
}

/// A store whose first `blocks` blocks are of version 1, flushed.
fn filled(m: &Machine, blocks: u64) -> (Arc<block_store::Store>, Arc<block_store::VDisk>, Client) {
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    for first in (0..blocks).step_by(32) {
        let offset = first * BLOCK as u64;
        client.write(&disk, offset, &content(1, first, 32)).unwrap();
    }
    client.flush(&disk).unwrap();
    (store, disk, client)
}

/// Every block holds one of these versions, whole; each as often as told.
fn versions(client: &mut Client, disk: &Arc<block_store::VDisk>, blocks: u64) -> Vec<u64> {
    (0..blocks)
        .map(|block| {
            let data = client.read(disk, block * BLOCK as u64, BLOCK).unwrap();
            let known = (0..20).find(|v| data == content(*v, block, 1));
            known.unwrap_or_else(|| panic!("block {block} reads as nothing that was written"))
        })
        .collect()
}

#[test]
fn segments_freed_by_unflushed_overwrites_come_back_after_power_loss() {
    const BLOCKS: u64 = 256;
    for (seed, when) in (0..30).map(|n| (n, n % 3)) {
        let mut m = Machine::new(seed, 64 << 20);
        let (store, disk, client) = filled(&m, BLOCKS);
        // Overwritten whole: not one block of the old segments is live any more.
        let mut overwrite = {
            let (store, disk, mut client) = (Arc::clone(&store), Arc::clone(&disk), client);
            move || {
                for first in (0..BLOCKS).step_by(32) {
                    let offset = first * BLOCK as u64;
                    client.write(&disk, offset, &content(2, first, 32)).unwrap();
                }
                while store.core().drain_step().unwrap() {}
                // The next segments are allocated: nothing of the old ones may be reused for them.
                store.core().allocate_ready().unwrap();
            }
        };
        match when {
            0 => overwrite(),
            1 => {
                store.checkpoint().unwrap();
                overwrite();
            }
            // Between the checkpoint's cut and its removal of segments.
            _ => {
                m.hooks.before(Event::Write, "superblock", overwrite);
                store.checkpoint().unwrap();
            }
        }
        assert!(m.hooks.all_ran());
        drop((store, disk));
        m.power_loss();
        let store = m.open();
        let disk = store.vdisk("a").unwrap();
        let seen = versions(&mut Client::new(&store), &disk, BLOCKS);
        assert!(
            seen.iter().all(|v| *v == 1 || *v == 2),
            "seed {seed}: {seen:?}"
        );
    }
}

/// A power loss while one superblock was written leaves the other as the only good one: the next opening must not begin with
/// that, for it may lose the power too.
#[test]
fn the_only_good_superblock_is_not_written_first() {
    const SIZE: u64 = block_store::format::SUPERBLOCK_SIZE as u64;
    for (seed, place) in (0..300).map(|n| (n, n % 2)) {
        let mut m = Machine::new(seed, 64 << 20);
        let (store, disk, client) = filled(&m, 8);
        drop((store, disk, client));
        m.power_loss();
        let rot = Damage::Zero {
            offset: place * SIZE,
            len: SIZE,
        };
        m.disk.damage("superblock", rot).unwrap();
        let machine = m.disk.clone();
        m.hooks.before(Event::Write, "superblock", move || {
            machine.crash_after(Some(0));
        });
        assert!(m.try_open(|_| {}).is_err());
        assert!(m.hooks.all_ran());
        m.power_loss();
        let store = m.open();
        let disk = store.vdisk("a").unwrap();
        assert_eq!(versions(&mut Client::new(&store), &disk, 8), [1; 8]);
    }
}

/// Data flushed while a checkpoint is being written, and overwritten, unflushed, before the checkpoint removes what
/// is dead: the segment in between was empty at the cut and has nothing alive at the end, and yet holds what was promised.
#[test]
fn a_checkpoint_does_not_remove_what_was_flushed_while_it_was_written() {
    const BLOCKS: u64 = 512;
    for seed in 0..20 {
        let mut m = Machine::new(seed, 64 << 20);
        let (store, disk, client) = filled(&m, 32);
        let during = {
            let (store, disk) = (Arc::clone(&store), Arc::clone(&disk));
            move || {
                let mut client = Client::new(&store);
                for version in [2, 3] {
                    for first in (0..BLOCKS).step_by(32) {
                        let offset = first * BLOCK as u64;
                        let bytes = content(version, first, 32);
                        client.write(&disk, offset, &bytes).unwrap();
                    }
                    // The zeroes have nothing alive in the segment either.
                    client
                        .write_zeroes(&disk, BLOCKS * BLOCK as u64, 4096)
                        .unwrap();
                    if version == 2 {
                        client.flush(&disk).unwrap();
                    }
                }
            }
        };
        m.hooks.before(Event::Write, "superblock", during);
        store.checkpoint().unwrap();
        assert!(m.hooks.all_ran());
        drop((client, store, disk));
        m.power_loss();
        let store = m.open();
        let disk = store.vdisk("a").unwrap();
        let seen = versions(&mut Client::new(&store), &disk, BLOCKS);
        assert!(
            seen.iter().all(|v| *v == 2 || *v == 3),
            "seed {seed}: {seen:?}"
        );
    }
}

/// The same, killed: what was acknowledged is in segments that the checkpoint must leave alone.
#[test]
fn zeroes_written_during_a_checkpoint_survive_a_kill() {
    let mut m = Machine::new(1, 64 << 20);
    let (store, disk, client) = filled(&m, 64);
    let during = {
        let (store, disk) = (Arc::clone(&store), Arc::clone(&disk));
        move || {
            let mut client = Client::new(&store);
            // A segment and more, of nothing but records of zeroes.
            for n in 0..6000u64 {
                client
                    .write_zeroes(&disk, n % 64 * BLOCK as u64, 4096)
                    .unwrap();
            }
        }
    };
    m.hooks.before(Event::Write, "superblock", during);
    store.checkpoint().unwrap();
    drop((client, store, disk));
    m.kill();
    let store = m.open();
    let disk = store.vdisk("a").unwrap();
    let data = Client::new(&store).read(&disk, 0, 64 * BLOCK).unwrap();
    assert!(data.iter().all(|b| *b == 0));
}

/// A segment that is being allocated while a checkpoint is taken is newer than the checkpoint: what is written to it later
/// counts.
#[test]
fn a_segment_allocated_during_a_checkpoint_counts() {
    const BLOCKS: u64 = 1536;
    for power in [false, true] {
        let mut m = Machine::new(1, 64 << 20);
        let (store, disk, mut client) = filled(&m, 32);
        let inner = Arc::clone(&store);
        m.hooks
            .before(Event::Create, "seg-", move || inner.checkpoint().unwrap());
        for first in (0..BLOCKS).step_by(32) {
            let offset = first * BLOCK as u64;
            client.write(&disk, offset, &content(2, first, 32)).unwrap();
        }
        client.flush(&disk).unwrap();
        assert!(m.hooks.all_ran());
        drop((client, store, disk));
        if power {
            m.power_loss()
        } else {
            m.kill()
        }
        let store = m.open();
        let disk = store.vdisk("a").unwrap();
        let seen = versions(&mut Client::new(&store), &disk, BLOCKS);
        assert!(seen.iter().all(|v| *v == 2), "{seen:?}");
    }
}

/// Compaction moves old data, a newer write comes, the machine dies before or after the checkpoint that would
/// make the move take effect.
/// A checkpoint that finds no spare segment writes itself to one of a generation that is not below its own "from here on". When
/// that segment is gone, a store that gives the generation out again has the log that is written there taken for
/// the old segment, which is not looked into.
#[test]
fn generations_never_come_again() {
    let mut m = Machine::new(5, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let written_in_the_making: Vec<String> = m.segments();
    drop(store);
    m.power_loss();
    let store = m.open();
    store.checkpoint().unwrap();
    drop(store);
    m.power_loss();
    let left = m.segments();
    assert!(
        !left.contains(&written_in_the_making[0]),
        "it is in use still"
    );
    let store = m.open();
    let mut client = Client::new(&store);
    let disk = store.vdisk("a").unwrap();
    client.write(&disk, 0, &content(1, 0, 64)).unwrap();
    client.flush(&disk).unwrap();
    drop((client, store, disk));
    m.power_loss();
    let store = m.open();
    let (mut client, disk) = (Client::new(&store), store.vdisk("a").unwrap());
    assert!(client.read(&disk, 0, 64 * BLOCK).unwrap() == content(1, 0, 64));
}

#[test]
fn relocated_copies_do_not_outlive_newer_writes() {
    const BLOCKS: u64 = 256;
    let mut moved = 0;
    for seed in 0..64u64 {
        let (overwrite_first, flush, power) = (seed & 1 == 0, seed & 2 == 0, seed & 4 == 0);
        let when = seed / 8 % 4;
        let mut m = Machine::new(seed, 64 << 20);
        let (store, disk, mut client) = filled(&m, BLOCKS);
        // Three quarters of every extent are overwritten: sparse segments.
        for block in (0..BLOCKS).filter(|b| b % 4 != 0) {
            let offset = block * BLOCK as u64;
            client.write(&disk, offset, &content(2, block, 1)).unwrap();
        }
        client.flush(&disk).unwrap();
        store.checkpoint().unwrap();
        let newest = |block: u64| block.is_multiple_of(8) && (overwrite_first || when != 2);
        let overwrite = move |client: &mut Client, disk: &Arc<block_store::VDisk>| {
            for block in (0..BLOCKS).filter(|b| b % 8 == 0) {
                let offset = block * BLOCK as u64;
                client.write(disk, offset, &content(3, block, 1)).unwrap();
            }
            if flush {
                client.flush(disk).unwrap();
            }
        };
        if overwrite_first {
            overwrite(&mut client, &disk);
        }
        m.disk.set_capacity(0);
        store.core().state.lock().full = true;
        let (inner, twin, dying) = (Arc::clone(&store), Arc::clone(&disk), m.disk.clone());
        if when == 3 {
            // After compaction has found the victim's headers and before it has moved the first extent; the
            // checkpoint behind it never ends.
            m.hooks.before(Event::Read, "seg-", || {});
            let hooks = m.hooks.clone();
            m.hooks.before(Event::Read, "seg-", move || {
                overwrite(&mut Client::new(&inner), &twin);
                hooks.before(Event::Write, "superblock", move || {
                    dying.crash_after(Some(0));
                });
            });
        } else if when < 2 {
            // Between the move and the checkpoint's end: it dies there, or goes on.
            let event = if when == 0 { Event::Sync } else { Event::Write };
            m.hooks.before(event, "superblock", move || {
                overwrite(&mut Client::new(&inner), &twin);
                if when == 0 {
                    dying.crash_after(Some(0));
                }
            });
        } else {
            drop((inner, twin));
        }
        let outcome = store.upkeep();
        moved += store.status().relocated_bytes;
        if when == 1 || when == 2 {
            outcome.unwrap();
        }
        assert!(m.hooks.all_ran());
        drop((client, store, disk));
        if power {
            m.power_loss()
        } else {
            m.kill()
        }
        m.disk.set_capacity(64 << 20);
        let store = m.open();
        let disk = store.vdisk("a").unwrap();
        let seen = versions(&mut Client::new(&store), &disk, BLOCKS);
        for (block, version) in (0..BLOCKS).zip(seen) {
            let old = if block % 4 == 0 { 1 } else { 2 };
            let want = if newest(block) { 3 } else { old };
            let lost = power && !flush && newest(block);
            assert!(
                version == want || lost && version == old,
                "seed {seed}, block {block}: version {version} instead of {want}"
            );
        }
    }
    assert!(moved > 0, "nothing was relocated");
}

/// A flushed log of many small records behind a checkpoint, in one segment; the name of that segment.
fn log_of(m: &Machine, groups: u64) -> String {
    let (store, disk, mut client) = filled(m, 32);
    store.checkpoint().unwrap();
    for group in 0..groups {
        for block in 0..3 {
            let block = group * 3 + block;
            let offset = block * BLOCK as u64;
            client.write(&disk, offset, &content(2, block, 1)).unwrap();
        }
        client.flush(&disk).unwrap();
    }
    let mut fresh: Vec<_> = m
        .segments()
        .into_iter()
        .filter(|name| m.records(name).iter().any(|r| r.header.count == 1))
        .collect();
    assert_eq!(fresh.len(), 1);
    fresh.remove(0)
}

#[test]
fn rot_below_a_committed_prefix_is_damage_and_not_the_end() {
    const GROUPS: u64 = 8;
    // Each kind of damage to each header that a later group has promised.
    for kind in ["rot", "zero", "sector", "page"] {
        for victim in 0..GROUPS * 3 - 3 {
            let mut m = Machine::new(victim, 64 << 20);
            let name = log_of(&m, GROUPS);
            let offset = m
                .records(&name)
                .iter()
                .find(|r| r.header.count == 1 && r.header.first == victim)
                .map(|r| u64::from(r.offset))
                .unwrap();
            m.power_loss();
            let damage = match kind {
                "rot" => Damage::Rot {
                    offset: offset + 5,
                    len: 1,
                },
                "zero" => Damage::Zero { offset, len: 64 },
                "sector" => Damage::Zero {
                    offset: offset / 512 * 512,
                    len: 512,
                },
                _ => Damage::Zero {
                    offset: offset / 4096 * 4096,
                    len: 4096,
                },
            };
            m.disk.damage(&name, damage).unwrap();
            let error = m.try_open(|_| {}).err();
            let Some(StoreError::LogDamaged {
                segment, from, to, ..
            }) = error
            else {
                // A page's or sector's loss may hit nothing but a payload: then that block is an I/O error.
                let store = m.open();
                let disk = store.vdisk("a").unwrap();
                let read = Client::new(&store).read(&disk, victim * BLOCK as u64, BLOCK);
                assert_eq!(
                    read,
                    Err(RequestError::Io),
                    "{damage:?} of record {victim} went unnoticed"
                );
                continue;
            };
            assert_eq!(format!("seg-{segment:08x}"), name);
            assert!(
                u64::from(from) <= offset + 64 && offset < u64::from(to),
                "{offset} in {from}..{to}"
            );
            // Told to give it up, it opens, and blocks read as something that was written to them.
            let store = m.try_open(|c| c.accept_log_damage = true).unwrap();
            let disk = store.vdisk("a").unwrap();
            let mut client = Client::new(&store);
            for block in 0..GROUPS * 3 {
                let data = client.read(&disk, block * BLOCK as u64, BLOCK);
                let known = |data: Vec<u8>| {
                    data == content(2, block, 1)
                        || block < 32 && data == content(1, block, 1)
                        || block >= 32 && data.iter().all(|b| *b == 0)
                };
                assert!(data.map_or(true, known), "block {block}");
            }
            // And it is not damaged any more.
            drop((client, store, disk));
            m.kill();
            m.open();
        }
    }
}

#[test]
fn rot_in_a_flushed_payload_is_an_error_and_not_older_data() {
    let mut m = Machine::new(1, 64 << 20);
    let name = log_of(&m, 8);
    let records = m.records(&name);
    let victim = records
        .iter()
        .find(|r| r.header.count == 1 && r.header.first == 7)
        .unwrap();
    m.power_loss();
    let offset = u64::from(victim.offset) + 300;
    m.disk
        .damage(&name, Damage::Rot { offset, len: 1 })
        .unwrap();
    let store = m.open();
    let disk = store.vdisk("a").unwrap();
    let mut client = Client::new(&store);
    for block in 0..24 {
        let read = client.read(&disk, block * BLOCK as u64, BLOCK);
        match block {
            7 => assert_eq!(read, Err(RequestError::Io)),
            _ => assert!(read.unwrap() == content(2, block, 1), "block {block}"),
        }
    }
    // A new write makes the block good.
    client
        .write(&disk, 7 * BLOCK as u64, &content(9, 7, 1))
        .unwrap();
    assert!(client.read(&disk, 7 * BLOCK as u64, BLOCK).unwrap() == content(9, 7, 1));
}

#[test]
fn above_the_committed_prefix_a_bad_record_is_the_end_of_the_log() {
    for (record, header) in [(0, true), (0, false), (2, true), (2, false)] {
        let mut m = Machine::new(5, 64 << 20);
        let (store, disk, mut client) = filled(&m, 32);
        store.checkpoint().unwrap();
        // The newest group has no other to vouch for it.
        for block in 0..3 {
            let offset = block * BLOCK as u64;
            client.write(&disk, offset, &content(2, block, 1)).unwrap();
        }
        client.flush(&disk).unwrap();
        let (name, offset) = m
            .segments()
            .iter()
            .flat_map(|name| {
                m.records(name)
                    .into_iter()
                    .map(|r| (name.clone(), r))
                    .collect::<Vec<_>>()
            })
            .find(|(_, r)| r.header.count == 1 && r.header.first == record)
            .map(|(name, r)| (name, u64::from(r.offset)))
            .unwrap();
        drop((client, store, disk));
        m.power_loss();
        let offset = if header { offset + 3 } else { offset + 100 };
        m.disk
            .damage(&name, Damage::Rot { offset, len: 1 })
            .unwrap();
        let store = m.open();
        let disk = store.vdisk("a").unwrap();
        let seen = versions(&mut Client::new(&store), &disk, 32);
        for (block, version) in (0..32).zip(seen) {
            let want = if block < record { 2 } else { 1 };
            assert_eq!(version, want, "block {block}");
        }
    }
}

/// What is acknowledged and not flushed, as seen by the next process.
fn unflushed(m: &Machine) {
    let (store, disk, mut client) = filled(m, 32);
    client.write(&disk, 0, &content(2, 0, 1)).unwrap();
    drop((store, disk, client));
}

#[test]
fn acknowledged_data_in_another_runtime_directory_is_not_forgotten() {
    let mut m = Machine::new(1, 64 << 20);
    unflushed(&m);
    m.kill();
    m.run_dir = "/run/other".into();
    let error = m.try_open(|_| {}).err().unwrap();
    assert!(matches!(error, StoreError::WriteBuffer(_)), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("--run /run/firn") && text.contains("--discard-write-buffer"),
        "{text}"
    );
    // The refusal has changed nothing.
    m.run_dir = "/run/firn".into();
    let store = m.open();
    let disk = store.vdisk("a").unwrap();
    assert_eq!(versions(&mut Client::new(&store), &disk, 1), [2]);
}

#[test]
fn a_missing_write_buffer_is_refused_and_can_be_given_up() {
    let mut m = Machine::new(1, 64 << 20);
    unflushed(&m);
    m.kill();
    let bytes = {
        let file = m.disk.open("superblock").unwrap();
        let mut page = vec![0; 4096];
        file.read_at(&mut page, 0).unwrap();
        page
    };
    let name = block_store::format::Superblock::decode(&bytes)
        .unwrap()
        .buffer
        .unwrap();
    block_store::io::Runtime::remove_memory(&m.disk, &name.file()).unwrap();
    for _ in 0..2 {
        let error = m.try_open(|_| {}).err().unwrap();
        assert!(matches!(error, StoreError::WriteBuffer(_)), "{error}");
        assert!(
            error.to_string().contains(&name.nonce.to_string()),
            "{error}"
        );
    }
    let store = m.try_open(|c| c.discard_write_buffer = true).unwrap();
    let disk = store.vdisk("a").unwrap();
    let seen = versions(&mut Client::new(&store), &disk, 32);
    assert!(seen.iter().all(|v| *v == 1 || *v == 2), "{seen:?}");
    assert!(
        seen[1..].iter().all(|v| *v == 1),
        "flushed data is not affected"
    );
}

#[test]
fn another_boot_ignores_the_write_buffer() {
    let mut m = Machine::new(1, 64 << 20);
    unflushed(&m);
    m.power_loss();
    m.run_dir = "/run/other".into();
    let store = m.open();
    assert_eq!(store.status().recovery.buffer, "OtherBoot");
    let disk = store.vdisk("a").unwrap();
    let seen = versions(&mut Client::new(&store), &disk, 32);
    assert!(seen[1..].iter().all(|v| *v == 1), "{seen:?}");
}

#[test]
fn a_clean_stop_leaves_nothing_in_the_runtime_directory() {
    let mut m = Machine::new(1, 64 << 20);
    let (store, disk, mut client) = filled(&m, 32);
    client.write(&disk, 0, &content(2, 0, 1)).unwrap();
    store.shutdown().unwrap();
    drop((store, disk, client));
    m.kill();
    m.run_dir = "/run/other".into();
    let store = m.open();
    assert_eq!(store.status().recovery.buffer, "None");
    let disk = store.vdisk("a").unwrap();
    assert_eq!(versions(&mut Client::new(&store), &disk, 1), [2]);
}

/// An opening may die between creating its write buffer and naming it in the superblock: 16 MiB that nobody would ever
/// remove. What is another store's stays.
#[test]
fn openings_that_are_cut_short_leave_no_write_buffers() {
    let mut m = Machine::new(1, 64 << 20);
    let foreign = [
        "write-buffer-0",
        "write-buffer-00000000-1111-4222-8333-444444444444",
    ];
    for name in foreign {
        drop(m.disk.create_memory(name, BLOCK).unwrap());
    }
    let buffers = |m: &Machine| m.disk.list_memory().unwrap().len() - foreign.len();
    unflushed(&m);
    let mut most = 0;
    for n in 0.. {
        m.kill();
        m.disk.crash_after(Some(n));
        let opened = m.try_open(|_| {}).map(drop);
        let done = !m.disk.is_crashed();
        m.kill();
        most = most.max(buffers(&m));
        if done {
            opened.unwrap();
            break;
        }
    }
    assert!(most > 1, "no opening was cut short where it matters");
    let store = m.open();
    assert_eq!(buffers(&m), 1);
    let disk = store.vdisk("a").unwrap();
    assert_eq!(versions(&mut Client::new(&store), &disk, 1), [2]);
    store.shutdown().unwrap();
    assert_eq!(buffers(&m), 0);
}

#[test]
fn a_failed_fsync_voids_the_promise_until_the_store_is_opened_again() {
    const BLOCKS: u64 = 512;
    // Far more than a slot of the write buffer: most of it is in the file alone when the fsync fails.
    let mut m = Machine::with_segments(1, 256 << 20, 4 << 20);
    let (store, disk, mut client) = filled(&m, 64);
    for first in (0..BLOCKS).step_by(32) {
        let offset = first * BLOCK as u64;
        client.write(&disk, offset, &content(2, first, 32)).unwrap();
        while store.core().drain_step().unwrap() {}
    }
    m.disk.fail_nth(Op::Sync, 1);
    assert_eq!(client.flush(&disk), Err(RequestError::Io));
    // The disk works again, and still: nobody can know what the kernel has dropped.
    assert_eq!(client.flush(&disk), Err(RequestError::Io));
    assert_eq!(
        client.write(&disk, 0, &content(3, 0, 1)),
        Err(RequestError::Io)
    );
    assert_eq!(client.discard(&disk, 0, 4096), Err(RequestError::Io));
    assert_eq!(client.write_zeroes(&disk, 0, 4096), Err(RequestError::Io));
    assert_eq!(versions(&mut client, &disk, BLOCKS), [2; BLOCKS as usize]);
    assert!(store.checkpoint().is_err());
    assert!(store.shutdown().is_err());
    assert!(store.status().failed.is_some());
    drop((client, store, disk));
    m.kill();
    // Acknowledged was version 2; a flush now promises it, and this time it must hold.
    let store = m.open();
    let disk = store.vdisk("a").unwrap();
    let mut client = Client::new(&store);
    assert_eq!(versions(&mut client, &disk, BLOCKS), [2; BLOCKS as usize]);
    client.flush(&disk).unwrap();
    drop((client, store, disk));
    m.power_loss();
    let store = m.open();
    let disk = store.vdisk("a").unwrap();
    let seen = versions(&mut Client::new(&store), &disk, BLOCKS);
    assert_eq!(seen, [2; BLOCKS as usize]);
}
