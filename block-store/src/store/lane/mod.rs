//! A lane: one thread's way into the store, asynchronous, never blocking.
//!
//! ```text
//!            +-- node of the map missing -> read it --+
//!            v                                        |
//! read:   plan -> read pages -> verify, decode -> copy to the caller -> done
//! write:  copy -> [read edge blocks] -> group, compress -> apply (critical section per piece) -> [durable] -> done
//!                        ^                                   |        |
//!                        +---- an edge block has changed ----+        +-- no room: stalled, tried again when rung
//! ```

mod buffers;
mod joins;
mod load;
mod op;
mod read;
mod turns;
mod write;

use crate::bell::LaneBell;
use crate::core::Core;
use crate::error::RequestError;
use crate::io::{ReadDone, ReadQueue};
use crate::payload::Payload;
use crate::read::{Decoder, NodeRead};
use crate::state::Blocked;
use crate::store::config::OnFull;
use crate::store::vdisk::VDisk;
use crate::write::{Packed, Packer};
use buffers::Buffers;
pub(crate) use load::Load;
use op::{Kind, Op};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use turns::Turns;

/// What a lane is asked to do. Offsets and lengths are in bytes, multiples of 512.
#[derive(Debug)]
pub enum Command<P> {
    /// Reads as many bytes as the payload has.
    Read {
        /// First byte.
        offset: u64,
        /// Where they go.
        into: P,
    },
    /// Writes as many bytes as the payload has.
    Write {
        /// First byte.
        offset: u64,
        /// Where they come from.
        from: P,
    },
    /// Everything completed before becomes durable.
    Flush,
    /// The range need not be kept; whole blocks of it read as zeroes afterwards.
    Discard {
        /// First byte.
        offset: u64,
        /// Length.
        len: u64,
    },
    /// The range reads as zeroes.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Length.
        len: u64,
        /// Zeroes never take space here, with or without.
        unmap: bool,
    },
}

/// A finished request.
#[derive(Debug)]
pub struct Done<P> {
    /// What the caller named it.
    pub tag: u64,
    /// The caller's memory.
    pub payload: Option<P>,
    /// How it went.
    pub result: Result<(), RequestError>,
}

/// Marks the tags of reads of map nodes.
const NODE_TAG: u64 = 1 << 63;
/// Bytes of requests that are worked on at a time, at most: what hostile guests can make a lane allocate.
const MAX_BYTES_IN_FLIGHT: u64 = 64 << 20;
/// Finished reads that are decoded before what has come of them is handed out.
const READS_AT_A_TIME: usize = 8;
/// Finished operations whose parts are kept for their memory.
const KEPT_PARTS: usize = 64;

struct NodeLoad {
    read: NodeRead,
    waiting: Vec<usize>,
}

/// One thread's way into the store.
pub struct Lane<P: Payload> {
    core: Arc<Core>,
    bell: Arc<LaneBell>,
    on_full: OnFull,
    queue: Box<dyn ReadQueue>,
    ops: Vec<Option<Op<P>>>,
    free: Vec<usize>,
    /// Parts of finished operations, kept for their memory.
    spare_ops: Vec<op::Parts>,
    loads: Vec<Option<NodeLoad>>,
    stalled: VecDeque<usize>,
    /// How often an operation was held up by something that rings when it is over.
    blocked: u64,
    /// Not begun yet: too many bytes are in flight.
    waiting: Turns,
    bytes_in_flight: u64,
    /// Bytes begun since the last poll: what needs no I/O ends at once and would otherwise go on for ever.
    begun: u64,
    done: Vec<Done<P>>,
    /// Finished reads that wait to be decoded, in the order in which they came.
    reads: VecDeque<ReadDone>,
    /// Scratch.
    came: Vec<ReadDone>,
    flushed: Vec<(usize, bool)>,
    packer: Packer,
    /// What other threads have packed for it.
    packed: Arc<Packed>,
    /// The calling thread's; `None` where how busy that is says nothing of how long guests wait.
    load: Option<Load>,
    /// Whether its requests are a guest's (or an import's), and so count in their vDisk's statistics.
    counted: bool,
    decoder: Decoder,
    buffers: Buffers,
    joins: joins::Joins,
}

impl<P: Payload> Lane<P> {
    pub(crate) fn new(
        core: Arc<Core>,
        on_full: OnFull,
        depth: u32,
        load: Option<Load>,
    ) -> io::Result<Self> {
        let bell = Arc::new(LaneBell::new()?);
        core.add_lane(&bell);
        let queue = core.disk.read_queue(depth)?;
        let packed = Arc::new(Packed::new(Arc::clone(&bell)));
        Ok(Self {
            core,
            bell,
            on_full,
            queue,
            ops: Vec::new(),
            free: Vec::new(),
            spare_ops: Vec::new(),
            loads: Vec::new(),
            stalled: VecDeque::new(),
            blocked: 0,
            waiting: Turns::default(),
            bytes_in_flight: 0,
            begun: 0,
            done: Vec::new(),
            reads: VecDeque::new(),
            came: Vec::new(),
            flushed: Vec::new(),
            packer: Packer::new()?,
            packed,
            load,
            counted: true,
            decoder: Decoder::new()?,
            joins: joins::Joins::default(),
            buffers: Buffers::default(),
        })
    }

    /// The same for the store's own requests: nobody's statistics tell of them.
    pub(crate) fn uncounted(mut self) -> Self {
        self.counted = false;
        self
    }

    /// Descriptors to poll for reading (level-triggered): when one is readable, [`Lane::poll`] has work.
    pub fn pollable(&self) -> Vec<RawFd> {
        self.queue
            .fd()
            .into_iter()
            .chain([self.bell.fd()])
            .collect()
    }

    /// Whether reads are under way of which no descriptor tells that they have finished.
    pub(crate) fn must_be_asked(&self) -> bool {
        self.queue.fd().is_none() && self.queue.in_flight() > 0
    }

    /// Requests taken in and not returned yet.
    pub fn in_flight(&self) -> usize {
        self.ops.len() - self.free.len() + self.done.len()
    }

    /// Takes a request in; it comes back from [`Lane::poll`] under its tag.
    pub fn submit(&mut self, vdisk: &Arc<VDisk>, command: Command<P>, tag: u64) {
        let parts = self.spare_ops.pop().unwrap_or_default();
        match Op::new(vdisk, command, tag, parts) {
            Ok(op) => {
                let index = self.place(op);
                if self.waiting.is_empty() && self.has_room_for(index) {
                    self.begin(index);
                } else {
                    self.waiting.push(vdisk, index);
                }
            }
            Err(done) => {
                if done.result.is_err() && self.counted {
                    vdisk.stats.errors.fetch_add(1, Relaxed);
                }
                self.done.push(done);
            }
        }
    }

    /// Pushes I/O to the kernel, takes in what has finished, tries again what was stalled; appends finished requests.
    ///
    /// Not all of what has finished, if some requests have: while the first of many are on their way back to their guest,
    /// and its next ones to the disk, the others are decoded. Call again until nothing comes.
    pub fn poll(&mut self, done: &mut Vec<Done<P>>) {
        self.begun = 0;
        self.answer_bell();
        self.start_waiting();
        loop {
            self.queue.poll(&mut self.came);
            self.reads.extend(self.came.drain(..));
            if self.reads.is_empty() {
                break;
            }
            for _ in 0..READS_AT_A_TIME {
                let Some(read) = self.reads.pop_front() else {
                    break;
                };
                self.read_done(read);
            }
            self.start_waiting();
            if !self.done.is_empty() {
                self.queue.poll(&mut self.came);
                break;
            }
        }
        done.append(&mut self.done);
    }

    /// Takes back requests that are not begun or wait for space; they have had no effect that the caller was told of.
    pub fn cancel_stalled(&mut self, done: &mut Vec<Done<P>>, which: impl Fn(u64) -> bool) {
        let ops = &self.ops;
        let mut waiting = self
            .waiting
            .take(|index| matches!(ops.get(index), Some(Some(op)) if which(op.tag)));
        for index in waiting.drain(..) {
            // It has not been granted any memory yet, which the end of a request gives back.
            self.bytes_in_flight += self.op(index).map_or(0, |op| op.memory());
            self.finish(index, Err(RequestError::Cancelled));
        }
        for _ in 0..self.stalled.len() {
            let Some(index) = self.stalled.pop_front() else {
                break;
            };
            match self.ops.get(index) {
                Some(Some(op)) if which(op.tag) => self.finish(index, Err(RequestError::Cancelled)),
                Some(Some(_)) => self.stalled.push_back(index),
                _ => {}
            }
        }
        done.append(&mut self.done);
    }

    fn answer_bell(&mut self) {
        let mut flushed = std::mem::take(&mut self.flushed);
        let resume = self.bell.answer(&mut flushed);
        for (index, ok) in flushed.drain(..) {
            self.finish(index, if ok { Ok(()) } else { Err(RequestError::Io) });
        }
        self.flushed = flushed;
        if resume {
            self.take_packed();
            self.resume_stalled();
        }
    }

    /// Tries again what is stalled. Writes keep their order: once one has stalled again, those behind it wait.
    fn resume_stalled(&mut self) {
        let mut writes_wait = false;
        // One that has to read its edges anew queues up behind the others, though nothing holds it up: nobody would wake
        // it. So until all is done, or something is held up that will be woken.
        while !writes_wait && !self.stalled.is_empty() {
            let blocked = self.blocked;
            for _ in 0..self.stalled.len() {
                let Some(index) = self.stalled.pop_front() else {
                    return;
                };
                let is_write = self.op(index).is_some_and(|op| op.kind == Kind::Write);
                if is_write && writes_wait {
                    self.stalled.push_back(index);
                    continue;
                }
                let before = self.blocked;
                self.apply(index);
                writes_wait |= is_write && self.blocked != before;
            }
            if self.blocked != blocked {
                return;
            }
        }
    }

    fn place(&mut self, op: Op<P>) -> usize {
        match self.free.pop() {
            Some(index) => {
                if let Some(place) = self.ops.get_mut(index) {
                    *place = Some(op);
                }
                index
            }
            None => {
                self.ops.push(Some(op));
                self.ops.len() - 1
            }
        }
    }

    fn op(&mut self, index: usize) -> Option<&mut Op<P>> {
        self.ops.get_mut(index)?.as_mut()
    }

    /// Begins what waits, as far as memory is granted; a single request of any size is.
    fn start_waiting(&mut self) {
        while let Some(index) = self.waiting.next() {
            if !self.has_room_for(index) {
                return;
            }
            self.waiting.pop();
            self.begin(index);
        }
    }

    fn has_room_for(&mut self, index: usize) -> bool {
        let bytes = self.op(index).map_or(0, |op| op.memory());
        let grants = |used: u64| used == 0 || used + bytes <= MAX_BYTES_IN_FLIGHT;
        grants(self.bytes_in_flight) && grants(self.begun)
    }

    fn begin(&mut self, index: usize) {
        let bytes = self.op(index).map_or(0, |op| op.memory());
        self.bytes_in_flight += bytes;
        self.begun += bytes;
        match self.op(index).map(|op| op.kind) {
            Some(Kind::Read) => self.plan_read(index),
            Some(Kind::Write | Kind::Zeroes) => self.begin_write(index),
            Some(Kind::Discard) => self.apply(index),
            Some(Kind::Flush) => self.flush(index),
            None => {}
        }
    }

    fn finish(&mut self, index: usize, result: Result<(), RequestError>) {
        let Some(op) = self.ops.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.free.push(index);
        self.bytes_in_flight = self.bytes_in_flight.saturating_sub(op.memory());
        if self.counted {
            op.count(&result);
            if op.kind == Kind::Write && result.is_ok() {
                let requested = &self.core.counters.requested_bytes;
                requested.fetch_add(op.len, Relaxed);
            }
        }
        let (tag, payload, mut parts) = op.into_parts();
        for buffer in parts.buffers.drain(..).flatten() {
            self.buffers.keep(buffer);
        }
        if self.spare_ops.len() < KEPT_PARTS {
            self.spare_ops.push(parts);
        }
        self.done.push(Done {
            tag,
            payload,
            result,
        });
    }

    /// Waits for what an operation is blocked by.
    fn blocked(&mut self, index: usize, by: Blocked) {
        let core = Arc::clone(&self.core);
        match by {
            Blocked::Node(missing) => return self.load_node(index, missing),
            Blocked::Buffer => core.log_bell.ring(),
            Blocked::Checkpoint => core.upkeep_bell.ring(),
            Blocked::Space => {
                if self.on_full == OnFull::Error && core.state.lock().exhausted {
                    return self.finish(index, Err(RequestError::NoSpace));
                }
                core.alloc_bell.ring();
            }
        }
        self.blocked += 1;
        self.stalled.push_back(index);
    }

    fn load_node(&mut self, index: usize, missing: crate::map::Missing) {
        if let Some(load) = self
            .loads
            .iter_mut()
            .flatten()
            .find(|l| l.read.missing == missing)
        {
            load.waiting.push(index);
            return;
        }
        let core = Arc::clone(&self.core);
        let plan = {
            let state = core.state.lock();
            match NodeRead::plan(&state, missing) {
                // Loaded, rewritten and moved by others since it was found missing: look again.
                Err(_) if !state.map.still_misses(missing) => {
                    drop(state);
                    return self.again(index);
                }
                plan => plan,
            }
        };
        let buffer = plan.and_then(|read| {
            let (offset, len) = read.pages();
            Ok((
                offset,
                self.buffers.take(len).map_err(|e| e.to_string())?,
                read,
            ))
        });
        match buffer {
            Ok((offset, buffer, read)) => {
                let file = Arc::clone(&read.file);
                let load = NodeLoad {
                    read,
                    waiting: vec![index],
                };
                let place = self
                    .loads
                    .iter()
                    .position(Option::is_none)
                    .unwrap_or(self.loads.len());
                if place == self.loads.len() {
                    self.loads.push(None);
                }
                if let Some(slot) = self.loads.get_mut(place) {
                    *slot = Some(load);
                }
                self.queue
                    .push(&file, offset, buffer, NODE_TAG | place as u64);
            }
            Err(why) => self.node_failed(vec![index], &why),
        }
    }

    /// Goes on with an operation where a missing node has stopped it.
    fn again(&mut self, index: usize) {
        match self.op(index).map(|op| op.applying()) {
            Some(true) => self.apply(index),
            Some(false) => self.plan_read(index),
            None => {}
        }
    }

    fn node_failed(&mut self, waiting: Vec<usize>, why: &str) {
        for index in waiting {
            if let Some(op) = self.op(index) {
                log::error!("vDisk {}, block {}: {why}", op.vdisk.name(), op.first);
            }
            self.finish(index, Err(RequestError::Io));
        }
    }

    fn read_done(&mut self, read: ReadDone) {
        if read.tag & NODE_TAG == 0 {
            return self.pages_read(read);
        }
        let place = (read.tag & !NODE_TAG) as usize;
        let Some(load) = self.loads.get_mut(place).and_then(Option::take) else {
            return;
        };
        let core = Arc::clone(&self.core);
        let slots = match &read.result {
            Err(e) => Err(format!("reading {:?}: {e}", load.read.missing.key)),
            Ok(()) => load.read.finish(&read.buf, &mut |o, l| {
                o == l || core.state.lock().is_heir(o, l)
            }),
        };
        self.buffers.keep(read.buf);
        match slots {
            Err(why) => self.node_failed(load.waiting, &why),
            Ok(slots) => {
                core.state.lock().map.install(load.read.missing, slots);
                for index in load.waiting {
                    self.again(index);
                }
            }
        }
    }
}
