//! The threads of an open store: the log's, the allocator's, and upkeep's. In simulation there are none, and the same
//! steps are called one by one.

use super::{Store, requests};
use crate::core::Core;
use crate::defrag::{Pace, Spot};
use crate::error::StoreError;
use crate::host::until;
use crate::log::Gathering;
use crate::snapshot::build_one;
use crate::write::Packer;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How often a full store looks for space, and for that of removed segments that are still read.
const RETRY: Duration = Duration::from_millis(100);
/// How long changes wait for a checkpoint at most, when there are few.
const QUIET: Duration = Duration::from_secs(30);

/// How often the host's CPU load is looked at, for the compression rules.
const MEASURE: Duration = Duration::from_secs(1);

/// How long it takes to see whether guests are busy.
const GLANCE: Duration = Duration::from_millis(1);
/// How long scattered ranges wait to be read again, one by one, while they are.
const BESIDE_GUESTS: Duration = Duration::from_millis(100);

/// How long schedules wait at most before the clock is looked at again: it may have been set.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);

/// Threads that pack large writes, at most.
const MOST_PACKERS: usize = 4;

/// The threads, and the word to stop.
#[derive(Default)]
pub struct Threads {
    stop: Arc<AtomicBool>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Stops all threads and waits for them.
    pub fn stop(&self, core: &Core) {
        self.stop.store(true, SeqCst);
        let core_bells = [
            &core.log_bell,
            &core.alloc_bell,
            &core.upkeep_bell,
            &core.maps_bell,
            &core.defrag_bell,
            &core.schedule_bell,
            &core.scrub_bell,
        ];
        for bell in core_bells {
            bell.ring();
        }
        core.packers.stop();
        for handle in self.handles.lock().drain(..) {
            if handle.join().is_err() {
                log::error!("a thread of the store has panicked");
            }
        }
    }

    /// Whether there are threads: there are none in simulation.
    pub fn running(&self) -> bool {
        !self.handles.lock().is_empty()
    }

    fn spawn(
        &self,
        name: &str,
        body: impl FnOnce(&AtomicBool) + Send + 'static,
    ) -> Result<(), StoreError> {
        let stop = Arc::clone(&self.stop);
        let handle = Builder::new()
            .name(name.into())
            .spawn(move || body(&stop))
            .map_err(StoreError::io("starting a thread"))?;
        self.handles.lock().push(handle);
        Ok(())
    }
}

/// What a thread that tries again and again has said: once is enough, until it is something else.
#[derive(Default)]
struct Said(String);

impl Said {
    fn failing(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether all went well.
    fn outcome(&mut self, what: &str, outcome: Result<(), StoreError>) -> bool {
        let now = outcome.err().map_or_else(String::new, |e| e.to_string());
        // Segments have other numbers each time.
        let kind = |text: &str| text.rsplit(": ").next().map(str::to_owned);
        if kind(&now) != kind(&self.0) {
            match now.is_empty() {
                true => log::info!("{what} works again"),
                false => log::error!("{now}"),
            }
        }
        self.0 = now;
        !self.failing()
    }
}

impl Store {
    /// No thread holds the store itself: whoever drops it has it stopped, and its lock released, when that returns.
    pub(super) fn start_threads(&self) -> Result<(), StoreError> {
        let core = Arc::clone(&self.core);
        self.threads.spawn("firn-log", move |stop| {
            let mut measured = Instant::now();
            let mut gathering = Gathering::default();
            while !stop.load(SeqCst) {
                core.log_bell.wait(None);
                if measured.elapsed() >= MEASURE {
                    measured = Instant::now();
                    core.cpu_headroom.store(cpu_headroom(), Relaxed);
                }
                serve_log(&core, &mut gathering);
            }
        })?;
        let core = Arc::clone(&self.core);
        self.threads.spawn("firn-alloc", move |stop| {
            let mut said = Said::default();
            while !stop.load(SeqCst) {
                // Who still reads a removed segment does not ring when he is done.
                let waits = core.state.lock().full || !core.removed.lock().is_empty();
                core.alloc_bell
                    .wait((waits || said.failing()).then_some(RETRY));
                // Piece by piece: segments that are wanted, and the word to stop, wait for no more than one.
                loop {
                    said.outcome("allocating segments", core.allocate_ready());
                    if stop.load(SeqCst) || !core.give_back_step() {
                        break;
                    }
                }
                if core.state.lock().full {
                    core.upkeep_bell.ring();
                }
            }
        })?;
        let core = Arc::clone(&self.core);
        self.threads.spawn("firn-maps", move |stop| {
            let (mut said, mut aged) = (Said::default(), Instant::now());
            while !stop.load(SeqCst) {
                core.maps_bell.wait(Some(QUIET));
                if aged.elapsed() >= QUIET {
                    core.state.lock().presence.grow_old();
                    aged = Instant::now();
                }
                let mut more = true;
                while more && !stop.load(SeqCst) {
                    let built = build_one(&core, &|| !stop.load(SeqCst));
                    more = *built.as_ref().unwrap_or(&true);
                    said.outcome("building presence maps", built.map(drop));
                }
            }
        })?;
        let core = Arc::clone(&self.core);
        let mut packer = Packer::new().map_err(StoreError::io("making a packer"))?;
        let mut again = self.again();
        let vdisks = Arc::clone(&self.vdisks);
        self.threads.spawn("firn-defrag", move |stop| {
            let mut said = Said::default();
            while !stop.load(SeqCst) {
                core.defrag_bell.wait(None);
                while !stop.load(SeqCst) {
                    let began = Instant::now();
                    match Spot::step(&core, &mut packer) {
                        Ok(Some(time)) => std::thread::sleep(time.saturating_sub(began.elapsed())),
                        Ok(None) => {
                            let Some(range) = core.spot.next_later() else {
                                break;
                            };
                            again.read(range);
                            // Beside guests that are busy it goes on slowly.
                            let before = requests(&vdisks);
                            std::thread::sleep(GLANCE);
                            if requests(&vdisks) != before {
                                std::thread::sleep(BESIDE_GUESTS);
                            }
                        }
                        Err(error) => {
                            said.outcome("spot defragmentation", Err(error));
                            break;
                        }
                    }
                }
            }
        })?;
        let (core, tender) = (Arc::clone(&self.core), self.tender());
        self.threads.spawn("firn-schedule", move |stop| {
            while !stop.load(SeqCst) {
                let host = &tender.keeper.host;
                tender.tend(host.now());
                let next = tender.next(host.now());
                let wait = next.map(|moment| until(moment).min(LOOK_AT_CLOCK));
                core.schedule_bell.wait(wait);
            }
        })?;
        let scrubber = Arc::clone(&self.scrubber);
        self.threads
            .spawn("firn-scrub", move |stop| scrubber.serve(stop))?;
        // One core is the serving threads'. On a host of many cores a few of these are what the disk can take.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 0..(cores - 1).min(MOST_PACKERS) {
            let core = Arc::clone(&self.core);
            let mut packer = Packer::new().map_err(StoreError::io("making a packer"))?;
            self.threads
                .spawn("firn-pack", move |_| core.packers.serve(&mut packer))?;
        }
        self.core.alloc_bell.ring();
        let (core, upkeep) = (Arc::clone(&self.core), Arc::clone(&self.upkeep));
        let vdisks = Arc::clone(&self.vdisks);
        let mut pace = Pace::beside(move || requests(&vdisks));
        self.threads.spawn("firn-upkeep", move |stop| {
            let mut said = Said::default();
            while !stop.load(SeqCst) {
                core.upkeep_bell.wait(Some(QUIET));
                // Where nothing is logged nobody else looks.
                core.cpu_headroom.store(cpu_headroom(), Relaxed);
                if !stop.load(SeqCst) && !said.outcome("upkeep", upkeep.round(&mut pace)) {
                    // Not again at once: what failed needs time, or a person.
                    core.upkeep_bell.wait(Some(RETRY));
                }
            }
        })
    }
}

/// Idle share of the host's CPU time, in per cent: what the load average of the last minute leaves of all cores.
fn cpu_headroom() -> u8 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    // The kernel's load averages are fixed-point numbers with 16 bits behind the point.
    let load = rustix::system::sysinfo()
        .loads
        .first()
        .copied()
        .unwrap_or(0);
    let load = (load * 100) >> 16;
    100_u64.saturating_sub(load / cores) as u8
}

/// Commits while anyone waits for it, drains while there are full pages.
fn serve_log(core: &Core, gathering: &mut Gathering) {
    loop {
        let outcome = if core.flushes_waiting() > 0 {
            commit(core, gathering).map(|()| true)
        } else {
            core.drain_step()
        };
        match outcome {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                log::error!("{error}");
                return;
            }
        }
    }
}

/// Lets others join for a moment, if some are likely to, and commits.
fn commit(core: &Core, gathering: &mut Gathering) -> Result<(), StoreError> {
    let patience = gathering.patience(core.flushes_waiting());
    let began = Instant::now();
    while core.flushes_waiting() < gathering.expected() && began.elapsed() < patience {
        std::thread::yield_now();
    }
    let began = Instant::now();
    let told = core.commit_flushes()?;
    gathering.committed(told, core.flushes_waiting(), began.elapsed());
    Ok(())
}

impl Drop for Store {
    fn drop(&mut self) {
        self.threads.stop(&self.core);
    }
}
