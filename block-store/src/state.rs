//! What the store's one lock protects: maps, segments, log and catalogue, which must change together.
//!
//! LSN, choice of layer and map entry of a write are one critical section (design invariant); so is what a
//! checkpoint or a snapshot cuts. One short lock gives that without an order of locks to get wrong: see
//! `docs/adr/0001-one-state-lock.md` for what it costs.

use crate::alloc::{Content, Phase, Purpose, Segments, prewriting_pays};
use crate::format::{Catalogue, Dropped, Entry};
use crate::io::DiskFile;
use crate::log::{Log, Stream};
use crate::map::{Freed, Map, Presence, Resolved};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

/// Why a request can't go on right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// A node of the map has to be read first.
    Node(crate::map::Missing),
    /// The write buffer is full; draining will make room.
    Buffer,
    /// No segment can be opened: the store is full, or the next one is still being allocated.
    Space,
    /// Too much of the map waits for a checkpoint.
    Checkpoint,
}

/// The state of an open store.
pub struct State {
    /// Block maps of all layers.
    pub map: Map,
    /// Which blocks sealed layers have entries for.
    pub presence: Presence,
    /// What leaves read as through sealed layers.
    pub resolved: Resolved,
    /// Segments.
    pub segments: Segments,
    /// Open segments and the write buffer.
    pub log: Log,
    /// vDisks, layers, snapshots. Root entries in it are as of the last checkpoint; [`Map::root`] has today's.
    pub catalogue: Catalogue,
    /// Set when durability can't be promised any more: why. Only reopening the store helps.
    pub failed: Option<Arc<str>>,
    /// The last attempt to allocate a segment found no space.
    pub full: bool,
    /// And reclamation has not found any either.
    pub exhausted: bool,
    /// A write of some lane waits for room in the write buffer.
    pub wants_room: bool,
    /// Bytes of a segment.
    pub segment_size: u32,
    /// Sealed layers that somebody reads, for as long as he does.
    pub readers: Vec<(u32, Weak<()>)>,
    /// By vDisk: the layer that it left when it was reverted last, and its size then; for going back to that.
    pub left: HashMap<u32, (u32, u64)>,
    /// Layers that can't be merged because of damage, until the store is opened again.
    pub stuck: HashSet<u32>,
}

impl State {
    /// Opens a spare segment for the stream.
    pub fn open_segment(&mut self, stream: Stream, purpose: Purpose) -> Result<(), Blocked> {
        let fresh = stream == Stream::Fresh;
        if fresh && let Some((bytes, commits)) = self.log.fresh_use() {
            self.segments.prewrite = prewriting_pays(bytes, commits);
        }
        let Some((id, segment)) = self.segments.take_spare(purpose, Content::Data, fresh) else {
            return Err(Blocked::Space);
        };
        let (generation, file) = (segment.generation, Arc::clone(&segment.file));
        if let Some(s) = self.segments.get_mut(id) {
            s.temperature = stream.into();
        }
        if let Some(sealed) = self
            .log
            .open_segment(stream, id, generation, file, self.segment_size)
            && let Some(s) = self.segments.get_mut(sealed)
        {
            s.phase = Phase::Sealed;
        }
        Ok(())
    }

    /// Moves small writes on to a prewritten segment where flushes have become frequent amidst one that is not. Returns
    /// the file of the one left behind, and from where on its space is of no use any more.
    pub fn prefer_prewritten(&mut self) -> Option<(Arc<dyn DiskFile>, u32)> {
        let (bytes, commits) = self.log.fresh_use()?;
        let id = self.log.open_in(Stream::Fresh)?;
        let segment = self.segments.get(id)?;
        if segment.prewritten || !prewriting_pays(bytes, commits) {
            return None;
        }
        let file = Arc::clone(&segment.file);
        self.segments.prewrite = true;
        if !self.segments.has_prewritten() {
            return None;
        }
        self.open_segment(Stream::Fresh, Purpose::Guest).ok()?;
        Some((file, self.log.reach_of(id)?))
    }

    /// Bytes that compaction can move before a checkpoint has given anything back.
    pub fn room_to_compact(&self) -> u64 {
        let spares = self.segments.spares_for(Purpose::Relocation) as u64;
        u64::from(self.log.left_in(Stream::Cold)) + spares * u64::from(self.segment_size)
    }

    /// Accounts for something that the map no longer names.
    pub fn release(&mut self, freed: Freed) {
        release(&mut self.segments, &mut self.catalogue, freed);
    }

    /// Layers that must stay although nothing in the catalogue names them.
    pub fn pinned(&mut self) -> HashSet<u32> {
        self.readers.retain(|(_, reader)| reader.strong_count() > 0);
        let read = self.readers.iter().map(|(layer, _)| *layer);
        read.chain(self.stuck.iter().copied()).collect()
    }

    /// Whether data written for `origin` may be read as `layer`'s: it is, or was merged into it.
    pub fn is_heir(&self, origin: u32, layer: u32) -> bool {
        self.catalogue.is_heir(origin, layer)
    }
}

/// Accounts for something that the map no longer names: an entry at once, a subtree when it has been walked.
pub fn release(segments: &mut Segments, catalogue: &mut Catalogue, freed: Freed) {
    match freed {
        Freed::Entry(bits) => {
            if let Ok(Entry::Stored { at, .. }) = Entry::unpack(bits) {
                segments.release(at.segment);
            }
        }
        Freed::Subtree { top, at } => {
            let (layer, level, number) = (top.layer(), top.level(), top.number());
            catalogue.dropped.push(Dropped {
                layer,
                level,
                number,
                at,
            });
        }
    }
}
