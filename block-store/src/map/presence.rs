//! Presence maps: for a sealed layer one bit per block, whether the layer has an entry for it.
//!
//! They let a search pass a layer without looking into its map, which may have to be read. A map may say that a block is
//! present although it is not (any more): then the search looks in vain. It never says the opposite.
//!
//! Maps are built when a search has had to pass a layer without one, by a thread of its own, and kept in memory as roaring
//! bitmaps (Lemire et al., "Roaring Bitmaps: Implementation of an Optimized Software Library", 2018). When there is no room,
//! those that nobody has used for a while give way; one that is in use does not, since with more layers than there
//! is room for the maps would only drive each other out.

use crate::format::{MAX_BLOCKS, NODE_SLOTS};
use roaring::RoaringBitmap;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Which blocks a layer has entries for; zeroes and discarded blocks count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Blocks {
    /// By the upper bits of the block's number: 2^34 blocks are four times 2^32.
    parts: [RoaringBitmap; (MAX_BLOCKS >> 32) as usize],
}

fn split(block: u64) -> (usize, u32) {
    ((block >> 32) as usize, block as u32)
}

impl Blocks {
    /// Adds a range.
    pub fn insert(&mut self, blocks: std::ops::Range<u64>) {
        let mut at = blocks.start;
        while at < blocks.end {
            let (part, low) = split(at);
            let end = blocks.end.min((part as u64 + 1) << 32);
            if let Some(part) = self.parts.get_mut(part) {
                part.insert_range(low..=((end - 1) as u32));
            }
            at = end;
        }
    }

    /// Adds all of another layer's.
    pub fn insert_all(&mut self, other: &Self) {
        for (part, other) in self.parts.iter_mut().zip(&other.parts) {
            *part |= other;
        }
    }

    /// Whether a block is there.
    pub fn contains(&self, block: u64) -> bool {
        let (part, low) = split(block);
        self.parts.get(part).is_some_and(|p| p.contains(low))
    }

    /// The blocks of a leaf that are there.
    pub fn of_leaf(&self, leaf: u64) -> impl Iterator<Item = u64> {
        let (part, low) = split(leaf * NODE_SLOTS as u64);
        let base = (part as u64) << 32;
        let within = low..=low | (NODE_SLOTS as u32 - 1);
        self.parts
            .get(part)
            .map(|p| p.range(within))
            .into_iter()
            .flatten()
            .map(move |low| base | u64::from(low))
    }

    /// All runs of blocks, in order.
    pub fn runs(&self) -> impl Iterator<Item = std::ops::Range<u64>> {
        let all = (0..).zip(&self.parts).flat_map(|(part, bitmap)| {
            let base: u64 = part << 32;
            bitmap.iter().map(move |low| base | u64::from(low))
        });
        let mut all = all.peekable();
        std::iter::from_fn(move || {
            let first = all.next()?;
            let mut end = first + 1;
            while all.next_if_eq(&end).is_some() {
                end += 1;
            }
            Some(first..end)
        })
    }

    /// The runs of blocks from `first` on, in order, each at most to the border of a part of 2^32 blocks.
    pub fn runs_from(&self, first: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
        let (part, low) = split(first);
        let later = (0u64..).zip(&self.parts).skip(part);
        later.flat_map(move |(n, bitmap)| {
            let from = if n == part as u64 { low } else { 0 };
            let mut blocks = bitmap.range(from..);
            std::iter::from_fn(move || {
                let run = blocks.next_range()?;
                let base = n << 32;
                Some(base | u64::from(*run.start())..(base | u64::from(*run.end())) + 1)
            })
        })
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.parts.iter().map(RoaringBitmap::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(RoaringBitmap::is_empty)
    }

    /// Bytes of memory, about.
    pub fn memory(&self) -> usize {
        // A container takes some 32 bytes beside what it holds.
        let containers = |p: &RoaringBitmap| p.statistics().n_containers as usize * 32;
        let of = |p: &RoaringBitmap| p.serialized_size() + containers(p);
        self.parts.iter().map(of).sum::<usize>() + 64
    }

    /// Gives it the form that takes least memory.
    pub fn optimize(&mut self) {
        for part in &mut self.parts {
            part.optimize();
        }
    }
}

#[derive(Debug)]
struct Held {
    blocks: Arc<Blocks>,
    bytes: usize,
    /// Age at which it was last used.
    used: u64,
}

/// The presence maps of a store.
#[derive(Debug)]
pub struct Presence {
    maps: HashMap<u32, Held>,
    bytes: usize,
    budget: usize,
    /// Grows now and then: what was not used since is old.
    age: u64,
    wanted: BTreeSet<u32>,
    /// Layers whose own maps can't be read: none is built.
    hopeless: HashSet<u32>,
    /// The layer whose map is being built, unless that has become void.
    building: Option<u32>,
}

/// Ages that a map is kept for although nobody uses it, when others want its room.
const OLD: u64 = 2;

impl Presence {
    /// None yet; at most `budget` bytes of them.
    pub fn new(budget: usize) -> Self {
        Self {
            maps: HashMap::new(),
            bytes: 0,
            budget,
            age: OLD,
            wanted: BTreeSet::new(),
            hopeless: HashSet::new(),
            building: None,
        }
    }

    /// The map of a layer, to be used; without one it is wanted from now on.
    pub fn of(&mut self, layer: u32) -> Option<&Blocks> {
        if !self.maps.contains_key(&layer) && !self.hopeless.contains(&layer) && self.has_room() {
            self.wanted.insert(layer);
        }
        let held = self.maps.get_mut(&layer)?;
        held.used = self.age;
        Some(&held.blocks)
    }

    /// Whether a map could be taken in.
    fn has_room(&self) -> bool {
        let old = |held: &Held| held.used + OLD <= self.age;
        self.bytes < self.budget || self.maps.values().any(old)
    }

    /// The map of a layer as it is now, for who looks at all of it: not under the lock.
    pub fn share(&self, layer: u32) -> Option<Arc<Blocks>> {
        self.maps.get(&layer).map(|held| Arc::clone(&held.blocks))
    }

    /// The map of a layer, to be looked at; blocks and bytes.
    pub fn peek(&self, layer: u32) -> Option<(&Blocks, usize)> {
        self.maps
            .get(&layer)
            .map(|held| (&*held.blocks, held.bytes))
    }

    /// Whether maps are wanted.
    pub fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The youngest layer whose map is wanted: most searches pass it.
    pub fn next(&self) -> Option<u32> {
        self.wanted.last().copied()
    }

    /// Of how many of these layers maps are wanted.
    pub fn wanted_of(&self, layers: &[u32]) -> usize {
        layers.iter().filter(|l| self.wanted.contains(l)).count()
    }

    /// The map of this layer is being built from now on, whether it is wanted or not.
    pub fn begin(&mut self, layer: u32) {
        self.wanted.remove(&layer);
        self.building = Some(layer);
    }

    /// The map that was being built. It is not taken in when it has become void meanwhile, or when there is no room.
    pub fn finish(&mut self, layer: u32, mut blocks: Blocks) {
        if self.building.take() != Some(layer) || self.maps.contains_key(&layer) {
            return;
        }
        blocks.optimize();
        let bytes = blocks.memory();
        if self.bytes + bytes > self.budget {
            let age = self.age;
            self.maps.retain(|_, held| held.used + OLD > age);
            self.bytes = self.maps.values().map(|held| held.bytes).sum();
        }
        if self.bytes + bytes > self.budget {
            return;
        }
        self.bytes += bytes;
        let used = self.age;
        self.maps.insert(
            layer,
            Held {
                blocks: Arc::new(blocks),
                bytes,
                used,
            },
        );
    }

    /// The map of a layer can't be built.
    pub fn give_up(&mut self, layer: u32) {
        self.forget(layer);
        self.hopeless.insert(layer);
    }

    /// Whether that was said of one of these.
    pub fn has_given_up(&self, layers: &[u32]) -> bool {
        layers.iter().any(|l| self.hopeless.contains(l))
    }

    /// Entries of `from` will move to `to`.
    pub fn merge(&mut self, from: u32, to: u32) {
        let theirs = self.share(from);
        match (theirs, self.maps.get_mut(&to)) {
            (Some(theirs), Some(held)) => {
                Arc::make_mut(&mut held.blocks).insert_all(&theirs);
                let bytes = held.blocks.memory();
                self.bytes = self.bytes + bytes - held.bytes;
                held.bytes = bytes;
            }
            _ => self.forget(to),
        }
        if self.building == Some(to) {
            self.building = None;
        }
    }

    /// Forgets the map of a layer.
    pub fn forget(&mut self, layer: u32) {
        if let Some(held) = self.maps.remove(&layer) {
            self.bytes -= held.bytes;
        }
        self.wanted.remove(&layer);
        if self.building == Some(layer) {
            self.building = None;
        }
    }

    /// Time has passed.
    pub fn grow_old(&mut self) {
        self.age += 1;
    }

    /// How many maps there are, and the bytes that they take.
    pub fn size(&self) -> (usize, usize) {
        (self.maps.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks(ranges: impl IntoIterator<Item = std::ops::Range<u64>>) -> Blocks {
        let mut out = Blocks::default();
        for range in ranges {
            out.insert(range);
        }
        out
    }

    proptest! {
        #[test]
        fn holds_what_was_inserted(ranges in proptest::collection::vec((0u64..5, 0u64..2000, 1u64..600), 0..20)) {
            // Around the borders of parts too.
            let ranges = ranges.iter().map(|(part, from, len)| {
                let from = ((part << 32) + from).saturating_sub(1000).min(MAX_BLOCKS - 600);
                from..from + len
            });
            let ranges: Vec<_> = ranges.collect();
            let map = blocks(ranges.iter().cloned());
            let all: BTreeSet<u64> = ranges.iter().cloned().flatten().collect();
            prop_assert_eq!(map.len(), all.len() as u64);
            let runs: BTreeSet<u64> = map.runs().flatten().collect();
            prop_assert_eq!(&runs, &all);
            for block in ranges.iter().flat_map(|r| [r.start.saturating_sub(1), r.start, r.end - 1, r.end]) {
                prop_assert_eq!(map.contains(block), all.contains(&block));
                let later: Vec<u64> = map.runs_from(block).flatten().collect();
                prop_assert!(all.range(block..).eq(&later));
                let leaf = block / 512;
                let there: Vec<u64> = map.of_leaf(leaf).collect();
                let want: Vec<u64> = all.range(leaf * 512..(leaf + 1) * 512).copied().collect();
                prop_assert_eq!(there, want);
            }
        }
    }

    #[test]
    fn what_is_in_use_stays_and_what_is_old_gives_way() {
        let one = blocks(std::iter::once(0..1));
        let mut presence = Presence::new(3 * one.memory());
        for layer in 1..=5 {
            assert_eq!(presence.of(layer), None);
        }
        while let Some(layer) = presence.next() {
            presence.begin(layer);
            presence.finish(layer, one.clone());
        }
        assert_eq!(presence.size().0, 3, "the youngest three");
        assert!(presence.of(5).is_some());
        assert!(presence.of(1).is_none());
        assert_eq!(presence.next(), None, "there is no room");
        presence.grow_old();
        assert!(presence.of(5).is_some());
        presence.grow_old();
        assert!(presence.of(1).is_none());
        let layer = presence.next().unwrap();
        presence.begin(layer);
        presence.finish(layer, one.clone());
        assert!(presence.peek(1).is_some() && presence.peek(5).is_some());
        assert_eq!(presence.size().0, 2);
    }

    #[test]
    fn what_merges_is_never_missed() {
        let mut presence = Presence::new(1 << 20);
        for (layer, range) in [(1, 0..5), (2, 10..12)] {
            assert!(presence.of(layer).is_none());
            presence.begin(layer);
            presence.finish(layer, blocks(std::iter::once(range)));
        }
        presence.merge(1, 2);
        assert_eq!(presence.peek(2).unwrap().0, &blocks([0..5, 10..12]));
        // Nothing is known of what comes from 3.
        presence.merge(3, 2);
        assert!(presence.peek(2).is_none());
        // What was being built before is void.
        assert!(presence.of(2).is_none());
        assert_eq!(
            (presence.next(), presence.wanted_of(&[1, 2, 3])),
            (Some(2), 1)
        );
        presence.begin(2);
        presence.merge(1, 2);
        presence.finish(2, blocks(std::iter::once(10..12)));
        assert!(presence.peek(2).is_none());
        presence.forget(1);
        assert_eq!(presence.size(), (0, 0));
    }
}
