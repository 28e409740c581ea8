//! From a head to the commands that the store carries out for it.

use std::sync::Arc;

use crate::blk::config::{Features, MAX_QUEUE_SIZE, SEG_MAX, write_through};
use crate::blk::request::{HEADER_LEN, Request, Rules, parse, status_address};
use crate::blk::token::{Status, StatusByte, Token};
use crate::engine::{Disk, Engine, Payload};
use crate::memory::{GuestMemory, GuestPayload, Place, Segment, SegmentPool};
use crate::virtq::chain::{DESCRIPTOR_LEN, Descriptor, DescriptorSource, Limits, Span, walk};

use super::queue::{Core, Queue};
use super::request::{Pending, Work};

/// Pieces of memory that one request may touch. Regions may be as small as a byte, and a span may cross them all: what
/// is noted about a request must not grow with that.
const MAX_PIECES: usize = 2 * MAX_QUEUE_SIZE as usize;

impl<D: Disk> Queue<D> {
    /// Gives the request behind a head to the store, or answers it. `position` is its place in the avail ring, unless it
    /// came from the in-flight region.
    pub(super) fn execute<E: Engine<Disk = D>>(
        &mut self,
        head: u16,
        position: Option<u16>,
        core: &mut Core<E>,
    ) {
        let memory = &self.wiring.memory;
        let size = self.ring.size();
        let limits = Limits {
            queue_size: size,
            // A driver may use our SEG_MAX even where its ring is shorter, by indirect descriptors.
            descriptors: size.max(u16::try_from(SEG_MAX).unwrap_or(0) + 2),
            indirect: self.features.has(Features::INDIRECT_DESC),
        };
        let source = Source {
            memory,
            table: self.wiring.places.table,
        };
        if let Err(error) = walk(&source, head, limits, &mut core.chain) {
            drop(self.answers.token(head, None));
            self.complain(&error);
            return;
        }
        let status = status_address(&core.chain)
            .and_then(|address| memory.guest_place(address, 1))
            .map(|place| StatusByte {
                memory: Arc::clone(memory),
                place,
            });
        if status.is_none() {
            drop(self.answers.token(head, None));
            self.complain(&"a request without room for its status in the guest's memory");
            return;
        }
        let token = self.answers.token(head, status);
        let rules = Rules {
            features: self.features,
            size: self.disk.size(),
            read_only: self.disk.read_only(),
        };
        match parse(memory, &core.chain, rules) {
            Ok(request) => self.carry_out(request, token, position, core),
            Err(status) => token.finish(status, 0),
        }
    }

    fn carry_out<E: Engine<Disk = D>>(
        &mut self,
        request: Request,
        token: Token,
        position: Option<u16>,
        core: &mut Core<E>,
    ) {
        let memory = &self.wiring.memory;
        let chain = &core.chain;
        let modifies = !matches!(request, Request::Read { .. } | Request::Flush);
        let mut written = 0;
        let work = match request {
            Request::Read { len: 0, .. } | Request::Write { len: 0, .. } => Work::Nothing,
            Request::Read { offset, len } => {
                written = len;
                let segments = resolve(memory, &chain.writable, 0, len, &mut core.pool);
                let Some(segments) = segments else {
                    return self.complain(&OUTSIDE);
                };
                transfer(false, offset, len, segments, memory)
            }
            Request::Write { offset, len } => {
                let segments = resolve(memory, &chain.readable, HEADER_LEN, len, &mut core.pool);
                let Some(segments) = segments else {
                    return self.complain(&OUTSIDE);
                };
                transfer(true, offset, len, segments, memory)
            }
            Request::Discard(list) => Work::Ranges {
                zeroes: false,
                list,
            },
            Request::WriteZeroes(list) => Work::Ranges { zeroes: true, list },
            Request::Flush => Work::Flush,
            Request::GetId { len } => {
                let Some(segments) = resolve(memory, &chain.writable, 0, len, &mut core.pool)
                else {
                    return self.complain(&OUTSIDE);
                };
                let mut payload = GuestPayload::new(Arc::clone(memory), segments);
                let serial = self.disk.serial();
                let told = serial.get(..len as usize).unwrap_or_default();
                if payload.copy_in(0, told).is_ok() {
                    if let Some(log) = &self.wiring.log {
                        payload.mark_dirty(log);
                    }
                    token.finish(Status::Ok, len);
                }
                core.pool.put(payload.into_segments());
                return;
            }
        };
        // Where the vDisk's write cache is off, the store itself makes writes durable.
        let then_flush = modifies && write_through(self.features) && self.disk.write_cache();
        let slot = self.key.slot;
        let pieces = match &work {
            Work::Transfer { segments, .. } => segments.len(),
            _ => 0,
        };
        self.pieces += pieces;
        let pending = Pending {
            slot,
            token,
            position,
            work,
            then_flush,
            written,
            pieces,
        };
        self.submit_next(pending, core);
    }

    /// Gives a new request's first command to the store, or answers it if there is nothing to do.
    fn submit_next<E: Engine<Disk = D>>(&mut self, mut pending: Pending, core: &mut Core<E>) {
        match pending.next_command(&mut core.pool) {
            Some(command) => {
                let tag = core.pending.insert(pending);
                core.engine.submit(&self.disk, command, tag);
                core.submitted += 1;
            }
            None => {
                self.pieces -= pending.pieces;
                pending.token.finish(Status::Ok, pending.written);
            }
        }
    }
}

const OUTSIDE: &str = "a buffer is not in the guest's memory, or in too many pieces of it";

fn transfer(
    write: bool,
    offset: u64,
    len: u32,
    segments: Vec<Segment>,
    memory: &Arc<GuestMemory>,
) -> Work {
    let memory = Arc::clone(memory);
    Work::Transfer {
        write,
        offset,
        segments,
        len: len as usize,
        sent: 0,
        memory,
    }
}

/// The pieces of memory behind `len` bytes of `spans`, `skip` bytes into them.
fn resolve(
    memory: &GuestMemory,
    spans: &[Span],
    mut skip: u64,
    len: u32,
    pool: &mut SegmentPool,
) -> Option<Vec<Segment>> {
    let mut segments = pool.take();
    let mut start = 0usize;
    let mut left = u64::from(len);
    for span in spans {
        let size = u64::from(span.len);
        if skip >= size {
            skip -= size;
            continue;
        }
        let here = (size - skip).min(left);
        if here == 0 {
            break;
        }
        let found = span.addr.checked_add(skip).and_then(|address| {
            memory.resolve(address, here, |place| {
                if segments.len() <= MAX_PIECES {
                    segments.push(place.segment(start));
                }
                start += place.len();
            })
        });
        if found.is_none() || segments.len() > MAX_PIECES {
            pool.put(segments);
            return None;
        }
        skip = 0;
        left -= here;
    }
    if left > 0 {
        pool.put(segments);
        return None;
    }
    Some(segments)
}

struct Source<'a> {
    memory: &'a GuestMemory,
    table: Place,
}

impl DescriptorSource for Source<'_> {
    fn table(&self, index: u16) -> Option<Descriptor> {
        let at = usize::from(index) * DESCRIPTOR_LEN as usize;
        self.memory
            .read_words(self.table, at)
            .map(Descriptor::from_words)
    }

    fn indirect(&self, table: u64, index: u16) -> Option<Descriptor> {
        let at = table.checked_add(u64::from(index) * DESCRIPTOR_LEN)?;
        let place = self.memory.guest_place(at, DESCRIPTOR_LEN as usize)?;
        self.memory.read_words(place, 0).map(Descriptor::from_words)
    }
}
