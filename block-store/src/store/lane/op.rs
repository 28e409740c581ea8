//! One request on its way through a lane.

use super::{Command, Done};
use crate::error::RequestError;
use crate::format::{BLOCK, Location};
use crate::io::AlignedBuf;
use crate::map::Missing;
use crate::payload::Payload;
use crate::read::{PageRead, Progress, Run};
use crate::state::State;
use crate::store::vdisk::VDisk;
use crate::write::PreparedWrite;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const SECTOR: u64 = 512;
/// Longest private copy in bytes whose memory is kept for the next operation.
const KEPT_DATA: usize = 1 << 20;

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Zeroes,
    Discard,
    Flush,
}

/// A block of which only a part is written: the rest has to be read first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub block: u64,
    /// Where the block begins in [`Parts::data`].
    pub data_at: usize,
    /// What was said of it before it was read.
    pub seen: Option<Seen>,
}

/// What the map says of a block that is about to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// The live layer.
    layer: u32,
    /// Its packed entry.
    bits: u64,
    /// When that was.
    moment: u64,
}

impl Seen {
    /// What the map says now.
    pub fn now(state: &mut State, layer: u32, block: u64) -> Result<Self, Missing> {
        Ok(Self {
            layer,
            bits: state.map.lookup(layer, block)?,
            moment: state.map.moment(),
        })
    }

    /// Whether what was read since then is still what the block holds.
    ///
    /// That the live layer has no entry, as before, is not enough: what lay below it may have moved to it by a merge, and have been
    /// discarded then.
    pub fn holds(&self, state: &mut State, layer: u32, block: u64) -> Result<bool, Missing> {
        let same = self.layer == layer && self.bits == state.map.lookup(layer, block)?;
        Ok(same && !state.map.moved(block, self.moment))
    }
}

/// The parts of an operation that own memory, reused from one to the next.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub runs: Vec<Run>,
    pub reads: Vec<PageRead>,
    pub buffers: Vec<Option<AlignedBuf>>,
    /// A write's private copy: whole blocks.
    pub data: Vec<u8>,
    pub edges: Vec<Edge>,
    /// How far the planning of the read, or of that of the next edge, has got.
    pub progress: Progress,
    pub prepared: PreparedWrite,
    /// Where the pieces of a write that may be joined with others have been put, and how many blocks each has.
    pub placed: Vec<(Location, u64)>,
    /// The same, as packed entries.
    pub seen: Vec<u64>,
}

/// A request in flight.
pub(super) struct Op<P> {
    pub tag: u64,
    pub vdisk: Arc<VDisk>,
    pub kind: Kind,
    pub payload: Option<P>,
    pub offset: u64,
    pub len: u64,
    /// First block touched, and how many.
    pub first: u64,
    pub blocks: u64,
    pub parts: Parts,
    /// Reads not yet back.
    pub outstanding: usize,
    pub failed: bool,
    /// What was planned did not verify, and was planned anew.
    pub looked_again: bool,
    /// Edges whose reads are planned.
    pub edges_planned: usize,
    /// Next piece to apply; `None` until the write is prepared.
    pub next_piece: Option<usize>,
    /// A write that goes on from another one and may be joined with it: the layer that it has gone to.
    pub joining: Option<u32>,
}

impl<P: Payload> Op<P> {
    /// Checks a request; one that is already over comes back at once.
    pub fn new(
        vdisk: &Arc<VDisk>,
        command: Command<P>,
        tag: u64,
        parts: Parts,
    ) -> Result<Self, Done<P>> {
        let (kind, offset, len, payload) = match command {
            Command::Read { offset, into } => (Kind::Read, offset, into.len() as u64, Some(into)),
            Command::Write { offset, from } => (Kind::Write, offset, from.len() as u64, Some(from)),
            Command::Flush => (Kind::Flush, 0, 0, None),
            Command::Discard { offset, len } => (Kind::Discard, offset, len, None),
            Command::WriteZeroes { offset, len, .. } => (Kind::Zeroes, offset, len, None),
        };
        let result = check(vdisk, kind, offset, len);
        if result.is_err() || len == 0 && kind != Kind::Flush {
            return Err(Done {
                tag,
                payload,
                result,
            });
        }
        let block = BLOCK as u64;
        let first = offset / block;
        let blocks = (offset + len).div_ceil(block) - first;
        let vdisk = Arc::clone(vdisk);
        let op = Self {
            tag,
            vdisk,
            kind,
            payload,
            offset,
            len,
            first,
            blocks,
            parts,
            outstanding: 0,
            failed: false,
            looked_again: false,
            edges_planned: 0,
            next_piece: None,
            joining: None,
        };
        Ok(op)
    }

    /// Whether it is past planning: its pieces are being applied.
    pub fn applying(&self) -> bool {
        self.next_piece.is_some() || self.kind == Kind::Discard
    }

    /// Forgets what was planned to be read.
    pub fn plan_anew(&mut self) {
        self.edges_planned = 0;
        self.parts.runs.clear();
        self.parts.progress.clear();
        for edge in &mut self.parts.edges {
            edge.seen = None;
        }
    }

    /// Bytes of memory that it takes while it is worked on.
    pub fn memory(&self) -> u64 {
        match self.kind {
            Kind::Read | Kind::Write => self.len,
            _ => 0,
        }
    }

    /// Whole blocks within the range: the first, and how many.
    pub fn inner(&self) -> (u64, u64) {
        let block = BLOCK as u64;
        let (from, to) = (
            self.offset.div_ceil(block),
            (self.offset + self.len) / block,
        );
        (from, to.saturating_sub(from))
    }

    /// Adds the finished request to its vDisk's counters.
    pub fn count(&self, result: &Result<(), RequestError>) {
        let stats = &self.vdisk.stats;
        if let Err(error) = result {
            if *error != RequestError::Cancelled {
                stats.errors.fetch_add(1, Relaxed);
            }
            return;
        }
        let (requests, bytes) = match self.kind {
            Kind::Read => (&stats.reads, &stats.read_bytes),
            Kind::Write => (&stats.writes, &stats.written_bytes),
            Kind::Zeroes | Kind::Discard => (&stats.writes, &stats.zero_bytes),
            Kind::Flush => (&stats.flushes, &stats.read_bytes),
        };
        requests.fetch_add(1, Relaxed);
        bytes.fetch_add(self.len, Relaxed);
    }

    /// Takes it apart; the parts are emptied but for buffers, which go back to their pools.
    pub fn into_parts(self) -> (u64, Option<P>, Parts) {
        let mut parts = self.parts;
        parts.runs.clear();
        parts.reads.clear();
        parts.edges.clear();
        parts.progress.clear();
        parts.prepared.clear();
        // What is left of the data is overwritten by the next write. A huge request must not pin its memory for ever.
        if parts.data.len() > KEPT_DATA {
            parts.data = Vec::new();
        }
        (self.tag, self.payload, parts)
    }
}

fn check(vdisk: &VDisk, kind: Kind, offset: u64, len: u64) -> Result<(), RequestError> {
    if vdisk.is_deleted() {
        return Err(RequestError::Io);
    }
    if kind != Kind::Read && kind != Kind::Flush && vdisk.read_only() {
        return Err(RequestError::ReadOnly);
    }
    if !offset.is_multiple_of(SECTOR) || !len.is_multiple_of(SECTOR) {
        return Err(RequestError::Unaligned);
    }
    match offset.checked_add(len) {
        Some(end) if end <= vdisk.size() => Ok(()),
        _ => Err(RequestError::OutOfRange),
    }
}
