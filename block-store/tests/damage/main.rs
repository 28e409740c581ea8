//! Damage of every kind to every kind of thing on disk: a read gives the right data or an error. Never a panic, never
//! other data.

mod matrix;
mod online;
mod pieces;
#[path = "../support/mod.rs"]
mod support;

use block_store::Store;
use block_store::format::{RecordKind, Superblock};
use block_store::io::Disk;
use block_store::io::sim::{Damage, Rng};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{BLOCK, Client, Machine, content, vdisk};

const BLOCKS: u64 = 600;

/// A store with data below a checkpoint, a flushed log above it, and map nodes; what each block must read as.
fn busy(seed: u64) -> (Machine, Vec<u64>) {
    let mut m = Machine::new(seed, 64 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", 1 << 30);
    let mut client = Client::new(&store);
    let mut want = vec![0; BLOCKS as usize];
    let mut rng = Rng::new(seed);
    let mut cuts = Vec::new();
    for version in 1..60u64 {
        match version {
            // One snapshot that is below a checkpoint, and one that never becomes one.
            15 => drop(store.create_snapshot(&["a"], "s").unwrap()),
            45 => cuts.push(store.cut_snapshot(&["a"], "t").unwrap()),
            _ => {}
        }
        let first = rng.below(BLOCKS as usize - 40) as u64;
        let blocks = [1, 1, 3, 32][rng.below(4)];
        let offset = first * BLOCK as u64;
        match rng.below(8) {
            0 => {
                client
                    .discard(&disk, offset, blocks * BLOCK as u64)
                    .unwrap();
                want[first as usize..][..blocks as usize].fill(0);
            }
            _ => {
                let bytes = content(version, first, blocks);
                client.write(&disk, offset, &bytes).unwrap();
                want[first as usize..][..blocks as usize].fill(version);
            }
        }
        match version {
            20 | 40 => store.checkpoint().unwrap(),
            _ if rng.below(4) == 0 => client.flush(&disk).unwrap(),
            _ => {}
        }
    }
    // Twice: the newest group has nobody to vouch for it.
    for block in BLOCKS - 2..BLOCKS {
        client.flush(&disk).unwrap();
        let bytes = content(99, block, 1);
        client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
        want[block as usize] = 99;
    }
    client.flush(&disk).unwrap();
    drop((client, store, disk, cuts));
    m.power_loss();
    (m, want)
}

/// Opens and reads everything. An error anywhere is fine; other data is not. The last two blocks are the newest groups'.
fn verify(m: &Machine, want: &[u64], what: &str) -> &'static str {
    check(m, want, what, false)
}

/// `gone`: a whole file is, perhaps with all that vouches for it: blocks may also read as an earlier version of theirs.
fn check(m: &Machine, want: &[u64], what: &str, gone: bool) -> &'static str {
    read_all(m, want, what, gone).0
}

/// The same; also tells which blocks can't be read.
fn read_all(m: &Machine, want: &[u64], what: &str, gone: bool) -> (&'static str, Vec<u64>) {
    let store = match m.try_open(|_| {}) {
        Ok(store) => store,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return ("refused", Vec::new());
        }
    };
    let Ok(disk) = store.vdisk("a") else {
        panic!("{what}: the vDisk is gone without an error");
    };
    let mut client = Client::new(&store);
    let mut failed = Vec::new();
    let right = |block: u64, version: u64, data: &[u8]| match version {
        0 => data.iter().all(|b| *b == 0),
        v => data == content(v, block, 1),
    };
    for first in (0..BLOCKS - 2).step_by(13) {
        let end = (first + 13).min(BLOCKS - 2);
        // Together, and one by one only where something is wrong.
        let len = (end - first) as usize * BLOCK;
        let together = client.read(&disk, first * BLOCK as u64, len);
        for block in first..end {
            let data = match &together {
                Ok(data) => Ok(data[(block - first) as usize * BLOCK..][..BLOCK].to_vec()),
                Err(_) => client.read(&disk, block * BLOCK as u64, BLOCK),
            };
            let Ok(data) = data else {
                failed.push(block);
                continue;
            };
            let version = want[block as usize];
            let fine = right(block, version, &data)
                || gone && (0..100).any(|version| right(block, version, &data));
            assert!(fine, "{what}: block {block} is not version {version}");
        }
    }
    live_on(&store);
    let outcome = if failed.is_empty() {
        "right"
    } else {
        "I/O error"
    };
    (outcome, failed)
}

/// Whatever was damaged: what comes later works, or says that it does not.
fn live_on(store: &Arc<Store>) {
    let disk = store.vdisk("a").unwrap();
    let mut client = Client::new(store);
    for block in (0..BLOCKS).step_by(50) {
        let offset = block * BLOCK as u64;
        let bytes = content(7, block, 1);
        if client.write(&disk, offset, &bytes).is_ok() {
            let back = client.read(&disk, offset, BLOCK);
            assert!(back.is_ok_and(|back| back == bytes));
        }
    }
    let _ = client.flush(&disk);
    let _ = store.upkeep();
    let _ = store.checkpoint();
}

fn random(rng: &mut Rng, len: u64) -> Damage {
    let offset = rng.below(len as usize) as u64;
    match rng.below(6) {
        0 => Damage::Rot { offset, len: 1 },
        1 => Damage::Rot {
            offset,
            len: 64.min(len - offset),
        },
        2 => Damage::Zero {
            offset: offset / 512 * 512,
            len: 512,
        },
        3 => Damage::Zero {
            offset: offset / 4096 * 4096,
            len: 4096,
        },
        4 if len > 8192 => {
            let (a, b) = (
                offset / 4096 * 4096,
                rng.below(len as usize / 4096) as u64 * 4096,
            );
            if a == b {
                return Damage::Rot { offset, len: 1 };
            }
            Damage::Swap { a, b, len: 4096 }
        }
        _ => Damage::Truncate(offset),
    }
}

/// Anything, anywhere in any segment, also the file as a whole.
#[test]
fn random_damage_to_segments() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..250 {
        let (m, want) = busy(seed % 10);
        let mut rng = Rng::new(seed);
        let names = m.segments();
        let name = &names[rng.below(names.len())];
        let len = m.disk.open(name).unwrap().len().unwrap();
        let used = (0..len / 4096)
            .rev()
            .find(|page| {
                let mut bytes = vec![0; 4096];
                let file = m.disk.open(name).unwrap();
                file.read_at(&mut bytes, page * 4096).unwrap();
                bytes.iter().any(|b| *b != 0)
            })
            .map_or(4096, |page| (page + 1) * 4096);
        let damage = random(&mut rng, used);
        m.disk.damage(name, damage).unwrap();
        let what = format!("seed {seed}, {damage:?} of {name}");
        *seen.entry(verify(&m, &want, &what)).or_default() += 1;
    }
    println!("{seen:?}");
    assert!(seen.len() == 3, "{seen:?}");
}

/// Each record of each kind, its header and its payload.
#[test]
fn rot_in_every_kind_of_record() {
    let mut hit: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..3 {
        let (m, _) = busy(seed);
        let records: Vec<_> = m
            .segments()
            .iter()
            .flat_map(|name| {
                let records = m.records(name).into_iter();
                records.map(|r| (name.clone(), r)).collect::<Vec<_>>()
            })
            .collect();
        let rare = |k| {
            matches!(
                k,
                RecordKind::Table | RecordKind::Catalogue | RecordKind::Node | RecordKind::Cut
            )
        };
        for (n, (name, record)) in records.iter().enumerate() {
            if !rare(record.header.kind) && n % 9 != seed as usize {
                continue;
            }
            let offset = u64::from(record.offset);
            let mut places = vec![offset + 17];
            if record.header.payload_len > 0 {
                places.push(offset + 64);
            }
            for at in places {
                let (m, want) = busy(seed);
                m.disk
                    .damage(name, Damage::Rot { offset: at, len: 1 })
                    .unwrap();
                let what = format!("{:?} at {at} of {name}", record.header.kind);
                let outcome = verify(&m, &want, &what);
                *hit.entry(format!("{:?} {outcome}", record.header.kind))
                    .or_default() += 1;
            }
        }
    }
    println!("{hit:?}");
    for kind in ["Extent", "Node", "Table", "Catalogue", "Commit", "Cut"] {
        assert!(hit.keys().any(|k| k.starts_with(kind)), "{hit:?}");
    }
}

#[test]
fn a_missing_segment() {
    let (m, _) = busy(1);
    for name in m.segments() {
        let (m, want) = busy(1);
        let newest = m
            .records(&name)
            .iter()
            .any(|r| r.header.first == BLOCKS - 1 && r.header.kind == RecordKind::Extent);
        m.disk.damage(&name, Damage::Remove).unwrap();
        if newest {
            // Everything since the checkpoint may have been in it, promises included: it may open, but not panic.
            let _ = m.try_open(|_| {});
            continue;
        }
        verify(&m, &want, &format!("without {name}"));
    }
}

fn superblocks(m: &Machine) -> Vec<Result<Superblock, block_store::format::FormatError>> {
    let file = m.disk.open("superblock").unwrap();
    let mut page = vec![0; 4096];
    [0, 4096]
        .map(|at| {
            file.read_at(&mut page, at).unwrap();
            Superblock::decode(&page)
        })
        .into()
}

#[test]
fn either_superblock_heals_from_the_other() {
    for (which, kind) in (0..2u64).flat_map(|w| (0..3).map(move |k| (w, k))) {
        let (mut m, want) = busy(which);
        let offset = which * 4096;
        let damage = match kind {
            0 => Damage::Rot {
                offset: offset + 40,
                len: 1,
            },
            1 => Damage::Zero { offset, len: 4096 },
            _ => Damage::Rot { offset, len: 4096 },
        };
        m.disk.damage("superblock", damage).unwrap();
        assert!(superblocks(&m)[which as usize].is_err());
        assert_eq!(verify(&m, &want, &format!("{damage:?}")), "right");
        m.kill();
        assert!(superblocks(&m).iter().all(Result::is_ok), "not healed");
        // And the other one may go now.
        let damage = Damage::Zero {
            offset: 4096 - offset,
            len: 4096,
        };
        m.disk.damage("superblock", damage).unwrap();
        m.open();
    }
}

#[test]
fn without_any_superblock_there_is_a_clear_error() {
    for damage in [
        Damage::Zero {
            offset: 0,
            len: 8192,
        },
        Damage::Rot {
            offset: 0,
            len: 8192,
        },
        Damage::Truncate(0),
        Damage::Remove,
    ] {
        let (m, _) = busy(1);
        m.disk.damage("superblock", damage).unwrap();
        let error = m.try_open(|_| {}).err().unwrap().to_string();
        assert!(error.contains("superblock"), "{damage:?}: {error}");
    }
}

#[test]
fn a_superblock_cut_to_its_first_half_still_opens() {
    let (m, want) = busy(1);
    m.disk.damage("superblock", Damage::Truncate(4096)).unwrap();
    let opened = m.try_open(|_| {});
    if let Err(error) = opened {
        assert!(error.to_string().contains("superblock"), "{error}");
        return;
    }
    drop(opened);
    let _ = want;
}
