//! Opening a store: newest superblock, then roll-forward over the log's own records.
//!
//! 1. The write buffer that a killed process left is written to its segments, as draining would have done.
//! 2. Table and catalogue of the checkpoint are read; nodes of maps come when they are needed.
//! 3. What the log holds since the checkpoint is scanned, bounded by [`crate::store::OpenConfig::checkpoint_log`].
//! 4. Records newer than the checkpoint are applied in order of LSN. Relocated extents are passed over: their sources
//!    are still there, and something newer may have been written to their blocks.
//! 5. What was scanned is (after a failed fsync: written again,) synced and sealed: nothing is ever appended to it again.
//! 6. The superblock names a new write buffer. Only now the space behind what was scanned is given back: until then a
//!    death would have the old buffer written there once more.

mod buffer;
mod prefetch;
mod promise;
mod scan;
mod standing;

use crate::alloc::{Content, Phase, Segment, Segments};
use crate::error::StoreError;
use crate::format::{
    Catalogue, CutRecord, Location, Prefix, RecordKind, SEGMENT_DATA_START, SegmentRow, Superblock,
    Temperature, segment_id_of,
};
use crate::io::{AlignedBuf, Disk, DiskFile, PAGE};
use crate::map::{Map, Missing, NodeKey, Presence, Resolved};
use crate::read::NodeRead;
use crate::state::State;
use crate::write::{clear, point_at};
pub use buffer::{BufferFound, note_failed_recovery, replay_buffer};
use prefetch::prefetch;
pub use promise::{cut_short, hold_to_promises};
pub use scan::{Records, Scan, Scanned, Window, scan};
pub use standing::{Head, Standing, read_header, standing};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A store as it was found, ready to go on.
pub struct Recovered {
    /// Block maps.
    pub map: Map,
    /// Segments; all sealed.
    pub segments: Segments,
    /// vDisks, layers, snapshots.
    pub catalogue: Catalogue,
    /// Segments of table's and catalogue's pieces.
    pub chains: Vec<u32>,
    /// The next LSN.
    pub next_lsn: u64,
    /// What the scan has found and made durable, to be recorded by the first commit.
    pub prefixes: Vec<Prefix>,
    /// Files whose space from here on is of no use any more.
    pub unused: Vec<(Arc<dyn DiskFile>, u32)>,
    /// Damage to the log was accepted: the next checkpoint forgets it.
    pub damaged: bool,
    /// Bytes of log that were scanned.
    pub scanned: u64,
    /// Records that were applied.
    pub applied: usize,
}

/// Reads the newest superblock's checkpoint and rolls forward.
pub fn recover(
    disk: &dyn Disk,
    superblock: &Superblock,
    map_nodes: usize,
    accept_damage: bool,
    rewrite: bool,
) -> Result<Recovered, StoreError> {
    let (rows, catalogue, chains) = crate::checkpoint::read_roots(disk, superblock)?;
    let mut found = Recovered {
        map: Map::new(map_nodes),
        segments: Segments::starting_at(superblock.next_segment_generation),
        catalogue,
        chains,
        next_lsn: superblock.checkpoint_lsn + 1,
        prefixes: Vec::new(),
        unused: Vec::new(),
        damaged: false,
        scanned: 0,
        applied: 0,
    };
    for (id, layer) in &found.catalogue.layers {
        found.map.add_layer(*id, layer.root);
    }
    let logs = open_segments(disk, superblock, &rows, &mut found.segments, accept_damage)?;
    for segment in found.chains.clone() {
        found.segments.retain(segment, 1);
    }
    let mut scans = scan_logs(&logs, superblock, &mut found, accept_damage)?;
    // Only now: a file without a valid header that a commit has promised is damage, and has been reported.
    remove_orphans(disk, &logs.orphans)?;
    roll_forward(disk, &mut scans, superblock.checkpoint_lsn, &mut found)?;
    seal(&scans, &mut found, rewrite)?;
    Ok(found)
}

/// A segment whose end is not known from the table.
struct LogTail {
    id: u32,
    from: u32,
}

/// What the directory holds besides sealed segments.
struct Logs {
    /// To be scanned.
    tails: Vec<LogTail>,
    /// Segments that were being appended to and are not there, up to where they were used at the checkpoint.
    missing: Vec<Prefix>,
    /// Files that don't count.
    orphans: Vec<String>,
}

/// Opens all segments that count. Returns which have to be scanned from where, and the files that don't count.
fn open_segments(
    disk: &dyn Disk,
    superblock: &Superblock,
    rows: &[SegmentRow],
    segments: &mut Segments,
    accept_damage: bool,
) -> Result<Logs, StoreError> {
    let by_id: HashMap<u32, &SegmentRow> = rows.iter().map(|r| (r.id, r)).collect();
    // A checkpoint's own segments may have been made after its cut. Their generations must not come again, or the log of
    // a segment to come would pass for the one that the table names.
    let newest = rows.iter().map(|r| r.generation + 1).max();
    segments.next_generation = segments.next_generation.max(newest.unwrap_or(0));
    let (mut tails, mut missing, mut orphans) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for name in disk.list().map_err(StoreError::io("listing the store"))? {
        let Some(id) = segment_id_of(&name) else {
            continue;
        };
        let file = disk
            .open(&name)
            .map_err(StoreError::io(format!("opening {name}")))?;
        let header = read_header(&*file, superblock, id)
            .map_err(StoreError::io(format!("reading {name}")))?;
        let row = by_id.get(&id).copied();
        let (generation, live, total, used, content) =
            match standing(row, &header, superblock.next_segment_generation) {
                Standing::Named(row) => {
                    seen.insert(id);
                    let content = if row.meta {
                        Content::Meta
                    } else {
                        Content::Data
                    };
                    if row.open {
                        tails.push(LogTail {
                            id,
                            from: row.used.max(SEGMENT_DATA_START),
                        });
                    }
                    (row.generation, row.live, row.total, row.used, content)
                }
                Standing::Log(generation) => {
                    tails.push(LogTail {
                        id,
                        from: SEGMENT_DATA_START,
                    });
                    segments.next_generation = segments.next_generation.max(generation + 1);
                    (generation, 0, 0, SEGMENT_DATA_START, Content::Data)
                }
                Standing::Unknown(error) if !accept_damage => {
                    return Err(StoreError::damaged(format!(
                        "{name}, which may hold flushed data (--accept-log-damage gives it up)"
                    ))(error.clone()));
                }
                Standing::Unknown(_) | Standing::Orphan => {
                    orphans.push(name);
                    continue;
                }
            };
        segments.insert(
            id,
            Segment {
                generation,
                file,
                phase: Phase::Sealed,
                content,
                temperature: row
                    .filter(|r| r.generation == generation)
                    .map_or(Temperature::Unknown, |r| r.temperature),
                used,
                live,
                total,
                // Not known any more, and no matter: old segments are only read.
                prewritten: false,
                settled: row.is_some_and(|r| r.settled),
                left: 0,
                touched: 0,
            },
        );
    }
    for row in rows.iter().filter(|r| !seen.contains(&r.id)) {
        if row.live > 0 {
            let id = row.id;
            log::error!("segment {id:x} is missing; what it held will read as I/O errors");
        }
        // Records may have followed in it, of which nothing else tells.
        if row.open {
            missing.push(Prefix {
                segment: row.id,
                generation: row.generation,
                end: row.used,
            });
        }
    }
    Ok(Logs {
        tails,
        missing,
        orphans,
    })
}

/// Scans the tails and holds them against what commits have promised.
fn scan_logs(
    logs: &Logs,
    superblock: &Superblock,
    found: &mut Recovered,
    accept_damage: bool,
) -> Result<Vec<Scan>, StoreError> {
    let (mut scans, mut broken) = (Vec::new(), Vec::new());
    for tail in &logs.tails {
        let Some(segment) = found.segments.get(tail.id) else {
            continue;
        };
        let file = &*segment.file;
        let scan = scan(file, tail.id, segment.generation, tail.from)
            .and_then(|mut scan| scan.look_beyond(file).map(|()| scan))
            .map_err(StoreError::io(format!("reading segment {:x}", tail.id)))?;
        let len = file
            .len()
            .map_err(StoreError::io(format!("reading segment {:x}", tail.id)))?;
        broken.extend(cut_short(tail.id, len, superblock.segment_size));
        found.scanned += u64::from(scan.end.saturating_sub(tail.from));
        scans.push(scan);
    }
    broken.extend(hold_to_promises(
        &mut scans,
        &logs.missing,
        superblock.next_segment_generation,
        &|id| found.segments.get(id).is_some(),
    ));
    for error in broken {
        if !accept_damage {
            return Err(error);
        }
        found.damaged = true;
        log::error!("{error}; going on without it, as told");
    }
    for (segment, record) in scans
        .iter()
        .flat_map(|s| s.records.iter().map(|r| (s.segment, r)))
    {
        if record.intact {
            continue;
        }
        let (at, header) = (record.offset, &record.header);
        match header.kind {
            RecordKind::Extent => log::error!(
                "segment {segment:x}, byte {at}: payload does not verify; blocks {}..{} of layer {} will read as I/O errors",
                header.first,
                header.first.saturating_add(header.count),
                header.layer
            ),
            kind => log::error!(
                "segment {segment:x}, byte {at}: payload of a {kind:?} record does not verify"
            ),
        }
    }
    Ok(scans)
}

/// Applies what is newer than the checkpoint, in order of LSN.
fn roll_forward(
    disk: &dyn Disk,
    scans: &mut [Scan],
    checkpoint: u64,
    found: &mut Recovered,
) -> Result<(), StoreError> {
    let mut records: Vec<(u32, Scanned)> = Vec::new();
    let mut cuts = BTreeMap::new();
    for scan in scans.iter_mut() {
        cuts.append(&mut scan.cuts);
        if let Some(segment) = found.segments.get_mut(scan.segment) {
            segment.used = segment.used.max(scan.end);
        }
        records.extend(scan.records.drain(..).map(|r| (scan.segment, r)));
    }
    records.sort_unstable_by_key(|(_, r)| r.header.lsn);
    let since = scans.iter().map(|s| s.generation).min();
    let mut state = Forward::of(found, since.unwrap_or(0));
    let newer = records
        .iter()
        .map(|(_, r)| &r.header)
        .filter(|h| h.lsn > checkpoint);
    let extents = newer.filter(|h| h.kind == RecordKind::Extent);
    let leaves = extents.map(|h| NodeKey::leaf(h.layer, h.first));
    prefetch(disk, &mut state.state, leaves.collect())?;
    for (segment, record) in records {
        let header = &record.header;
        state.next_lsn = state.next_lsn.max(header.lsn + 1);
        let at = Location {
            segment,
            offset: record.offset,
            len: header.stored_len() as u32,
        };
        state.count(&record, at);
        if header.lsn > checkpoint
            && header.kind == RecordKind::Cut
            && let Some(cut) = cuts.get(&header.lsn)
        {
            state.cut(cut);
            continue;
        }
        let known = state.state.catalogue.layers.contains_key(&header.layer);
        if header.lsn > checkpoint && !header.flags.relocated && known {
            state.apply(&record, at)?;
        }
    }
    state.back_to(found);
    Ok(())
}

/// The state while rolling forward; its log stays empty.
struct Forward {
    state: State,
    next_lsn: u64,
    applied: usize,
    /// Generation of the oldest segment that was scanned.
    since: u64,
}

impl Forward {
    fn of(found: &mut Recovered, since: u64) -> Self {
        let state = State {
            map: std::mem::replace(&mut found.map, Map::new(0)),
            // Nothing is searched for.
            presence: Presence::new(0),
            resolved: Resolved::new(0),
            segments: std::mem::take(&mut found.segments),
            log: crate::log::Log::nowhere(),
            catalogue: std::mem::take(&mut found.catalogue),
            failed: None,
            full: false,
            exhausted: false,
            wants_room: false,
            segment_size: 0,
            readers: Vec::new(),
            left: HashMap::new(),
            stuck: HashSet::new(),
        };
        Self {
            state,
            next_lsn: found.next_lsn,
            applied: 0,
            since,
        }
    }

    fn back_to(self, found: &mut Recovered) {
        found.map = self.state.map;
        found.segments = self.state.segments;
        found.catalogue = self.state.catalogue;
        (found.next_lsn, found.applied) = (self.next_lsn, self.applied);
    }

    fn count(&mut self, record: &Scanned, at: Location) {
        let count = match record.header.kind {
            RecordKind::Extent | RecordKind::Range => record.header.count.min(32) as u32,
            _ => 0,
        };
        self.state.segments.appended(at.segment, at.end(), count);
    }

    /// vDisks go on in new layers. Without names the sealed ones are merged, sooner or later.
    fn cut(&mut self, cut: &CutRecord) {
        for row in &cut.rows {
            if let Err(why) = crate::snapshot::apply_cut(&mut self.state, row, self.since) {
                log::info!("a cut of vDisk {} is passed over: {why}", row.vdisk);
            }
        }
        self.applied += 1;
    }

    fn apply(&mut self, record: &Scanned, at: Location) -> Result<(), StoreError> {
        let header = &record.header;
        let (layer, first, count) = (header.layer, header.first, header.count);
        match header.kind {
            RecordKind::Extent => {
                self.load(|s| s.map.make_resident(NodeKey::leaf(layer, first)))?;
                point_at(&mut self.state, layer, first, count, at);
            }
            RecordKind::Range => {
                self.load(|s| s.map.prepare_range(layer, first, count))?;
                clear(&mut self.state, layer, first, count);
            }
            _ => return Ok(()),
        }
        self.applied += 1;
        Ok(())
    }

    /// Reads nodes until `attempt` finds all it needs.
    fn load(
        &mut self,
        mut attempt: impl FnMut(&mut State) -> Result<(), Missing>,
    ) -> Result<(), StoreError> {
        while let Err(missing) = attempt(&mut self.state) {
            load_node(&mut self.state, missing)?;
        }
        Ok(())
    }
}

/// Reads one node now and hands it to the map.
pub fn load_node(state: &mut State, missing: Missing) -> Result<(), StoreError> {
    let damaged = |why: String| {
        StoreError::damaged("a block map")(crate::format::FormatError {
            what: "map node",
            why,
        })
    };
    let read = NodeRead::plan(state, missing).map_err(damaged)?;
    let slots = read
        .read_now(&mut |origin, layer| state.is_heir(origin, layer))
        .map_err(damaged)?;
    state.map.install(missing, slots);
    Ok(())
}

/// Removes files that no checkpoint and no commit names: unlinked by a checkpoint whose directory was not synced, or
/// never finished being allocated.
fn remove_orphans(disk: &dyn Disk, orphans: &[String]) -> Result<(), StoreError> {
    for name in orphans {
        log::info!("removing {name}: no checkpoint names it");
        disk.remove(name)
            .map_err(StoreError::io(format!("removing {name}")))?;
    }
    Ok(())
}

/// Writes a part of a file over itself: after a failed fsync the kernel takes pages for clean that are not on the disk.
fn write_again(file: &dyn DiskFile, from: u32, to: u32) -> std::io::Result<()> {
    let mut at = from / PAGE as u32 * PAGE as u32;
    while at < to {
        let mut pages = AlignedBuf::zeroed((to - at).min(1 << 20) as usize)?;
        file.read_at(&mut pages, u64::from(at))?;
        file.write_at(&pages, u64::from(at))?;
        at += pages.len() as u32;
    }
    Ok(())
}

/// What was scanned becomes durable; what is empty goes with the next checkpoint.
fn seal(scans: &[Scan], found: &mut Recovered, rewrite: bool) -> Result<(), StoreError> {
    for scan in scans {
        let Some(segment) = found.segments.get(scan.segment) else {
            continue;
        };
        let file = Arc::clone(&segment.file);
        let end = scan.end.next_multiple_of(PAGE as u32);
        let context = || StoreError::io(format!("sealing segment {:x}", scan.segment));
        if rewrite {
            write_again(&*file, scan.from, end).map_err(context())?;
        }
        file.sync().map_err(context())?;
        found.unused.push((file, end));
        found.prefixes.push(Prefix {
            segment: scan.segment,
            generation: scan.generation,
            end: scan.end,
        });
    }
    Ok(())
}
