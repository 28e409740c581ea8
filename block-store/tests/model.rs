//! Random requests on a real disk against plain memory, with the store's threads running: restarts, clean ones and
//! such as a killed process leaves behind; several lanes at a time; with io_uring and O_DIRECT and without.

mod support;

use block_store::io::real::{RealDisk, RealOptions, Use};
use block_store::io::sim::Rng;
use block_store::{BlockClient, InitOptions, OpenConfig, RealHost, Store, VDisk, VDiskSpec};
use std::sync::Arc;
use support::{Client, content, noise};

const SIZE: usize = 8 << 20;

fn new_store(dir: &tempfile::TempDir) -> OpenConfig {
    let config = OpenConfig {
        checkpoint_log: 8 << 20,
        write_buffer: 4 << 20,
        ..OpenConfig::new(dir.path().join("store"), dir.path().join("run"))
    };
    let options = InitOptions {
        segment_size: 1 << 20,
    };
    Store::init(&config.dir, &options).unwrap();
    config
}

fn vdisk(store: &Store, size: u64) -> Arc<VDisk> {
    let spec = VDiskSpec {
        name: "a".into(),
        size,
        hidden: false,
    };
    store
        .vdisk("a")
        .or_else(|_| store.create_vdisk(&spec))
        .unwrap()
}

/// One random request within `base..base + model.len()`.
fn request(
    rng: &mut Rng,
    client: &mut BlockClient,
    disk: &Arc<VDisk>,
    base: u64,
    model: &mut [u8],
) {
    let sectors = model.len() / 512;
    let len = [8, 8, 8, 1, 3, 64, 300][rng.below(7)];
    let align = [1, 8, 8][rng.below(3)];
    let first = rng.below(sectors - len) / align * align;
    let (at, len) = (first * 512, len * 512);
    let offset = base + at as u64;
    let part = &mut model[at..at + len];
    match rng.below(12) {
        0 => client.flush(disk).unwrap(),
        1 => {
            client.write_zeroes(disk, offset, len as u64).unwrap();
            part.fill(0);
        }
        2 => {
            client.discard(disk, offset, len as u64).unwrap();
            let (from, to) = (at.next_multiple_of(4096), (at + len) / 4096 * 4096);
            if from < to {
                model[from..to].fill(0);
            }
        }
        3..7 => {
            let mut back = vec![0xee; len];
            client.read(disk, offset, &mut back).unwrap();
            assert!(back == part, "sectors {first}.. read as something else");
        }
        n => {
            let bytes = if n == 7 {
                noise(rng.bits(), len)
            } else {
                content(rng.bits() >> 32, 0, len as u64 / 4096 + 1)[..len].to_vec()
            };
            client.write(disk, offset, &bytes).unwrap();
            part.copy_from_slice(&bytes);
        }
    }
}

#[test]
fn random_requests_and_restarts() {
    for seed in 1..5 {
        let dir = tempfile::tempdir_in(".").unwrap();
        let config = new_store(&dir);
        let (mut rng, mut model) = (Rng::new(seed), vec![0; SIZE]);
        for round in 0..6 {
            let store = Store::open(config.clone()).unwrap();
            let disk = vdisk(&store, SIZE as u64);
            let mut client = store.client().unwrap();
            let mut all = vec![0; SIZE];
            client.read(&disk, 0, &mut all).unwrap();
            assert!(all == model, "seed {seed}, after restart {round}");
            for _ in 0..400 {
                request(&mut rng, &mut client, &disk, 0, &mut model);
            }
            // Else it is dropped as it is: the next opening finds what a killed process leaves.
            if rng.below(2) == 0 {
                store.shutdown().unwrap();
            }
        }
    }
}

#[test]
fn lanes_in_threads_on_ranges_of_their_own() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let config = new_store(&dir);
    let mut models: Vec<Vec<u8>> = vec![vec![0; SIZE]; 4];
    for round in 0..3u64 {
        let store = Store::open(config.clone()).unwrap();
        let disk = vdisk(&store, 4 * SIZE as u64);
        std::thread::scope(|scope| {
            for (n, model) in models.iter_mut().enumerate() {
                let (store, disk) = (&store, &disk);
                scope.spawn(move || {
                    let base = (n * SIZE) as u64;
                    let mut client = store.client().unwrap();
                    let mut all = vec![0; SIZE];
                    client.read(disk, base, &mut all).unwrap();
                    assert!(all == *model, "lane {n} after restart {round}");
                    let mut rng = Rng::new(round << 8 | n as u64);
                    for _ in 0..300 {
                        request(&mut rng, &mut client, disk, base, model);
                    }
                });
            }
            // Meanwhile the other things that go on in a store.
            for _ in 0..20 {
                store.upkeep().unwrap();
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
    }
}

/// Also when its threads are in the middle of something.
#[test]
fn a_store_that_was_dropped_can_be_opened_at_once() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let config = new_store(&dir);
    for round in 0..30 {
        let store = Store::open(config.clone()).unwrap_or_else(|e| panic!("round {round}: {e}"));
        let disk = vdisk(&store, SIZE as u64);
        let mut client = store.client().unwrap();
        client.write(&disk, 0, &content(round, 0, 64)).unwrap();
        store.core().upkeep_bell.ring();
        // From before the bell is heard to after the checkpoint.
        std::thread::sleep(std::time::Duration::from_micros(round % 10 * 300));
    }
}

#[test]
fn the_fallbacks_store_the_same() {
    for (direct, uring) in [
        (Use::Off, Use::Off),
        (Use::Off, Use::Auto),
        (Use::Auto, Use::Off),
    ] {
        let dir = tempfile::tempdir_in(".").unwrap();
        let config = new_store(&dir);
        std::fs::create_dir_all(&config.run_dir).unwrap();
        for round in 0..3u64 {
            let disk = RealDisk::open(&config.dir, RealOptions { direct, uring }).unwrap();
            let host = Box::new(RealHost::new(disk, &config.run_dir));
            let store = Store::open_on(host, config.clone(), None).unwrap();
            let disk = vdisk(&store, SIZE as u64);
            let mut client = Client::new(&store);
            for first in (0..512).step_by(32) {
                let offset = first * 4096;
                if round > 0 {
                    let back = client.read(&disk, offset, 32 * 4096).unwrap();
                    assert!(back == content(round - 1, first, 32));
                }
                let bytes = content(round, first, 32);
                client.write(&disk, offset, &bytes).unwrap();
            }
            client.flush(&disk).unwrap();
        }
    }
}
