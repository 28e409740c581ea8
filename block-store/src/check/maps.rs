//! Every node of every layer's map.

use super::claims::{Batch, Claim, Owner};
use super::finding::{Finding, Kind, Sink};
use super::names::Names;
use super::roots::Roots;
use super::segments::Segments;
use crate::format::{Entry, Location, NODE_SLOTS};
use crate::map::{Missing, NodeKey, ROOT_LEVEL, Slots};
use crate::read::NodeRead;
use std::collections::BTreeMap;

/// Entries that the maps hold, by segment.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub live: BTreeMap<u32, u32>,
    /// A node could not be read: what is below it is not counted.
    pub incomplete: bool,
}

/// A walk through all maps.
pub(super) struct Walk<'a, 'd, 's> {
    roots: &'a Roots,
    segments: &'a mut Segments<'d>,
    sink: &'a mut Sink<'s>,
    /// What is found is said once, and not in every pass.
    first: bool,
    tally: Tally,
}

impl<'a, 'd, 's> Walk<'a, 'd, 's> {
    pub(super) fn new(
        roots: &'a Roots,
        segments: &'a mut Segments<'d>,
        sink: &'a mut Sink<'s>,
        first: bool,
    ) -> Self {
        Self {
            roots,
            segments,
            sink,
            first,
            tally: Tally::default(),
        }
    }

    pub(super) fn tally(self) -> Tally {
        self.tally
    }

    /// All layers, subtrees whose space is still to be given back, and the pieces of table and catalogue.
    pub(super) fn all(&mut self, batch: &mut Batch) {
        let roots = self.roots;
        let Some(catalogue) = &roots.catalogue else {
            self.tally.incomplete = true;
            return;
        };
        for at in &roots.pieces {
            let claim = Claim {
                owner: Owner::Piece,
                len: at.len,
                blocks: 1,
            };
            self.claim(batch, *at, claim, None);
        }
        for (id, layer) in &catalogue.layers {
            self.subtree(batch, NodeKey::new(*id, ROOT_LEVEL, 0), layer.root);
        }
        for d in &catalogue.dropped {
            self.subtree(batch, NodeKey::new(d.layer, d.level, d.number), d.at);
        }
    }

    /// A node and all below it. The depth is the map's: four levels.
    fn subtree(&mut self, batch: &mut Batch, key: NodeKey, bits: u64) {
        if self.sink.stopped() {
            return;
        }
        let at = match Entry::unpack(bits) {
            Ok(Entry::Stored { at, .. }) => at,
            Ok(_) => return,
            Err(error) => return self.bad_node(key, None, error.to_string()),
        };
        self.count(at);
        let claim = Claim {
            owner: Owner::Node {
                layer: key.layer(),
                identity: key.identity(),
            },
            len: at.len,
            blocks: 1,
        };
        self.claim(batch, at, claim, Some(key));
        match self.read(key, bits, at) {
            Err(why) => self.bad_node(key, Some(at), why),
            Ok(slots) => {
                if self.first {
                    self.sink.report.nodes += 1;
                }
                for (n, bits) in slots.iter().enumerate() {
                    match key.child(n as u64) {
                        Some(child) => self.subtree(batch, child, *bits),
                        None => self.block(batch, key, n as u64, *bits),
                    }
                }
            }
        }
    }

    fn read(&mut self, key: NodeKey, bits: u64, at: Location) -> Result<Box<Slots>, String> {
        let (place, file) = self.segments.get(at.segment)?;
        let missing = Missing { key, at: bits };
        let roots = self.roots;
        NodeRead::of(missing, at, place.generation, file)
            .read_now(&mut |origin, layer| roots.is_heir(origin, layer))
    }

    fn block(&mut self, batch: &mut Batch, leaf: NodeKey, n: u64, bits: u64) {
        // What can't be unpacked has made the whole node unreadable.
        let Ok(Entry::Stored { at, index }) = Entry::unpack(bits) else {
            return;
        };
        self.count(at);
        if self.first {
            self.sink.report.blocks += 1;
        }
        let block = leaf.number() * NODE_SLOTS as u64 + n;
        let Some(first) = block.checked_sub(u64::from(index)) else {
            return self.bad_block(leaf.layer(), block, at, BEFORE_FIRST.into());
        };
        let owner = Owner::Extent {
            layer: leaf.layer(),
            first,
        };
        let claim = Claim {
            owner,
            len: at.len,
            blocks: 1 << index,
        };
        self.claim(batch, at, claim, None);
    }

    fn count(&mut self, at: Location) {
        *self.tally.live.entry(at.segment).or_default() += 1;
    }

    fn claim(&mut self, batch: &mut Batch, at: Location, claim: Claim, node: Option<NodeKey>) {
        let Err(other) = batch.enter(at, claim) else {
            return;
        };
        let what = format!(
            "{} and {} are said to lie here",
            named(claim.owner),
            named(other)
        );
        let way_out = "copy the vDisks to a new store (firn vdisk export): blocks that read without an error are right";
        let finding = Finding::new(Kind::Overlap, what, way_out)
            .in_segment(at.segment)
            .at(at.offset);
        self.sink.add(match (claim.owner, node) {
            (Owner::Extent { layer, first }, _) => {
                let names = &self.roots.names;
                let (skip, blocks) = (claim.blocks.trailing_zeros(), claim.blocks.count_ones());
                finding.of(names, layer, first + u64::from(skip), blocks.into())
            }
            (_, Some(key)) => concerns(finding, &self.roots.names, key),
            _ => finding,
        });
    }

    fn bad_node(&mut self, key: NodeKey, at: Option<Location>, why: String) {
        self.tally.incomplete = true;
        if !self.first {
            return;
        }
        self.sink.add(unreadable(key, at, why, &self.roots.names));
    }

    fn bad_block(&mut self, layer: u32, block: u64, at: Location, what: String) {
        if self.first {
            let names = &self.roots.names;
            self.sink.add(impossible(layer, block, at, what, names));
        }
    }
}

pub(super) const BEFORE_FIRST: &str = "the map names a block before the extent's first";

/// An entry that no extent can be right for.
pub(super) fn impossible(
    layer: u32,
    block: u64,
    at: Location,
    what: String,
    names: &Names,
) -> Finding {
    let way_out =
        "this block reads as an I/O error: write it anew from within the guest, or restore it";
    Finding::new(Kind::Extent, what, way_out)
        .in_segment(at.segment)
        .at(at.offset)
        .of(names, layer, block, 1)
}

/// A node that can't be read, and the blocks that it stands for.
pub(super) fn unreadable(
    key: NodeKey,
    at: Option<Location>,
    why: String,
    names: &Names,
) -> Finding {
    let way_out = "these blocks read as I/O errors: restore them, or copy the rest to a new vDisk";
    let mut finding = Finding::new(Kind::Node, why, way_out);
    if let Some(at) = at {
        finding = finding.in_segment(at.segment).at(at.offset);
    }
    concerns(finding, names, key)
}

/// The blocks that a node stands for.
fn concerns(finding: Finding, names: &Names, key: NodeKey) -> Finding {
    let covers = NodeKey::blocks_per_slot(key.level()) * NODE_SLOTS as u64;
    let first = key.number() * covers;
    let layer = key.layer();
    finding.of(names, layer, first, names.clip(layer, first, covers))
}

fn named(owner: Owner) -> String {
    match owner {
        Owner::Extent { layer, first } => format!("an extent of layer {layer} from block {first}"),
        Owner::Node { layer, identity } => match NodeKey::from_identity(layer, identity) {
            Some(key) => format!("{key:?}"),
            None => format!("a node of layer {layer}"),
        },
        Owner::Piece => "a piece of table or catalogue".into(),
    }
}
