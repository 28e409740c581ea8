//! A map held against what its records would be on a disk: what a clean node's record says, and what is let go of.

use super::{Freed, Frozen, Map, Missing, NodeKey, Settled, Slots, is_stored};
use crate::format::Entry;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// Blocks whose leaves have two nodes above them in common, or one, or none but the root.
const PLACES: [u64; 6] = [0, 1, 512, 1024, 1 << 18, 1 << 27];
const LAYERS: [u32; 3] = [1, 2, 3];

/// A disk that only counts.
#[derive(Default)]
struct Records {
    nodes: HashMap<u64, Box<Slots>>,
    /// How often what is stored is named: data, and nodes.
    live: HashMap<u64, i64>,
    next: u64,
    dropped: Vec<(NodeKey, u64)>,
}

impl Records {
    fn new_entry(&mut self) -> u64 {
        self.next += 1;
        2 << 62 | self.next
    }

    fn add(&mut self, bits: u64, by: i64) {
        if is_stored(bits) {
            *self.live.entry(bits).or_default() += by;
        }
    }

    fn release(&mut self, freed: Freed) {
        match freed {
            Freed::Entry(bits) => self.add(bits, -1),
            Freed::Subtree { top, at } => self.dropped.push((top, at)),
        }
    }

    /// What is dropped is walked to its end.
    fn walk(&mut self) {
        while let Some((top, at)) = self.dropped.pop() {
            self.add(at, -1);
            let slots = self.nodes[&at].clone();
            Map::freed_by(top, &slots, &mut |f| self.release(f));
        }
    }
}

type Image = BTreeMap<(u8, NodeKey), Frozen>;

#[derive(Default)]
struct Model {
    records: Records,
    /// Of a checkpoint that is being written.
    image: Option<Image>,
}

impl Model {
    /// Tries something until all that it needs is in memory.
    fn with_nodes<T>(
        &mut self,
        map: &mut Map,
        mut act: impl FnMut(&mut Map, &mut Records) -> Result<T, Missing>,
    ) -> T {
        loop {
            match act(map, &mut self.records) {
                Ok(done) => return done,
                Err(missing) => {
                    let slots = self.records.nodes[&missing.at].clone();
                    map.install_anyway(missing, slots);
                }
            }
        }
    }

    fn write(&mut self, map: &mut Map, layer: u32, block: u64) {
        let bits = self.records.new_entry();
        let old = self.with_nodes(map, |map, _| {
            map.make_resident(NodeKey::leaf(layer, block))?;
            Ok(map.set(layer, block, bits))
        });
        self.records.add(bits, 1);
        self.records.add(old, -1);
    }

    fn range(&mut self, map: &mut Map, layer: u32, first: u64, count: u64, bits: u64) {
        self.with_nodes(map, |map, records| {
            map.prepare_range(layer, first, count)?;
            map.set_range(layer, first, count, bits, &mut |f| records.release(f));
            Ok(())
        });
    }

    /// A few steps of a merge; whether that is all of it.
    fn merge(&mut self, map: &mut Map, from: u32, to: u32, end: u64, work: usize) -> bool {
        self.with_nodes(map, |map, records| {
            map.merge_step(from, to, end, work, &mut |f| records.release(f))
        })
    }

    /// The checkpoint that is being written ends.
    fn settle(&mut self, map: &mut Map) {
        let Some(mut image) = self.image.take() else {
            return;
        };
        let mut written = Vec::new();
        let keys: Vec<_> = image.keys().copied().collect();
        for (level, key) in keys {
            let at = self.records.new_entry();
            let slots = Box::new(*image[&(level, key)].slots);
            self.records.nodes.insert(at, slots);
            written.push(((level, key), at));
            if let Some(parent) = key.parent()
                && let Some(above) = image.get_mut(&(parent.level(), parent))
            {
                above.set_child(key.number(), at);
            }
        }
        for (name, at) in written {
            let frozen = &image[&name];
            if map.settle(name.1, frozen, at) == Settled::Adopted {
                self.records.add(at, 1);
                self.records.add(frozen.replaces, -1);
            }
        }
    }

    fn freeze(&mut self, map: &mut Map) {
        self.settle(map);
        self.image = Some(map.freeze());
    }

    fn thaw(&mut self, map: &mut Map) {
        if let Some(image) = self.image.take() {
            map.thaw(&image);
        }
    }

    /// A clean node's record says what memory says, of everything below it.
    fn check(&self, map: &Map) {
        for (key, node) in &map.nodes {
            let clean = !node.dirty && !node.writing;
            if clean && node.at != 0 {
                let same = *self.records.nodes[&node.at] == *node.slots;
                assert!(same, "{key:?} is not what its record says");
            }
            let Some(above) = key.parent().map(|parent| &map.nodes[&parent]) else {
                continue;
            };
            assert!(above.dirty || !node.dirty, "{key:?} alone is dirty");
            assert!(above.writing || !node.writing, "{key:?} is written alone");
        }
        assert!(self.records.live.values().all(|n| (0..2).contains(n)));
    }
}

/// What is dirty has no record that says all of it; of what is clean one names all that is not in memory.
#[test]
fn a_clean_node_that_lacks_its_leaves_is_one_subtree() {
    let mut map = Map::new(0);
    map.add_layer(1, 0);
    let mut model = Model::default();
    for leaf in 0..512 {
        model.write(&mut map, 1, leaf * 512);
    }
    model.freeze(&mut map);
    model.settle(&mut map);
    (0..600).for_each(|_| map.evict());
    assert!(map.resident() < 20);
    // The node above the leaves, and one of them.
    model.with_nodes(&mut map, |map, _| map.lookup(1, 0));
    let before = model.records.live.clone();
    map.drop_layer(1, &mut |f| model.records.release(f));
    assert_eq!(model.records.dropped.len(), 1);
    // The leaf that was in memory is let go of with the others.
    let released = before.iter().filter(|(b, n)| model.records.live[b] != **n);
    assert_eq!(released.count(), 2, "the nodes above that one");
    model.records.walk();
    assert!(model.records.live.values().all(|n| *n == 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn clean_nodes_are_what_their_records_say_and_all_is_let_go_of_once(
        steps in prop::collection::vec((0..12_u8, 0..3_usize, 0..6_usize, 0..6_usize, 0..6_usize), 1..120),
    ) {
        let mut map = Map::new(0);
        for layer in LAYERS {
            map.add_layer(layer, 0);
        }
        let mut model = Model::default();
        for (what, layer, a, b, n) in steps {
            let (layer, place, other) = (LAYERS[layer], PLACES[a], PLACES[b]);
            match what {
                0..=3 => model.write(&mut map, layer, place + n as u64),
                4 => model.range(&mut map, layer, place, other + 1, n as u64 % 2 * Entry::Zero.pack()),
                5 => model.range(&mut map, layer, place / 512 * 512, 512 << (9 * (n % 3)), Entry::Zero.pack()),
                6 => model.freeze(&mut map),
                7 => model.settle(&mut map),
                8 if n == 0 => model.thaw(&mut map),
                9 if layer > 1 => {
                    let end = if n < 3 { u64::MAX } else { other + n as u64 };
                    model.merge(&mut map, layer - 1, layer, end, 1 + b);
                }
                10 if n == 0 => {
                    map.drop_layer(layer, &mut |f| model.records.release(f));
                    map.add_layer(layer, 0);
                }
                _ => (0..64).for_each(|_| map.evict()),
            }
            if n == 5 {
                model.records.walk();
            }
            model.check(&map);
        }
        for layer in LAYERS {
            map.drop_layer(layer, &mut |f| model.records.release(f));
        }
        model.settle(&mut map);
        prop_assert_eq!((map.resident(), map.dirty()), (0, 0));
        model.records.walk();
        let left: Vec<_> = model.records.live.iter().filter(|(_, n)| **n != 0).collect();
        prop_assert!(left.is_empty(), "{left:x?}");
    }
}
