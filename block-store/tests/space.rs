//! What data costs on disk, and that work follows what is there and not what is addressed.

mod support;

use block_store::{InitOptions, OpenConfig, Store};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{BLOCK, Client, Machine, content, noise, vdisk};

const RAW: u64 = 48 << 20;

/// Data that compresses to one half: of every 512 bytes 256 are random, as of fio's buffer_compress_percentage=50.
fn half(first: u64, blocks: u64) -> Vec<u8> {
    let mut out = vec![0x41; blocks as usize * BLOCK];
    let random = noise(first, out.len() / 2);
    for (to, from) in out.chunks_exact_mut(512).zip(random.chunks_exact(256)) {
        to[..256].copy_from_slice(from);
    }
    out
}

/// Bytes that the store's files take on the filesystem after a clean stop.
fn on_disk(dir: &Path) -> u64 {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().blocks() * 512)
        .sum()
}

/// What `fill` costs on a real disk, per byte of `RAW`, after a clean stop: bytes used, held against the blocks of the files.
fn cost(fill: impl Fn(&mut dyn FnMut(u64, &[u8]))) -> f64 {
    let dir = tempfile::tempdir_in(".").unwrap();
    let config = OpenConfig::new(dir.path().join("store"), dir.path().join("run"));
    let options = InitOptions {
        segment_size: 1 << 20,
    };
    Store::init(&config.dir, &options).unwrap();
    let store = Store::open(config.clone()).unwrap();
    let disk = store
        .create_vdisk(&block_store::VDiskSpec {
            name: "a".into(),
            size: 1 << 40,
            hidden: false,
        })
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let empty = on_disk(&config.dir);
    let mut client = store.client().unwrap();
    fill(&mut |offset, bytes| client.write(&disk, offset, bytes).unwrap());
    client.flush(&disk).unwrap();
    store.shutdown().unwrap();
    let status = store.status();
    let files = on_disk(&config.dir).saturating_sub(empty) as f64 / RAW as f64;
    let used = (status.data_bytes + status.meta_bytes) as f64 / RAW as f64;
    println!("{files:.3} of raw by blocks of files, {used:.3} by bytes used");
    // Segments are allocated whole: some are open, one or two more stand ready than at first.
    assert!(
        files <= used + 5.0 * (1 << 20) as f64 / RAW as f64,
        "{files}"
    );
    used
}

#[test]
fn compressible_data_random_data_and_zeroes() {
    let blocks = RAW / BLOCK as u64;
    let sequential = cost(|write| {
        for first in (0..blocks).step_by(256) {
            write(first * BLOCK as u64, &half(first, 256));
        }
    });
    assert!(sequential <= 0.60, "sequential fill: {sequential}");
    let scattered = cost(|write| {
        // Each block once, in an order that no stream has.
        for n in 0..blocks {
            let block = n * 7919 % blocks;
            write(block * BLOCK as u64, &half(block, 1));
        }
    });
    assert!(scattered <= 0.65, "4 KiB at random places: {scattered}");
    let random = cost(|write| {
        for n in 0..RAW >> 20 {
            write(n << 20, &noise(n, 1 << 20));
        }
    });
    assert!(random <= 1.02, "random data: {random}");
    let zeroes = cost(|write| {
        for n in 0..RAW >> 20 {
            write(n << 20, &vec![0; 1 << 20]);
        }
    });
    assert!(zeroes <= 0.01, "zeroes: {zeroes}");
}

#[test]
fn discarding_64_tib_is_quick_and_touches_few_nodes() {
    let m = Machine::new(1, 256 << 20);
    let store = m.open();
    let disk = vdisk(&store, "huge", 64 << 40);
    let mut client = Client::new(&store);
    for n in 0..64u64 {
        let offset = n << 40 | (n * 4096);
        client.write(&disk, offset, &content(n, 0, 1)).unwrap();
    }
    client.flush(&disk).unwrap();
    store.checkpoint().unwrap();
    let before = store.status();
    let begun = Instant::now();
    client.discard(&disk, 0, 64 << 40).unwrap();
    client.write_zeroes(&disk, 512, (64 << 40) - 1024).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(500));
    let after = store.status();
    assert!(
        after.dirty_map_nodes <= 8 && after.log_bytes - before.log_bytes < 4096,
        "{after:?}"
    );
    for _ in 0..4 {
        store.upkeep().unwrap();
    }
    assert_eq!(store.status().live_bytes, 0);
    let data = client.read(&disk, 5 << 40, 1 << 20).unwrap();
    assert!(data.iter().all(|b| *b == 0));
}

/// Reads here and there leave nodes above leaves in memory, and few of their leaves. What is dropped then is remembered by these, and not
/// by each leaf; all of it comes back, also after a crash.
#[test]
fn what_was_read_at_random_is_dropped_by_few_rows() {
    const SPANS: u64 = 32;
    const LEAVES: u64 = 16;
    for delete in [false, true] {
        let mut m = Machine::new(2, 256 << 20);
        let store = m.open();
        let disk = vdisk(&store, "a", SPANS << 30);
        let mut client = Client::new(&store);
        for n in 0..SPANS * LEAVES {
            let at = (n / LEAVES) << 30 | (n % LEAVES) << 21;
            client.write(&disk, at, &content(n, 0, 1)).unwrap();
        }
        client.flush(&disk).unwrap();
        store.checkpoint().unwrap();
        drop((client, disk, store));
        m.kill();
        let store = m.open();
        let disk = store.vdisk("a").unwrap();
        let mut client = Client::new(&store);
        for n in 0..SPANS {
            client.read(&disk, n << 30, BLOCK).unwrap();
        }
        match delete {
            false => client.discard(&disk, 0, SPANS << 30).unwrap(),
            true => store.delete_vdisk("a").unwrap(),
        }
        let rows = store.core().state.lock().catalogue.dropped.len() as u64;
        assert!(
            (1..=SPANS).contains(&rows),
            "{rows} rows, deleted: {delete}"
        );
        store.checkpoint().unwrap();
        drop((client, disk, store));
        m.kill();
        m.assert_sound("after a crash");
        let store = m.open();
        for _ in 0..4 {
            store.upkeep().unwrap();
        }
        {
            let state = store.core().state.lock();
            assert!(state.catalogue.dropped.is_empty());
            assert_eq!(state.segments.miscounted(), 0);
        }
        assert_eq!(store.status().live_bytes, 0);
        store.shutdown().unwrap();
        m.assert_sound("at last");
    }
}

#[test]
fn many_vdisks() {
    let mut m = Machine::new(1, 256 << 20);
    let store = m.open();
    let mut client = Client::new(&store);
    for n in 0..200u64 {
        let disk = vdisk(&store, &format!("v{n}"), 64 << 40);
        client.write(&disk, n << 30, &content(n, 0, 1)).unwrap();
        if n % 50 == 49 {
            store.upkeep().unwrap();
        }
    }
    for n in (0..200).step_by(2) {
        store.delete_vdisk(&format!("v{n}")).unwrap();
    }
    drop((client, store));
    m.kill();
    let store = m.open();
    assert_eq!(store.vdisks().len(), 100);
    let mut client = Client::new(&store);
    for n in (1..200u64).step_by(2) {
        let disk = store.vdisk(&format!("v{n}")).unwrap();
        assert!(client.read(&disk, n << 30, BLOCK).unwrap() == content(n, 0, 1));
    }
}

/// Where flushes are frequent, small writes move to a segment whose space was written before; where they are not, none
/// is prepared.
#[test]
fn frequent_flushes_go_to_space_that_was_written_ahead() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let config = OpenConfig::new(dir.path().join("store"), dir.path().join("run"));
    let options = InitOptions {
        segment_size: 1 << 20,
    };
    Store::init(&config.dir, &options).unwrap();
    let store = Store::open(config).unwrap();
    let spec = block_store::VDiskSpec {
        name: "a".into(),
        size: 1 << 30,
        hidden: false,
    };
    let disk = store.create_vdisk(&spec).unwrap();
    let mut client = store.client().unwrap();
    let in_use = || {
        let state = store.core().state.lock();
        let open = |s: &str| s == "Open";
        state
            .segments
            .iter()
            .any(|(_, s)| s.prewritten && open(&format!("{:?}", s.phase)))
    };
    let mut write = |n: u64, flush: bool| {
        let block = n * 7919 % 65_536;
        let at = block * BLOCK as u64;
        client.write(&disk, at, &noise(block, BLOCK)).unwrap();
        if flush {
            client.flush(&disk).unwrap();
        }
    };
    // The first segments may be: nothing is known yet. Eight segments later it is.
    (0..2048).for_each(|n| write(n, false));
    assert!(!in_use(), "nobody flushes");
    let until = Instant::now() + Duration::from_secs(20);
    let mut n = 2048;
    while !in_use() {
        assert!(Instant::now() < until, "{n} flushes");
        write(n, true);
        n += 1;
    }
    store.shutdown().unwrap();
    drop(disk);
    drop(store);
}
