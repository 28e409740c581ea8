//! Reads, and the reads of blocks that a write covers only in part.

use super::Lane;
use super::op::{Kind, Op, Seen};
use crate::compress::{Touch, Touching, coalesces};
use crate::counters::count;
use crate::defrag::{Gather, Later, Pieces};
use crate::error::RequestError;
use crate::format::BLOCK;
use crate::io::{PAGE, ReadDone};
use crate::payload::{Payload, PayloadError};
use crate::read::{Fault, Run, Source, page_reads, plan};
use crate::state::{Blocked, State};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

impl<P: Payload> Lane<P> {
    /// Plans what has to be read and pushes it; goes on at once when everything is at hand.
    pub(super) fn plan_read(&mut self, index: usize) {
        let core = Arc::clone(&self.core);
        let Some(op) = self.op(index) else { return };
        let planned = {
            let mut state = core.state.lock();
            let layer = op.vdisk.layer();
            let planned = if op.kind == Kind::Read {
                let (runs, progress) = (&mut op.parts.runs, &mut op.parts.progress);
                plan(&mut state, layer, op.first, op.blocks, progress, runs)
            } else {
                plan_edges(&mut state, layer, op)
            };
            if state.presence.is_wanted() {
                core.maps_bell.ring();
            }
            planned
        };
        if let Err(by) = planned {
            return self.blocked(index, by);
        }
        op.parts.reads.clear();
        page_reads(&op.parts.runs, &mut op.parts.reads);
        let reads = std::mem::take(&mut op.parts.reads);
        op.outstanding = reads.len();
        op.parts.buffers.clear();
        op.parts.buffers.resize_with(reads.len(), || None);
        for (n, read) in reads.iter().enumerate() {
            match self.buffers.take(read.len as usize) {
                Ok(buffer) => {
                    let tag = (index as u64) << 20 | n as u64;
                    self.queue
                        .push(&read.file, u64::from(read.offset), buffer, tag);
                }
                Err(error) => {
                    log::error!("no memory for a read of {} bytes: {error}", read.len);
                    if let Some(op) = self.op(index) {
                        op.outstanding -= 1;
                        op.failed = true;
                    }
                }
            }
        }
        if let Some(op) = self.op(index) {
            op.parts.reads = reads;
        }
        if self.op(index).is_some_and(|op| op.outstanding == 0) {
            self.read_complete(index);
        }
    }

    /// One of an operation's page reads is back.
    pub(super) fn pages_read(&mut self, read: ReadDone) {
        let (index, n) = ((read.tag >> 20) as usize, (read.tag & 0xf_ffff) as usize);
        let Some(op) = self.op(index) else { return };
        op.outstanding -= 1;
        if let Err(error) = &read.result {
            op.failed = true;
            let (segment, offset) = op
                .parts
                .reads
                .get(n)
                .map_or((0, 0), |r| (r.segment, r.offset));
            let (name, first) = (op.vdisk.name(), op.first);
            log::error!(
                "vDisk {name}, request at block {first}: reading segment {segment:x} at byte {offset}: {error}"
            );
        }
        if let Some(place) = op.parts.buffers.get_mut(n) {
            *place = Some(read.buf);
        }
        if op.outstanding == 0 {
            self.read_complete(index);
        }
    }

    fn read_complete(&mut self, index: usize) {
        let Some(mut op) = self.ops.get_mut(index).and_then(Option::take) else {
            return;
        };
        let mut again = false;
        let result = match op.failed {
            true => Err(RequestError::Io),
            false => self.deliver(&mut op).or_else(|trouble| match trouble {
                Trouble::Payload => Err(RequestError::Payload),
                // Layers may have been merged and segments removed since it was planned: what is true damage stays.
                Trouble::Fault(_) if !op.looked_again => {
                    again = true;
                    Ok(())
                }
                Trouble::Fault(fault) => Err(report(&op, &fault)),
            }),
        };
        for buffer in op.parts.buffers.drain(..).flatten() {
            self.buffers.keep(buffer);
        }
        // A write that waits for space must not keep the segments in which it found its edges.
        op.parts.runs.clear();
        op.parts.reads.clear();
        let kind = op.kind;
        if again {
            op.looked_again = true;
            op.plan_anew();
        }
        if let Some(place) = self.ops.get_mut(index) {
            *place = Some(op);
        }
        match result {
            Ok(()) if again => self.plan_read(index),
            Ok(()) if kind != Kind::Read => self.prepare(index),
            result => self.finish(index, result),
        }
    }

    /// Verifies and decodes every run and copies it to where it belongs. What it finds scattered is handed over to be put
    /// together.
    fn deliver(&mut self, op: &mut Op<P>) -> Result<(), Trouble> {
        let runs = std::mem::take(&mut op.parts.runs);
        let mut gather = self.gather(op, &runs);
        let mut result = Ok(());
        for run in &runs {
            result = self.deliver_run(op, run, &mut gather);
            if result.is_err() {
                break;
            }
        }
        op.parts.runs = runs;
        if let Some(gathered) = gather.filter(|_| result.is_ok()) {
            self.core.spot.offer(gathered);
            count(&self.core.counters.coalescing.gathered);
            self.core.defrag_bell.ring();
        }
        result
    }

    /// Whether the blocks that were read are to be coalesced, now or later.
    fn gather(&self, op: &Op<P>, runs: &[Run]) -> Option<Gather> {
        if op.kind != Kind::Read || op.parts.reads.is_empty() {
            return None;
        }
        let counters = &self.core.counters.coalescing;
        count(&counters.looked_at);
        // One read is as few as there can be.
        if op.parts.reads.len() < 2 {
            return None;
        }
        let (pieces, rules) = (Pieces::of(runs, &op.parts.reads), op.vdisk.rules());
        let touch = Touch {
            command: Touching::Read,
            bytes: pieces.blocks * BLOCK as u64,
            tag: op.vdisk.tag(),
            reads: pieces.reads,
            together: pieces.side_by_side(),
            cpu_headroom: self.core.cpu_headroom.load(Relaxed),
        };
        if !coalesces(&rules.coalesce, &touch) {
            return None;
        }
        count(&counters.scattered);
        if !self.core.spot.has_room(op.len) {
            // Of a snapshot's ranges nothing is remembered: its number is its vDisk's.
            let range = Later {
                vdisk: op.vdisk.id(),
                offset: op.offset,
                len: op.len,
            };
            match !op.vdisk.read_only() && self.core.spot.note(range) {
                true => count(&counters.put_off),
                false => count(&counters.dropped),
            }
            return None;
        }
        let layers = &self.core.state.lock().catalogue.layers;
        let top = layers.get(&op.vdisk.layer()).and_then(|l| l.parent);
        Some(Gather::new(rules, top))
    }

    fn deliver_run(
        &mut self,
        op: &mut Op<P>,
        run: &Run,
        gather: &mut Option<Gather>,
    ) -> Result<(), Trouble> {
        let stored = match &run.source {
            Source::Zero => return deliver_zeroes(op, run),
            Source::Memory(copy) => copy.as_slice(),
            Source::Damaged => &[],
            Source::File { .. } => stored_in(op, run),
        };
        let core = &self.core;
        let decoded = self.decoder.decode(run, stored, &mut |o, l| {
            o == l || core.state.lock().is_heir(o, l)
        });
        let bytes = decoded.map_err(Trouble::Fault)?;
        if let Some(gather) = gather {
            gather.add(run, bytes);
        }
        put(op, run.first, bytes)?;
        Ok(())
    }
}

/// Why a read can't be delivered.
enum Trouble {
    /// The caller's memory.
    Payload,
    /// What was read is not what the map says.
    Fault(Fault),
}

impl From<PayloadError> for Trouble {
    fn from(PayloadError: PayloadError) -> Self {
        Self::Payload
    }
}

/// Plans what is read of blocks that a write covers only in part, one after the other.
fn plan_edges<P>(state: &mut State, layer: u32, op: &mut Op<P>) -> Result<(), Blocked> {
    while let Some(edge) = op.parts.edges.get_mut(op.edges_planned) {
        // Before the search begins: whatever comes in between is seen to have come.
        if edge.seen.is_none() {
            let seen = Seen::now(state, layer, edge.block);
            edge.seen = Some(seen.map_err(Blocked::Node)?);
        }
        let (runs, progress) = (&mut op.parts.runs, &mut op.parts.progress);
        plan(state, layer, edge.block, 1, progress, runs)?;
        progress.clear();
        op.edges_planned += 1;
    }
    Ok(())
}

/// The run's extent within the pages that were read for it.
fn stored_in<'a, P>(op: &'a Op<P>, run: &Run) -> &'a [u8] {
    let parts = &op.parts;
    parts
        .reads
        .iter()
        .zip(&parts.buffers)
        .find(|(read, _)| read.covers(run.at))
        .and_then(|(read, buffer)| {
            let from = (run.at.offset - read.offset) as usize;
            buffer.as_ref()?.get(from..from + run.at.len as usize)
        })
        .unwrap_or_default()
}

fn deliver_zeroes<P: Payload>(op: &mut Op<P>, run: &Run) -> Result<(), Trouble> {
    let mut left = run.blocks as usize * BLOCK;
    let mut block = run.first;
    while left > 0 {
        let now = left.min(ZEROES.len());
        put(op, block, ZEROES.get(..now).unwrap_or_default())?;
        left -= now;
        block += (now / BLOCK) as u64;
    }
    Ok(())
}

/// Copies blocks to the caller; for a write, to the parts of its edge blocks that it does not cover.
fn put<P: Payload>(op: &mut Op<P>, first: u64, bytes: &[u8]) -> Result<(), PayloadError> {
    let begin = first * BLOCK as u64;
    let (from, to) = (op.offset, op.offset + op.len);
    if op.kind == Kind::Read {
        let end = begin + bytes.len() as u64;
        let (a, b) = (begin.max(from), end.min(to));
        let part = bytes
            .get((a - begin) as usize..(b.max(a) - begin) as usize)
            .ok_or(PayloadError)?;
        return op
            .payload
            .as_mut()
            .ok_or(PayloadError)?
            .copy_in((a - from) as usize, part);
    }
    for edge in op.parts.edges.iter().filter(|e| e.block == first) {
        let block = op
            .parts
            .data
            .get_mut(edge.data_at..edge.data_at + BLOCK)
            .ok_or(PayloadError)?;
        let head = (from.clamp(begin, begin + BLOCK as u64) - begin) as usize;
        let tail = (to.clamp(begin, begin + BLOCK as u64) - begin) as usize;
        for part in [0..head, tail..BLOCK] {
            if let (Some(to), Some(old)) = (block.get_mut(part.clone()), bytes.get(part)) {
                to.copy_from_slice(old);
            }
        }
    }
    Ok(())
}

fn report<P>(op: &Op<P>, fault: &Fault) -> RequestError {
    log::error!(
        "vDisk {}, block {}: the extent at byte {} of segment {:x} is damaged: {}",
        op.vdisk.name(),
        fault.block,
        fault.offset,
        fault.segment,
        fault.why
    );
    RequestError::Io
}

const _: () = assert!(PAGE == BLOCK);
