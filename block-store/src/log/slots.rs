//! The write buffer's slots.

use crate::format::{BUFFER_HEADER, BufferHeader, SLOT_ROW, SlotRow, note_failure};
use crate::io::BufferMemory;
use std::sync::atomic::{Ordering, compiler_fence};

/// The slots of the write buffer: free ones, and which part of which segment each other one holds.
pub struct SlotPool {
    memory: Box<dyn BufferMemory>,
    header: BufferHeader,
    free: Vec<usize>,
}

struct NoMemory;

impl BufferMemory for NoMemory {
    fn bytes(&self) -> &[u8] {
        &[]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut []
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
            memory,
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
        note_failure(self.memory.bytes_mut());
    }

    /// Gives a slot back; all of it is in the segment's file.
    pub fn release(&mut self, slot: usize) {
        self.set_row(slot, &[0; SLOT_ROW]);
        compiler_fence(Ordering::SeqCst);
        self.free.push(slot);
    }

    fn set_row(&mut self, slot: usize, row: &[u8; SLOT_ROW]) {
        let at = BUFFER_HEADER + slot * SLOT_ROW;
        if let Some(to) = self.memory.bytes_mut().get_mut(at..at + SLOT_ROW) {
            to.copy_from_slice(row);
        }
    }

    /// A slot's bytes.
    pub fn slot(&self, slot: usize) -> &[u8] {
        let at = self.header.slots_at() + slot * self.slot_size();
        self.memory
            .bytes()
            .get(at..at + self.slot_size())
            .unwrap_or_default()
    }

    /// A slot's bytes, to be changed.
    pub fn slot_mut(&mut self, slot: usize) -> &mut [u8] {
        let (at, size) = (
            self.header.slots_at() + slot * self.slot_size(),
            self.slot_size(),
        );
        self.memory
            .bytes_mut()
            .get_mut(at..at + size)
            .unwrap_or_default()
    }
}
