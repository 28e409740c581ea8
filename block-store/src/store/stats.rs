//! What a store tells of how its data lies and what keeping it costs: see [`super::status`] for its state.

use super::Store;
use super::vdisk::VDisk;
use crate::alloc::{Census, census};
use crate::defrag::{Fragmentation, Pieces, SPAN};
use crate::error::StoreError;
use crate::format::{BLOCK, MAX_BLOCKS};
use crate::log::Cause;
use crate::read::{Progress, page_reads, plan};
use crate::snapshot::ancestors;
use crate::state::Blocked;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use uuid::Uuid;

/// Spans, and gaps between them, that one answer looks at.
const STEPS: usize = 1024;

/// Space, and what was done since the store was opened. Sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    /// Of a segment's file.
    pub segment_bytes: u64,
    /// Segments by what they were opened for.
    pub space: Vec<Census>,
    /// What was written.
    pub writes: WriteStats,
    /// Spot defragmentation.
    pub coalescing: CoalescingStats,
    /// Compaction.
    pub compaction: CompactionStats,
}

/// Bytes written to the store's files, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WriteStats {
    /// What guests and imports have written, as they have sent it.
    pub requested_bytes: u64,
    /// What is stored of that: extents.
    pub guest_bytes: u64,
    /// Records of the log without data.
    pub log_bytes: u64,
    /// Moved by compaction.
    pub compaction_bytes: u64,
    /// Put together by spot defragmentation.
    pub coalescing_bytes: u64,
    /// Cold extents that compaction has packed harder.
    pub packing_bytes: u64,
    /// Copies for clones that become independent.
    pub cloning_bytes: u64,
    /// Maps, tables, catalogues.
    pub checkpoint_bytes: u64,
    /// Skipped up to the next page.
    pub padding_bytes: u64,
    /// Headers of new segments.
    pub header_bytes: u64,
    /// Zeroes that were written ahead.
    pub ahead_bytes: u64,
    /// Superblocks.
    pub superblock_bytes: u64,
    /// All causes together.
    pub total_bytes: u64,
    /// Of these, still in the write buffer.
    pub waiting_bytes: u64,
}

/// What has become of reads that found their data scattered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CoalescingStats {
    /// Reads that had something to fetch from segments.
    pub looked_at: u64,
    /// Found scattered.
    pub scattered: u64,
    /// Gathered.
    pub gathered: u64,
    /// Put off: remembered, to be read again.
    pub put_off: u64,
    /// Given up.
    pub dropped: u64,
    /// Read again, by the store itself.
    pub read_again: u64,
    /// Blocks put together.
    pub switched_bytes: u64,
    /// Blocks stored anew in vain: they had changed meanwhile.
    pub skipped_bytes: u64,
}

/// What compaction has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CompactionStats {
    /// Segments emptied.
    pub segments: u64,
    /// Moved out of them.
    pub moved_bytes: u64,
    /// Segments removed, for whatever reason they were empty.
    pub removed_segments: u64,
}

/// Whose a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerKind {
    /// The live one of a vDisk.
    Live,
    /// A snapshot's.
    Snapshot,
    /// That of a vDisk which is being imported.
    Import,
    /// Nothing names it: it is on its way out, or waits for what lies over it.
    Unnamed,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Its number.
    pub id: u32,
    /// UUID.
    pub uuid: Uuid,
    /// The layer below.
    pub parent: Option<u32>,
    /// Whose it is.
    pub kind: LayerKind,
    /// The vDisk, if it is one's.
    pub vdisk: Option<String>,
    /// The snapshot, if it is one's.
    pub snapshot: Option<String>,
}

/// How fragmented a vDisk is, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VDiskFragmentation {
    /// Of the part that was looked at.
    #[serde(flatten)]
    pub fragmentation: Fragmentation,
    /// Where the part ends, in bytes of the address space. `None`: that was all.
    pub next: Option<u64>,
}

impl Store {
    /// Space by temperature, and counters: at hand, nothing is read.
    pub fn stats(&self) -> StoreStats {
        let state = self.core.state.lock();
        let space = census(&state.segments, self.core.segment_size).to_vec();
        // Under the lock, so that what was appended and what waits is of one moment.
        let writes = self.write_stats(state.log.waiting());
        drop(state);
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let counters = &self.core.counters;
        let coalescing = &counters.coalescing;
        StoreStats {
            segment_bytes: u64::from(self.core.segment_size),
            space,
            writes,
            coalescing: CoalescingStats {
                looked_at: of(&coalescing.looked_at),
                scattered: of(&coalescing.scattered),
                gathered: of(&coalescing.gathered),
                put_off: of(&coalescing.put_off),
                dropped: of(&coalescing.dropped),
                read_again: of(&coalescing.read_again),
                switched_bytes: of(&counters.coalesced_bytes),
                skipped_bytes: of(&coalescing.skipped_bytes),
            },
            compaction: CompactionStats {
                segments: of(&counters.segments_compacted),
                moved_bytes: writes.compaction_bytes,
                removed_segments: of(&counters.segments_removed),
            },
        }
    }

    fn write_stats(&self, waiting_bytes: u64) -> WriteStats {
        let counters = &self.core.counters;
        let of = |cause| counters.written.of(cause);
        let mut stats = WriteStats {
            requested_bytes: counters.requested_bytes.load(Relaxed),
            guest_bytes: of(Cause::Guest),
            log_bytes: of(Cause::Log),
            compaction_bytes: of(Cause::Compaction),
            coalescing_bytes: of(Cause::Coalescing),
            packing_bytes: of(Cause::Packing),
            cloning_bytes: of(Cause::Cloning),
            checkpoint_bytes: of(Cause::Checkpoint),
            padding_bytes: of(Cause::Padding),
            header_bytes: of(Cause::Header),
            ahead_bytes: of(Cause::Ahead),
            superblock_bytes: of(Cause::Superblock),
            total_bytes: 0,
            waiting_bytes,
        };
        stats.total_bytes = stats.guest_bytes
            + stats.log_bytes
            + stats.compaction_bytes
            + stats.coalescing_bytes
            + stats.packing_bytes
            + stats.cloning_bytes
            + stats.checkpoint_bytes
            + stats.padding_bytes
            + stats.header_bytes
            + stats.ahead_bytes
            + stats.superblock_bytes;
        stats
    }

    /// All layers, by number; what each of them costs tells [`Store::layer_usage`].
    pub fn layers(&self) -> Vec<Layer> {
        // A copy, as a checkpoint takes one: names are looked up without the lock.
        let catalogue = self.core.state.lock().catalogue.clone();
        let mut layers: Vec<Layer> = catalogue
            .layers
            .values()
            .map(|row| Layer {
                id: row.id,
                uuid: row.uuid,
                parent: row.parent,
                kind: LayerKind::Unnamed,
                vdisk: None,
                snapshot: None,
            })
            .collect();
        let name_of = |vdisk| {
            let row = catalogue.vdisks.iter().find(|v| v.id == vdisk);
            row.map(|v| v.name.clone())
        };
        let named = catalogue.snapshots.iter().map(|s| {
            let name = Some(s.name.clone());
            (s.layer, LayerKind::Snapshot, name_of(s.vdisk), name)
        });
        let live = catalogue.vdisks.iter().map(|v| match v.hidden {
            true => (v.layer, LayerKind::Import, None, None),
            false => (v.layer, LayerKind::Live, Some(v.name.clone()), None),
        });
        for (id, kind, vdisk, snapshot) in named.chain(live) {
            let place = layers.binary_search_by_key(&id, |l| l.id);
            if let Some(layer) = place.ok().and_then(|n| layers.get_mut(n)) {
                (layer.kind, layer.vdisk, layer.snapshot) = (kind, vdisk, snapshot);
            }
        }
        layers
    }

    /// How fragmented a vDisk is, from `offset` (rounded down to 1 MiB) on, as far as one answer goes: ask on from what
    /// [`VDiskFragmentation::next`] says, and add up. Reads metadata only, what of it is not in memory; the lock is held for 1 MiB at
    /// a time, as for a read of that. What is written meanwhile may be seen or not.
    pub fn fragmentation(
        &self,
        vdisk: &VDisk,
        offset: u64,
    ) -> Result<VDiskFragmentation, StoreError> {
        let block = BLOCK as u64;
        let end = vdisk.size().div_ceil(block);
        let mut at = (offset / block / SPAN).saturating_mul(SPAN).min(end);
        let layers: Vec<u32> = {
            let state = self.core.state.lock();
            ancestors(&state.catalogue, vdisk.layer()).collect()
        };
        let mut fragmentation = Fragmentation::default();
        for _ in 0..STEPS {
            if at >= end {
                break;
            }
            let bare = self.bare_until(&layers, at)?;
            if bare > at {
                at = bare;
                continue;
            }
            let stop = (at + SPAN).min(end);
            fragmentation.add(&self.pieces(vdisk, at, stop - at)?);
            at = stop;
        }
        Ok(VDiskFragmentation {
            fragmentation,
            next: (at < end).then_some(at * block),
        })
    }

    /// A read of these blocks as it would be planned now.
    fn pieces(&self, vdisk: &VDisk, first: u64, blocks: u64) -> Result<Pieces, StoreError> {
        let (mut progress, mut runs, mut reads) = (Progress::default(), Vec::new(), Vec::new());
        let planned = self.core.with_nodes(|state| {
            state.map.make_room();
            let (progress, runs) = (&mut progress, &mut runs);
            plan(state, vdisk.layer(), first, blocks, progress, runs)
        })?;
        if planned.is_ok() {
            page_reads(&runs, &mut reads);
        }
        Ok(Pieces::of(&runs, &reads))
    }

    /// Up to where none of the layers has data, as far as that can be told without looking at leaves.
    fn bare_until(&self, layers: &[u32], at: u64) -> Result<u64, StoreError> {
        let mut end = MAX_BLOCKS;
        for layer in layers {
            let bare = self.core.with_nodes(|state| {
                let bare = state.map.bare_until(*layer, at);
                bare.map_err(Blocked::Node)
            })?;
            end = end.min(bare.unwrap_or(at));
            if end <= at {
                break;
            }
        }
        Ok(end)
    }
}
