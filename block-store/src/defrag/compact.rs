//! Compaction: what is alive in a few segments moves to another one, in order of layer and block, so that neighbours come to lie
//! side by side. What a crash leaves: see [`super::relocate`].

use super::group::{pays, stretches};
use super::pace::Pace;
use super::policy::Policies;
use super::relocate::{Moved, relocate};
use super::source::{Due, Piece, Source, compacting};
use crate::alloc::Why;
use crate::compress::{Class, Codec, WriteTraits};
use crate::core::Core;
use crate::counters::count;
use crate::error::StoreError;
use crate::format::{Entry, RECORD_HEADER};
use crate::log::Cause;
use crate::read::Decoder;
use crate::write::{Packer, PreparedWrite};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

const COMPACT: Cause = Cause::Compaction;

/// How a compaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that is alive, can be read and gains by it has moved.
    Moved,
    /// There was no room to move it to.
    NoRoom,
}

/// The tools to move what is alive.
pub struct Compaction<'a> {
    core: &'a Core,
    policies: &'a Policies,
    /// Space is needed at once: nothing is packed anew that needn't be.
    urgent: bool,
    decoder: Decoder,
    packer: Packer,
    prepared: PreparedWrite,
    data: Vec<u8>,
}

/// Why a stretch has not moved.
enum Left {
    NoRoom,
    /// Some of it can't be read: it stays where it is, and is named in the log.
    Damaged,
}

impl<'a> Compaction<'a> {
    /// By these rules.
    pub fn new(core: &'a Core, policies: &'a Policies, urgent: bool) -> Result<Self, StoreError> {
        let tool = || StoreError::io("compacting segments");
        Ok(Self {
            core,
            policies,
            urgent,
            decoder: Decoder::new().map_err(tool())?,
            packer: Packer::new().map_err(tool())?,
            prepared: PreparedWrite::default(),
            data: Vec::new(),
        })
    }

    /// Moves what is alive in all of `sources`. These are not looked at again if something of it stays for good.
    pub fn run(
        &mut self,
        mut sources: Vec<Source>,
        pace: &mut Pace,
        due: &mut Due<'_>,
    ) -> Result<Outcome, StoreError> {
        let mut pieces: Vec<Piece> = Vec::new();
        for (n, source) in sources.iter().enumerate() {
            source.alive(self.core, n, due, &mut pieces)?;
        }
        pieces.sort_by_key(|p| (p.shape.layer, p.shape.first));
        for range in in_order(&pieces) {
            due.checkpoint(self.core)?;
            if !self.urgent {
                pace.wait();
            }
            let stretch = pieces.get(range).unwrap_or_default();
            match self.move_stretch(&mut sources, stretch)? {
                Ok(()) | Err(Left::Damaged) => {}
                Err(Left::NoRoom) => return Ok(Outcome::NoRoom),
            }
        }
        let mut state = self.core.state.lock();
        let walked = state.catalogue.dropped.is_empty();
        for source in &sources {
            count(&self.core.counters.segments_compacted);
            if let Some(segment) = state.segments.get_mut(source.id) {
                segment.settled |= source.why == Why::Cold;
                segment.left_alive(source.why == Why::Sparse && walked);
            }
        }
        Ok(Outcome::Moved)
    }

    /// Moves a stretch: each extent as it is, or all blocks in extents of a new form.
    fn move_stretch(
        &mut self,
        sources: &mut [Source],
        stretch: &[Piece],
    ) -> Result<Result<(), Left>, StoreError> {
        let Some(head) = stretch.first() else {
            return Ok(Ok(()));
        };
        let policy = self.policies.of_layer(head.shape.layer);
        let of = |p: &Piece| sources.get(p.source).map(|s| (s.why, s.untouched));
        let known = stretch.iter().filter_map(of);
        let (why, untouched) = known.min_by_key(|k| k.1).unwrap_or((Why::Sparse, 0));
        let headroom = self.core.cpu_headroom.load(Relaxed);
        let traits = WriteTraits {
            bytes: stretch.iter().map(|p| p.bytes() as u64).sum(),
            sequential: true,
            aligned: true,
            tag: policy.tag.as_deref(),
            age_secs: untouched,
            class: Class::Compressible,
            // What little is packed when space is short is to become as short as can be.
            cpu_headroom: if self.urgent { 100 } else { headroom },
        };
        let choice = policy.rules.choose(&traits);
        let shapes: Vec<_> = stretch.iter().map(|p| p.shape).collect();
        let anew = match why {
            Why::Cold => would_change(stretch, choice.codec),
            Why::Sparse => !self.urgent && pays(&shapes, u64::from(choice.extent_blocks)),
        };
        match why {
            Why::Cold if !anew => Ok(Ok(())),
            Why::Cold => self.pack(sources, stretch, &policy.rules, &traits, Cause::Packing),
            Why::Sparse if anew => self.pack(sources, stretch, &policy.rules, &traits, COMPACT),
            Why::Sparse => {
                for piece in stretch {
                    // Perhaps it went together with another part of its extent.
                    if !piece.shape.whole && !self.is_alive(piece) {
                        continue;
                    }
                    let one = std::slice::from_ref(piece);
                    let moved = match piece.shape.whole {
                        true => self.copy(sources, piece),
                        false => self.pack(sources, one, &policy.rules, &traits, COMPACT),
                    };
                    if let Err(Left::NoRoom) = moved? {
                        return Ok(Err(Left::NoRoom));
                    }
                }
                Ok(Ok(()))
            }
        }
    }

    fn is_alive(&self, piece: &Piece) -> bool {
        let mut state = self.core.state.lock();
        let found = state.map.lookup(piece.shape.layer, piece.shape.first);
        found.ok() == piece.entries().next() || found.is_err()
    }

    /// An extent as it is.
    fn copy(
        &mut self,
        sources: &mut [Source],
        piece: &Piece,
    ) -> Result<Result<(), Left>, StoreError> {
        let Some(source) = sources.get_mut(piece.source) else {
            return Ok(Err(Left::Damaged));
        };
        let id = source.id;
        let stored = match source.stored(piece.at) {
            Ok(stored) => stored,
            Err(error) => return Ok(Err(unreadable(&compacting(id)(error), piece))),
        };
        let end = RECORD_HEADER + piece.header.payload_len as usize;
        let payload = stored.get(RECORD_HEADER..end).unwrap_or_default();
        // Its source goes: what is copied must be what was written.
        if !piece.header.payload_is_intact(payload) {
            let why = std::io::Error::other("the payload does not have its checksum");
            return Ok(Err(unreadable(&compacting(id)(why), piece)));
        }
        let at = piece.at;
        // Dead blocks come along, and stay dead: the map does not name them.
        let entry = |n| Entry::Stored { at, index: n }.pack();
        let seen: Vec<u64> = (0..piece.header.count as u8).map(entry).collect();
        let moved = relocate(self.core, COMPACT, &piece.header, payload, &seen);
        outcome(moved, piece)
    }

    /// Blocks of several extents, decoded and packed anew.
    fn pack(
        &mut self,
        sources: &mut [Source],
        stretch: &[Piece],
        rules: &crate::compress::Rules,
        traits: &WriteTraits<'_>,
        cause: Cause,
    ) -> Result<Result<(), Left>, StoreError> {
        let Some(head) = stretch.first() else {
            return Ok(Ok(()));
        };
        self.data.clear();
        for piece in stretch {
            let Some(source) = sources.get_mut(piece.source) else {
                return Ok(Err(Left::Damaged));
            };
            let (id, run) = (source.id, piece.run(source.generation()));
            let stored = match source.stored(piece.at) {
                Ok(stored) => stored,
                Err(error) => return Ok(Err(unreadable(&compacting(id)(error), piece))),
            };
            // Whose it is was found when it was found alive.
            match self.decoder.decode(&run, stored, &mut |_, _| true) {
                Ok(blocks) => self.data.extend_from_slice(blocks),
                Err(fault) => {
                    let why = std::io::Error::other(fault.why);
                    return Ok(Err(unreadable(&compacting(id)(why), piece)));
                }
            }
        }
        let seen: Vec<u64> = stretch.iter().flat_map(Piece::entries).collect();
        self.prepared.clear();
        let (first, data) = (head.shape.first, &self.data);
        self.packer
            .pack_stored(rules, traits, first, data, &mut self.prepared);
        // A part of an extent may take more by itself than with all that is dead beside it.
        if let [piece] = stretch
            && self.prepared.stored_len(data) > piece.at.len as usize
        {
            return self.copy(sources, piece);
        }
        for piece in &self.prepared.pieces {
            let payload = self.prepared.payload(piece, data);
            let Some(header) = piece.header(head.shape.layer, payload) else {
                continue;
            };
            let from = (piece.first - first) as usize;
            let seen = seen.get(from..from + piece.blocks as usize);
            let moved = relocate(self.core, cause, &header, payload, seen.unwrap_or_default());
            if let Err(left) = outcome(moved, head)? {
                return Ok(Err(left));
            }
        }
        Ok(Ok(()))
    }
}

/// Stretches in the order in which they move: neighbours that meet, then all else as it lies, so that it is read in a row.
fn in_order(pieces: &[Piece]) -> Vec<Range<usize>> {
    let mut all = stretches(pieces.iter().map(|p| p.shape));
    let place = |range: &Range<usize>| {
        let alone = pieces.get(range.start).filter(|_| range.len() == 1);
        alone.map(|p| (p.source, p.at.offset))
    };
    // Stable: those of several pieces, which have no place, stay in the order of their blocks.
    all.sort_by_key(place);
    all
}

/// Bytes that compaction has written since the store was opened.
pub fn bytes_moved(core: &Core) -> u64 {
    let written = &core.counters.written;
    written.of(Cause::Compaction) + written.of(Cause::Packing)
}

/// Whether packing by `codec` makes something else of a stretch. What is stored as it is was found incompressible.
fn would_change(stretch: &[Piece], codec: Codec) -> bool {
    let other = |p: &Piece| p.header.codec != 0 && p.header.codec != codec.byte();
    codec != Codec::None && stretch.iter().any(other)
}

/// A damaged map keeps what it names where it is, and nothing else.
fn outcome(
    moved: Result<Option<Moved>, StoreError>,
    piece: &Piece,
) -> Result<Result<(), Left>, StoreError> {
    match moved {
        Err(error @ StoreError::Damaged { .. }) => Ok(Err(unreadable(&error, piece))),
        moved => Ok(moved?.map(drop).ok_or(Left::NoRoom)),
    }
}

fn unreadable(error: &StoreError, piece: &Piece) -> Left {
    log::error!(
        "{error}: byte {}, layer {}, {} blocks from block {}; they stay where they are",
        piece.at.offset,
        piece.shape.layer,
        piece.shape.blocks,
        piece.shape.first
    );
    Left::Damaged
}
