//! Maps and what they name: a batch of extents is gathered from the maps, and verified in order of place.

use super::Results;
use super::again::{self, Second};
use super::pass::{Pass, Stage};
use super::stretch::{Stretch, together};
use crate::check::claims::{Claim, Owner};
use crate::check::extents::{concerning, sound, unreadable};
use crate::check::finding::{Finding, Sink};
use crate::check::maps::{self, BEFORE_FIRST};
use crate::check::names::Names;
use crate::core::Core;
use crate::format::{Entry, Location, NODE_SLOTS};
use crate::io::DiskFile;
use crate::map::{Look, Met, Missing, NodeKey, Slots, Trail};
use crate::read::{Decoder, NodeRead};
use std::collections::HashMap;
use std::sync::Arc;

/// Nodes that are met in one look.
const NODES: usize = 32;

/// A batch is no longer than what can be verified in so many seconds: a dead process has done it in vain.
const BATCH_SECONDS: u64 = 30;
/// But as long as this in bytes, however slow the pass is.
const LEAST_BATCH: u64 = 1 << 20;

/// What is wrong, before it has names.
enum Wrong {
    Node(NodeKey, Option<Location>, String),
    Extent(Location, Claim, String),
    /// Without a place: its whole segment is not there.
    Gone(Location, Claim, String),
    Entry(u32, u64, Location),
}

/// What one thread has in hands of a pass; none of it is kept.
pub struct Work {
    /// Which pass it is for.
    pub(super) number: u64,
    /// Extents in a batch at most.
    records: usize,
    /// Where gathering goes on.
    layer: u32,
    block: u64,
    trail: Trail,
    /// A node that could be read neither at once nor by a second look, and is not damaged.
    stuck: Option<(NodeKey, u64)>,
    /// No layer is left.
    ended: bool,
    /// In order of place, once it is being verified.
    batch: Vec<(Location, Claim)>,
    /// Their bytes.
    bytes: u64,
    /// The next one to verify. `None`: it is still being gathered.
    next: Option<usize>,
    decoder: Option<Decoder>,
}

impl Work {
    /// In batches of so many extents.
    pub fn new(records: usize) -> Self {
        Self {
            number: 0,
            records: records.max(1),
            layer: 0,
            block: 0,
            trail: Trail::default(),
            stuck: None,
            ended: false,
            batch: Vec::new(),
            bytes: 0,
            next: None,
            decoder: None,
        }
    }

    /// For another pass, or from another place.
    pub(super) fn anew(&self, number: u64, layer: u32, block: u64) -> Self {
        Self {
            number,
            layer,
            block,
            ..Self::new(self.records)
        }
    }

    /// A few nodes, or a stretch of extents.
    pub(super) fn step(&mut self, core: &Core, pass: &Pass) -> Results {
        let mut results = Results::default();
        let mut wrong = Vec::new();
        match self.next {
            None => {
                if self.batch.capacity() == 0 {
                    let leaves = NODES * NODE_SLOTS;
                    self.batch
                        .reserve_exact(self.records.saturating_add(leaves));
                }
                self.gather(core, pass, &mut results, &mut wrong);
                if self.ended
                    || self.batch.len() >= self.records
                    || self.bytes >= longest(pass.rate)
                {
                    self.batch
                        .sort_unstable_by_key(|(at, claim)| (*at, claim.blocks));
                    self.next = Some(0);
                }
            }
            Some(from) => {
                if pass.decode && self.decoder.is_none() {
                    self.decoder = Decoder::new().ok();
                }
                let count = self.verify(core, from, &mut results, &mut wrong);
                self.next = Some(from + count);
            }
        }
        if self.next.is_some_and(|next| next >= self.batch.len()) {
            match self.ended {
                true => self.batch = Vec::new(),
                false => self.batch.clear(),
            }
            (self.next, self.bytes) = (None, 0);
            results.ended = self.ended;
            let (layer, block) = (self.layer, self.block);
            results.reached = Some(Stage::Data { layer, block });
        }
        results.findings = name(core, wrong);
        results
    }

    fn gather(&mut self, core: &Core, pass: &Pass, results: &mut Results, wrong: &mut Vec<Wrong>) {
        let mut met = Vec::new();
        let look = {
            let state = core.state.lock();
            let layers = &state.catalogue.layers;
            let Some(layer) = layers.range(self.layer..).next().map(|(id, _)| *id) else {
                self.ended = true;
                return;
            };
            if layer != self.layer {
                (self.layer, self.block) = (layer, 0);
            }
            let (block, trail) = (&mut self.block, &mut self.trail);
            state.map.look(layer, block, trail, NODES, &mut met)
        };
        let mut read = read_nodes(core, &met, results);
        for node in met {
            let found = read.remove(&(node.key, node.at));
            let slots = match (found, node.slots.clone()) {
                (Some(Ok(slots)), memory) => Some(memory.unwrap_or(slots)),
                (Some(Err(why)), memory) => match self.look_again(core, &node, why, wrong) {
                    true => memory,
                    // It has moved, or can be read by now: it is met once more.
                    false if memory.is_none() => {
                        self.block = first_of(node.key);
                        return;
                    }
                    false => memory,
                },
                (None, memory) => memory,
            };
            if node.key.level() > 0 {
                if node.slots.is_none() {
                    self.trail.read(node.key, node.at, slots);
                }
            } else if let Some(slots) = slots {
                self.claim(core, pass, node.key, &slots, wrong);
            }
        }
        if look == Look::End {
            (self.layer, self.block) = (self.layer.saturating_add(1), 0);
        }
    }

    /// Whether a node that did not verify is to be passed over: it is damaged, or it has not been possible to tell twice.
    fn look_again(&mut self, core: &Core, node: &Met, why: String, wrong: &mut Vec<Wrong>) -> bool {
        let at = match Entry::unpack(node.at) {
            Ok(Entry::Stored { at, .. }) => at,
            _ => {
                wrong.push(Wrong::Node(node.key, None, why));
                return true;
            }
        };
        match again::node(core, node.key, node.at, at) {
            Second::Damaged(why, _) | Second::Gone(why, _) => {
                wrong.push(Wrong::Node(node.key, Some(at), why));
                true
            }
            Second::Fine => {
                let this = Some((node.key, node.at));
                std::mem::replace(&mut self.stuck, this) == this
            }
        }
    }

    /// Takes the extents that a leaf names into the batch.
    fn claim(
        &mut self,
        core: &Core,
        pass: &Pass,
        leaf: NodeKey,
        slots: &Slots,
        wrong: &mut Vec<Wrong>,
    ) {
        let from = self.batch.len();
        claims_of(leaf, slots, &mut self.batch, wrong);
        let state = core.state.lock();
        let mut last = None;
        let mut counts = |at: Location| {
            let old = match last {
                Some((segment, old)) if segment == at.segment => old,
                // One that is not there is looked up again.
                _ => {
                    let segment = state.segments.get(at.segment);
                    segment.is_none_or(|s| s.generation < pass.generation)
                }
            };
            last = Some((at.segment, old));
            old && !state.log.is_buffered(at)
        };
        let mut kept = from;
        for n in from..self.batch.len() {
            if let Some((at, claim)) = self.batch.get(n).copied()
                && counts(at)
            {
                if let Some(place) = self.batch.get_mut(kept) {
                    *place = (at, claim);
                }
                kept += 1;
            }
        }
        self.batch.truncate(kept);
        let new = self.batch.get(from..).unwrap_or_default();
        self.bytes += new.iter().map(|(at, _)| u64::from(at.len)).sum::<u64>();
    }

    /// Verifies extents that lie together; how many these were.
    fn verify(
        &mut self,
        core: &Core,
        from: usize,
        results: &mut Results,
        wrong: &mut Vec<Wrong>,
    ) -> usize {
        let rest = self.batch.get(from..).unwrap_or_default();
        let count = together(rest.iter().map(|(at, _)| *at));
        let now = rest.get(..count).unwrap_or_default();
        let file = now.first().and_then(|(at, _)| file_of(core, at.segment));
        let mut stretch = file.as_ref().and_then(|(file, generation)| {
            let read = Stretch::read(&**file, now.iter().map(|(at, _)| *at));
            read.ok().map(|stretch| (stretch, *generation))
        });
        results.bytes += stretch.as_ref().map_or(0, |(stretch, _)| stretch.bytes);
        let mut is_heir = |o, l| o == l || core.state.lock().is_heir(o, l);
        for (at, claim) in now {
            let Owner::Extent { layer, first } = claim.owner else {
                continue;
            };
            results.tally.verified_bytes += u64::from(at.len);
            results.tally.blocks += u64::from(claim.blocks.count_ones());
            let decoder = self.decoder.as_mut();
            let checked = match &mut stretch {
                Some((stretch, generation)) => stretch.get(*at).and_then(|stored| {
                    sound(stored, *generation, *at, claim, &mut is_heir, decoder)
                }),
                None => Err(String::new()),
            };
            if checked.is_ok() {
                results.tally.extents += 1;
                continue;
            }
            let named = |blocks| Claim { blocks, ..*claim };
            match again::extent(core, layer, first, *at, claim, self.decoder.as_mut()) {
                Second::Fine => {}
                Second::Damaged(why, blocks) => {
                    wrong.push(Wrong::Extent(*at, named(blocks), why));
                }
                Second::Gone(why, blocks) => wrong.push(Wrong::Gone(*at, named(blocks), why)),
            }
        }
        count
    }
}

/// Bytes of a batch at most.
fn longest(rate: u64) -> u64 {
    match rate {
        0 => u64::MAX,
        rate => rate.saturating_mul(BATCH_SECONDS).max(LEAST_BATCH),
    }
}

fn first_of(key: NodeKey) -> u64 {
    key.number() * NODE_SLOTS as u64 * NodeKey::blocks_per_slot(key.level())
}

fn file_of(core: &Core, segment: u32) -> Option<(Arc<dyn DiskFile>, u64)> {
    let state = core.state.lock();
    let segment = state.segments.get(segment)?;
    Some((Arc::clone(&segment.file), segment.generation))
}

/// Reads the records of nodes and verifies them, also of those whose entries are in memory.
fn read_nodes(
    core: &Core,
    met: &[Met],
    results: &mut Results,
) -> HashMap<(NodeKey, u64), Result<Arc<Slots>, String>> {
    let mut found = HashMap::new();
    let mut places = Vec::new();
    for node in met.iter().filter(|node| node.at != 0) {
        match Entry::unpack(node.at) {
            Ok(Entry::Stored { at, .. }) => places.push((at, node)),
            Ok(_) => {}
            Err(error) => drop(found.insert((node.key, node.at), Err(error.to_string()))),
        }
    }
    places.sort_unstable_by_key(|(at, _)| *at);
    let mut is_heir = |o, l| o == l || core.state.lock().is_heir(o, l);
    let mut rest = places.as_slice();
    while let Some((first, _)) = rest.first() {
        let count = together(rest.iter().map(|(at, _)| *at));
        let (now, later) = rest.split_at(count);
        let file = file_of(core, first.segment);
        let mut stretch = file
            .as_ref()
            .and_then(|(file, _)| Stretch::read(&**file, now.iter().map(|(at, _)| *at)).ok());
        results.bytes += stretch.as_ref().map_or(0, |stretch| stretch.bytes);
        for (at, node) in now {
            let slots = match (&mut stretch, &file) {
                (Some(stretch), Some((file, generation))) => stretch.get(*at).and_then(|stored| {
                    let (key, file) = (node.key, Arc::clone(file));
                    let missing = Missing { key, at: node.at };
                    NodeRead::of(missing, *at, *generation, file).finish_at(stored, 0, &mut is_heir)
                }),
                _ => Err(String::new()),
            };
            results.tally.verified_bytes += u64::from(at.len);
            results.tally.nodes += u64::from(slots.is_ok());
            found.insert((node.key, node.at), slots.map(Arc::from));
        }
        rest = later;
    }
    found
}

/// The extents that a leaf names.
fn claims_of(
    leaf: NodeKey,
    slots: &Slots,
    out: &mut Vec<(Location, Claim)>,
    wrong: &mut Vec<Wrong>,
) {
    let layer = leaf.layer();
    let mut named = Vec::new();
    for (block, bits) in (first_of(leaf)..).zip(slots) {
        let Ok(Entry::Stored { at, index }) = Entry::unpack(*bits) else {
            continue;
        };
        match block.checked_sub(u64::from(index)) {
            Some(first) => named.push((at, first, index)),
            None => wrong.push(Wrong::Entry(layer, block, at)),
        }
    }
    named.sort_unstable();
    for extent in named.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let Some((at, first, _)) = extent.first().copied() else {
            continue;
        };
        let blocks = extent
            .iter()
            .fold(0, |all, (.., index)| all | 1u32 << index);
        let claim = Claim {
            owner: Owner::Extent { layer, first },
            len: at.len,
            blocks,
        };
        out.push((at, claim));
    }
}

/// Findings of what is wrong.
fn name(core: &Core, wrong: Vec<Wrong>) -> Vec<Finding> {
    if wrong.is_empty() {
        return Vec::new();
    }
    let names = Names::of(&core.state.lock().catalogue);
    let mut sink = Sink::quiet();
    for wrong in wrong {
        sink.add(match wrong {
            Wrong::Node(key, at, why) => maps::unreadable(key, at, why, &names),
            Wrong::Extent(at, claim, why) => concerning(unreadable(why), at, &claim, &names),
            Wrong::Gone(at, claim, why) => Finding {
                offset: None,
                ..concerning(unreadable(why), at, &claim, &names)
            },
            Wrong::Entry(layer, block, at) => {
                maps::impossible(layer, block, at, BEFORE_FIRST.into(), &names)
            }
        });
    }
    sink.finish().findings
}
