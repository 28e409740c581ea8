//! The same damage under a store that is being served: a pass names what a check of the stopped store would name, and every
//! block that can't be read.

use crate::pieces::{HARMS, Harm, Piece, RecordName, What, harm, pieces};
use crate::support::{BLOCK, Client, Files, Machine};
use crate::{BLOCKS, busy};
use block_store::check::{CheckOptions, Finding, Kind, check as look_over};
use block_store::io::Disk;
use block_store::io::sim::Damage;
use block_store::{ScrubOptions, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Makes the files under an open store what they are in `files`. `false`: it can't be done.
fn put(m: &Machine, before: &Files, files: &Files) -> bool {
    for (name, old) in before {
        let Some(new) = files.get(name) else {
            m.disk.damage(name, Damage::Remove).unwrap();
            continue;
        };
        if new.len() < old.len() {
            let cut = Damage::Truncate(new.len() as u64);
            m.disk.damage(name, cut).unwrap();
        }
        let file = m.disk.open(name).unwrap();
        for (n, (new, old)) in new.chunks(BLOCK).zip(old.chunks(BLOCK)).enumerate() {
            if new != old && new.len() == BLOCK {
                // The simulation does not let anybody write where space was given back.
                if file.write_at(new, (n * BLOCK) as u64).is_err() {
                    return false;
                }
            }
        }
    }
    true
}

/// All that a pass finds.
fn scrub(store: &Store) -> Vec<Finding> {
    store.scrub_in_batches_of(40);
    store.start_scrub(ScrubOptions {
        decode: true,
        again: true,
        ..ScrubOptions::default()
    });
    while !store.scrub_step().unwrap().ended {}
    store.scrub_status().last.unwrap().findings
}

/// What tells one thing from another.
type Place = (Kind, Option<u32>, Option<u64>, Option<u64>, Option<u64>);

fn place(f: &Finding) -> Place {
    (f.kind, f.segment, f.offset, f.first_block, f.blocks)
}

/// An open store whose maps of today are those of its checkpoint.
fn served(files: &Files) -> (Machine, Arc<Store>) {
    let m = Machine::holding(files);
    let store = m.open();
    store.checkpoint().unwrap();
    store.checkpoint().unwrap();
    (m, store)
}

/// Blocks that guests can't read.
fn unreadable(store: &Arc<Store>) -> Vec<u64> {
    let disk = store.vdisk("a").unwrap();
    let mut client = Client::new(store);
    let mut read = |block: u64| client.read(&disk, block * BLOCK as u64, BLOCK);
    (0..BLOCKS).filter(|block| read(*block).is_err()).collect()
}

#[test]
fn every_damage_under_a_served_store() {
    let (m, _) = busy(3);
    let rest = m.files();
    let (m, store) = served(&rest);
    let (all, before) = (pieces(&m), m.files());
    assert_eq!(scrub(&store), []);
    drop(store);
    let mut found_in: BTreeMap<What, u32> = BTreeMap::new();
    let (mut cases, mut kinds) = (0, BTreeSet::new());
    for (n, piece) in all.iter().enumerate() {
        let many = matches!(
            piece.what,
            What::Header(RecordName::Extent | RecordName::Range | RecordName::Commit)
                | What::Payload(RecordName::Extent | RecordName::Commit)
        );
        for (k, kind) in HARMS.into_iter().enumerate() {
            if many && (n + k) % 9 != 0 {
                continue;
            }
            let mut files = before.clone();
            if !harm(&mut files, &all, n, kind) {
                continue;
            }
            let (m, store) = served(&rest);
            // The same machine again: the same bytes, but for names that are drawn anew.
            let now = m.files();
            if now != before {
                panic!(
                    "opening a store twice is not the same: {:?}",
                    differing(&now, &before)
                );
            }
            if !put(&m, &before, &files) {
                continue;
            }
            let case = format!(
                "{kind:?} of {:?} at byte {} of {}",
                piece.what, piece.at, piece.file
            );
            let online = scrub(&store);
            let failed = unreadable(&store);
            drop(store);
            let offline = look_over(
                &m.disk,
                &CheckOptions {
                    decode: true,
                    records: 40,
                },
                &mut (),
            );
            compare(piece, kind, &online, &offline.unwrap().findings, &case);
            for block in &failed {
                let named = online.iter().any(|f| {
                    let first = f.first_block.unwrap_or(u64::MAX);
                    f.vdisk.as_deref() == Some("a")
                        && (first..first.saturating_add(f.blocks.unwrap_or(0))).contains(block)
                });
                assert!(named, "{case}: block {block} can't be read: {online:#?}");
            }
            if !online.is_empty() {
                *found_in.entry(piece.what).or_default() += 1;
            }
            kinds.extend(online.iter().map(|f| f.kind));
            cases += 1;
        }
    }
    println!("{cases} cases, found in {found_in:?}");
    for what in [
        What::Superblock,
        What::SegmentHeader,
        What::File,
        What::Header(RecordName::Extent),
        What::Payload(RecordName::Extent),
        What::Header(RecordName::Node),
        What::Payload(RecordName::Node),
        What::Header(RecordName::Table),
        What::Payload(RecordName::Catalogue),
    ] {
        assert!(found_in.contains_key(&what), "{what:?}: {found_in:?}");
    }
    assert_eq!(kinds.len(), 7, "{kinds:?}");
}

fn differing(a: &Files, b: &Files) -> Vec<(String, usize)> {
    let pages = |name: &String, bytes: &Vec<u8>| {
        let other = b.get(name).cloned().unwrap_or_default();
        let differ = bytes.iter().zip(&other).position(|(a, b)| a != b);
        Some((name.clone(), differ?))
    };
    a.iter()
        .filter_map(|(name, bytes)| pages(name, bytes))
        .collect()
}

/// What is found in live data, maps and roots is the same as in the stopped store.
fn compare(piece: &Piece, kind: Harm, online: &[Finding], offline: &[Finding], case: &str) {
    // The log, promises and counts are of interest to the next process alone; overlaps show as extents.
    let also_online = |f: &&Finding| {
        use Kind::{Catalogue, Extent, Node, Segment, SegmentHeader, Superblock, Table};
        f.damage
            && matches!(
                f.kind,
                Superblock | Table | Catalogue | SegmentHeader | Segment | Node | Extent
            )
    };
    if kind == Harm::Remove || !online.is_empty() && piece.what == What::File {
        // Open files stay readable, and one that was cut short is found piece by piece.
        let named = online.iter().any(|f| f.segment == piece.segment());
        let lost = offline
            .iter()
            .any(|f| also_online(&f) && f.segment == piece.segment());
        assert!(named || !lost, "{case}: {offline:#?}");
        let file = |all: &[Finding]| {
            let of_it = |f: &&Finding| f.kind == Kind::Segment && f.segment == piece.segment();
            all.iter().filter(|f| f.damage).any(|f| of_it(&f))
        };
        assert!(
            file(online) || !file(offline),
            "{case}: {online:#?} {offline:#?}"
        );
        return;
    }
    let places = |findings: &[Finding]| -> BTreeSet<Place> {
        findings.iter().filter(also_online).map(place).collect()
    };
    let (online_places, offline_places) = (places(online), places(offline));
    for missing in offline_places.difference(&online_places) {
        // Without its table or catalogue a stopped store is another one.
        let roots_gone = offline_places
            .iter()
            .any(|p| matches!(p.0, Kind::Table | Kind::Catalogue));
        assert!(
            roots_gone && !matches!(missing.0, Kind::Table | Kind::Catalogue),
            "{case}: {missing:?} is found only at rest: {online:#?} {offline:#?}"
        );
    }
    for (f, at) in online.iter().map(|f| (f, place(f))) {
        let known = offline_places.contains(&at) || offline_places.iter().any(|p| p.0 == at.0);
        let roots_gone = offline_places
            .iter()
            .any(|p| matches!(p.0, Kind::Table | Kind::Catalogue));
        assert!(known || roots_gone, "{case}: found only while served: {f}");
        if let Some(other) = offline.iter().find(|o| place(o) == at) {
            let same = (&f.what, &f.vdisk, &f.snapshot, f.layer)
                == (&other.what, &other.vdisk, &other.snapshot, other.layer);
            assert!(same, "{case}: {f:?} {other:?}");
        }
    }
}
