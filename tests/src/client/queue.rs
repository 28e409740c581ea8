//! The driver's side of one split virtqueue, with its request slots.
//!
//! A slot owns everything that a request needs in shared memory (header, status byte, indirect table,
//! data buffer), so that submitting allocates nothing:
//!
//! ```text
//! slot:  header 16 | status 1 | pad to 64 | indirect table 16 x n | pad to 4096 | data
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use rustix::event::{EventfdFlags, eventfd};

use super::ClientOptions;
use super::error::ClientError;
use super::request::{Completion, Request, STATUS_UNTOUCHED};
use super::shm::SharedMemory;

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;
const DESC_INDIRECT: u16 = 4;
const NO_NOTIFY: u16 = 1;
const NOT_IN_FLIGHT: u16 = u16::MAX;
const STATUS_AT: usize = 16;
const TABLE_AT: usize = 64;

/// Where a queue's rings and slots lie, as offsets into the shared memory.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Descriptor table.
    pub desc: usize,
    /// Available ring.
    pub avail: usize,
    /// Used ring.
    pub used: usize,
    /// First slot.
    pub slots: usize,
    /// Bytes from one slot to the next.
    pub stride: usize,
    /// Offset of the data buffer in a slot.
    pub data: usize,
    /// First byte after the queue.
    pub end: usize,
}

impl Layout {
    /// Lays a queue out from `start` on.
    pub(super) fn new(start: usize, options: &ClientOptions) -> Self {
        let size = usize::from(options.queue_size);
        let desc = start.next_multiple_of(4096);
        let avail = desc + 16 * size;
        // Both rings end with the event index word.
        let used = (avail + 6 + 2 * size).next_multiple_of(4096);
        let slots = (used + 6 + 8 * size).next_multiple_of(4096);
        let table = 16 * (2 + options.segments());
        let data = (TABLE_AT + table).next_multiple_of(4096);
        let stride = data + (options.max_bytes as usize).next_multiple_of(4096);
        Self {
            desc,
            avail,
            used,
            slots,
            stride,
            data,
            end: slots + stride * usize::from(options.depth),
        }
    }
}

/// One virtqueue. Drive it from one thread; different queues may be driven by different threads.
#[derive(Debug)]
pub struct Queue {
    memory: Arc<SharedMemory>,
    layout: Layout,
    guest_base: u64,
    index: u16,
    size: u16,
    event_idx: bool,
    indirect: bool,
    segment_bytes: u32,
    requests: Vec<Request>,
    free_slots: Vec<u16>,
    free_descs: Vec<u16>,
    /// Which slot's chain begins at a descriptor.
    owner: Vec<u16>,
    avail_next: u16,
    avail_published: u16,
    used_seen: u16,
    kick: OwnedFd,
    call: OwnedFd,
}

impl Queue {
    pub(super) fn new(
        memory: Arc<SharedMemory>,
        layout: Layout,
        index: u16,
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| {
                ClientError::Io {
                    what: "eventfd".into(),
                    source: e.into(),
                }
            })
        };
        Ok(Self {
            memory,
            layout,
            guest_base: options.guest_base,
            index,
            size: options.queue_size,
            event_idx: options.event_idx,
            indirect: options.indirect,
            segment_bytes: options.segment_bytes,
            requests: vec![Request::flush(); usize::from(options.depth)],
            free_slots: (0..options.depth).rev().collect(),
            free_descs: (0..options.queue_size).rev().collect(),
            owner: vec![NOT_IN_FLIGHT; usize::from(options.queue_size)],
            avail_next: 0,
            avail_published: 0,
            used_seen: 0,
            kick: event()?,
            call: event()?,
        })
    }

    /// The features that were negotiated may be fewer than those asked for.
    pub(super) fn set_features(&mut self, event_idx: bool, indirect: bool) {
        self.event_idx = event_idx;
        self.indirect = indirect;
    }

    /// Queue index.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Requests submitted and not yet returned by [`Queue::poll`].
    pub fn in_flight(&self) -> usize {
        self.requests.len() - self.free_slots.len()
    }

    /// Tags of the requests in flight, with what they ask.
    pub fn outstanding(&self) -> impl Iterator<Item = (u16, Request)> {
        self.owner
            .iter()
            .filter(|&&tag| tag != NOT_IN_FLIGHT)
            .map(|&tag| (tag, self.requests[usize::from(tag)]))
    }

    /// Takes a free slot, or none when `depth` requests are in flight. It must then be submitted or
    /// given back by [`Queue::release`].
    pub fn reserve(&mut self) -> Option<u16> {
        self.free_slots.pop()
    }

    /// Gives a reserved slot back unused.
    pub fn release(&mut self, tag: u16) {
        self.free_slots.push(tag);
    }

    /// Puts the data of a write into a slot, `at` bytes from the start of its buffer.
    pub fn put_data(&self, tag: u16, at: usize, bytes: &[u8]) {
        self.memory.write(self.data_at(tag) + at, bytes);
    }

    /// Gets the data of a read from a slot. Valid until the slot is reserved again.
    pub fn get_data(&self, tag: u16, at: usize, into: &mut [u8]) {
        self.memory.read(self.data_at(tag) + at, into);
    }

    /// Builds the chain of a request and appends it to the available ring. The backend sees it at the
    /// next [`Queue::publish`].
    pub fn submit(&mut self, tag: u16, request: Request) {
        let slot = self.slot_at(tag);
        self.requests[usize::from(tag)] = request;
        let mut header = [0; 16];
        header[..4].copy_from_slice(&request.kind().to_le_bytes());
        let sector = if request.range_descriptor().is_some() {
            0
        } else {
            request.sector
        };
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.memory.write(slot, &header);
        self.memory.fill(slot + STATUS_AT, 1, STATUS_UNTOUCHED);
        if let Some(range) = request.range_descriptor() {
            self.put_data(tag, 0, &range);
        }
        let head = if self.indirect {
            self.build_indirect(tag, request)
        } else {
            self.build_direct(tag, request)
        };
        self.owner[usize::from(head)] = tag;
        self.expose(head);
    }

    /// The head of the chain of a request in flight.
    pub fn head_of(&self, tag: u16) -> Option<u16> {
        self.owner
            .iter()
            .position(|&owner| owner == tag)
            .map(|head| head as u16)
    }

    /// Does a backend's last step but signalling: writes used elements for heads and publishes them.
    pub fn forge_used(&self, heads: &[u16]) {
        let mut used = self.used_idx();
        for &head in heads {
            let at = self.layout.used + 4 + 8 * usize::from(used % self.size);
            self.memory.write(at, &u32::from(head).to_le_bytes());
            self.memory.write(at + 4, &1u32.to_le_bytes());
            used = used.wrapping_add(1);
        }
        self.memory
            .u16(self.layout.used + 2)
            .store(used, Ordering::Release);
    }

    /// Writes the status byte of a request in flight, as a backend does before [`Queue::forge_used`].
    pub fn forge_status(&self, tag: u16, status: u8) {
        self.memory.fill(self.slot_at(tag) + STATUS_AT, 1, status);
    }

    /// Appends a descriptor chain to the available ring, whatever it holds: for tests that build their own.
    pub fn expose(&mut self, head: u16) {
        let entry = self.layout.avail + 4 + 2 * usize::from(self.avail_next % self.size);
        self.memory.u16(entry).store(head, Ordering::Relaxed);
        self.avail_next = self.avail_next.wrapping_add(1);
    }

    /// Makes everything submitted visible to the backend and kicks it if it wants that.
    pub fn publish(&mut self) {
        if self.avail_published == self.avail_next {
            return;
        }
        let old = self.avail_published;
        let new = self.avail_next;
        self.memory
            .u16(self.layout.avail + 2)
            .store(new, Ordering::Release);
        self.avail_published = new;
        // The index must be visible before we look whether the backend is about to sleep.
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event = self
                .memory
                .u16(self.layout.used + 4 + 8 * usize::from(self.size));
            let event = event.load(Ordering::Acquire);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.memory.u16(self.layout.used).load(Ordering::Acquire) & NO_NOTIFY == 0
        };
        if wanted {
            self.kick();
        }
    }

    /// Kicks the backend without a reason.
    pub fn kick(&self) {
        // Fails only when the counter is about to overflow: then it is readable already.
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }

    /// Whether the used ring holds completions that [`Queue::poll`] has not returned.
    pub fn ready(&self) -> bool {
        self.used_idx() != self.used_seen
    }

    /// Collects completions. An error means that the backend broke the ring's rules.
    pub fn poll(&mut self, done: &mut Vec<Completion>) -> Result<usize, ClientError> {
        let used = self.used_idx();
        let count = used.wrapping_sub(self.used_seen);
        if usize::from(count) > self.in_flight() {
            return Err(self.broken(format!(
                "used index went from {} to {used} with {} requests in flight",
                self.used_seen,
                self.in_flight()
            )));
        }
        for _ in 0..count {
            let mut entry = [0; 8];
            let at = self.layout.used + 4 + 8 * usize::from(self.used_seen % self.size);
            self.memory.read(at, &mut entry);
            let id = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let used_len = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let tag = match self.owner.get(id as usize) {
                Some(&tag) if tag != NOT_IN_FLIGHT => tag,
                _ => {
                    return Err(self.broken(format!("completed head {id}, which is not in flight")));
                }
            };
            self.owner[id as usize] = NOT_IN_FLIGHT;
            self.reclaim(id as u16);
            self.used_seen = self.used_seen.wrapping_add(1);
            let mut status = [0];
            self.memory.read(self.slot_at(tag) + STATUS_AT, &mut status);
            self.free_slots.push(tag);
            done.push(Completion {
                tag,
                request: self.requests[usize::from(tag)],
                status: status[0],
                used_len,
            });
        }
        Ok(usize::from(count))
    }

    /// Asks for a signal at the next completion. Returns true when there is one already, so that the
    /// caller must not sleep.
    pub fn arm(&self) -> bool {
        if self.event_idx {
            let event = self
                .memory
                .u16(self.layout.avail + 4 + 2 * usize::from(self.size));
            event.store(self.used_seen, Ordering::Release);
            fence(Ordering::SeqCst);
        }
        self.ready()
    }

    /// Readable when the backend has signalled.
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    pub(super) fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// Takes a signal back, so that the next wait sleeps. Returns whether there was one.
    pub fn disarm(&self) -> bool {
        rustix::io::read(&self.call, &mut [0; 8]).is_ok()
    }

    /// The index in the used ring: what QEMU gives a new backend as its base after the old one died.
    pub fn used_idx(&self) -> u16 {
        self.memory
            .u16(self.layout.used + 2)
            .load(Ordering::Acquire)
    }

    /// The index in the available ring.
    pub fn avail_idx(&self) -> u16 {
        self.avail_published
    }

    /// Offsets of the rings and slots in [`Queue::memory`].
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The memory shared with the backend.
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// [`Queue::memory`] for another thread: a guest's other vCPU.
    pub fn memory_handle(&self) -> Arc<SharedMemory> {
        Arc::clone(&self.memory)
    }

    /// Writes a descriptor, into the ring's table or an indirect one at `table`.
    pub fn put_desc(&self, table: usize, at: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let mut desc = [0; 16];
        desc[..8].copy_from_slice(&addr.to_le_bytes());
        desc[8..12].copy_from_slice(&len.to_le_bytes());
        desc[12..14].copy_from_slice(&flags.to_le_bytes());
        desc[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write(table + 16 * usize::from(at), &desc);
    }

    /// The guest physical address of an offset in the shared memory.
    pub fn guest(&self, offset: usize) -> u64 {
        self.guest_base + offset as u64
    }

    fn slot_at(&self, tag: u16) -> usize {
        self.layout.slots + self.layout.stride * usize::from(tag)
    }

    fn data_at(&self, tag: u16) -> usize {
        self.slot_at(tag) + self.layout.data
    }

    fn broken(&self, what: String) -> ClientError {
        ClientError::Ring {
            queue: self.index,
            what,
        }
    }

    fn build_indirect(&mut self, tag: u16, request: Request) -> u16 {
        let table = self.slot_at(tag) + TABLE_AT;
        let mut at = 0;
        self.each_part(tag, request, |queue, addr, len, flags, last| {
            let next = if last { 0 } else { DESC_NEXT };
            queue.put_desc(table, at, addr, len, flags | next, at + 1);
            at += 1;
        });
        let head = self
            .free_descs
            .pop()
            .expect("a descriptor per request in flight");
        self.put_desc(
            self.layout.desc,
            head,
            self.guest(table),
            u32::from(at) * 16,
            DESC_INDIRECT,
            0,
        );
        head
    }

    fn build_direct(&mut self, tag: u16, request: Request) -> u16 {
        let head = self
            .free_descs
            .pop()
            .expect("descriptors for every request in flight");
        let mut at = head;
        self.each_part(tag, request, |queue, addr, len, flags, last| {
            let here = at;
            let mut next = 0;
            if !last {
                at = queue
                    .free_descs
                    .pop()
                    .expect("descriptors for every request in flight");
                next = DESC_NEXT;
            }
            queue.put_desc(queue.layout.desc, here, addr, len, flags | next, at);
        });
        head
    }

    /// Calls `put(address, length, flags, last)` for each part of a request's chain.
    fn each_part(
        &mut self,
        tag: u16,
        request: Request,
        mut put: impl FnMut(&mut Self, u64, u32, u16, bool),
    ) {
        let slot = self.guest(self.slot_at(tag));
        put(self, slot, 16, 0, false);
        let (bytes, writable) = request.data();
        let flags = if writable { DESC_WRITE } else { 0 };
        let mut at = 0;
        while at < bytes {
            let len = (bytes - at).min(self.segment_bytes);
            put(
                self,
                slot + self.layout.data as u64 + u64::from(at),
                len,
                flags,
                false,
            );
            at += len;
        }
        put(self, slot + STATUS_AT as u64, 1, DESC_WRITE, true);
    }

    /// Returns a chain's descriptors to the free list.
    fn reclaim(&mut self, head: u16) {
        let mut at = head;
        loop {
            self.free_descs.push(at);
            let mut desc = [0; 16];
            self.memory
                .read(self.layout.desc + 16 * usize::from(at), &mut desc);
            if u16::from_le_bytes([desc[12], desc[13]]) & DESC_NEXT == 0 {
                return;
            }
            at = u16::from_le_bytes([desc[14], desc[15]]);
        }
    }
}
