//! Reading nodes of the map.

use crate::compress::Decompressor;
use crate::format::{
    Entry, Location, MAX_STORED, NODE_SLOTS, RECORD_HEADER, RecordHeader, RecordKind, Seed,
    unpack_node,
};
use crate::io::{AlignedBuf, DiskFile};
use crate::map::{Missing, Slots};
use crate::state::State;
use std::sync::Arc;

/// A planned read of one map node.
#[derive(Debug, Clone)]
pub struct NodeRead {
    /// Which node.
    pub missing: Missing,
    /// Where its record lies.
    pub at: Location,
    generation: u64,
    /// The segment's file.
    pub file: Arc<dyn DiskFile>,
}

impl NodeRead {
    /// Plans the read of a node; an error says what is wrong with the map's entry.
    pub fn plan(state: &State, missing: Missing) -> Result<Self, String> {
        let Ok(Entry::Stored { at, .. }) = Entry::unpack(missing.at) else {
            return Err(format!("the entry of {:?} is damaged", missing.key));
        };
        let segment = state.segments.get(at.segment).ok_or_else(|| {
            format!(
                "{:?} is in segment {:x}, which is not there",
                missing.key, at.segment
            )
        })?;
        Ok(Self::of(
            missing,
            at,
            segment.generation,
            Arc::clone(&segment.file),
        ))
    }

    /// The read of the node whose record lies at `at`, in a segment of this generation.
    pub fn of(missing: Missing, at: Location, generation: u64, file: Arc<dyn DiskFile>) -> Self {
        Self {
            missing,
            at,
            generation,
            file,
        }
    }

    /// Offset and length in bytes of what to read.
    pub fn pages(&self) -> (u64, usize) {
        let unit = self.file.read_unit() as u32;
        let from = self.at.offset / unit * unit;
        (
            u64::from(from),
            (self.at.end().next_multiple_of(unit) - from) as usize,
        )
    }

    /// Verifies and unpacks the node out of its pages. `is_heir` as in [`super::Decoder::decode`].
    pub fn finish(
        &self,
        pages: &[u8],
        is_heir: &mut dyn FnMut(u32, u32) -> bool,
    ) -> Result<Box<Slots>, String> {
        let from = (self.at.offset as usize) % self.file.read_unit();
        self.finish_at(pages, from, is_heir)
    }

    /// The same where its record begins at byte `from` of the pages.
    pub fn finish_at(
        &self,
        pages: &[u8],
        from: usize,
        is_heir: &mut dyn FnMut(u32, u32) -> bool,
    ) -> Result<Box<Slots>, String> {
        let stored = pages
            .get(from..from + self.at.len as usize)
            .unwrap_or_default();
        let seed = Seed {
            segment: self.at.segment,
            generation: self.generation,
            offset: self.at.offset,
        };
        let header = RecordHeader::decode(stored, seed).map_err(|e| self.fault(&e.to_string()))?;
        let key = self.missing.key;
        if header.kind != RecordKind::Node
            || header.first != key.identity()
            || !is_heir(header.layer, key.layer())
        {
            return Err(self.fault("another record is there"));
        }
        let payload = stored
            .get(RECORD_HEADER..RECORD_HEADER + header.payload_len as usize)
            .filter(|p| header.payload_is_intact(p))
            .ok_or_else(|| self.fault("payload checksum does not match"))?;
        decode_node(&header, payload).map_err(|e| self.fault(&e))
    }

    fn fault(&self, why: &str) -> String {
        format!(
            "{:?}, at byte {} of segment {:x}: {why}",
            self.missing.key, self.at.offset, self.at.segment
        )
    }

    /// Reads the node and waits for it: for recovery and background jobs.
    pub fn read_now(
        &self,
        is_heir: &mut dyn FnMut(u32, u32) -> bool,
    ) -> Result<Box<Slots>, String> {
        let (offset, len) = self.pages();
        let mut pages = AlignedBuf::zeroed(len).map_err(|e| self.fault(&e.to_string()))?;
        self.file
            .read_at(&mut pages, offset)
            .map_err(|e| self.fault(&e.to_string()))?;
        self.finish(&pages, is_heir)
    }
}

/// Unpacks a node's payload.
fn decode_node(header: &RecordHeader, payload: &[u8]) -> Result<Box<[u64; NODE_SLOTS]>, String> {
    let mut raw = vec![0; (header.raw_len as usize).min(MAX_STORED)];
    let len = raw.len();
    Decompressor::without_zstd()
        .decompress(header.codec, payload, len, &mut raw)
        .map_err(|e| e.to_string())?;
    unpack_node(&raw).map_err(|e| e.to_string())
}
