//! Checkpoints: maps, segment table and catalogue made durable as of one LSN, switched in atomically.
//!
//! # Crash
//! 1. Everything appended up to the cut's LSN is made durable ([`Core::commit`]).
//! 2. The map as of the cut is written to metadata segments, leaves first, then table and catalogue; nothing newer.
//! 3. The metadata segment is synced.
//! 4. One superblock is written and synced, never the one that the store was opened from, which may be the only good one:
//!    from here on the checkpoint counts.
//! 5. The other superblock is written and synced: from here on damage to either one heals from the other.
//! 6. Only now segments are unlinked that neither this checkpoint nor the map of today names.
//!
//! A crash before the end of 4 leaves the checkpoint before it, named by the other superblock, whose segments are all still there.

mod meta;
mod remove;

use crate::core::Core;
use crate::error::StoreError;
use crate::format::{
    Catalogue, Entry, FormatError, Location, SUPERBLOCK_SIZE, SegmentRow, Superblock, Temperature,
    decode_table, encode_table,
};
use crate::io::{AlignedBuf, DiskFile};
use crate::log::Cause;
use crate::map::{Frozen, NodeKey, Settled};
use meta::{MetaWriter, read_chain};
use remove::remove_dead;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Name of the file with the two superblocks.
pub const SUPERBLOCK_FILE: &str = "superblock";

/// Writes checkpoints; owned by whoever holds its lock.
pub struct Checkpointer {
    superblock: Superblock,
    /// Where the two superblocks are, in the order in which they are written.
    places: [u64; 2],
    file: Arc<dyn DiskFile>,
    meta: MetaWriter,
    /// Segments that hold the pieces of the current table and catalogue.
    chains: Vec<u32>,
}

/// The store as of the cut.
struct Image {
    lsn: u64,
    appended: u64,
    next_generation: u64,
    frozen: BTreeMap<(u8, NodeKey), Frozen>,
    catalogue: Catalogue,
    rows: Vec<SegmentRow>,
}

impl Checkpointer {
    /// Goes on from the superblock that was read at byte `place`; `chains` are the segments of its table's and catalogue's
    /// pieces.
    pub fn new(
        superblock: Superblock,
        place: u64,
        file: Arc<dyn DiskFile>,
        chains: Vec<u32>,
    ) -> Self {
        let other = SUPERBLOCK_SIZE as u64 - place.min(SUPERBLOCK_SIZE as u64);
        Self {
            superblock,
            places: [other, place],
            file,
            meta: MetaWriter::default(),
            chains,
        }
    }

    /// The superblock that counts.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Takes a checkpoint. `change` is applied to the superblock that switches it in.
    pub fn run(
        &mut self,
        core: &Core,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<(), StoreError> {
        let begun = Instant::now();
        let image = cut(core);
        match self.write(core, image, change) {
            Ok(()) => {
                let milliseconds = begun.elapsed().as_millis() as u64;
                let total = &core.counters.checkpoint_milliseconds;
                total.fetch_add(milliseconds, Relaxed);
                Ok(())
            }
            Err((frozen, error)) => {
                core.state.lock().map.thaw(&frozen);
                Err(error)
            }
        }
    }

    #[expect(
        clippy::type_complexity,
        reason = "the frozen nodes go back to the map on failure"
    )]
    fn write(
        &mut self,
        core: &Core,
        mut image: Image,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<(), (BTreeMap<(u8, NodeKey), Frozen>, StoreError)> {
        let result = (|| {
            core.commit()?;
            let written = self.write_nodes(core, &mut image)?;
            let next = self.write_roots(core, &mut image, &written)?;
            self.meta.sync(core)?;
            Ok((written, next))
        })();
        let (written, (mut next, chains)) = match result {
            Ok(done) => done,
            Err(error) => return Err((image.frozen, error)),
        };
        change(&mut next);
        if let Err(error) = self.switch(core, next) {
            return Err((image.frozen, error));
        }
        settle(core, &image.frozen, &written, &chains, &self.chains);
        self.chains = chains;
        core.checkpoint_taken(image.appended);
        remove_dead(core, &image.rows);
        Ok(())
    }

    /// Step 2: nodes, leaves first, so that every inner node is written with its children's new places.
    fn write_nodes(
        &mut self,
        core: &Core,
        image: &mut Image,
    ) -> Result<HashMap<NodeKey, u64>, StoreError> {
        let mut written = HashMap::new();
        let keys: Vec<_> = image.frozen.keys().copied().collect();
        for (level, key) in keys {
            let Some(frozen) = image.frozen.get(&(level, key)) else {
                continue;
            };
            let at = self.meta.append_node(core, key, &frozen.slots)?;
            written.insert(key, at);
            match key.parent() {
                Some(parent) => {
                    if let Some(above) = image.frozen.get_mut(&(parent.level(), parent)) {
                        above.set_child(key.number(), at);
                    }
                }
                None => {
                    if let Some(layer) = image.catalogue.layers.get_mut(&key.layer()) {
                        layer.root = at;
                    }
                }
            }
        }
        Ok(written)
    }

    /// Step 2, the end: segment table and catalogue. Returns the superblock to be, and the segments of their pieces.
    fn write_roots(
        &mut self,
        core: &Core,
        image: &mut Image,
        written: &HashMap<NodeKey, u64>,
    ) -> Result<(Superblock, Vec<u32>), StoreError> {
        image.catalogue.scrub = core.scrub.json();
        let catalogue = image
            .catalogue
            .encode()
            .map_err(|e| StoreError::Refused(format!("no checkpoint can be taken: {e}")))?;
        // The table must name the segment that it is written to: make sure that it is open already.
        self.meta
            .reserve(core, image.rows.len() * 32 + catalogue.len() + (64 << 10))?;
        self.complete_rows(core, image, written);
        let mut chains = Vec::new();
        let table = self.meta.append_chain(
            core,
            crate::format::RecordKind::Table,
            &encode_table(&image.rows),
            &mut chains,
        )?;
        let catalogue = self.meta.append_chain(
            core,
            crate::format::RecordKind::Catalogue,
            &catalogue,
            &mut chains,
        )?;
        let next = Superblock {
            generation: self.superblock.generation + 1,
            checkpoint_lsn: image.lsn,
            next_segment_generation: image.next_generation,
            table,
            catalogue,
            ..self.superblock.clone()
        };
        Ok((next, chains))
    }

    /// The rows were taken at the cut; what the checkpoint itself has written and replaced since is added here.
    fn complete_rows(&self, core: &Core, image: &mut Image, written: &HashMap<NodeKey, u64>) {
        let mut rows: BTreeMap<u32, SegmentRow> = image.rows.iter().map(|r| (r.id, *r)).collect();
        let state = core.state.lock();
        for id in self.meta.segments() {
            if let Some(now) = state.segments.get(id) {
                let live = rows.get(&id).map_or(0, |r| r.live);
                let (generation, used, total) = (now.generation, now.used, now.total);
                rows.insert(
                    id,
                    SegmentRow {
                        id,
                        generation,
                        used,
                        live,
                        total,
                        open: false,
                        meta: true,
                        settled: false,
                        temperature: Temperature::Unknown,
                    },
                );
            }
        }
        drop(state);
        let mut change = |bits: u64, by: i64| {
            if let Ok(Entry::Stored { at, .. }) = Entry::unpack(bits)
                && let Some(row) = rows.get_mut(&at.segment)
            {
                row.live = u32::try_from(i64::from(row.live) + by).unwrap_or(0);
            }
        };
        for ((_, key), frozen) in &image.frozen {
            if let Some(at) = written.get(key) {
                change(*at, 1);
                change(frozen.replaces, -1);
            }
        }
        // Pieces of table and catalogue are not counted: whoever reads the rows has found these pieces himself.
        for segment in &self.chains {
            if let Some(row) = rows.get_mut(segment) {
                row.live = row.live.saturating_sub(1);
            }
        }
        image.rows = rows.into_values().collect();
    }

    /// Steps 4 and 5.
    fn switch(&mut self, core: &Core, next: Superblock) -> Result<(), StoreError> {
        let page = next
            .encode()
            .map_err(StoreError::damaged("encoding the superblock"))?;
        let page =
            AlignedBuf::from_bytes(&page).map_err(StoreError::io("encoding the superblock"))?;
        let written = &core.counters.written;
        let mut switched = Ok(());
        for place in self.places {
            switched = switched
                .and_then(|()| self.file.write_at(&page, place))
                .inspect(|()| written.add(Cause::Superblock, page.len() as u64))
                .and_then(|()| self.file.sync());
        }
        if let Err(error) = switched {
            // Whether it landed can't be known: going on could unlink what the one on disk names.
            core.fail_because(&format!("writing the superblock: {error}"));
            return Err(StoreError::io("writing the superblock")(error));
        }
        self.superblock = next;
        Ok(())
    }

    /// Writes a superblock that differs from the current one only by `change`.
    pub fn amend(
        &mut self,
        core: &Core,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<(), StoreError> {
        let mut next = Superblock {
            generation: self.superblock.generation + 1,
            ..self.superblock.clone()
        };
        change(&mut next);
        self.switch(core, next)
    }
}

/// The cut: one short critical section, whose length grows with the number of dirty nodes alone.
fn cut(core: &Core) -> Image {
    let mut state = core.state.lock();
    let state = &mut *state;
    // The catalogue's roots are those of the checkpoint before.
    for (id, layer) in &mut state.catalogue.layers {
        layer.root = state.map.root(*id);
    }
    let vanished = state.segments.vanished();
    let generations = || state.segments.generations();
    state.catalogue.aliases.tidy(vanished, generations);
    Image {
        lsn: state.log.last_lsn(),
        appended: state.log.appended,
        next_generation: state.segments.first_to_come(),
        frozen: state.map.freeze(),
        catalogue: state.catalogue.clone(),
        rows: state.segments.rows(),
    }
}

/// The map of today learns where its nodes are now.
fn settle(
    core: &Core,
    frozen: &BTreeMap<(u8, NodeKey), Frozen>,
    written: &HashMap<NodeKey, u64>,
    chains: &[u32],
    old_chains: &[u32],
) {
    let mut state = core.state.lock();
    for ((_, key), node) in frozen {
        let Some(at) = written.get(key) else { continue };
        if state.map.settle(*key, node, *at) == Settled::Adopted {
            for (bits, add) in [(*at, true), (node.replaces, false)] {
                if let Ok(Entry::Stored { at, .. }) = Entry::unpack(bits) {
                    if add {
                        state.segments.retain(at.segment, 1)
                    } else {
                        state.segments.release(at.segment)
                    }
                }
            }
        }
    }
    for segment in chains {
        state.segments.retain(*segment, 1);
    }
    for segment in old_chains {
        state.segments.release(*segment);
    }
}

/// Reads table and catalogue of a superblock. Also returns the segments of their pieces.
pub fn read_roots(
    disk: &dyn crate::io::Disk,
    superblock: &Superblock,
) -> Result<(Vec<SegmentRow>, Catalogue, Vec<u32>), StoreError> {
    let mut places = Vec::new();
    let rows = read_table(disk, superblock, &mut places)
        .map_err(StoreError::damaged("the segment table"))?;
    let catalogue = read_catalogue(disk, superblock, &mut places)
        .map_err(StoreError::damaged("the catalogue"))?;
    let segments = places.iter().map(|at| at.segment).collect();
    Ok((rows, catalogue, segments))
}

/// Reads the segment table; `places` as in [`read_chain`].
pub fn read_table(
    disk: &dyn crate::io::Disk,
    superblock: &Superblock,
    places: &mut Vec<Location>,
) -> Result<Vec<SegmentRow>, FormatError> {
    let (chain, kind) = (&superblock.table, crate::format::RecordKind::Table);
    decode_table(&read_chain(disk, superblock, chain, kind, places)?)
}

/// Reads the catalogue; `places` as in [`read_chain`].
pub fn read_catalogue(
    disk: &dyn crate::io::Disk,
    superblock: &Superblock,
    places: &mut Vec<Location>,
) -> Result<Catalogue, FormatError> {
    let (chain, kind) = (&superblock.catalogue, crate::format::RecordKind::Catalogue);
    let bytes = read_chain(disk, superblock, chain, kind, places)?;
    if chain.records == 0 {
        return Ok(Catalogue {
            next_layer: 1,
            ..Catalogue::default()
        });
    }
    Catalogue::decode(&bytes)
}
