//! Golden images: tiny stores as a released version has left them, which every later version must open and read.
//!
//! `clean` was stopped in good order: map nodes, table, catalogue, compacted segments. `killed` was killed with a full log since its
//! checkpoint, flushed data and acknowledged data in its write buffer. An image is the store's files (and the write
//! buffer), one behind the other, compressed with zstd; what they must read as follows from the same list of requests.
//!
//! `FIRN_REGENERATE_GOLDEN=1 cargo test -p block-store --test format` writes the images of the present format anew. Once a
//! version was released with a format, its images are never written again.

use crate::sim::SimHost;
use block_store::compress::Codec;
use block_store::format::{SUPERBLOCK_SIZE, newest};
use block_store::io::sim::SimDisk;
use block_store::io::{AlignedBuf, Disk, Runtime};
use block_store::{
    Command, InitOptions, Lane, OpenConfig, RequestError, Rules, Store, VDisk, VDiskSpec,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

const SECTOR: u64 = 512;
const KIB: u64 = 1 << 10;
const TIB: u64 = 1 << 40;
/// Name, size and write-cache mode.
const VDISKS: [(&str, u64, bool); 3] = [
    ("small", 4 << 20, true),
    ("large", 64 * TIB, true),
    ("durable", 1 << 20, false),
];
const RULES: &str = r#"{"rules":[{"name":"all","when":{"min_bytes":4096},"use":{"codec":"zstd:3","extent_kib":32}}]}"#;

/// What is done to a range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Compressible data of this version.
    Text(u64),
    /// Incompressible data of this version.
    Noise(u64),
    Zeroes,
    Discard,
}

/// A request: vDisk, offset, bytes, act.
type Request = (usize, u64, u64, Act);

/// Before the checkpoint, and (for `killed`) after it: flushed, then only acknowledged.
struct Script {
    old: Vec<Request>,
    flushed: Vec<Request>,
    acked: Vec<Request>,
}

fn script(killed: bool) -> Script {
    use Act::*;
    let end = 64 * TIB;
    let mut old = vec![
        (0, 0, 256 * KIB, Text(1)),
        (0, 512 * KIB, 8 * KIB, Noise(2)),
        (0, 512, 1536, Text(3)),
        (1, 0, 20 * KIB, Text(4)),
        (1, TIB - 4 * KIB, 8 * KIB, Text(5)),
        (1, end - 64 * KIB, 64 * KIB, Text(6)),
        (1, 2 * TIB, 4 * KIB, Text(7)),
        (1, TIB + TIB / 2, 2 * TIB, Discard),
        (2, 0, 100 * KIB, Text(8)),
        (2, 8 * KIB, 8 * KIB, Zeroes),
        (2, 900 * KIB + 512, KIB, Noise(9)),
    ];
    if !killed {
        // A leaf without runs: dense. Then sparse segments, for compaction.
        old.extend(
            (0..512)
                .rev()
                .map(|n| (0, 2048 * KIB + n * 4 * KIB, 4 * KIB, Text(10 + n))),
        );
        old.extend(
            (0..512)
                .step_by(2)
                .map(|n| (0, 2048 * KIB + n * 4 * KIB, 4 * KIB, Text(600))),
        );
        return Script {
            old,
            flushed: Vec::new(),
            acked: Vec::new(),
        };
    }
    let flushed = vec![
        (0, 64 * KIB, 12 * KIB, Text(20)),
        (0, 516 * KIB, KIB, Noise(21)),
        (0, 3 * KIB, 2 * KIB, Zeroes),
        (1, TIB, 128 * KIB, Text(22)),
        (1, end - 4 * KIB, 4 * KIB, Discard),
        (2, 0, 4 * KIB, Text(23)),
    ];
    let acked = vec![
        (0, 1024 * KIB, 64 * KIB, Text(30)),
        (0, 1100 * KIB, KIB, Noise(31)),
        (0, 128 * KIB, 512, Text(32)),
        (1, 3 * TIB, 16 * KIB, Text(33)),
    ];
    Script {
        old,
        flushed,
        acked,
    }
}

/// What all sectors must read as; those not in it are zero.
#[derive(Default)]
struct Model(BTreeMap<(usize, u64), Vec<u8>>);

fn content(act: Act, vdisk: usize, sector: u64) -> Vec<u8> {
    match act {
        Act::Text(version) => {
            let line = format!("vdisk {vdisk} sector {sector:016x} text {version:05}\n");
            line.bytes().cycle().take(SECTOR as usize).collect()
        }
        Act::Noise(version) => {
            let mut x = (version << 32 ^ sector << 2 ^ vdisk as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                | 1;
            let mut next = || {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                x.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
            };
            (0..SECTOR / 8).flat_map(|_| next()).collect()
        }
        Act::Zeroes | Act::Discard => vec![0; SECTOR as usize],
    }
}

impl Model {
    fn apply(&mut self, requests: &[Request]) {
        for &(vdisk, offset, len, act) in requests {
            let sectors = offset / SECTOR..(offset + len) / SECTOR;
            if act == Act::Discard {
                self.0
                    .retain(|(v, s), _| *v != vdisk || !sectors.contains(s));
                continue;
            }
            for s in sectors {
                self.0.insert((vdisk, s), content(act, vdisk, s));
            }
        }
    }
}

fn config() -> OpenConfig {
    OpenConfig {
        write_buffer: 1,
        // Everything that is not full is worth compacting.
        low_space_percent: 101,
        ..OpenConfig::new("/store", "/run/firn")
    }
}

fn open(disk: &SimDisk, first_uuid: u64) -> Arc<Store> {
    let host = SimHost::new(
        Arc::new(disk.clone()),
        disk.clone(),
        &Arc::new(AtomicU64::new(first_uuid)),
        &Arc::new(AtomicU64::new(1_700_000_000)),
    );
    let store = Store::open_on(Box::new(host), config(), None).unwrap();
    store.core().allocate_ready().unwrap();
    store
}

/// One request from beginning to end; there are no threads.
fn serve(
    store: &Store,
    lane: &mut Lane<Vec<u8>>,
    vdisk: &Arc<VDisk>,
    command: Command<Vec<u8>>,
) -> Result<Option<Vec<u8>>, RequestError> {
    lane.submit(vdisk, command, 0);
    let mut done = Vec::new();
    for _ in 0..10_000 {
        lane.poll(&mut done);
        if let Some(done) = done.pop() {
            return done.result.map(|()| done.payload);
        }
        if store.core().flushes_waiting() > 0 {
            store.core().commit().unwrap();
        }
        store.core().allocate_ready().unwrap();
    }
    panic!("a request hangs");
}

fn play(store: &Store, requests: &[Request]) {
    let mut lane = store.lane(4).unwrap();
    for &(vdisk, offset, len, act) in requests {
        let sectors = offset / SECTOR..(offset + len) / SECTOR;
        let command = match act {
            Act::Zeroes => Command::WriteZeroes {
                offset,
                len,
                unmap: false,
            },
            Act::Discard => Command::Discard { offset, len },
            _ => Command::Write {
                offset,
                from: sectors.flat_map(|s| content(act, vdisk, s)).collect(),
            },
        };
        let vdisk = store.vdisk(VDISKS[vdisk].0).unwrap();
        serve(store, &mut lane, &vdisk, command).unwrap();
    }
}

fn generate(killed: bool) -> Vec<u8> {
    let disk = SimDisk::new(7, 64 << 20);
    let host = SimHost::new(
        Arc::new(disk.clone()),
        disk.clone(),
        &Arc::new(AtomicU64::new(1)),
        &Arc::new(AtomicU64::new(1_700_000_000)),
    );
    let segment_size = 256 << 10;
    Store::init_on(&host, &InitOptions { segment_size }).unwrap();
    let mut store = open(&disk, 100);
    for (name, size, write_cache) in VDISKS {
        let (name, hidden) = (name.to_owned(), false);
        let spec = VDiskSpec { name, size, hidden };
        let vdisk = store.create_vdisk(&spec).unwrap();
        store.set_write_cache(vdisk.name(), write_cache).unwrap();
    }
    store
        .set_rules(Some("large"), serde_json::from_str(RULES).unwrap())
        .unwrap();
    let hidden = VDiskSpec {
        name: "import".into(),
        size: 1 << 20,
        hidden: true,
    };
    store.create_vdisk(&hidden).unwrap();
    let script = script(killed);
    play(&store, &script.old);
    if killed {
        store.checkpoint().unwrap();
        play(&store, &script.flushed);
        store.flush().unwrap();
        // The next commit records this one's prefixes.
        play(&store, &script.acked[..1]);
        store.flush().unwrap();
        play(&store, &script.acked[1..]);
        disk.kill();
    } else {
        // Opening seals what was being appended to: then it can be compacted.
        store.shutdown().unwrap();
        drop(store);
        store = open(&disk, 500);
        store.upkeep().unwrap();
        assert!(store.status().relocated_bytes > 0, "nothing was compacted");
        store.shutdown().unwrap();
    }
    drop(store);
    pack(&disk.restart())
}

/// Name, length and bytes of every file, then of the write buffer, if there is one.
fn pack(disk: &SimDisk) -> Vec<u8> {
    let mut out = Vec::new();
    let mut add = |name: &str, bytes: &[u8]| {
        out.extend((name.len() as u32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(bytes);
    };
    let mut buffer = None;
    for name in disk.list().unwrap() {
        let file = disk.open(&name).unwrap();
        let mut bytes = AlignedBuf::zeroed(file.len().unwrap() as usize).unwrap();
        file.read_at(&mut bytes, 0).unwrap();
        if name == "superblock" {
            assert_eq!(bytes.len(), 2 * SUPERBLOCK_SIZE);
            buffer = newest(&bytes).unwrap().buffer;
        }
        add(&name, &bytes);
    }
    if let Some(buffer) = buffer {
        let memory = disk
            .open_memory(&buffer.file(), buffer.len as usize)
            .unwrap();
        add(&buffer.file(), memory.bytes());
    }
    zstd::bulk::compress(&out, 19).unwrap()
}

fn unpack(image: &[u8]) -> SimDisk {
    let bytes = zstd::bulk::decompress(image, 64 << 20).unwrap();
    let disk = SimDisk::new(8, 64 << 20);
    let mut rest = bytes.as_slice();
    let mut piece = || {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let (piece, tail) = tail.split_at(u32::from_le_bytes(*len) as usize);
        rest = tail;
        Some(piece)
    };
    while let (Some(name), Some(bytes)) = (piece(), piece()) {
        let name = std::str::from_utf8(name).unwrap();
        if name.starts_with("write-buffer-") {
            let mut memory = disk.create_memory(name, bytes.len()).unwrap();
            memory.bytes_mut().copy_from_slice(bytes);
        } else {
            let file = disk.create(name, bytes.len() as u64).unwrap();
            file.write_at(&AlignedBuf::from_bytes(bytes).unwrap(), 0)
                .unwrap();
            file.sync().unwrap();
        }
    }
    disk.sync_dir().unwrap();
    disk
}

/// Holds all sectors of the model, and their whole blocks, against the store.
fn verify(store: &Store, model: &Model, skip: &dyn Fn(usize, u64) -> bool) {
    let mut lane = store.lane(4).unwrap();
    let blocks: std::collections::BTreeSet<_> = model.0.keys().map(|(v, s)| (*v, s / 8)).collect();
    for (vdisk, block) in blocks {
        let handle = store.vdisk(VDISKS[vdisk].0).unwrap();
        let command = Command::Read {
            offset: block * 4096,
            into: vec![0xee; 4096],
        };
        let data = serve(store, &mut lane, &handle, command).unwrap().unwrap();
        for (sector, bytes) in (block * 8..).zip(data.chunks(SECTOR as usize)) {
            let zero = vec![0; SECTOR as usize];
            let want = model.0.get(&(vdisk, sector)).unwrap_or(&zero);
            assert!(
                bytes == want || skip(vdisk, sector),
                "vDisk {vdisk}, sector {sector}: {:02x?} instead of {:02x?}",
                &bytes[..16],
                &want[..16]
            );
        }
    }
    // Holes are holes.
    for (vdisk, offset) in [(0, 1536 * KIB), (1, 5 * TIB), (1, 40 * TIB), (2, 512 * KIB)] {
        let handle = store.vdisk(VDISKS[vdisk].0).unwrap();
        let into = vec![0xee; 128 << 10];
        let read = serve(store, &mut lane, &handle, Command::Read { offset, into });
        assert!(read.unwrap().unwrap().iter().all(|b| *b == 0));
    }
}

fn verify_catalogue(store: &Store) {
    let mut names: Vec<_> = VDISKS.iter().map(|v| v.0).collect();
    names.sort_unstable();
    let listed = store.vdisks();
    let listed: Vec<_> = listed.iter().map(|v| v.name()).collect();
    assert_eq!(listed, names);
    assert!(
        store.vdisk("import").is_err(),
        "an unfinished import is gone"
    );
    for (name, size, write_cache) in VDISKS {
        let vdisk = store.vdisk(name).unwrap();
        assert_eq!((vdisk.size(), vdisk.write_cache()), (size, write_cache));
        assert_eq!(vdisk.created(), 1_700_000_000);
    }
    let small = store.vdisk("small").unwrap();
    assert_eq!(small.uuid().as_u128(), 1 << 100 | 101);
    assert_eq!(&small.serial(), b"00000010000000000000");
    assert_eq!(store.uuid().as_u128(), 1 << 100 | 1);
    let rules = store.rules(Some("large")).unwrap();
    assert_eq!(rules.rules[0].action.codec, Codec::Zstd(3));
    assert_eq!(*store.rules(Some("small")).unwrap(), Rules::default());
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1")
}

/// The image; made anew first if so asked.
fn image(name: &str, killed: bool) -> Vec<u8> {
    let path = directory().join(name);
    if std::env::var_os("FIRN_REGENERATE_GOLDEN").is_some() {
        std::fs::write(&path, generate(killed)).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn format_1_stopped_cleanly() {
    let disk = unpack(&image("clean.zst", false));
    let store = open(&disk, 1000);
    assert_eq!(store.status().recovery.buffer, "None");
    let mut model = Model::default();
    model.apply(&script(false).old);
    verify_catalogue(&store);
    verify(&store, &model, &|_, _| false);
    // It can be gone on with, and closed and opened again.
    play(&store, &[(0, 0, 512, Act::Text(99))]);
    model.apply(&[(0, 0, 512, Act::Text(99))]);
    store.shutdown().unwrap();
    drop(store);
    let store = open(&disk, 2000);
    verify(&store, &model, &|_, _| false);
}

#[test]
fn format_1_killed() {
    let disk = unpack(&image("killed.zst", true));
    let store = open(&disk, 1000);
    let status = store.status();
    assert!(
        status.recovery.buffer.starts_with("Replayed") && status.recovery.applied_records > 0,
        "{:?}",
        status.recovery
    );
    let script = script(true);
    let mut model = Model::default();
    model.apply(&script.old);
    model.apply(&script.flushed);
    model.apply(&script.acked);
    verify_catalogue(&store);
    verify(&store, &model, &|_, _| false);
}

#[test]
fn format_1_without_power() {
    let disk = unpack(&image("killed.zst", true));
    disk.power_loss();
    let store = open(&disk.restart(), 1000);
    assert_eq!(store.status().recovery.buffer, "OtherBoot");
    let script = script(true);
    let mut model = Model::default();
    model.apply(&script.old);
    model.apply(&script.flushed);
    model.apply(&script.acked[..1]);
    // What was only acknowledged may be there or not.
    let unflushed = |vdisk: usize, sector: u64| {
        let touched = |&(v, offset, len, _): &Request| {
            v == vdisk && (offset / SECTOR..(offset + len) / SECTOR).contains(&sector)
        };
        script.acked[1..].iter().any(touched)
    };
    verify_catalogue(&store);
    verify(&store, &model, &unflushed);
}

/// What the present code writes reads back by the same list: the generator itself is tested in every run.
#[test]
fn the_generator_makes_what_the_images_hold() {
    for killed in [false, true] {
        let script = script(killed);
        let mut model = Model::default();
        model.apply(&script.old);
        model.apply(&script.flushed);
        model.apply(&script.acked);
        verify(&open(&unpack(&generate(killed)), 1000), &model, &|_, _| {
            false
        });
    }
}
