//! The search for the layers that blocks' data is in: from the live layer down, until each block has an entry.
//!
//! ```text
//! live layer -- has it --> found
//!      |
//! sealed layers: a resolved leaf knows it --> found
//!      |         its presence map says no --> next layer
//!      |         look into its map --> found, or next layer
//! below all of them: absent
//! ```
//!
//! Each layer's map may have to be read, and a search must not begin anew with every node that comes: with many layers, what
//! it has read first would be gone from the cache before it is through. So it goes down once for all blocks of a leaf, and
//! remembers where it has got to. What it has passed stays passed: sealed layers don't change, and a write to the live
//! one is as if it came after this read. Only a merge may move an entry up past it; then it begins anew.

use crate::alloc::Segments;
use crate::format::{Catalogue, Entry, NODE_SLOTS};
use crate::map::{Open, ResolvedLeaf};
use crate::state::{Blocked, State};

/// A search for some blocks of one leaf; reused from one to the next.
#[derive(Debug, Default)]
pub struct Search {
    /// Of each block: the layer (0: none yet) and its packed entry.
    found: Vec<(u32, u64)>,
    /// On its way through the sealed layers.
    descent: Option<Descent>,
}

#[derive(Debug)]
struct Descent {
    /// The highest sealed layer.
    top: u32,
    /// The layer to be looked into next.
    next: u32,
    /// Since when the ones above have been passed.
    since: u64,
    /// What it finds out about the leaf, as seen from the top: kept for the searches to come.
    known: Box<ResolvedLeaf>,
    /// Blocks of the leaf of which no layer so far can have anything.
    open: Open,
}

impl Search {
    /// Forgets what was found.
    pub fn clear(&mut self) {
        self.found.clear();
        self.descent = None;
    }

    /// What `blocks` blocks from `first`, all of one leaf, read as: for each the first layer from `layer` down that has an
    /// entry for it, and that packed entry; 0 where none has. When blocked, the same call goes on from there; clear it before it is
    /// asked for other blocks.
    pub fn run(
        &mut self,
        state: &mut State,
        layer: u32,
        first: u64,
        blocks: u64,
    ) -> Result<&[(u32, u64)], Blocked> {
        debug_assert!(first % NODE_SLOTS as u64 + blocks <= NODE_SLOTS as u64);
        if let Some(descent) = &self.descent
            && (state.map.moved(first, descent.since)
                || !state.catalogue.layers.contains_key(&descent.next))
        {
            self.descent = None;
        }
        let mut descent = match self.descent.take() {
            Some(descent) => descent,
            None => match self.begin(state, layer, first, blocks)? {
                Some(descent) => descent,
                None => return Ok(&self.found),
            },
        };
        if let Err(by) = descend(state, &mut descent, &self.found, first) {
            self.descent = Some(descent);
            return Err(by);
        }
        // Whatever has moved away meanwhile does not verify, and is looked for again.
        let complete = take_over(&mut self.found, &mut descent.known, first, |_| true);
        let number = first / NODE_SLOTS as u64;
        debug_assert!(complete, "a descent ends when all is known");
        state.resolved.add(descent.top, number, descent.known);
        Ok(&self.found)
    }

    /// Looks into the live layer, and at what is known of those below. `None`: that was all.
    fn begin(
        &mut self,
        state: &mut State,
        layer: u32,
        first: u64,
        blocks: u64,
    ) -> Result<Option<Descent>, Blocked> {
        let leaf = state.map.leaf(layer, first).map_err(Blocked::Node)?;
        self.found.clear();
        let found = (first..first + blocks).map(|block| match leaf.entry(block) {
            0 => (0, 0),
            bits => (layer, bits),
        });
        self.found.extend(found);
        if self.found.iter().all(|f| f.0 != 0) {
            return Ok(None);
        }
        let Some(top) = state.catalogue.layers.get(&layer).and_then(|l| l.parent) else {
            for found in self.found.iter_mut().filter(|f| f.0 == 0) {
                *found = (layer, 0);
            }
            return Ok(None);
        };
        let number = first / NODE_SLOTS as u64;
        let mut there = Standing::of(&state.catalogue, &state.segments);
        if let Some(known) = state.resolved.get(top, number)
            && take_over(&mut self.found, known, first, |found| there.holds(found))
        {
            return Ok(None);
        }
        let known = state.resolved.get(top, number);
        Ok(Some(Descent {
            top,
            next: top,
            since: state.map.moment(),
            open: Open::but_for(known.as_deref()),
            known: Box::default(),
        }))
    }
}

/// Goes down through the sealed layers, until every block is known that is not found yet.
fn descend(
    state: &mut State,
    descent: &mut Descent,
    found: &[(u32, u64)],
    first: u64,
) -> Result<(), Blocked> {
    let number = first / NODE_SLOTS as u64;
    let base = number * NODE_SLOTS as u64;
    let blocks = (first..).zip(found).filter(|(_, f)| f.0 == 0);
    let mut wanted: Vec<u64> = blocks.map(|(block, _)| block).collect();
    loop {
        wanted.retain(|block| descent.open.has(*block));
        if wanted.is_empty() {
            return Ok(());
        }
        let layer = descent.next;
        let map = state.presence.of(layer);
        match map.filter(|map| !wanted.iter().any(|block| map.contains(*block))) {
            // Of others it has something, which is not looked at.
            Some(map) => map.of_leaf(number).for_each(|b| descent.open.remove(b)),
            None => {
                let leaf = state.map.leaf(layer, first).map_err(Blocked::Node)?;
                for block in descent.open.blocks() {
                    let bits = leaf.entry(block);
                    if bits != 0 {
                        descent.found(base + block, layer, bits);
                    }
                }
            }
        }
        let Some(parent) = state.catalogue.layers.get(&layer).and_then(|l| l.parent) else {
            for block in descent.open.blocks() {
                descent.found(base + block, layer, 0);
            }
            continue;
        };
        descent.next = parent;
        if let Some(below) = state.resolved.get(parent, number) {
            let mut there = Standing::of(&state.catalogue, &state.segments);
            for block in descent.open.blocks() {
                if let Some((layer, bits)) = below.get(block).filter(|f| there.holds(*f)) {
                    descent.found(base + block, layer, bits);
                }
            }
        }
    }
}

impl Descent {
    fn found(&mut self, block: u64, layer: u32, bits: u64) {
        self.known.set(block, layer, bits);
        self.open.remove(block);
    }
}

/// Takes what is known over to the blocks that are not found yet; whether all are now. What is not there any more is forgotten.
fn take_over(
    found: &mut [(u32, u64)],
    known: &mut ResolvedLeaf,
    first: u64,
    mut is_there: impl FnMut((u32, u64)) -> bool,
) -> bool {
    let mut complete = true;
    for (block, found) in (first..).zip(found).filter(|(_, f)| f.0 == 0) {
        match known.get(block) {
            Some(answer) if is_there(answer) => *found = answer,
            Some(_) => {
                known.forget(block);
                complete = false;
            }
            None => complete = false,
        }
    }
    complete
}

/// Whether answers still stand: their layer has not been merged, their segment not been removed.
struct Standing<'a> {
    catalogue: &'a Catalogue,
    segments: &'a Segments,
    /// The last one that did: neighbours mostly are of one layer and segment.
    last: (u32, Option<u32>),
}

impl<'a> Standing<'a> {
    fn of(catalogue: &'a Catalogue, segments: &'a Segments) -> Self {
        Self {
            catalogue,
            segments,
            last: (0, None),
        }
    }

    fn holds(&mut self, (layer, bits): (u32, u64)) -> bool {
        let segment = Entry::unpack(bits).ok().and_then(Entry::segment);
        if self.last == (layer, segment) {
            return true;
        }
        let holds = self.catalogue.layers.contains_key(&layer)
            && segment.is_none_or(|id| self.segments.get(id).is_some());
        if holds {
            self.last = (layer, segment);
        }
        holds
    }
}
