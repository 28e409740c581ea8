//! The parts of the data path by themselves: `cargo bench -p block-store`.

use std::hint::black_box;
use std::sync::Arc;

use block_store::compress::{Codec, Compressor, Decompressor};
use block_store::format::{Entry, Location};
use block_store::map::{Map, NodeKey};
use block_store::{BlockClient, InitOptions, OpenConfig, Store, VDisk, VDiskSpec};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

fn main() {
    divan::main();
}

/// Bytes of which a bit more than half are random: about 2.0 by zstd.
fn half(len: usize) -> Vec<u8> {
    let mut bytes = b"what repeats, as text in a log does. ".repeat(len / 32)[..len].to_vec();
    let mut rng = SmallRng::seed_from_u64(1);
    for sector in bytes.chunks_mut(512).step_by(2) {
        rng.fill_bytes(sector);
    }
    bytes
}

/// Codecs and extents, by their KiB.
const SHAPES: [(&str, usize); 9] = [
    ("lz4", 4),
    ("lz4", 16),
    ("lz4", 64),
    ("zstd:1", 4),
    ("zstd:1", 16),
    ("zstd:1", 64),
    ("zstd:3", 64),
    ("zstd:3", 128),
    ("zstd:9", 128),
];

fn codec(name: &str) -> Codec {
    name.parse().expect("a codec of the list above")
}

#[divan::bench(args = SHAPES.map(|(codec, kib)| Shape { codec, kib }))]
fn compress(bencher: Bencher<'_, '_>, shape: &Shape) {
    let data = half(shape.kib << 10);
    let mut compressor = Compressor::new().expect("memory");
    let mut out = Vec::new();
    bencher
        .counter(BytesCount::new(data.len()))
        .bench_local(|| {
            out.clear();
            compressor.compress(codec(shape.codec), black_box(&data), &mut out)
        });
}

#[divan::bench(args = SHAPES.map(|(codec, kib)| Shape { codec, kib }))]
fn decompress(bencher: Bencher<'_, '_>, shape: &Shape) {
    let data = half(shape.kib << 10);
    let codec = codec(shape.codec);
    let mut packed = Vec::new();
    let mut compressor = Compressor::new().expect("memory");
    compressor
        .compress(codec, &data, &mut packed)
        .expect("data that compresses");
    let mut decompressor = Decompressor::new().expect("memory");
    let mut out = vec![0; data.len()];
    bencher
        .counter(BytesCount::new(data.len()))
        .bench_local(|| {
            decompressor.decompress(codec.byte(), black_box(&packed), data.len(), &mut out)
        });
}

/// A line of the tables of codecs.
#[derive(Debug, Clone, Copy)]
struct Shape {
    codec: &'static str,
    kib: usize,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} KiB", self.codec, self.kib)
    }
}

/// What every record is checksummed with, header and payload.
#[divan::bench(args = [64, 2112, 4096, 33792])]
fn checksum(bencher: Bencher<'_, '_>, len: usize) {
    let data = half(len.next_multiple_of(512));
    let data = &data[..len];
    bencher
        .counter(BytesCount::new(len))
        .bench(|| crc32c::crc32c(black_box(data)));
}

/// A map with all of `gib` GiB in memory.
fn full_map(gib: u64) -> (Map, u64) {
    let blocks = gib << 18;
    let mut map = Map::new(2 * (blocks / 512) as usize);
    map.add_layer(1, 0);
    for block in 0..blocks {
        if block % 512 == 0 {
            map.make_resident(NodeKey::leaf(1, block))
                .expect("nothing is on disk");
        }
        map.set(1, block, entry(block));
    }
    (map, blocks)
}

fn entry(block: u64) -> u64 {
    let at = Location {
        segment: (block >> 14) as u32,
        offset: (block as u32 % 16384) * 64,
        len: 2176,
    };
    Entry::Stored { at, index: 0 }.pack()
}

const LOOKUPS: usize = 1024;

#[divan::bench(args = [1, 8, 64])]
fn map_lookup(bencher: Bencher<'_, '_>, gib: u64) {
    let (mut map, blocks) = full_map(gib);
    let mut rng = SmallRng::seed_from_u64(1);
    bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
        for _ in 0..LOOKUPS {
            black_box(map.lookup(1, rng.random_range(0..blocks)).is_ok());
        }
    });
}

#[divan::bench(args = [1, 8, 64])]
fn map_set(bencher: Bencher<'_, '_>, gib: u64) {
    let (mut map, blocks) = full_map(gib);
    let mut rng = SmallRng::seed_from_u64(1);
    bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
        for _ in 0..LOOKUPS {
            let block = rng.random_range(0..blocks);
            black_box(map.set(1, block, entry(block)));
        }
    });
}

/// A store on the filesystem of the working directory, as shipped.
struct Rig {
    client: BlockClient,
    vdisk: Arc<VDisk>,
    _store: Arc<Store>,
    _dir: tempfile::TempDir,
}

const SIZE: u64 = 1 << 30;

fn rig() -> Rig {
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let (store, run) = (dir.path().join("store"), dir.path().join("run"));
    Store::init(&store, &InitOptions::default()).expect("a store");
    let store = Store::open(OpenConfig::new(store, run)).expect("an open store");
    let spec = VDiskSpec {
        name: "a".into(),
        size: SIZE,
        hidden: false,
    };
    Rig {
        vdisk: store.create_vdisk(&spec).expect("a vDisk"),
        client: store.client().expect("a client"),
        _store: store,
        _dir: dir,
    }
}

/// A write without what a guest adds: compression, append, map.
#[divan::bench(args = [4, 64, 1024])]
fn write(bencher: Bencher<'_, '_>, kib: usize) {
    let mut rig = rig();
    let data = half(kib << 10);
    let mut rng = SmallRng::seed_from_u64(1);
    bencher
        .counter(BytesCount::new(data.len()))
        .bench_local(|| {
            let offset = rng.random_range(0..SIZE / data.len() as u64) * data.len() as u64;
            rig.client
                .write(&rig.vdisk, offset, &data)
                .expect("a write");
        });
}

/// A group commit: a 4 KiB write and its flush.
#[divan::bench]
fn commit(bencher: Bencher<'_, '_>) {
    let mut rig = rig();
    let data = half(4096);
    let mut rng = SmallRng::seed_from_u64(1);
    bencher.bench_local(|| {
        let offset = rng.random_range(0..SIZE / 4096) * 4096;
        rig.client
            .write(&rig.vdisk, offset, &data)
            .expect("a write");
        rig.client.flush(&rig.vdisk).expect("a flush");
    });
}
