//! The whole way of a request, from the ring to the real store and back.

use block_store::{InitOptions, OpenConfig, VDiskSpec};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::*;
use crate::testing::{Connect, Guest, connect, seg_in, seg_out};
use crate::workers::Pool;

const SIZE: u64 = 16 << 20;

struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        Store::init(&dir.path().join("store"), &InitOptions::default()).unwrap();
        Self { dir }
    }

    fn open(&self) -> (Arc<Store>, Arc<Pool<StoreDisk>>) {
        let at = |name| self.dir.path().join(name);
        let store = Store::open(OpenConfig::new(at("store"), at("run"))).unwrap();
        let lanes = Arc::clone(&store);
        let pool = Pool::start(2, move || StoreEngine::new(&lanes)).unwrap();
        (store, Arc::new(pool))
    }
}

fn disk(store: &Arc<Store>) -> Arc<StoreDisk> {
    StoreDisk::new(Arc::clone(store), store.vdisk("disk").unwrap())
}

#[test]
fn a_random_load_reads_back_over_reconnects_and_restarts() {
    let rig = Rig::new();
    let (store, mut pool) = rig.open();
    let spec = VDiskSpec {
        name: "disk".to_owned(),
        size: SIZE,
        hidden: false,
    };
    store.create_vdisk(&spec).unwrap();
    let mut store = store;
    let mut guest = Guest::new(2, 64);
    let mut rng = SmallRng::seed_from_u64(3);
    let mut model = vec![0u8; SIZE as usize];
    let max = 64 << 10;
    let (data, ok) = (guest.buffer(max), guest.buffer(1));
    let headers: Vec<u64> = (0..6)
        .map(|kind| guest.header([0, 1, 4, 11, 13, 1][kind], 0))
        .collect();
    let range_at = guest.buffer(16);
    let mut how = Connect::default();
    for round in 0..6 {
        let disk = disk(&store);
        let attached = connect(&guest, &disk, &pool, how);
        for step in 0..150 {
            let queue = rng.random_range(0..2);
            let sectors = rng.random_range(1..=max / 512);
            let len = (sectors * 512) as u32;
            let sector = rng.random_range(0..=SIZE / 512 - sectors);
            let at = sector as usize * 512..(sector * 512) as usize + len as usize;
            let kind = rng.random_range(0..headers.len());
            let header = headers[kind];
            guest.write(header + 8, &sector.to_le_bytes());
            guest.write(ok, &[9]);
            let cut = rng.random_range(1..len);
            let mut range = sector.to_le_bytes().to_vec();
            range.extend((sectors as u32).to_le_bytes());
            range.extend([0; 4]);
            guest.write(range_at, &range);
            let mut chain = vec![seg_out(header, 16)];
            match kind {
                0 => chain.extend([seg_in(data, cut), seg_in(data + u64::from(cut), len - cut)]),
                1 | 5 => {
                    let mut bytes = vec![0; len as usize];
                    if kind == 1 {
                        rng.fill_bytes(&mut bytes);
                    } else {
                        bytes.fill(rng.random());
                    }
                    guest.write(data, &bytes);
                    model[at.clone()].copy_from_slice(&bytes);
                    chain.extend([
                        seg_out(data, cut),
                        seg_out(data + u64::from(cut), len - cut),
                    ]);
                }
                2 => {}
                _ => {
                    // What a partial block of a discard reads as is left open: only zeroing is exact.
                    guest.write(header, &13u32.to_le_bytes());
                    model[at.clone()].fill(0);
                    chain.push(seg_out(range_at, 16));
                }
            }
            chain.push(seg_in(ok, 1));
            guest.send(queue, &chain);
            attached.kick(queue);
            guest.wait(queue, 1);
            assert_eq!(
                guest.read(ok, 1),
                [0],
                "round {round} step {step} kind {kind}"
            );
            if kind == 0 {
                assert!(
                    guest.read(data, len as usize) == model[at],
                    "round {round} step {step}"
                );
            }
        }
        let bases = (0..2).map(|queue| guest.used_index(queue)).collect();
        how = Connect {
            inflight: attached.hang_up(),
            bases,
            ..Default::default()
        };
        if round % 2 == 1 {
            drop((disk, pool));
            store.shutdown().unwrap();
            drop(store);
            (store, pool) = rig.open();
        }
    }
}

#[test]
fn the_write_cache_mode_and_the_serial_survive_a_restart() {
    let rig = Rig::new();
    let (store, pool) = rig.open();
    let spec = VDiskSpec {
        name: "disk".to_owned(),
        size: SIZE,
        hidden: false,
    };
    store.create_vdisk(&spec).unwrap();
    let first = disk(&store);
    assert!(first.write_cache());
    first.set_write_cache(false).unwrap();
    let serial = first.serial();
    assert!(serial.iter().all(u8::is_ascii_hexdigit));
    drop((first, pool));
    store.shutdown().unwrap();
    drop(store);
    let (store, _pool) = rig.open();
    assert!(!disk(&store).write_cache());
    assert_eq!(disk(&store).serial(), serial);
}
