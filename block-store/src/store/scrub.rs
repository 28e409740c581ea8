//! Checking a store while it is served: by order, or because it is time.

use super::upkeep::Upkeep;
use super::{Store, VDisks};
use crate::check::{Begun, Finding, Pace, Pass, Stage, Stepped, Wanted, Work, step};
use crate::core::Core;
use crate::host::Host;
use parking_lot::Mutex;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How often the position is made durable where nothing else does that: what a dead process repeats at most.
const KEEP: Duration = Duration::from_secs(60);
/// How often it is looked whether a pass is due.
const LOOK: Duration = Duration::from_secs(60);
/// Extents that are gathered before they are verified in order of place: 13 MiB of memory.
const RECORDS: usize = 1 << 18;

/// How a pass is to be made; what is left out is as the store was opened with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes a second that are read at most; 0: as many as guests leave.
    pub rate: Option<u64>,
    /// Decompress every extent too, and don't only verify its checksums.
    pub decode: bool,
    /// From the beginning, also if there is a pass that could go on.
    pub again: bool,
}

/// What becomes of scrubbing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScrubStatus {
    /// The pass that runs, or was stopped.
    pub pass: Option<ScrubPass>,
    /// The last one that has come to its end.
    pub last: Option<ScrubPass>,
    /// A pass begins by itself so many seconds after the last one began.
    pub every_seconds: Option<u64>,
}

/// One pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScrubPass {
    /// It goes on at this moment.
    pub running: bool,
    /// Seconds since 1970 at which it began.
    pub started: u64,
    /// And at which it came to its end.
    pub ended: Option<u64>,
    /// And at which somebody stopped it.
    pub stopped: Option<u64>,
    /// Bytes a second that it reads at most; 0: as many as guests leave.
    pub rate: u64,
    /// Extents are decompressed too.
    pub decode: bool,
    /// What it looks at: roots, segments, data.
    pub stage: &'static str,
    /// About how many bytes there are to verify.
    pub total_bytes: u64,
    /// How many have been.
    pub verified_bytes: u64,
    /// About how many seconds it will take.
    pub seconds_left: Option<u64>,
    /// Segments' files looked at.
    pub segments: u64,
    /// Map nodes verified.
    pub nodes: u64,
    /// Extents verified.
    pub extents: u64,
    /// Blocks that the maps hold in them.
    pub blocks: u64,
    /// Findings that are damage.
    pub damage: u64,
    /// Findings that are notes.
    pub notes: u64,
    /// The first findings.
    pub findings: Vec<Finding>,
}

/// The same in brief, for the store's status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ScrubBrief {
    /// A pass goes on.
    pub running: bool,
    /// One was stopped half-way.
    pub stopped: bool,
    /// About how many bytes that has to verify.
    pub total_bytes: u64,
    /// How many it has.
    pub verified_bytes: u64,
    /// Damage that it has found.
    pub damage: u64,
    /// When the last one came to its end, in seconds since 1970.
    pub last_ended: Option<u64>,
    /// Damage that that one has found.
    pub last_damage: u64,
}

/// Goes through the store, step by step.
pub(super) struct Scrubber {
    host: Arc<dyn Host>,
    core: Arc<Core>,
    upkeep: Arc<Upkeep>,
    vdisks: Arc<VDisks>,
    /// Bytes a second where nobody says another rate.
    rate: u64,
    /// Seconds between two beginnings.
    every: Option<u64>,
    /// When the store was made.
    created: u64,
    work: Mutex<Work>,
}

impl Scrubber {
    pub(super) fn new(
        host: &Arc<dyn Host>,
        upkeep: &Arc<Upkeep>,
        vdisks: &Arc<VDisks>,
        config: &super::OpenConfig,
        created: u64,
    ) -> Self {
        Self {
            host: Arc::clone(host),
            core: Arc::clone(&upkeep.core),
            upkeep: Arc::clone(upkeep),
            vdisks: Arc::clone(vdisks),
            rate: config.scrub_rate,
            every: config.scrub_every.map(|every| every.as_secs()),
            created,
            work: Mutex::new(Work::new(RECORDS)),
        }
    }

    fn start(&self, now: u64, options: ScrubOptions) -> Begun {
        let wanted = Wanted {
            rate: options.rate.unwrap_or(self.rate),
            decode: options.decode,
            again: options.again,
        };
        let begun = self.core.scrub.start(&self.core, now, wanted);
        self.keep();
        self.core.scrub_bell.ring();
        begun
    }

    fn step(&self, now: u64) -> Option<Stepped> {
        let mut work = self.work.lock();
        step(&self.core, &self.upkeep.checkpointer, &mut work, now)
    }

    /// Makes durable how far it is. A store that takes no more writes can be looked at all the same.
    fn keep(&self) {
        if let Err(error) = self.upkeep.checkpoint() {
            log::debug!("how far the scrub is can't be kept: {error}");
        }
    }

    fn start_if_due(&self, now: u64) {
        let passes = self.core.scrub.passes();
        let runs = passes.pass.as_ref().is_some_and(Pass::runs);
        let since = passes.last_seen_to().unwrap_or(self.created);
        if !runs && is_due(now, since, self.every) {
            log::info!("scrub: begins, since it is time: firn store scrub status");
            self.start(now, ScrubOptions::default());
        }
    }

    /// What its thread does.
    pub(super) fn serve(&self, stop: &AtomicBool) {
        let began = Instant::now();
        let (mut pace, mut kept) = (Pace::default(), Instant::now());
        while !stop.load(SeqCst) {
            let before = super::requests(&self.vdisks);
            let at = Instant::now();
            let stepped = self.step(self.host.now());
            let Some(stepped) = stepped else {
                self.start_if_due(self.host.now());
                self.core.scrub_bell.wait(Some(LOOK));
                kept = Instant::now();
                continue;
            };
            if stepped.ended || kept.elapsed() >= KEEP {
                self.keep();
                kept = Instant::now();
            }
            let guests = super::requests(&self.vdisks) != before;
            let (now, took) = (began.elapsed(), at.elapsed());
            let rest = pace.rest(now, took, stepped.bytes, stepped.rate, guests);
            if !rest.is_zero() {
                self.core.scrub_bell.wait(Some(rest));
            }
        }
    }
}

/// Whether it is time for another pass.
fn is_due(now: u64, since: u64, every: Option<u64>) -> bool {
    every.is_some_and(|every| now.saturating_sub(since) >= every)
}

impl Store {
    /// Begins to check everything that is stored, in the background, or goes on with what was begun. A pass that is running gets
    /// these options.
    pub fn start_scrub(&self, options: ScrubOptions) -> Begun {
        self.scrubber.start(self.host.now(), options)
    }

    /// Stops a pass; it goes on from there when it is started again. `false`: none was running.
    pub fn stop_scrub(&self) -> bool {
        let stopped = self.core.scrub.stop(self.host.now());
        self.scrubber.keep();
        stopped
    }

    /// A step of the pass that is under way, for whoever drives the store step by step. `None`: there is none.
    pub fn scrub_step(&self) -> Option<Stepped> {
        self.scrubber.step(self.host.now())
    }

    /// In batches of so many extents, from the next step on; what is in hands is forgotten. For tests.
    #[doc(hidden)]
    pub fn scrub_in_batches_of(&self, records: usize) {
        *self.scrubber.work.lock() = Work::new(records);
    }

    /// How far it is, and what was found.
    pub fn scrub_status(&self) -> ScrubStatus {
        let passes = self.core.scrub.passes();
        let now = self.host.now();
        let show = |pass: Pass| {
            let all = pass.all();
            let ended = pass.ended.is_some();
            ScrubPass {
                running: pass.runs(),
                started: pass.started,
                ended: pass.ended,
                stopped: pass.stopped,
                rate: pass.rate,
                decode: pass.decode,
                stage: match pass.stage {
                    Stage::Roots => "roots",
                    Stage::Segments(_) => "segments",
                    Stage::Data { .. } => "data",
                },
                total_bytes: match ended {
                    // What was deleted meanwhile was estimated too.
                    true => all.verified_bytes,
                    false => pass.total_bytes.max(all.verified_bytes),
                },
                verified_bytes: all.verified_bytes,
                seconds_left: pass.seconds_left(now),
                segments: all.segments,
                nodes: all.nodes,
                extents: all.extents,
                blocks: all.blocks,
                damage: pass.damage,
                notes: pass.notes,
                findings: pass.findings,
            }
        };
        ScrubStatus {
            pass: passes.pass.map(show),
            last: passes.last.map(show),
            every_seconds: self.scrubber.every,
        }
    }

    pub(super) fn scrub_brief(&self) -> ScrubBrief {
        let status = self.scrub_status();
        let pass = status.pass.as_ref();
        let last = status.last.as_ref();
        ScrubBrief {
            running: pass.is_some_and(|p| p.running),
            stopped: pass.is_some_and(|p| p.stopped.is_some()),
            total_bytes: pass.map_or(0, |p| p.total_bytes),
            verified_bytes: pass.map_or(0, |p| p.verified_bytes),
            damage: pass.map_or(0, |p| p.damage),
            last_ended: last.and_then(|p| p.ended),
            last_damage: last.map_or(0, |p| p.damage),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_due;

    #[test]
    fn a_pass_is_due_when_its_time_has_come() {
        assert!(!is_due(100, 50, None));
        assert!(!is_due(100, 50, Some(51)));
        assert!(is_due(100, 50, Some(50)));
        assert!(!is_due(50, 100, Some(30)), "a clock that was set back");
    }
}
