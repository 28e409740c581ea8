//! What has changed between snapshots, and what they cost, against a model that never merges layers.

mod support;

use block_store::io::sim::Rng;
use block_store::snapshot::tidy;
use block_store::{Store, StoreError, VDisk};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use support::{BLOCK, Client, Machine, content, step, vdisk};

/// Blocks of a vDisk: two leaves of its map, and a bit of a third.
const BLOCKS: u64 = 1100;
const SIZE: u64 = BLOCKS * BLOCK as u64;

/// Layers as cuts made them: what each has, and what it lies over.
#[derive(Default)]
struct Model {
    layers: Vec<(BTreeSet<u64>, Option<usize>)>,
    live: usize,
    snapshots: BTreeMap<String, usize>,
}

impl Model {
    fn new() -> Self {
        Self {
            layers: vec![Default::default()],
            ..Self::default()
        }
    }

    fn go_on_over(&mut self, layer: usize) {
        self.layers.push((BTreeSet::new(), Some(layer)));
        self.live = self.layers.len() - 1;
    }

    fn touch(&mut self, first: u64, blocks: u64) {
        self.layers[self.live].0.extend(first..first + blocks);
    }

    fn below(&self, layer: usize) -> BTreeSet<usize> {
        std::iter::successors(Some(layer), |l| self.layers[*l].1).collect()
    }

    /// `None` is the present.
    fn changed(&self, a: &str, b: Option<&str>) -> BTreeSet<u64> {
        let b = b.map_or(self.live, |name| self.snapshots[name]);
        let (a, b) = (self.below(self.snapshots[a]), self.below(b));
        let layers = a.symmetric_difference(&b);
        layers
            .flat_map(|l| self.layers[*l].0.iter().copied())
            .collect()
    }
}

fn state(store: &Arc<Store>, name: Option<&str>) -> Arc<VDisk> {
    match name {
        Some(name) => store.open_snapshot("a", name).unwrap(),
        None => store.vdisk("a").unwrap(),
    }
}

/// All pages of the answer, as blocks; and how many pages it took.
fn changed(store: &Arc<Store>, a: &VDisk, b: &VDisk) -> (BTreeSet<u64>, usize) {
    let (mut blocks, mut pages, mut at) = (BTreeSet::new(), 0, 0);
    let size = a.size().max(b.size());
    while at < size {
        let part = store.changed(a, b, at).unwrap();
        assert!(part.checked > at, "an answer gets on");
        let mut end = at;
        for range in part.ranges {
            assert!(range.start >= end && !range.is_empty(), "in order");
            end = range.end;
            blocks.extend(range.start / BLOCK as u64..range.end.div_ceil(BLOCK as u64));
        }
        assert!(end <= part.checked);
        (at, pages) = (part.checked, pages + 1);
    }
    (blocks, pages)
}

fn verify(store: &Arc<Store>, model: &Model, what: &str) {
    let names: Vec<&str> = model.snapshots.keys().map(String::as_str).collect();
    for (n, a) in names.iter().enumerate() {
        for b in names.iter().skip(n + 1).map(|b| Some(*b)).chain([None]) {
            let (one, other) = (state(store, Some(a)), state(store, b));
            let want = model.changed(a, b);
            let found = changed(store, &one, &other).0;
            assert!(
                found == want,
                "{what}: {a} and {b:?}: {found:?} is not {want:?}"
            );
            assert!(
                changed(store, &other, &one).0 == want,
                "{what}: the other way round"
            );
        }
    }
}

#[test]
fn what_lies_between_two_states_of_random_histories() {
    for seed in 0..40 {
        random_history(seed);
    }
}

fn random_history(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut m = Machine::new(seed, 256 << 20);
    let map_memory = if seed.is_multiple_of(2) { 1 } else { 4 << 20 };
    let open = |m: &Machine| m.try_open(|c| c.map_memory = map_memory).unwrap();
    let mut store = open(&m);
    vdisk(&store, "a", SIZE);
    let mut model = Model::new();
    for version in 1..80u64 {
        let what = format!("seed {seed}, step {version}");
        let names: Vec<String> = model.snapshots.keys().cloned().collect();
        let some = (!names.is_empty()).then(|| names[rng.below(names.len())].clone());
        let disk = store.vdisk("a").unwrap();
        let mut client = Client::new(&store);
        match (rng.below(20), some) {
            (0..8, _) => {
                let blocks = [1, 1, 7, 64, 400][rng.below(5)];
                let first = rng.below((BLOCKS - blocks) as usize) as u64;
                let bytes = content(version, first, blocks);
                client.write(&disk, first * BLOCK as u64, &bytes).unwrap();
                model.touch(first, blocks);
            }
            (8..10, _) => {
                let blocks = [3, 700][rng.below(2)];
                let first = rng.below((BLOCKS - blocks) as usize) as u64;
                let (at, len) = (first * BLOCK as u64, blocks * BLOCK as u64);
                client.discard(&disk, at, len).unwrap();
                model.touch(first, blocks);
            }
            (10..14, _) => {
                let name = format!("s{version}");
                store.create_snapshot(&["a"], &name).unwrap();
                let sealed = model.live;
                model.snapshots.insert(name, sealed);
                model.go_on_over(sealed);
            }
            (14, Some(name)) => {
                store.delete_snapshots("a", &[&name], true).unwrap();
                model.snapshots.remove(&name);
            }
            (15, Some(name)) => {
                store.revert_vdisk("a", &name, None).unwrap();
                model.go_on_over(model.snapshots[&name]);
            }
            (16, _) => {
                client.flush(&disk).unwrap();
                drop((client, disk, store));
                m.kill();
                store = open(&m);
            }
            (17, Some(_)) => {
                // Presence maps come, and are as good.
                let disk = store.vdisk("a").unwrap();
                client.read(&disk, 0, 100 * BLOCK).unwrap();
                while block_store::snapshot::build_one(store.core(), &|| true).unwrap() {}
            }
            _ => {
                // Merges are left half-done.
                let _ = tidy(store.core(), rng.below(4));
                if rng.below(2) == 0 {
                    store.upkeep().unwrap();
                }
            }
        }
        if version % 8 == 0 {
            verify(&store, &model, &what);
        }
    }
}

/// Upkeep until nothing is left to be done.
fn settle(store: &Arc<Store>) {
    for _ in 0..60 {
        step(store, true);
    }
}

/// Deleting a snapshot gives back what was said before.
#[test]
fn a_snapshot_costs_what_its_deletion_gives_back() {
    let m = Machine::new(5, 256 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut write = |version: u64, first: u64, blocks: u64| {
        let bytes = content(version, first, blocks);
        client.write(&disk, first * BLOCK as u64, &bytes).unwrap();
    };
    let cost = |name: &str| {
        let found = store.snapshot_usage(&state(&store, Some(name)), 0).unwrap();
        assert_eq!(found.next, None);
        found.usage
    };
    write(1, 0, 600);
    store.create_snapshot(&["a"], "s").unwrap();
    let s = cost("s");
    let blocks = (s.data_blocks, s.zero_blocks, s.exclusive_blocks);
    assert_eq!(blocks, (600, 0, 0));
    assert!(s.stored_bytes > 0 && s.exclusive_bytes == 0, "{s:?}");
    write(2, 100, 250);
    // Not at rest: just written.
    assert_eq!(cost("s").exclusive_blocks, 250);
    store.create_snapshot(&["a"], "t").unwrap();
    let mut other = Client::new(&store);
    other.discard(&disk, 0, 120 * BLOCK as u64).unwrap();
    assert_eq!(
        cost("s").exclusive_blocks,
        250,
        "what hides t's hides none of s's"
    );
    assert_eq!(cost("t").exclusive_blocks, 20);
    assert!(cost("t").exclusive_bytes > 0);
    store.create_snapshot(&["a"], "u").unwrap();
    let u = cost("u");
    assert_eq!((u.data_blocks, u.zero_blocks, u.stored_bytes), (0, 120, 0));
    // Two lie over t: nothing would come back.
    store.revert_vdisk("a", "t", None).unwrap();
    write(3, 340, 5);
    assert_eq!(cost("t").exclusive_blocks, 0);
    store.delete_snapshots("a", &["u"], false).unwrap();
    assert_eq!(cost("t").exclusive_blocks, 5);
    // The tip of a branch goes as a whole.
    store.create_snapshot(&["a"], "v").unwrap();
    write(4, 0, 9);
    store.create_snapshot(&["a"], "w").unwrap();
    store.revert_vdisk("a", "v", None).unwrap();
    settle(&store);
    let w = cost("w");
    assert_eq!((w.exclusive_blocks, w.exclusive_bytes), (9, w.stored_bytes));
    for (name, free) in [("w", 9), ("s", 250), ("t", 5)] {
        let before = store.status().live_bytes;
        assert_eq!(cost(name).exclusive_blocks, free, "{name}");
        store.delete_snapshots("a", &[name], false).unwrap();
        settle(&store);
        let gone = before - store.status().live_bytes;
        assert_eq!(gone / BLOCK as u64, free, "{name}");
    }
}

/// Parts add up, and a presence map is told of when it is there.
#[test]
fn what_a_large_snapshot_costs_is_told_in_parts() {
    const LEAF: u64 = 2 << 20;
    let m = Machine::new(6, 512 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", 600 * LEAF);
    let mut client = Client::new(&store);
    for leaf in 0..600 {
        let block = leaf * 512 + leaf % 500;
        let bytes = content(1, block, 2);
        client.write(&disk, block * BLOCK as u64, &bytes).unwrap();
    }
    store.create_snapshot(&["a"], "s").unwrap();
    client.discard(&disk, 0, 300 * LEAF).unwrap();
    let s = state(&store, Some("s"));
    let first = store.snapshot_usage(&s, 0).unwrap();
    let blocks = (first.usage.data_blocks, first.usage.exclusive_blocks);
    assert_eq!(blocks, (1024, 600));
    assert_eq!((first.next, first.presence_map), (Some(512 * LEAF), None));
    client.read(&disk, 599 * LEAF, BLOCK).unwrap();
    while block_store::snapshot::build_one(store.core(), &|| true).unwrap() {}
    let second = store.snapshot_usage(&s, 512 * LEAF).unwrap();
    assert_eq!((second.usage.data_blocks, second.next), (176, None));
    let map = second.presence_map.unwrap();
    assert!(map.blocks == 1200 && map.bytes > 1200, "{map:?}");
    let past = store.snapshot_usage(&s, u64::MAX).unwrap();
    assert_eq!((past.usage.data_blocks, past.next), (0, None));
}

/// Answers are bounded, and ranges go on from one to the next.
#[test]
fn many_ranges_come_in_pages() {
    let m = Machine::new(1, 256 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", 40 << 20);
    let mut client = Client::new(&store);
    let blocks = (40 << 20) / BLOCK as u64;
    store.create_snapshot(&["a"], "s").unwrap();
    let mut want = BTreeSet::new();
    for (name, rest) in [("t", 0), ("u", 2)] {
        for block in (rest..blocks).step_by(4) {
            let at = block * BLOCK as u64;
            client.discard(&disk, at, BLOCK as u64).unwrap();
            want.insert(block);
        }
        store.create_snapshot(&["a"], name).unwrap();
    }
    let (s, u) = (state(&store, Some("s")), state(&store, Some("u")));
    let (found, pages) = changed(&store, &s, &u);
    assert!(found == want);
    assert_eq!(pages, 2);
    let first = store.changed(&s, &u, 0).unwrap();
    assert_eq!(first.ranges.len(), 4096);
    // From the middle of a block on.
    let rest = store.changed(&s, &u, first.checked - 512).unwrap();
    assert_eq!(rest.ranges[0].start, first.checked);
}

/// A discard of everything is one range, and not sixteen thousand million blocks.
#[test]
fn the_largest_range_is_one() {
    const LARGEST: u64 = 64 << 40;
    let m = Machine::new(2, 64 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", LARGEST);
    let mut client = Client::new(&store);
    store.create_snapshot(&["a"], "s").unwrap();
    client.discard(&disk, 0, LARGEST).unwrap();
    let bytes = content(1, 7, 1);
    client.write(&disk, 1 << 40, &bytes).unwrap();
    let all = |name: Option<&str>| {
        let s = state(&store, Some("s"));
        store.changed(&s, &state(&store, name), 0).unwrap()
    };
    for name in [None, Some("t")] {
        let found = all(name);
        assert_eq!(found.ranges, vec![(0..LARGEST)], "{name:?}");
        assert_eq!(found.checked, LARGEST);
        if name.is_none() {
            store.create_snapshot(&["a"], "t").unwrap();
        }
    }
}

/// Sizes may differ; the larger one counts, whichever state has it.
#[test]
fn what_a_vdisk_has_grown_by_is_compared_too() {
    let m = Machine::new(3, 64 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE - 512);
    let mut client = Client::new(&store);
    store.create_snapshot(&["a"], "s").unwrap();
    store.resize_vdisk("a", SIZE + 512).unwrap();
    client.write(&disk, SIZE, &[1; 512]).unwrap();
    let s = state(&store, Some("s"));
    let behind = SIZE..SIZE + 512;
    for (a, b) in [(&s, &disk), (&disk, &s)] {
        let found = store.changed(a, b, 0).unwrap();
        assert_eq!(
            (found.ranges.as_slice(), found.checked),
            ([behind.clone()].as_slice(), SIZE + 512)
        );
    }
    let past = store.changed(&s, &disk, u64::MAX).unwrap();
    assert!(past.ranges.is_empty());
}

#[test]
fn what_can_not_be_compared_is_refused() {
    let m = Machine::new(4, 64 << 20);
    let store = m.open();
    let a = vdisk(&store, "a", SIZE);
    let b = vdisk(&store, "b", SIZE);
    store.create_snapshot(&["a", "b"], "s").unwrap();
    let s = state(&store, Some("s"));
    let refused = |a: &VDisk, b: &VDisk, words: &str| match store.changed(a, b, 0) {
        Err(StoreError::Invalid(text)) => assert!(text.contains(words), "{text}"),
        other => panic!("{other:?}"),
    };
    refused(&s, &s, "a@s can't be compared with itself");
    refused(&s, &state(&store, Some("s")), "with itself");
    refused(&a, &a, "with itself");
    refused(&s, &b, "not of one vDisk");
    refused(&s, &store.open_snapshot("b", "s").unwrap(), "of one vDisk");
    // Somebody who reads outlives the vDisk, and does not get half an answer.
    store.delete_snapshots("a", &["s"], false).unwrap();
    store.delete_vdisk("a").unwrap();
    for _ in 0..40 {
        step(&store, true);
    }
    let gone = store.changed(&s, &a, 0).unwrap_err().to_string();
    assert!(gone.contains("was deleted"), "{gone}");
}
