//! Spot defragmentation: what a read finds scattered is put together elsewhere, from the data that it has just read.
//!
//! ```text
//! read:  plan -> pieces, reads, bytes -> worth it? ------------------> deliver -> complete
//!                                          └─> gather what is decoded ──┘ └─> hand over, before it completes
//! firn-defrag:                                                                   └─> pack -> append -> point the map at it
//! ```
//!
//! Which reads are worth it the vDisk's rules say ([`crate::compress::CoalesceRule`]). Its own work is a copy of what it has decoded. All
//! else is done by a thread of its own, at a bounded rate and with a bounded number of bytes waiting. Beyond that only the
//! range is remembered, and read again when nothing else waits. Small writes that go on from one another are gathered, too
//! (`store/lane/joins.rs`).
//!
//! Blocks of one layer become extents of that layer, whether it is live or sealed; so what deleted snapshots have left behind
//! is put together as it is touched, and its segments empty.

use super::relocate::relocate;
use crate::compress::{Class, Rules, WriteTraits};
use crate::core::Core;
use crate::error::StoreError;
use crate::format::{BLOCK, Entry, Location, MAX_EXTENT_BLOCKS, NODE_SLOTS, RecordHeader};
use crate::log::Cause;
use crate::read::{PageRead, Run, Source};
use crate::write::{Packer, PreparedWrite};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Blocks side by side that are worth an extent of their own, at least.
const LEAST: u64 = 8;
/// Bytes that wait to be coalesced, at most.
const WAITING: usize = 8 << 20;

/// Ranges that are remembered, at most: 16 GiB of reads of 1 MiB.
const LATER: usize = 16 << 10;

/// How scattered what a read asks for is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Blocks that have to be read.
    pub blocks: u64,
    /// Bytes that these take in segments, as far as they are asked for.
    pub stored: u64,
    /// Single reads that they need: what lies side by side is one.
    pub reads: u64,
}

impl Pieces {
    /// Of a planned read.
    pub fn of(runs: &[Run], reads: &[PageRead]) -> Self {
        let (mut blocks, mut bytes) = (0, 0);
        for (n, run) in runs.iter().enumerate() {
            if !matches!(run.source, Source::File { .. }) {
                continue;
            }
            blocks += run.blocks;
            // An extent of which several runs come counts once; what has overwritten some of it lies in between.
            let near = |r: &&Run| r.first + MAX_EXTENT_BLOCKS as u64 > run.first;
            let mut before = runs.iter().take(n).rev().take_while(near);
            if run.index == 0 || !before.any(|r| (r.layer, r.at) == (run.layer, run.at)) {
                bytes += u64::from(run.at.len);
            }
        }
        Self {
            blocks,
            stored: bytes,
            reads: reads.len() as u64,
        }
    }

    /// Reads that they would take side by side, with some to spare: extents don't begin and end where reads do.
    pub fn side_by_side(&self) -> u64 {
        self.stored.div_ceil(128 << 10) + 1
    }
}

/// Blocks of one layer that were read just now.
#[derive(Debug)]
pub struct Coalescing {
    /// The layer, whose map has said where they are.
    pub layer: u32,
    /// The layer below the live one from which it was read: what is resolved from there is brought up to date.
    pub top: Option<u32>,
    /// First block.
    pub first: u64,
    /// Whole blocks.
    pub data: Vec<u8>,
    /// Packed entry of each.
    pub seen: Vec<u64>,
    /// The rules of the vDisk.
    pub rules: Arc<Rules>,
}

/// Gathers what a scattered read decodes.
#[derive(Debug)]
pub struct Gather {
    rules: Arc<Rules>,
    top: Option<u32>,
    parts: Vec<Coalescing>,
}

impl Gather {
    /// Nothing yet.
    pub fn new(rules: Arc<Rules>, top: Option<u32>) -> Self {
        Self {
            rules,
            top,
            parts: Vec::new(),
        }
    }

    /// Blocks of a layer that have just been written, and what the map says of them since.
    pub fn written(
        rules: Arc<Rules>,
        layer: u32,
        first: u64,
        data: Vec<u8>,
        seen: Vec<u64>,
    ) -> Self {
        let part = Coalescing {
            layer,
            top: None,
            first,
            data,
            seen,
            rules: Arc::clone(&rules),
        };
        Self {
            rules,
            top: None,
            parts: vec![part],
        }
    }

    /// A run and its blocks.
    pub fn add(&mut self, run: &Run, bytes: &[u8]) {
        let entry = |n: u64| Entry::Stored {
            at: run.at,
            index: run.index + n as u8,
        };
        let seen = (0..run.blocks).map(|n| entry(n).pack());
        match self.parts.last_mut() {
            Some(last)
                if last.layer == run.layer && last.first + last.seen.len() as u64 == run.first =>
            {
                last.data.extend_from_slice(bytes);
                last.seen.extend(seen);
            }
            _ => self.parts.push(Coalescing {
                layer: run.layer,
                top: self.top,
                first: run.first,
                data: bytes.to_vec(),
                seen: seen.collect(),
                rules: Arc::clone(&self.rules),
            }),
        }
    }
}

/// What waits to be coalesced.
#[derive(Debug)]
pub struct Spot {
    waiting: Mutex<(VecDeque<Coalescing>, usize)>,
    later: Mutex<VecDeque<Later>>,
    rate: u64,
}

/// A scattered range for whose data there was no room: to be read again when nothing waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Later {
    /// Number of the vDisk.
    pub vdisk: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Spot {
    /// Nothing yet; `rate` bytes of blocks a second are coalesced at most. 0: none.
    pub fn new(rate: u64) -> Self {
        Self {
            waiting: Mutex::default(),
            later: Mutex::default(),
            rate,
        }
    }

    /// Whether so many bytes more may wait.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.rate > 0 && self.waiting.lock().1 + bytes as usize <= WAITING
    }

    /// Remembers a range for which there is no room now, unless there are too many; whether it did.
    pub fn note(&self, range: Later) -> bool {
        let mut later = self.later.lock();
        let fits = self.rate > 0 && range.len as usize <= WAITING / 2;
        if fits && later.len() < LATER && later.back() != Some(&range) {
            later.push_back(range);
        }
        later.back() == Some(&range)
    }

    /// The range that was remembered first.
    pub fn next_later(&self) -> Option<Later> {
        self.later.lock().pop_front()
    }

    /// Takes over what was gathered; pieces that are too short to gain anything are left out.
    pub fn offer(&self, gathered: Gather) {
        let mut waiting = self.waiting.lock();
        for part in gathered.parts {
            if part.seen.len() as u64 >= LEAST {
                waiting.1 += part.data.len();
                waiting.0.push_back(part);
            }
        }
    }

    fn next(&self) -> Option<Coalescing> {
        let mut waiting = self.waiting.lock();
        let next = waiting.0.pop_front()?;
        waiting.1 -= next.data.len();
        Some(next)
    }

    /// Coalesces what has waited longest; how long it may take at least, by the rate. `None`: nothing waits.
    pub fn step(core: &Core, packer: &mut Packer) -> Result<Option<Duration>, StoreError> {
        let Some(part) = core.spot.next() else {
            return Ok(None);
        };
        let bytes = part.data.len() as u64;
        coalesce(core, packer, part)?;
        let rate = core.spot.rate.max(1);
        Ok(Some(Duration::from_nanos(bytes * 1_000_000_000 / rate)))
    }
}

/// Stores blocks anew, side by side.
fn coalesce(core: &Core, packer: &mut Packer, part: Coalescing) -> Result<(), StoreError> {
    let traits = WriteTraits {
        bytes: part.data.len() as u64,
        sequential: true,
        aligned: true,
        tag: None,
        age_secs: 0,
        class: Class::Compressible,
        // As a stream is stored that comes as fast as it can: quick to read at random as well.
        cpu_headroom: 0,
    };
    let mut prepared = PreparedWrite::default();
    packer.pack_stored(&part.rules, &traits, part.first, &part.data, &mut prepared);
    for piece in &prepared.pieces {
        let from = (piece.first - part.first) as usize;
        let seen = part.seen.get(from..from + piece.blocks as usize);
        let Some(seen) = seen.filter(|seen| several(seen)) else {
            continue;
        };
        let payload = prepared.payload(piece, &part.data);
        let Some(header) = piece.header(part.layer, payload) else {
            continue;
        };
        let Some(moved) = relocate(core, Cause::Coalescing, &header, payload, seen)? else {
            return Ok(());
        };
        let bytes = |blocks: u64| blocks * BLOCK as u64;
        let (switched, skipped) = (moved.switched, piece.blocks - moved.switched);
        let counters = &core.counters;
        counters.coalesced_bytes.fetch_add(bytes(switched), Relaxed);
        let in_vain = &counters.coalescing.skipped_bytes;
        in_vain.fetch_add(bytes(skipped), Relaxed);
        if let Some(top) = part.top {
            follow(core, top, &header, moved.at, seen);
        }
    }
    Ok(())
}

/// Whether entries are of several extents: one alone is together already.
fn several(seen: &[u64]) -> bool {
    let place = |bits: &u64| match Entry::unpack(*bits) {
        Ok(Entry::Stored { at, .. }) => Some(at),
        _ => None,
    };
    let first = seen.first().and_then(place);
    seen.iter().any(|bits| place(bits) != first)
}

/// What was resolved to the old places leads to the new one. It would do so anyway when the old segments are gone.
fn follow(core: &Core, top: u32, header: &RecordHeader, at: Location, seen: &[u64]) {
    let mut state = core.state.lock();
    let number = header.first / NODE_SLOTS as u64;
    let Some(known) = state.resolved.get(top, number) else {
        return;
    };
    for (n, old) in (0..header.count).zip(seen) {
        if known.get(header.first + n) == Some((header.layer, *old)) {
            let new = Entry::Stored { at, index: n as u8 }.pack();
            known.set(header.first + n, header.layer, new);
        }
    }
}
