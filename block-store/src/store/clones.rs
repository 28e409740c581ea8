//! Clones change places with what they were made from, or become independent of it.

use super::client::BlockClient;
use super::config::OnFull;
use super::lane::Lane;
use super::vdisk::VDisk;
use super::{Store, VDisks};
use crate::compress::{Class, Rules, WriteTraits};
use crate::core::Core;
use crate::defrag::{Pace, Progress, relocate};
use crate::error::StoreError;
use crate::format::{BLOCK, Catalogue, Entry, NODE_SLOTS};
use crate::log::Cause;
use crate::read::Search;
use crate::snapshot::{Graft, ancestors, graft, to_take_over};
use crate::state::Blocked;
use crate::write::{Packer, PreparedWrite};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes that are copied between two rounds of upkeep, at most.
const ROUND: u64 = 64 << 20;
/// Leaves that are looked at between two rounds of upkeep, at most: 8 GiB of address space.
const LOOKS: u64 = 4096;
/// Blocks that are read at a time: 256 KiB.
const AT_ONCE: usize = 64;
/// Pieces of one read in flight.
const DEPTH: u32 = 32;
/// Blocks under one leaf.
const LEAF: u64 = NODE_SLOTS as u64;

/// How far a clone has got on its way to independence.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Flattening {
    /// Bytes of its address space that are its own by now.
    pub done_bytes: u64,
    /// Bytes of its address space.
    pub of_bytes: u64,
    /// Bytes that were copied, since the store was opened.
    pub copied_bytes: u64,
    /// Why it does not go on until the store is opened again.
    pub failed: Option<String>,
}

/// Copies what clones share with others into layers of their own, a leaf at a time.
///
/// # Crash
/// Copies are relocated extents: they count from a checkpoint on, and before that the layers below say the same. The clone lets go
/// of these when it has gone once through all of its address space, by a checkpoint that has all copies. What was
/// copied before a crash is found to be there by the next process.
#[derive(Default)]
pub(super) struct Flattener {
    tools: Option<(BlockClient, Packer)>,
    jobs: BTreeMap<u32, Job>,
}

struct Job {
    graft: Graft,
    /// The shared layers, to be read.
    view: Arc<VDisk>,
    next: u64,
    progress: Flattening,
}

impl Store {
    /// Has a clone take over the snapshots that it has in common with the vDisk that it was cloned from. That is a clone of it then.
    pub fn promote_vdisk(&self, name: &str) -> Result<(), StoreError> {
        let _one = self.changing.lock();
        let vdisk = self.vdisk(name)?;
        let moved = {
            let mut state = self.core.state.lock();
            let catalogue = &mut state.catalogue;
            let graft = graft(catalogue, vdisk.id()).ok_or_else(|| no_clone(name))?;
            let uuids = to_take_over(catalogue, graft);
            if uuids.is_empty() {
                return Err(StoreError::Refused(format!(
                    "the snapshots that vDisk {name:?} was cloned from are deleted: there is nothing to take over; firn vdisk flatten {name} makes it independent"
                )));
            }
            free_of_conflicts(catalogue, &vdisk, &uuids)?;
            let rows = catalogue.snapshots.iter_mut();
            let rows = rows.filter(|s| uuids.contains(&s.uuid));
            let taken = rows.map(|row| (row.uuid, std::mem::replace(&mut row.vdisk, vdisk.id())));
            taken.collect::<Vec<_>>()
        };
        if let Err(error) = self.checkpoint() {
            let mut state = self.core.state.lock();
            for row in &mut state.catalogue.snapshots {
                if let Some((_, before)) = moved.iter().find(|(uuid, _)| *uuid == row.uuid) {
                    row.vdisk = *before;
                }
            }
            return Err(error);
        }
        Ok(())
    }

    /// Has a clone made independent of what it was cloned from, in the background: [`Store::flattening`] tells how far that has got.
    pub fn flatten_vdisk(&self, name: &str) -> Result<(), StoreError> {
        let vdisk = self.vdisk(name)?;
        if graft(&self.core.state.lock().catalogue, vdisk.id()).is_none() {
            return Err(no_clone(name));
        }
        self.change_row(name, |row| row.flatten = true)?;
        self.core.upkeep_bell.ring();
        Ok(())
    }

    /// How far a clone has got on its way to independence; `None`: it is not on it.
    pub fn flattening(&self, vdisk: &VDisk) -> Option<Flattening> {
        let flattens = {
            let state = self.core.state.lock();
            let mut rows = state.catalogue.vdisks.iter();
            rows.any(|v| v.id == vdisk.id() && v.flatten)
        };
        flattens.then(|| {
            let known = self.upkeep.flattening.lock().get(&vdisk.id()).cloned();
            known.unwrap_or_else(|| Flattening {
                of_bytes: vdisk.size(),
                ..Flattening::default()
            })
        })
    }
}

fn no_clone(name: &str) -> StoreError {
    StoreError::Refused(format!(
        "vDisk {name:?} shares nothing with another one that it was cloned from"
    ))
}

fn free_of_conflicts(
    catalogue: &Catalogue,
    vdisk: &VDisk,
    uuids: &[uuid::Uuid],
) -> Result<(), StoreError> {
    let own = catalogue.snapshots.iter().filter(|s| s.vdisk == vdisk.id());
    let own: Vec<&str> = own.map(|s| s.name.as_str()).collect();
    let coming = catalogue
        .snapshots
        .iter()
        .filter(|s| uuids.contains(&s.uuid));
    let twice: Vec<&str> = coming
        .map(|s| s.name.as_str())
        .filter(|name| own.contains(name))
        .collect();
    match twice.is_empty() {
        true => Ok(()),
        false => Err(StoreError::Refused(format!(
            "vDisk {:?} has snapshots of its own with the names of those it would take over: {}; rename these first: firn snapshot rename",
            vdisk.name(),
            twice.join(", ")
        ))),
    }
}

/// What a step has come to.
enum Step {
    Copied(u64),
    /// There is no room now, or a checkpoint has to come first.
    Later,
}

impl Flattener {
    /// Goes on with all clones that are to be independent. A checkpoint must follow, unless there was no progress.
    pub(super) fn round(
        &mut self,
        core: &Arc<Core>,
        vdisks: &VDisks,
        shown: &Mutex<BTreeMap<u32, Flattening>>,
        pace: &mut Pace,
    ) -> Result<Progress, StoreError> {
        let wanted: Vec<u32> = {
            let state = core.state.lock();
            let rows = state.catalogue.vdisks.iter().filter(|v| v.flatten);
            rows.map(|v| v.id).collect()
        };
        self.jobs.retain(|id, _| wanted.contains(id));
        shown.lock().retain(|id, _| wanted.contains(id));
        let (mut copied, mut looks, mut changed) = (0, 0, false);
        for id in wanted {
            let vdisk = vdisks.read().values().find(|v| v.id() == id).cloned();
            let Some(vdisk) = vdisk else { continue };
            let Some(mut job) = self.job(core, &vdisk) else {
                changed |= finish(core, id, None);
                continue;
            };
            if job.progress.failed.is_some() {
                self.jobs.insert(id, job);
                continue;
            }
            let outcome = loop {
                if job.next >= job.progress.of_bytes / BLOCK as u64 {
                    break Ok(true);
                }
                if copied >= ROUND || looks >= LOOKS || core.wants_checkpoint(&core.state.lock()) {
                    break Ok(false);
                }
                pace.wait();
                match self.step(core, &vdisk, &job) {
                    Ok(Step::Copied(bytes)) => {
                        copied += bytes;
                        looks += 1;
                        job.next = (job.next / LEAF + 1) * LEAF;
                        job.progress.copied_bytes += bytes;
                        job.progress.done_bytes =
                            (job.next * BLOCK as u64).min(job.progress.of_bytes);
                        shown.lock().insert(id, job.progress.clone());
                    }
                    Ok(Step::Later) => break Ok(false),
                    Err(error) => break Err(error),
                }
            };
            match outcome {
                Ok(true) => changed |= finish(core, id, Some(job.graft)),
                Ok(false) => drop(self.jobs.insert(id, job)),
                Err(error) => {
                    log::error!(
                        "vDisk {} can't be made independent: {error}; it stays a clone, and is tried again when the backend is restarted",
                        vdisk.name()
                    );
                    job.progress.failed = Some(error.to_string());
                    shown.lock().insert(id, job.progress.clone());
                    self.jobs.insert(id, job);
                }
            }
        }
        let more = self.jobs.values().any(|j| j.progress.failed.is_none());
        Ok(match (looks > 0 || changed, more) {
            (false, _) => Progress::None,
            (true, false) => Progress::Some,
            (true, true) => Progress::More,
        })
    }

    /// The job of a clone, begun anew if what it lies over is not what it was. `None`: it shares nothing any more.
    fn job(&mut self, core: &Arc<Core>, vdisk: &Arc<VDisk>) -> Option<Job> {
        let before = self.jobs.remove(&vdisk.id());
        let mut state = core.state.lock();
        let graft = graft(&state.catalogue, vdisk.id())?;
        if let Some(job) = before.filter(|j| j.graft == graft) {
            return Some(job);
        }
        let catalogue = &state.catalogue;
        let row = catalogue.vdisks.iter().find(|v| v.id == vdisk.id())?;
        // Its snapshots may be larger than it is now.
        let own = catalogue.snapshots.iter().filter(|s| s.vdisk == row.id);
        let size = own.map(|s| s.size).max().unwrap_or(0).max(row.size);
        let reader = Arc::new(());
        // Reading it in order tells nothing of how it is used.
        let rules = Rules {
            coalesce: Vec::new(),
            ..Rules::default()
        };
        let size = size.next_multiple_of(BLOCK as u64);
        let view = VDisk::of_layer(
            row,
            graft.shared,
            size,
            Arc::new(rules),
            Arc::clone(&reader),
        );
        state.readers.push((graft.shared, Arc::downgrade(&reader)));
        Some(Job {
            graft,
            view: Arc::new(view),
            next: 0,
            progress: Flattening {
                of_bytes: size,
                ..Flattening::default()
            },
        })
    }

    /// Copies what the clone sees through one leaf of its own layer.
    fn step(&mut self, core: &Arc<Core>, vdisk: &VDisk, job: &Job) -> Result<Step, StoreError> {
        let end = (job.progress.of_bytes / BLOCK as u64).min((job.next / LEAF + 1) * LEAF);
        let Some(wanted) = seen_through(core, job.graft, job.next..end)? else {
            return Ok(Step::Later);
        };
        if self.tools.is_none() {
            let tool = || StoreError::io("copying blocks of a clone");
            let lane = Lane::new(Arc::clone(core), OnFull::Error, DEPTH, None);
            let client = BlockClient::new(lane.map_err(tool())?.uncounted());
            self.tools = Some((client, Packer::new().map_err(tool())?));
        }
        let Some((client, packer)) = &mut self.tools else {
            return Ok(Step::Later);
        };
        let mut copied = 0;
        for range in wanted {
            let mut data = vec![0; (range.end - range.start) as usize * BLOCK];
            let offset = range.start * BLOCK as u64;
            client
                .read(&job.view, offset, &mut data)
                .map_err(|e| StoreError::Refused(format!("reading at byte {offset}: {e}")))?;
            if !put(core, packer, vdisk, job.graft.own, range.start, &data)? {
                return Ok(Step::Later);
            }
            copied += data.len() as u64;
        }
        Ok(Step::Copied(copied))
    }
}

/// Blocks that lie in the shared layers and are seen through the clone's own: in runs of at most [`AT_ONCE`]. `None`: a checkpoint
/// has to come first.
fn seen_through(
    core: &Core,
    graft: Graft,
    blocks: Range<u64>,
) -> Result<Option<Vec<Range<u64>>>, StoreError> {
    let mut search = Search::default();
    let found = core.with_nodes(|state| {
        state.map.make_room();
        let own = state.map.leaf(graft.own, blocks.start);
        let own = own.map_err(Blocked::Node)?;
        let open: Vec<bool> = blocks.clone().map(|b| own.entry(b) == 0).collect();
        let below = search.run(state, graft.shared, blocks.start, blocks.end - blocks.start)?;
        let stored = |bits: u64| matches!(Entry::unpack(bits), Ok(Entry::Stored { .. }));
        let wanted = open
            .iter()
            .zip(below)
            .map(|(o, (_, bits))| *o && stored(*bits));
        Ok(wanted.collect::<Vec<bool>>())
    })?;
    let Ok(found) = found else { return Ok(None) };
    let mut out: Vec<Range<u64>> = Vec::new();
    for (block, _) in blocks.zip(found).filter(|(_, wanted)| *wanted) {
        match out.last_mut() {
            Some(r) if r.end == block && r.end - r.start < AT_ONCE as u64 => r.end += 1,
            _ => out.push(block..block + 1),
        }
    }
    Ok(Some(out))
}

/// Stores blocks in the clone's own layer, where it still has none. `false`: there is no room.
fn put(
    core: &Core,
    packer: &mut Packer,
    vdisk: &VDisk,
    layer: u32,
    first: u64,
    data: &[u8],
) -> Result<bool, StoreError> {
    let traits = WriteTraits {
        bytes: data.len() as u64,
        sequential: true,
        aligned: true,
        tag: vdisk.tag(),
        age_secs: 0,
        class: Class::Compressible,
        cpu_headroom: core.cpu_headroom.load(Relaxed),
    };
    let mut prepared = PreparedWrite::default();
    packer.pack_stored(&vdisk.rules(), &traits, first, data, &mut prepared);
    let absent = [Entry::Absent.pack(); AT_ONCE];
    for piece in &prepared.pieces {
        let payload = prepared.payload(piece, data);
        let Some(header) = piece.header(layer, payload) else {
            continue;
        };
        let seen = absent.get(..piece.blocks as usize).unwrap_or_default();
        if relocate(core, Cause::Cloning, &header, payload, seen)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The clone is independent: its own layer lets go of those below, if these still are what was copied.
fn finish(core: &Core, vdisk: u32, copied: Option<Graft>) -> bool {
    let mut state = core.state.lock();
    if copied.is_some() && graft(&state.catalogue, vdisk) != copied {
        return false;
    }
    if let Some(graft) = copied {
        if let Some(layer) = state.catalogue.layers.get_mut(&graft.own) {
            layer.parent = None;
        }
        // It knows nothing of what was copied since, nor does a layer over it that it is being merged into.
        let layer = state.catalogue.vdisks.iter().find(|v| v.id == vdisk);
        let over = layer.map_or_else(Vec::new, |v| ancestors(&state.catalogue, v.layer).collect());
        for layer in over {
            state.presence.forget(layer);
        }
    }
    let rows = state.catalogue.vdisks.iter_mut();
    for row in rows.filter(|v| v.id == vdisk) {
        row.flatten = false;
    }
    true
}
