//! Writes, zeroes, discards and flushes.

use super::op::{Edge, Kind, Op};
use super::{Lane, Load};
use crate::compress::{Class, WriteTraits, coalesces};
use crate::defrag::Gather;
use crate::error::RequestError;
use crate::format::{BLOCK, Entry};
use crate::log::Stream;
use crate::payload::{Payload, PayloadError};
use crate::state::{Blocked, State};
use crate::write::{Body, PackJob, Piece, apply, apply_range};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// From this length in bytes on, a write goes to the streaming segment.
const STREAMING: u64 = 64 << 10;
/// From this length in bytes on, packing takes much longer than waking another thread for it.
const PACK_ELSEWHERE: u64 = 128 << 10;

impl<P: Payload> Lane<P> {
    /// Copies the caller's bytes, once and for all, and finds out which blocks are covered only in part.
    pub(super) fn begin_write(&mut self, index: usize) {
        let Some(op) = self.op(index) else { return };
        let edges = partial_blocks(op);
        let copied = match op.kind {
            Kind::Write => copy_payload(op),
            _ => {
                op.parts.data.clear();
                op.parts.data.resize(edges.len() * BLOCK, 0);
                Ok(())
            }
        };
        if let Err(error) = copied {
            return self.finish(index, Err(error));
        }
        let (whole, first) = (op.kind == Kind::Write, op.first);
        op.parts
            .edges
            .extend(edges.iter().enumerate().map(|(n, block)| Edge {
                block: *block,
                data_at: if whole {
                    (block - first) as usize * BLOCK
                } else {
                    n * BLOCK
                },
                seen: None,
            }));
        if edges.is_empty() {
            self.prepare(index)
        } else {
            self.plan_read(index)
        }
    }

    /// All bytes are at hand: groups and compresses them.
    pub(super) fn prepare(&mut self, index: usize) {
        let Some(mut op) = self.ops.get_mut(index).and_then(Option::take) else {
            return;
        };
        let sequential = op.next_piece.is_none() && op.vdisk.note_write(op.offset, op.len);
        let rules = op.vdisk.rules();
        let vdisk = Arc::clone(&op.vdisk);
        let host = self.core.cpu_headroom.load(Relaxed);
        op.parts.placed.clear();
        // Which layer it goes to is seen when its first piece does.
        op.joining = (op.kind == Kind::Write && op.len < STREAMING)
            .then_some(0)
            .filter(|_| rules.join_writes(host));
        let own = self.load.as_mut().map_or(100, Load::headroom);
        let traits = WriteTraits {
            bytes: op.len,
            sequential,
            aligned: op.parts.edges.is_empty(),
            tag: vdisk.tag(),
            age_secs: 0,
            class: Class::Compressible,
            cpu_headroom: host.min(own),
        };
        op.parts.prepared.clear();
        // Alone it would wait for the other thread; with others, these are served meanwhile.
        if op.kind == Kind::Write && op.len >= PACK_ELSEWHERE && self.in_flight() > 1 {
            let job = || PackJob {
                operation: index,
                first: op.first,
                data: std::mem::take(&mut op.parts.data),
                prepared: std::mem::take(&mut op.parts.prepared),
                rules: Arc::clone(&rules),
                traits: WriteTraits {
                    tag: None,
                    ..traits
                },
                tag: vdisk.tag().map(str::to_owned),
                took: Duration::ZERO,
            };
            if self.core.packers.offer(&self.packed, job) {
                if let Some(place) = self.ops.get_mut(index) {
                    *place = Some(op);
                }
                return;
            }
        }
        let (inner, blocks) = op.inner();
        let (data, prepared) = (&op.parts.data, &mut op.parts.prepared);
        if op.kind == Kind::Write {
            self.packer
                .pack(&rules, &traits, op.first, data, 0..data.len(), prepared);
        } else {
            let (head, tail): (Vec<&Edge>, Vec<&Edge>) =
                op.parts.edges.iter().partition(|e| e.block < inner);
            for edge in head {
                self.packer.pack(
                    &rules,
                    &traits,
                    edge.block,
                    data,
                    edge.data_at..edge.data_at + BLOCK,
                    prepared,
                );
            }
            prepared.push_zeroes(inner, blocks);
            for edge in tail {
                self.packer.pack(
                    &rules,
                    &traits,
                    edge.block,
                    data,
                    edge.data_at..edge.data_at + BLOCK,
                    prepared,
                );
            }
        }
        if let Some(place) = self.ops.get_mut(index) {
            *place = Some(op);
        }
        self.prepared(index);
    }

    /// Takes back what other threads have packed.
    pub(super) fn take_packed(&mut self) {
        for job in self.packed.take() {
            if let Some(load) = &mut self.load {
                load.add(job.took);
            }
            let Some(op) = self.op(job.operation) else {
                continue;
            };
            (op.parts.data, op.parts.prepared) = (job.data, job.prepared);
            self.prepared(job.operation);
        }
    }

    /// The pieces are formed.
    fn prepared(&mut self, index: usize) {
        let Some(op) = self.op(index) else { return };
        op.next_piece = Some(0);
        let is_write = op.kind == Kind::Write;
        // Behind writes that wait for space: nobody overtakes them. What gives space back goes ahead.
        if is_write && !self.stalled.is_empty() {
            self.stalled.push_back(index);
        } else {
            self.apply(index);
        }
    }

    /// Applies the pieces that are left, each in a critical section of its own; then completes, or waits until it is durable.
    pub(super) fn apply(&mut self, index: usize) {
        let core = Arc::clone(&self.core);
        let Some(op) = self.op(index) else { return };
        if op.kind == Kind::Discard {
            let (first, blocks) = op.inner();
            let mut state = core.state.lock();
            let gone = state.failed.is_some() || op.vdisk.is_deleted();
            let outcome = match (gone, blocks) {
                (_, 0) => Ok(0),
                (true, _) => {
                    drop(state);
                    return self.finish(index, Err(RequestError::Io));
                }
                (false, _) => apply_range(&mut state, op.vdisk.layer(), first, blocks, true),
            };
            state.wants_room |= matches!(outcome, Err(Blocked::Buffer));
            core.ring_for(&state);
            drop(state);
            return match outcome {
                Ok(lsn) => {
                    op.vdisk.marks.note(Stream::Fresh, lsn);
                    self.applied(index)
                }
                Err(by) => self.blocked(index, by),
            };
        }
        let stream = if op.len >= STREAMING {
            Stream::Streaming
        } else {
            Stream::Fresh
        };
        loop {
            let next = op.next_piece.unwrap_or(0);
            let Some(piece) = op.parts.prepared.pieces.get(next).cloned() else {
                break;
            };
            let payload = op.parts.prepared.payload(&piece, &op.parts.data);
            let stored = payload.len() as u64;
            let mut state = core.state.lock();
            // What waited for space while its vDisk was deleted must not make a layer that nothing names.
            if state.failed.is_some() || op.vdisk.is_deleted() {
                drop(state);
                return self.finish(index, Err(RequestError::Io));
            }
            let layer = op.vdisk.layer();
            let outcome = match edges_unchanged(&mut state, layer, &op.parts.edges, &piece) {
                Ok(true) => apply(&mut state, layer, stream, &piece, payload).map(Some),
                Ok(false) => Ok(None),
                Err(by) => Err(by),
            };
            state.wants_room |= matches!(outcome, Err(Blocked::Buffer));
            core.ring_for(&state);
            drop(state);
            match outcome {
                Ok(Some((lsn, at))) => {
                    op.next_piece = Some(next + 1);
                    op.joining = op
                        .joining
                        .filter(|of| *of == layer || next == 0)
                        .and(Some(layer));
                    op.parts.placed.extend(at.map(|at| (at, piece.blocks)));
                    if piece.body == Body::Zero {
                        op.vdisk.marks.note(Stream::Fresh, lsn);
                    } else {
                        op.vdisk.marks.note(stream, lsn);
                        op.vdisk
                            .stats
                            .stored_bytes
                            .fetch_add(crate::format::units(stored as usize) as u64, Relaxed);
                    }
                }
                // Another write got in between: what was read of the block is out of date.
                Ok(None) => {
                    op.next_piece = None;
                    op.plan_anew();
                    return self.plan_read(index);
                }
                Err(by) => return self.blocked(index, by),
            }
        }
        self.join(index);
        self.applied(index);
    }

    /// A small write that goes on from another one joins it, to be put together where their stream lies scattered.
    fn join(&mut self, index: usize) {
        let Some(op) = self.ops.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(layer) = op.joining.take() else {
            return;
        };
        op.parts.seen.clear();
        for (at, blocks) in op.parts.placed.drain(..) {
            let entry = |n| Entry::Stored { at, index: n }.pack();
            op.parts.seen.extend((0..blocks as u8).map(entry));
        }
        let (data, seen) = (&op.parts.data, &op.parts.seen);
        // Zeroes among it are nowhere.
        if seen.len() * BLOCK != data.len() {
            return;
        }
        let place = (op.vdisk.id(), layer, op.first);
        let Some(stretch) = self.joins.add(place, data, seen) else {
            return;
        };
        let headroom = self.core.cpu_headroom.load(Relaxed);
        let rules = op.vdisk.rules();
        let worth_it = coalesces(&rules.coalesce, &stretch.touch(op.vdisk.tag(), headroom));
        if worth_it && self.core.spot.has_room(stretch.data.len() as u64) {
            let (first, data, seen) = (stretch.first, stretch.data, stretch.seen);
            let gathered = Gather::written(rules, stretch.layer, first, data, seen);
            self.core.spot.offer(gathered);
            self.core.defrag_bell.ring();
        }
    }

    fn applied(&mut self, index: usize) {
        let Some(op) = self.op(index) else { return };
        if op.vdisk.write_cache() {
            self.finish(index, Ok(()));
        } else {
            self.flush(index);
        }
    }

    /// Completes when everything that its vDisk has written up to now is durable: at once, if it is already.
    pub(super) fn flush(&mut self, index: usize) {
        let core = Arc::clone(&self.core);
        let Some(op) = self.op(index) else { return };
        let state = core.state.lock();
        let (failed, lsn) = (state.failed.is_some(), state.log.last_lsn());
        let streams = state.log.unsynced_of(&op.vdisk.marks);
        drop(state);
        match (failed, streams.are_none()) {
            (true, _) => self.finish(index, Err(RequestError::Io)),
            (_, true) => self.finish(index, Ok(())),
            _ => core.when_durable(lsn, streams, &self.bell, index),
        }
    }
}

/// Blocks that the range covers only in part: the first, the last, both or none.
fn partial_blocks<P: Payload>(op: &Op<P>) -> Vec<u64> {
    let block = BLOCK as u64;
    let end = op.offset + op.len;
    let mut out = Vec::new();
    if !op.offset.is_multiple_of(block) {
        out.push(op.offset / block);
    }
    if !end.is_multiple_of(block) && !out.contains(&(end / block)) {
        out.push(end / block);
    }
    out
}

fn copy_payload<P: Payload>(op: &mut Op<P>) -> Result<(), RequestError> {
    let size = op.blocks as usize * BLOCK;
    let data = &mut op.parts.data;
    // The guest chooses the size: that there is no memory for it must be its request's end and not everybody's.
    if let Err(error) = data.try_reserve(size.saturating_sub(data.len())) {
        log::error!("no memory for a write of {} bytes: {error}", op.len);
        return Err(RequestError::Io);
    }
    data.resize(size, 0);
    let from = (op.offset % BLOCK as u64) as usize;
    let to = data
        .get_mut(from..from + op.len as usize)
        .ok_or(RequestError::Payload)?;
    op.payload
        .as_ref()
        .ok_or(RequestError::Payload)?
        .copy_out(0, to)
        .map_err(|PayloadError| RequestError::Payload)
}

/// Whether the edge blocks within a piece still are what was read.
fn edges_unchanged(
    state: &mut State,
    layer: u32,
    edges: &[Edge],
    piece: &Piece,
) -> Result<bool, Blocked> {
    let within = |e: &&Edge| (piece.first..piece.first + piece.blocks).contains(&e.block);
    for edge in edges.iter().filter(within) {
        let holds = edge.seen.map(|s| s.holds(state, layer, edge.block));
        if holds.transpose().map_err(Blocked::Node)? != Some(true) {
            return Ok(false);
        }
    }
    Ok(true)
}
