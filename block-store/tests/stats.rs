//! The figures that a store tells of itself: they add up, against each other and against what the disk has seen.

mod support;

use block_store::alloc::{Census, Kind};
use block_store::defrag::{Fragmentation, Spot};
use block_store::io::Disk as _;
use block_store::store::{LayerKind, WriteStats};
use block_store::write::Packer;
use block_store::{Store, VDisk};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{BLOCK, Client, Machine, SEGMENT, content, step, vdisk};

const BLOCKS: u64 = 1024;
const SIZE: u64 = BLOCKS * BLOCK as u64;

fn fill(client: &mut Client, disk: &Arc<VDisk>, version: u64) {
    for first in (0..BLOCKS).step_by(64) {
        let bytes = content(version, first, 64);
        client.write(disk, first * BLOCK as u64, &bytes).unwrap();
    }
}

/// Every block, in an order in which no two neighbours follow each other.
fn overwrite(client: &mut Client, disk: &Arc<VDisk>, version: u64) {
    for n in 0..BLOCKS {
        let block = n * 389 % BLOCKS;
        let bytes = content(version, block, 1);
        client.write(disk, block * BLOCK as u64, &bytes).unwrap();
    }
}

fn read_all(client: &mut Client, disk: &Arc<VDisk>, version: u64) {
    for first in (0..BLOCKS).step_by(256) {
        let read = client.read(disk, first * BLOCK as u64, 256 * BLOCK);
        assert!(read.unwrap() == content(version, first, 256));
    }
}

/// Everything in the segments' files.
fn flush(client: &mut Client, disk: &Arc<VDisk>) {
    client.flush(disk).unwrap();
    client.store.flush().unwrap();
    while client.store.core().drain_step().unwrap() {}
}

fn coalesce(store: &Store) {
    let mut packer = Packer::new().unwrap();
    store.core().allocate_ready().unwrap();
    while Spot::step(store.core(), &mut packer).unwrap().is_some() {
        store.core().allocate_ready().unwrap();
    }
}

/// All parts; how many answers that took.
fn fragmentation(store: &Store, disk: &VDisk) -> (Fragmentation, u64) {
    let (mut sum, mut next, mut answers) = (Fragmentation::default(), Some(0), 0);
    while let Some(at) = next {
        let part = store.fragmentation(disk, at).unwrap();
        let f = part.fragmentation;
        sum.spans += f.spans;
        sum.blocks += f.blocks;
        sum.stored_bytes += f.stored_bytes;
        sum.reads += f.reads;
        sum.side_by_side += f.side_by_side;
        assert!(part.next.is_none_or(|n| n > at), "it gets on");
        (next, answers) = (part.next, answers + 1);
    }
    (sum, answers)
}

fn index(store: &Store, disk: &VDisk) -> f64 {
    fragmentation(store, disk).0.index()
}

#[test]
fn the_index_rises_by_random_overwrites_and_falls_by_reading() {
    let m = Machine::new(1, 256 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    assert_eq!(index(&store, &disk), 1.0, "nothing is there");
    fill(&mut client, &disk, 1);
    flush(&mut client, &disk);
    let fresh = fragmentation(&store, &disk).0;
    assert_eq!((fresh.spans, fresh.blocks), (4, BLOCKS));
    assert_eq!(fresh.index(), 1.0);
    overwrite(&mut client, &disk, 2);
    flush(&mut client, &disk);
    let scattered = fragmentation(&store, &disk).0;
    assert_eq!(scattered.blocks, BLOCKS);
    assert!(scattered.index() > 20.0, "{scattered:?}");
    read_all(&mut client, &disk, 2);
    coalesce(&store);
    flush(&mut client, &disk);
    let together = fragmentation(&store, &disk).0;
    assert!(together.index() < 1.2, "{together:?}");
    // Through a snapshot it is the same data in the same places.
    store.create_snapshot(&["a"], "s").unwrap();
    assert_eq!(fragmentation(&store, &disk).0, together);
    // What is measured is what a read sees.
    let before = store.stats().coalescing;
    read_all(&mut client, &disk, 2);
    let after = store.stats().coalescing;
    assert_eq!(after.looked_at - before.looked_at, 4);
    assert_eq!(after.scattered, before.scattered);
}

/// A stream in large extents of which every fourth block is overwritten: each extent is read again and again.
#[test]
fn overwrites_amid_large_extents_are_seen() {
    let m = Machine::with_segments(2, 256 << 20, 4 << 20);
    let store = m.open();
    let rules = r#"{"rules":[{"name":"all","use":{"codec":"none","extent_kib":128}}]}"#;
    store
        .set_rules(None, serde_json::from_str(rules).unwrap())
        .unwrap();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    fill(&mut client, &disk, 1);
    flush(&mut client, &disk);
    assert_eq!(index(&store, &disk), 1.0);
    for block in (1..BLOCKS).step_by(4) {
        let bytes = content(2, block, 1);
        client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
    }
    flush(&mut client, &disk);
    assert!(index(&store, &disk) > 5.0, "{}", index(&store, &disk));
    client.read(&disk, 0, 256 * BLOCK).unwrap();
    assert_eq!(store.stats().coalescing.gathered, 1);
}

#[test]
fn a_huge_sparse_vdisk_takes_no_time() {
    let m = Machine::new(3, 256 << 20);
    let store = m.open();
    let disk = vdisk(&store, "huge", 64 << 40);
    let mut client = Client::new(&store);
    for n in 0..64u64 {
        let bytes = content(n, 0, 1);
        client.write(&disk, n << 40 | n << 22, &bytes).unwrap();
    }
    flush(&mut client, &disk);
    client.write_zeroes(&disk, 1 << 39, 1 << 39).unwrap();
    store.create_snapshot(&["huge"], "s").unwrap();
    client.discard(&disk, 0, 1 << 39).unwrap();
    store.checkpoint().unwrap();
    let begun = Instant::now();
    let (found, answers) = fragmentation(&store, &disk);
    assert_eq!((found.spans, found.blocks), (63, 63));
    assert!(answers < 200, "{answers} answers");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// What the disk has been given since a moment is what the causes say.
struct Given<'a> {
    m: &'a Machine,
    bytes: u64,
    writes: WriteStats,
}

impl<'a> Given<'a> {
    fn since_now(m: &'a Machine, store: &Store) -> Self {
        Self {
            m,
            bytes: m.disk.counters().bytes_written,
            writes: store.stats().writes,
        }
    }

    #[track_caller]
    fn agrees(&self, store: &Store) {
        let now = store.stats().writes;
        let written = |w: &WriteStats| w.total_bytes - w.waiting_bytes;
        let seen = self.m.disk.counters().bytes_written - self.bytes;
        assert_eq!(written(&now) - written(&self.writes), seen, "{now:#?}");
    }
}

#[test]
fn causes_add_up_to_what_the_disk_was_given() {
    let m = Machine::new(4, 64 << 20);
    let store = m.open();
    let given = Given::since_now(&m, &store);
    let disk = vdisk(&store, "a", SIZE);
    given.agrees(&store);
    let mut client = Client::new(&store);
    fill(&mut client, &disk, 1);
    given.agrees(&store);
    assert!(
        store.stats().writes.waiting_bytes > 0,
        "it is exact amidst all"
    );
    overwrite(&mut client, &disk, 2);
    client.write(&disk, 512, &[7; 1024]).unwrap();
    client.write_zeroes(&disk, 1 << 20, 1 << 20).unwrap();
    flush(&mut client, &disk);
    let after = store.stats().writes;
    assert_eq!(after.waiting_bytes, 0);
    assert_eq!(after.requested_bytes, 2 * SIZE + 1024);
    assert_eq!(after.guest_bytes, disk.stats().stored_bytes);
    assert!(after.log_bytes >= 64 && after.padding_bytes > 0 && after.header_bytes > 0);
    given.agrees(&store);
    client.read(&disk, 0, 1 << 20).unwrap();
    client.write(&disk, 40 << 12, &content(3, 40, 3)).unwrap();
    coalesce(&store);
    let stats = store.stats();
    let put = stats.coalescing;
    assert_eq!((put.scattered, put.gathered), (1, 1));
    assert_eq!(put.switched_bytes + put.skipped_bytes, 1 << 20, "{put:?}");
    assert_eq!(put.skipped_bytes, 3 << 12);
    assert!(
        stats.writes.coalescing_bytes > 1 << 19,
        "half of it compresses"
    );
    assert_eq!(stats.writes.compaction_bytes, 0);
    given.agrees(&store);
    store.create_snapshot(&["a"], "s").unwrap();
    given.agrees(&store);
    // Half of each segment is overwritten, and then space runs short.
    overwrite(&mut client, &disk, 4);
    for block in (0..BLOCKS).step_by(2) {
        let bytes = content(5, block, 1);
        client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
    }
    store.checkpoint().unwrap();
    let space = m.disk.space().unwrap();
    m.disk.set_capacity((space.total - space.free) * 21 / 20);
    for _ in 0..20 {
        step(&store, true);
        given.agrees(&store);
    }
    let stats = store.stats();
    assert!(stats.compaction.segments > 0 && stats.writes.compaction_bytes > 0);
    assert_eq!(stats.compaction.moved_bytes, store.status().relocated_bytes);
    assert!(stats.compaction.removed_segments > 0);
    store.checkpoint().unwrap();
    given.agrees(&store);
    drop(client);
    store.shutdown().unwrap();
    given.agrees(&store);
}

fn row(store: &Store, kind: Kind) -> Census {
    let space = store.stats().space;
    *space.iter().find(|row| row.temperature == kind).unwrap()
}

/// Against the store's state, and against the files.
fn adds_up(m: &Machine, store: &Store) {
    let (stats, status) = (store.stats(), store.status());
    let sum = |of: fn(&Census) -> u64| stats.space.iter().map(of).sum::<u64>();
    let spare = row(store, Kind::Spare);
    let used = sum(|r| r.used_bytes) - spare.used_bytes;
    assert_eq!(used, status.data_bytes + status.meta_bytes);
    assert_eq!(row(store, Kind::Metadata).used_bytes, status.meta_bytes);
    assert_eq!(sum(|r| r.segments) - spare.segments, status.segments);
    assert_eq!(spare.segments, status.spare_segments);
    assert_eq!(sum(|r| r.segments), m.segments().len() as u64);
    let files = m.files();
    let files: u64 = m.segments().iter().map(|s| files[s].len() as u64).sum();
    assert_eq!(sum(|r| r.file_bytes), files);
    assert_eq!(stats.segment_bytes, u64::from(SEGMENT));
}

#[test]
fn space_by_temperature_adds_up_and_outlives_a_restart() {
    let mut m = Machine::new(5, 256 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    fill(&mut client, &disk, 1);
    flush(&mut client, &disk);
    adds_up(&m, &store);
    let streaming = row(&store, Kind::Streaming);
    assert_eq!(row(&store, Kind::Fresh).live_bytes, 0);
    assert!(streaming.live_bytes > SIZE / 2 && streaming.live_bytes < SIZE * 2 / 3);
    overwrite(&mut client, &disk, 2);
    flush(&mut client, &disk);
    adds_up(&m, &store);
    // The stream is dead, and what is small alive.
    assert_eq!(row(&store, Kind::Streaming).live_bytes, 0);
    let fresh = row(&store, Kind::Fresh);
    assert!(fresh.live_bytes > SIZE / 2);
    assert!(fresh.by_live_share[10] >= 8, "{fresh:?}");
    read_all(&mut client, &disk, 2);
    coalesce(&store);
    store.checkpoint().unwrap();
    adds_up(&m, &store);
    let cold = row(&store, Kind::Cold);
    assert!(cold.live_bytes > SIZE / 2 && row(&store, Kind::Metadata).live_bytes > 0);
    drop((client, disk));
    for clean in [true, false] {
        match clean {
            true => store.shutdown().unwrap(),
            false => m.disk.power_loss(),
        }
        m.disk = m.disk.restart();
        let store = m.open();
        adds_up(&m, &store);
        let (again, unknown) = (row(&store, Kind::Cold), row(&store, Kind::Unknown));
        // The last page's padding is found again as part of the segment.
        assert!(again.live_bytes.abs_diff(cold.live_bytes) < BLOCK as u64);
        assert_eq!(unknown.live_bytes, 0);
        // What was opened since is known only from the next checkpoint on.
        let disk = store.vdisk("a").unwrap();
        read_all(&mut Client::new(&store), &disk, 2);
    }
}

#[test]
fn layers_have_all_that_is_alive() {
    let m = Machine::new(6, 256 << 20);
    let store = m.open();
    let (a, b) = (vdisk(&store, "a", SIZE), vdisk(&store, "b", 64 << 40));
    let mut client = Client::new(&store);
    fill(&mut client, &a, 1);
    client.write(&b, 1 << 45, &content(1, 0, 20)).unwrap();
    store.create_snapshot(&["a", "b"], "first").unwrap();
    overwrite(&mut client, &a, 2);
    store.create_snapshot(&["a"], "second").unwrap();
    client.write(&a, 0, &content(3, 0, 100)).unwrap();
    client.write_zeroes(&a, 1 << 20, 1 << 20).unwrap();
    store.clone_vdisk("a", "first", "c").unwrap();
    let layers = store.layers();
    let kinds = |kind| layers.iter().filter(|l| l.kind == kind).count();
    let (live, snapshots) = (kinds(LayerKind::Live), kinds(LayerKind::Snapshot));
    assert_eq!((live, snapshots, layers.len()), (3, 3, 6));
    let mut data = 0;
    for layer in &layers {
        let (mut blocks, mut next) = (0, Some(0));
        while let Some(at) = next {
            let part = store.layer_usage(layer.id, at).unwrap();
            blocks += part.usage.data_blocks;
            next = part.next;
        }
        data += blocks;
        let of = (layer.vdisk.as_deref(), layer.snapshot.as_deref());
        let want = match of {
            (Some("a"), Some("first" | "second")) => BLOCKS,
            (Some("a"), None) => 100,
            (Some("b"), Some("first")) => 20,
            (Some("b" | "c"), None) => 0,
            other => panic!("{other:?}"),
        };
        assert_eq!(blocks, want, "{layer:?}");
        let parent = layer.parent.and_then(|p| layers.iter().find(|l| l.id == p));
        assert_eq!(parent.is_some(), layer.parent.is_some());
    }
    assert_eq!(data * BLOCK as u64, store.status().live_bytes);
    store.delete_snapshots("b", &["first"], false).unwrap();
    let unnamed = |store: &Store| {
        let layers = store.layers();
        layers.iter().any(|l| l.kind == LayerKind::Unnamed)
    };
    assert!(unnamed(&store));
    for _ in 0..5 {
        step(&store, true);
    }
    assert!(!unnamed(&store));
    assert!(store.layer_usage(4711, 0).is_err());
}

/// The store's own reads are nobody's.
#[test]
fn reading_again_is_no_read_of_the_guest() {
    const SIZE: u64 = 20 << 20;
    let m = Machine::with_segments(7, 1 << 30, 1 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let blocks = SIZE / BLOCK as u64;
    for n in 0..blocks {
        let block = n * 389 % blocks;
        let bytes = content(1, block, 1);
        client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
    }
    flush(&mut client, &disk);
    for offset in (0..SIZE).step_by(1 << 20) {
        client.read(&disk, offset, 1 << 20).unwrap();
    }
    let before = disk.stats();
    assert_eq!((before.reads, before.read_bytes), (20, SIZE));
    let found = store.stats().coalescing;
    assert_eq!((found.looked_at, found.scattered), (20, 20));
    assert_eq!((found.gathered, found.put_off, found.dropped), (8, 12, 0));
    coalesce(&store);
    let mut again = store.again();
    while let Some(range) = store.core().spot.next_later() {
        again.read(range);
        coalesce(&store);
    }
    assert_eq!(disk.stats(), before);
    let found = store.stats().coalescing;
    assert_eq!((found.read_again, found.looked_at), (12, 32));
    assert_eq!((found.scattered, found.gathered), (32, 20));
    assert_eq!(found.switched_bytes, SIZE);
    // Of snapshots nothing is remembered.
    for n in 0..blocks {
        let block = n * 389 % blocks;
        let bytes = content(2, block, 1);
        client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
    }
    flush(&mut client, &disk);
    store.create_snapshot(&["a"], "s").unwrap();
    let view = store.open_snapshot("a", "s").unwrap();
    for offset in (0..SIZE).step_by(1 << 20) {
        client.read(&view, offset, 1 << 20).unwrap();
    }
    let after = store.stats().coalescing;
    assert_eq!(after.gathered - found.gathered, 8);
    assert_eq!((after.put_off, after.dropped), (12, 12));
}
