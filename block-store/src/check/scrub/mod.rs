//! Checking a store while it is being served: a pass over everything that the maps of today name.
//!
//! ```text
//! superblocks, table, catalogue -> segments' files -> layer by layer: nodes -> a batch of extents -> in order of place
//!                                                        ^                                              │
//!                                                        └────────────── the position moves on ─────────┘
//! ```
//!
//! # Consistency
//! Nothing is pinned and nothing is frozen: a pass that took days would keep days of garbage. The map is looked at a few nodes at a time,
//! past its cache, and what was met is verified by the functions that guests' reads use. What does not verify is looked up once more
//! before it is called damage ([`again`]): by then it may have moved. What was written since the pass began is the next pass's, so
//! that it ends. Merges move entries, but only to younger layers, which come later.
//!
//! # Cost
//! A step reads 1 MiB at most, and holds the state lock for microseconds at a time; where something was found, for as long as it takes to
//! look up its names. Memory: 2^18 records of 48 bytes (13 MiB), while a pass runs, and 1 MiB.
//!
//! # Crash
//! The position is in the catalogue: a process goes on where the last checkpoint has it, at the beginning of a batch.

mod again;
mod pace;
mod pass;
mod roots;
mod stretch;
mod walk;

pub use pace::Pace;
pub use pass::{Pass, Passes, Stage, Tally};
pub use walk::Work;

use super::finding::{Finding, Sink};
use crate::alloc::Phase;
use crate::checkpoint::Checkpointer;
use crate::core::Core;
use crate::format::SegmentRow;
use parking_lot::Mutex;

/// Segments' files that a step looks at.
const FILES: usize = 16;

/// How a pass is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Bytes a second, 0 for any.
    pub rate: u64,
    /// Decompress every extent too, and don't only verify its checksums.
    pub decode: bool,
    /// From the beginning, also if there is a pass that could go on.
    pub again: bool,
}

/// What became of a wish for a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// A new one has begun.
    Started,
    /// One that was stopped goes on.
    Continued,
    /// One was running, and goes on at this rate.
    Running,
}

/// The pass that an open store is in, and the last one.
#[derive(Debug, Default)]
pub struct Scrub(Mutex<Control>);

#[derive(Debug, Default)]
struct Control {
    passes: Passes,
    /// Which pass it is: work for another one is void.
    number: u64,
}

/// What a step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stepped {
    /// Bytes read.
    pub bytes: u64,
    /// Bytes a second that the pass may read, 0 for any.
    pub rate: u64,
    /// The pass has come to its end.
    pub ended: bool,
}

impl Scrub {
    /// As the catalogue has kept it.
    pub fn of_json(json: Option<&str>) -> Self {
        let passes = Passes::of_json(json);
        Self(Mutex::new(Control { passes, number: 1 }))
    }

    /// For the catalogue.
    pub fn json(&self) -> Option<String> {
        self.0.lock().passes.json()
    }

    /// The pass that is under way and the last one.
    pub fn passes(&self) -> Passes {
        self.0.lock().passes.clone()
    }

    /// Begins a pass, or goes on with the one that there is.
    pub fn start(&self, core: &Core, now: u64, wanted: Wanted) -> Begun {
        let (generation, total) = measure(core);
        let mut control = self.0.lock();
        let begun = match &mut control.passes.pass {
            Some(pass) if !wanted.again => match pass.stopped.take() {
                Some(_) => Begun::Continued,
                None => Begun::Running,
            },
            pass => {
                *pass = Some(Pass::new(now, generation, total));
                control.number += 1;
                Begun::Started
            }
        };
        if let Some(pass) = &mut control.passes.pass {
            pass.rate = wanted.rate;
            // What was not decoded until now stays so.
            pass.decode = wanted.decode || begun != Begun::Started && pass.decode;
            if begun != Begun::Running {
                pass.taken_up = None;
            }
        }
        begun
    }

    /// Stops a pass; it can go on later. `false`: none was running.
    pub fn stop(&self, now: u64) -> bool {
        let mut control = self.0.lock();
        match control.passes.pass.as_mut().filter(|pass| pass.runs()) {
            Some(pass) => {
                pass.stopped = Some(now);
                true
            }
            None => false,
        }
    }

    /// What is to be done now, if anything, and for which pass.
    fn task(&self, now: u64) -> Option<(u64, Pass)> {
        let mut control = self.0.lock();
        let number = control.number;
        let pass = control.passes.pass.as_mut().filter(|pass| pass.runs())?;
        let done = pass.all().verified_bytes;
        pass.taken_up.get_or_insert((now, done));
        // What it has found is of no interest here.
        let found = std::mem::take(&mut pass.findings);
        let task = pass.clone();
        pass.findings = found;
        Some((number, task))
    }

    /// Takes in what a step has come to. Whether the pass is still the same one.
    fn done(&self, number: u64, now: u64, done: Results) -> bool {
        let mut control = self.0.lock();
        let control = &mut *control;
        let Some(pass) = &mut control.passes.pass else {
            return false;
        };
        if control.number != number {
            return false;
        }
        pass.since.add(&done.tally);
        for finding in done.findings {
            tell(pass, finding);
        }
        if let Some(stage) = done.reached {
            pass.reached(stage);
        }
        if done.ended {
            pass.end(now);
            let all = pass.all();
            log::info!(
                "scrub: ended; damage: {}; verified {} map nodes and {} extents, {} bytes",
                pass.damage,
                all.nodes,
                all.extents,
                all.verified_bytes
            );
            control.passes.last = control.passes.pass.take();
        }
        true
    }
}

/// Each finding is logged once, as long as it can be remembered.
fn tell(pass: &mut Pass, finding: Finding) {
    let line = finding.line();
    let damage = finding.damage;
    let kept = pass.findings.len();
    if !pass.found(finding) {
        return;
    }
    match (pass.findings.len() > kept, damage) {
        (true, true) => log::error!("scrub: {line}"),
        (true, false) => log::info!("scrub: {line}"),
        (false, _) if pass.damage.saturating_add(pass.notes) == kept as u64 + 1 => {
            log::error!("scrub: more was found than is kept; from here on it is only counted");
        }
        (false, _) => {}
    }
}

/// What a step comes to.
#[derive(Debug, Default)]
struct Results {
    bytes: u64,
    tally: Tally,
    findings: Vec<Finding>,
    /// All before this is done.
    reached: Option<Stage>,
    ended: bool,
}

/// The first generation that is a later pass's, and about how many bytes there are to verify until then.
fn measure(core: &Core) -> (u64, u64) {
    let state = core.state.lock();
    let live = |used: u32, live: u32, total: u32| {
        u64::from(used) * u64::from(live) / u64::from(total.max(live).max(1))
    };
    let segments = state.segments.iter().map(|(_, s)| s);
    let counted = segments.filter(|s| s.phase != Phase::Spare);
    let total = counted.map(|s| live(s.used, s.live, s.total)).sum();
    (state.segments.next_generation, total)
}

/// One step of the pass that is under way, for a thread that has `work` to itself. `None`: there is nothing to do.
pub fn step(
    core: &Core,
    checkpointer: &Mutex<Checkpointer>,
    work: &mut Work,
    now: u64,
) -> Option<Stepped> {
    let (number, pass) = core.scrub.task(now)?;
    let results = match pass.stage {
        Stage::Roots => {
            let mut results = Results {
                reached: Some(Stage::Segments(0)),
                ..Results::default()
            };
            let mut sink = Sink::quiet();
            roots::examine(core, checkpointer, &mut sink);
            results.findings = sink.finish().findings;
            results
        }
        Stage::Segments(from) => files(core, checkpointer, from),
        Stage::Data { layer, block } => {
            if work.number != number {
                *work = work.anew(number, layer, block);
            }
            work.step(core, &pass)
        }
    };
    let stepped = Stepped {
        bytes: results.bytes,
        rate: pass.rate,
        ended: results.ended,
    };
    core.scrub.done(number, now, results);
    Some(stepped)
}

/// Some of the segments' files.
fn files(core: &Core, checkpointer: &Mutex<Checkpointer>, from: u32) -> Results {
    let rows: Vec<SegmentRow> = {
        let state = core.state.lock();
        let rows = state.segments.from(from).take(FILES);
        rows.map(|(id, segment)| segment.row(id)).collect()
    };
    let mut results = Results::default();
    let next = rows.last().and_then(|row| row.id.checked_add(1));
    results.reached = Some(match next {
        Some(next) => Stage::Segments(next),
        None => Stage::Data { layer: 0, block: 0 },
    });
    let superblock = checkpointer.lock().superblock().clone();
    let mut sink = Sink::quiet();
    for row in &rows {
        roots::examine_segment(core, &superblock, row, &mut sink);
        results.bytes += crate::io::PAGE as u64;
        results.tally.segments += 1;
    }
    results.findings = sink.finish().findings;
    results
}
