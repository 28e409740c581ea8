//! The write buffer's slots.

use crate::format::{BUFFER_HEADER, BufferHeader, FAILURE_NOTE, SLOT_ROW, SlotRow};
use crate::io::{BufferMemory, DiskFile, LiveMemory, LivePages};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, compiler_fence};

/// The slots of the write buffer: free ones, and which part of which segment each other one holds.
pub struct SlotPool {
    memory: Box<dyn LiveMemory>,
    header: BufferHeader,
    free: Vec<usize>,
}

struct NoMemory;

impl LiveMemory for NoMemory {
    fn read(&self, _: usize, into: &mut [u8]) {
        into.fill(0);
    }

    fn write(&mut self, _: usize, _: &[u8]) {}

    fn pages(&self) -> Arc<dyn LivePages> {
        Arc::new(NoPages)
    }
}

#[derive(Debug)]
struct NoPages;

impl LivePages for NoPages {
    fn write_out(&self, _: &[Range<usize>], _: &dyn DiskFile, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

impl SlotPool {
    /// Lays out a fresh buffer (all zeroes) of `header.bytes()`.
    pub fn create(mut memory: Box<dyn BufferMemory>, header: BufferHeader) -> Self {
        if let Some(to) = memory.bytes_mut().get_mut(..64) {
            to.copy_from_slice(&header.encode());
        }
        let free = (0..header.slots as usize).rev().collect();
        Self {
            memory: memory.into_live(),
            header,
            free,
        }
    }

    /// A pool without slots.
    pub fn none() -> Self {
        let header = BufferHeader {
            store: uuid::Uuid::nil(),
            nonce: uuid::Uuid::nil(),
            slot_size: 4096,
            slots: 0,
        };
        Self {
            memory: Box::new(NoMemory),
            header,
            free: Vec::new(),
        }
    }

    /// What slots in use hold in a buffer that an earlier process left.
    pub fn left_in<'a>(
        memory: &'a dyn BufferMemory,
        header: &'a BufferHeader,
    ) -> impl Iterator<Item = (SlotRow, &'a [u8])> {
        let size = header.slot_size as usize;
        let bytes = memory.bytes();
        (0..header.slots as usize).filter_map(move |n| {
            let row =
                bytes.get(BUFFER_HEADER + n * SLOT_ROW..BUFFER_HEADER + (n + 1) * SLOT_ROW)?;
            let at = header.slots_at() + n * size;
            Some((SlotRow::decode(row)?, bytes.get(at..at + size)?))
        })
    }

    /// Bytes per slot.
    pub fn slot_size(&self) -> usize {
        self.header.slot_size as usize
    }

    /// All slots.
    pub fn slots(&self) -> usize {
        self.header.slots as usize
    }

    /// Slots that can be claimed.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Claims a slot for the part of a segment that begins at `offset`.
    ///
    /// # Crash
    /// 1. The row is written; from here on the slot will be written to the segment after a SIGKILL.
    /// 2. Records are copied in; one that is cut short does not verify and was not acknowledged. What an earlier use
    ///    has left behind them does not verify in this place either, and so ends the log.
    pub fn claim(&mut self, segment: u32, generation: u64, offset: u32) -> Option<usize> {
        let slot = self.free.pop()?;
        self.set_row(
            slot,
            &SlotRow {
                segment,
                offset,
                generation,
            }
            .encode(),
        );
        compiler_fence(Ordering::SeqCst);
        Some(slot)
    }

    /// Has the next process know that a write or fsync has failed.
    pub fn note_failure(&mut self) {
        let (at, mark) = FAILURE_NOTE;
        self.memory.write(at, &mark);
    }

    /// Gives a slot back; all of it is in the segment's file.
    pub fn release(&mut self, slot: usize) {
        self.set_row(slot, &[0; SLOT_ROW]);
        compiler_fence(Ordering::SeqCst);
        self.free.push(slot);
    }

    fn set_row(&mut self, slot: usize, row: &[u8; SLOT_ROW]) {
        self.memory.write(BUFFER_HEADER + slot * SLOT_ROW, row);
    }

    /// The memory, for writing parts of it to files.
    pub fn pages(&self) -> Arc<dyn LivePages> {
        self.memory.pages()
    }

    /// Where `len` bytes from `within` a slot are in the memory; as many as the slot has.
    pub fn place(&self, slot: usize, within: usize, len: usize) -> Range<usize> {
        let size = self.slot_size();
        let at = self.header.slots_at() + slot * size;
        at + within.min(size)..at + (within + len).min(size)
    }

    /// Copies out of the memory what is at [`SlotPool::place`].
    pub fn read(&self, place: Range<usize>, out: &mut Vec<u8>) {
        let from = out.len();
        out.resize(from + place.len(), 0);
        if let Some(into) = out.get_mut(from..) {
            self.memory.read(place.start, into);
        }
    }

    /// Copies into a slot, `within` bytes from its start; there must be room.
    pub fn write(&mut self, slot: usize, within: usize, bytes: &[u8]) {
        let place = self.place(slot, within, bytes.len());
        debug_assert_eq!(place.len(), bytes.len());
        self.memory
            .write(place.start, bytes.get(..place.len()).unwrap_or_default());
    }
}
