//! Reclamation: what deleted data leaves behind is found, sparse segments are compacted, dead ones go.
//!
//! A segment without a live entry is removed by the next checkpoint. Everything here runs on the upkeep thread in
//! small steps, outside of the lock but for short critical sections, and can stop anywhere: what has not taken
//! effect by a checkpoint is done again.

mod appetite;
mod compact;
mod dropped;
mod fragmentation;
mod group;
mod pace;
mod policy;
mod relocate;
mod source;
mod spot;

pub use compact::bytes_moved;
pub use fragmentation::{Fragmentation, SPAN};
pub use pace::Pace;
pub use relocate::relocate;
pub use source::owners;
pub use spot::{Gather, Later, Pieces, Spot};

use crate::alloc::{Appetite, Candidate, Content, Segments, Why, choose};
use crate::core::Core;
use crate::counters::count;
use crate::error::StoreError;
use crate::snapshot::tidy;
use appetite::{Circumstances, appetite};
use compact::{Compaction, Outcome};
use policy::Policies;
use source::{Due, Source};
use std::sync::atomic::Ordering::Relaxed;

/// Nodes of deleted maps that are walked between two checkpoints, at most.
const WALK: usize = 1000;
/// Steps of merging layers between two checkpoints, at most.
const TIDY: usize = 4096;
/// Segments compacted between two checkpoints, at most.
const ROUND: usize = 4;
/// Live blocks, of 200 bytes of memory each, with which no further segment is taken.
const BLOCKS: u32 = 1 << 15;
/// Share of the host's CPU time, in per cent, that is idle when the store may work for later.
const IDLE: u8 = 80;

/// One round of reclamation; `checkpoint` makes its effects durable and removes segments.
pub fn reclaim(
    core: &Core,
    low_space_percent: u32,
    pace: &mut Pace,
    mut checkpoint: impl FnMut() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let tidied = tidy(core, TIDY)?;
    if tidied.steps > 0 {
        checkpoint()?;
    }
    let walk = dropped::walk(core, WALK)?;
    if walk.nodes > 0 {
        checkpoint()?;
    }
    if walk.more || tidied.more {
        core.upkeep_bell.ring();
        return Ok(());
    }
    let round = Round::of(core, low_space_percent)?;
    match compact(core, &round, pace, &mut Due(&mut checkpoint))? {
        Progress::None => Ok(()),
        progress => {
            checkpoint()?;
            if progress == Progress::More {
                core.upkeep_bell.ring();
            }
            Ok(())
        }
    }
}

/// What a round of compaction has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There was nothing to do, or no room for it.
    None,
    /// Something has moved.
    Some,
    /// And there may be more to move.
    More,
}

/// What a round of compaction goes by.
struct Round {
    policies: Policies,
    appetite: Appetite,
}

impl Round {
    fn of(core: &Core, low_space_percent: u32) -> Result<Self, StoreError> {
        let space = core.disk.space();
        let space = space.map_err(StoreError::io("asking for free space"))?;
        let free_percent = space.free.saturating_mul(100) / space.total.max(1);
        let policies = Policies::of(core);
        let state = core.state.lock();
        let now = Circumstances {
            full: state.full,
            low_space: free_percent < u64::from(low_space_percent),
            dead_percent: dead_percent(&state.segments),
            idle: core.cpu_headroom.load(Relaxed) >= IDLE,
            cold_from: policies.cold_from(),
        };
        drop(state);
        if now.low_space && !now.full {
            log::warn!(
                "the store's filesystem has {free_percent} % free space left; compacting sparse segments"
            );
        }
        let appetite = appetite(&now);
        Ok(Self { policies, appetite })
    }
}

/// Share of dead blocks in all data segments.
fn dead_percent(segments: &Segments) -> u64 {
    let data = segments.iter().filter(|(_, s)| s.content == Content::Data);
    let (live, total) = data.fold((0, 0), |(live, total), (_, s)| {
        (live + u64::from(s.live), total + u64::from(s.total))
    });
    (total - live.min(total)) * 100 / total.max(1)
}

/// Compacts a few segments: data ones together, so that their neighbours meet, or one cold one, or maps.
fn compact(
    core: &Core,
    round: &Round,
    pace: &mut Pace,
    due: &mut Due<'_>,
) -> Result<Progress, StoreError> {
    // Segments that the log still has to write out are passed over.
    let mut tried = core.state.lock().log.segments();
    let (mut sources, mut rewritten) = (Vec::new(), 0);
    let mut room = core.state.lock().room_to_compact();
    // What is alive in all of them is known at a time.
    let mut blocks = 0;
    while sources.len() + rewritten < ROUND && blocks < BLOCKS {
        let chosen = {
            let state = core.state.lock();
            // All of a round's segments are emptied or none: their blocks move in order, and not segment by segment.
            let fits = |c: &Candidate| c.content == Content::Meta || c.bytes_alive() <= room;
            let others = state
                .segments
                .candidates()
                .filter(|c| !tried.contains(&c.id) && fits(c));
            choose(others, round.appetite)
        };
        let Some((victim, why)) = chosen else { break };
        if why == Why::Cold && !sources.is_empty() {
            break;
        }
        tried.push(victim.id);
        let source = Source::of(core, victim.id, why, victim.untouched)?;
        match victim.content {
            Content::Data => {
                room -= victim.bytes_alive().min(room);
                blocks += victim.live;
                sources.push(source);
            }
            Content::Meta => {
                rewritten += 1;
                count(&core.counters.segments_compacted);
                if !source.rewrite_nodes(core, due)? {
                    return Ok(Progress::More);
                }
                // Its live nodes leave it with the next checkpoint; what is damaged never does.
                let mut state = core.state.lock();
                let walked = state.catalogue.dropped.is_empty();
                if let Some(segment) = state.segments.get_mut(victim.id) {
                    segment.left_alive(walked);
                }
            }
        }
        if why == Why::Cold {
            break;
        }
    }
    if sources.is_empty() {
        return Ok(match rewritten {
            0 => Progress::None,
            _ => Progress::More,
        });
    }
    let before = bytes_moved(core);
    let mut compaction = Compaction::new(core, &round.policies, round.appetite.urgent)?;
    let outcome = compaction.run(sources, pace, due)?;
    let moved = bytes_moved(core) != before;
    Ok(match outcome {
        // Also where nothing has: a cold segment in which everything was packed already, and the next one.
        Outcome::Moved => Progress::More,
        Outcome::NoRoom if moved || rewritten > 0 => Progress::Some,
        Outcome::NoRoom => Progress::None,
    })
}
