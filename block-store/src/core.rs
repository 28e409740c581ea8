//! What an open store's parts share: the state behind its lock, the disk, and the bells that wake threads.
//!
//! Draining and committing are here because everybody needs them: the log's thread all the time, a checkpoint
//! before it writes the map, a clean stop at its end.

use crate::alloc::{Content, Phase, RESERVED, Removed, Segment, shorten};
use crate::bell::{Bell, LaneBell};
use crate::check::Scrub;
use crate::counters::Counters;
use crate::defrag::Spot;
use crate::error::StoreError;
use crate::format::{
    FormatError, SEGMENT_DATA_START, SegmentHeader, Temperature, segment_file_name,
};
use crate::io::{AlignedBuf, Disk, DiskFile};
use crate::log::{Cause, Cut, Streams};
use crate::read::NodeRead;
use crate::state::{Blocked, State};
use crate::write::Packers;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use uuid::Uuid;

/// Full pages that are worth waking the log's thread for, in bytes.
const DRAIN_FROM: usize = 128 << 10;
/// Bytes per write of zeroes into a new segment: guests' I/O waits for no more than one of these.
const PREWRITE_STEP: usize = 256 << 10;
/// Map nodes that a background job takes in before others make room for them: more than two paths from root to leaf.
const NODES_AT_ONCE: usize = 16;
/// Spare segments that are kept ready beyond the reserves.
const READY: usize = 2;

/// Someone who waits until everything up to an LSN is durable, in some of the log's streams.
struct FlushWaiter {
    lsn: u64,
    streams: Streams,
    lane: Arc<LaneBell>,
    operation: usize,
}

/// An open store.
pub struct Core {
    /// The machine.
    pub disk: Arc<dyn Disk>,
    /// The store's UUID.
    pub store: Uuid,
    /// Bytes of a segment.
    pub segment_size: u32,
    /// Everything that changes together.
    pub state: Mutex<State>,
    /// One commit at a time.
    committing: Mutex<()>,
    /// One drain at a time; not held while a commit syncs: a disk that takes long for that would keep writes waiting.
    draining: Mutex<()>,
    /// One who merges layers at a time: their order matters.
    pub tidying: Mutex<()>,
    waiters: Mutex<Vec<FlushWaiter>>,
    /// How many these are, for those who only want to know that.
    waiting: AtomicUsize,
    lanes: Mutex<Vec<std::sync::Weak<LaneBell>>>,
    /// The log's thread.
    pub log_bell: Bell,
    /// The thread that allocates segments, and gives back the space of those that have gone.
    pub alloc_bell: Bell,
    /// Files of segments that have gone, whose space is still to be given back.
    pub removed: Mutex<Removed>,
    /// The thread of checkpoints and reclamation.
    pub upkeep_bell: Bell,
    /// The thread that builds presence maps.
    pub maps_bell: Bell,
    /// The thread that coalesces what reads have found scattered.
    pub defrag_bell: Bell,
    /// The thread that keeps schedules of snapshots.
    pub schedule_bell: Bell,
    /// What it is to coalesce.
    pub spot: Spot,
    /// The thread that checks what is stored.
    pub scrub_bell: Bell,
    /// How far that is.
    pub scrub: Scrub,
    /// Threads that pack large writes.
    pub packers: Packers,
    /// Counters.
    pub counters: Counters,
    /// Bytes of log after which a checkpoint is due.
    checkpoint_log: u64,
    /// [`crate::log::Log::appended`] at the last checkpoint.
    checkpointed: AtomicU64,
    /// Idle share of the host's CPU time in per cent, as last measured; 100 until then.
    pub cpu_headroom: AtomicU8,
}

impl Core {
    /// Around a recovered state.
    pub fn new(disk: Arc<dyn Disk>, store: Uuid, state: State, checkpoint_log: u64) -> Self {
        let counters = Counters {
            written: Arc::clone(state.log.written()),
            ..Counters::default()
        };
        Self {
            disk,
            store,
            segment_size: state.segment_size,
            state: Mutex::new(state),
            committing: Mutex::default(),
            draining: Mutex::default(),
            tidying: Mutex::default(),
            waiters: Mutex::default(),
            waiting: AtomicUsize::new(0),
            lanes: Mutex::default(),
            log_bell: Bell::default(),
            alloc_bell: Bell::default(),
            removed: Mutex::default(),
            upkeep_bell: Bell::default(),
            maps_bell: Bell::default(),
            defrag_bell: Bell::default(),
            schedule_bell: Bell::default(),
            spot: Spot::new(0),
            scrub_bell: Bell::default(),
            scrub: Scrub::default(),
            packers: Packers::default(),
            counters,
            checkpoint_log,
            checkpointed: AtomicU64::new(0),
            cpu_headroom: AtomicU8::new(100),
        }
    }

    /// Makes a lane known.
    pub fn add_lane(&self, bell: &Arc<LaneBell>) {
        let mut lanes = self.lanes.lock();
        lanes.retain(|l| l.strong_count() > 0);
        lanes.push(Arc::downgrade(bell));
    }

    /// Lets stalled operations of all lanes try again.
    pub fn resume_lanes(&self) {
        for lane in self
            .lanes
            .lock()
            .iter()
            .filter_map(std::sync::Weak::upgrade)
        {
            lane.resume();
        }
    }

    /// Rings for the background work that the state asks for; cheap when there is none.
    pub fn ring_for(&self, state: &State) {
        if state.log.undrained() >= DRAIN_FROM {
            self.log_bell.ring();
        }
        if state.segments.spares() < RESERVED + READY && !state.full {
            self.alloc_bell.ring();
        }
        if self.wants_checkpoint(state) {
            self.upkeep_bell.ring();
        }
    }

    /// Whether enough has gathered since the last checkpoint for another one.
    pub fn wants_checkpoint(&self, state: &State) -> bool {
        self.log_since_checkpoint(state) >= self.checkpoint_log || state.map.wants_checkpoint()
    }

    /// Bytes of log since the last checkpoint.
    pub fn log_since_checkpoint(&self, state: &State) -> u64 {
        state
            .log
            .appended
            .saturating_sub(self.checkpointed.load(Relaxed))
    }

    /// A checkpoint covers the first `appended` bytes of the log.
    pub fn checkpoint_taken(&self, appended: u64) {
        self.checkpointed.store(appended, Relaxed);
        self.counters.checkpoints.fetch_add(1, Relaxed);
        self.resume_lanes();
    }

    /// Has `operation` of a lane told when everything up to `lsn` is durable in these streams.
    pub fn when_durable(&self, lsn: u64, streams: Streams, lane: &Arc<LaneBell>, operation: usize) {
        let mut waiters = self.waiters.lock();
        waiters.push(FlushWaiter {
            lsn,
            streams,
            lane: Arc::clone(lane),
            operation,
        });
        self.waiting.store(waiters.len(), Relaxed);
        drop(waiters);
        self.log_bell.ring();
    }

    /// How many flushes wait for a commit.
    pub fn flushes_waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Runs `attempt` under the lock until no node of the map is missing, reading missing ones outside of the lock. For
    /// background jobs: lanes never wait.
    pub fn with_nodes<T>(
        &self,
        mut attempt: impl FnMut(&mut State) -> Result<T, Blocked>,
    ) -> Result<Result<T, Blocked>, StoreError> {
        let mut loaded: usize = 0;
        loop {
            let mut state = self.state.lock();
            let missing = match attempt(&mut state) {
                Err(Blocked::Node(missing)) => missing,
                other => return Ok(other),
            };
            let damaged = |why| {
                StoreError::damaged("a block map")(FormatError {
                    what: "map node",
                    why,
                })
            };
            let read = NodeRead::plan(&state, missing).map_err(damaged)?;
            drop(state);
            let slots = read
                .read_now(&mut |o, l| o == l || self.state.lock().is_heir(o, l))
                .map_err(damaged)?;
            let mut state = self.state.lock();
            loaded += 1;
            if loaded.is_multiple_of(NODES_AT_ONCE) {
                state.map.make_room();
            }
            state.map.install_anyway(missing, slots);
        }
    }

    /// Writes one stretch of full pages to its file. `false`: there was none.
    pub fn drain_step(&self) -> Result<bool, StoreError> {
        self.drain_one(None)
    }

    fn drain_one(&self, cut: Option<&Cut>) -> Result<bool, StoreError> {
        let _one = self.draining.lock();
        let Some(drain) = self.state.lock().log.next_drain(cut) else {
            return Ok(false);
        };
        let written = drain
            .pages
            .write_out(&drain.parts, &*drain.file, u64::from(drain.offset));
        written.map_err(|e| self.fail(drain.segment, "writing", e))?;
        self.counters
            .log_bytes
            .fetch_add(u64::from(drain.len), Relaxed);
        let mut state = self.state.lock();
        state.log.drained(&drain);
        // Nobody is woken for nothing: this is part of every flush.
        let wanted = std::mem::take(&mut state.wants_room);
        drop(state);
        if wanted {
            self.resume_lanes();
        }
        Ok(true)
    }

    /// Group commit: everything appended before is durable when it returns; whoever waited for that is told.
    pub fn commit(&self) -> Result<(), StoreError> {
        self.commit_streams(Streams::ALL).map(drop)
    }

    /// Group commit of what waiting flushes are about. Returns how many were told.
    pub fn commit_flushes(&self) -> Result<usize, StoreError> {
        let wanted = |set: Streams, w: &FlushWaiter| set.and(w.streams);
        let streams = self.waiters.lock().iter().fold(Streams::FRESH, wanted);
        self.commit_streams(streams)
    }

    /// # Crash
    /// 1. Under the lock: cut. The streams' open segments are padded to a page, LSNs up to the cut's are covered.
    /// 2. Their pages are written.
    /// 3. Their files are synced; new files and their names were when they were allocated.
    /// 4. Waiters are told. The cut's prefixes are recorded in the log by the next commit.
    fn commit_streams(&self, streams: Streams) -> Result<usize, StoreError> {
        let _one = self.committing.lock();
        let cut = {
            let mut state = self.state.lock();
            if let Some(why) = &state.failed {
                let error = StoreError::Failed(why.to_string());
                drop(state);
                self.tell_waiters(u64::MAX, Streams::ALL, false);
                return Err(error);
            }
            state.log.cut(streams)
        };
        while self.drain_one(Some(&cut))? {}
        if !self.state.lock().log.is_drained(&cut) {
            self.fail_because("the write buffer does not hold what it should");
            return Err(StoreError::Failed(
                "the write buffer does not hold what it should".into(),
            ));
        }
        for (file, prefix) in &cut.files {
            file.sync()
                .map_err(|e| self.fail(prefix.segment, "syncing", e))?;
        }
        let left = {
            let mut state = self.state.lock();
            state.log.committed(&cut);
            let left = state.prefer_prewritten();
            if state.segments.wants_prewritten() && !state.full {
                self.alloc_bell.ring();
            }
            left
        };
        self.counters.commits.fetch_add(1, Relaxed);
        let told = self.tell_waiters(cut.lsn, cut.streams, true);
        // Nothing is written behind its end any more; if the space can't be given back now, compaction will.
        if let Some((file, used)) = left
            && let Err(error) = file.give_back(u64::from(used))
        {
            log::warn!("{file:?}: can't give back what is behind byte {used}: {error}");
        }
        Ok(told)
    }

    fn tell_waiters(&self, lsn: u64, streams: Streams, ok: bool) -> usize {
        let mut waiters = self.waiters.lock();
        let is_over = |w: &mut FlushWaiter| w.lsn <= lsn && streams.cover(w.streams);
        let told: Vec<_> = waiters.extract_if(.., is_over).collect();
        self.waiting.store(waiters.len(), Relaxed);
        drop(waiters);
        for waiter in &told {
            waiter.lane.flush_ended(waiter.operation, ok);
        }
        told.len()
    }

    /// A write or fsync has failed: what the kernel still holds of earlier writes can't be known any more, so nothing
    /// is promised from here on.
    pub fn fail(&self, segment: u32, doing: &str, source: io::Error) -> StoreError {
        let why = format!("{doing} segment {segment:x}: {source}");
        self.fail_because(&why);
        StoreError::Failed(why)
    }

    /// Stops all writes, for the reason given.
    pub fn fail_because(&self, why: &str) {
        let mut state = self.state.lock();
        if state.failed.is_none() {
            log::error!(
                "store {} takes no more writes: {why}; reads go on",
                self.store
            );
            state.failed = Some(why.into());
            state.log.note_failure();
        }
        drop(state);
        self.tell_waiters(u64::MAX, Streams::ALL, false);
        self.resume_lanes();
    }

    /// Allocates one spare segment if there are too few, or gives back space for it. `false`: there are enough, or there is no space.
    ///
    /// The file, its header and its name are durable before anything can be appended: an acknowledged write never
    /// waits for space, and a flush never for a directory.
    pub fn allocate_step(&self) -> Result<bool, StoreError> {
        let ((id, generation), prewrite, enough) = {
            let mut state = self.state.lock();
            let prewrite = state.segments.wants_prewritten();
            let enough = state.segments.spares() >= RESERVED + READY;
            if enough && (state.full || !prewrite) {
                return Ok(false);
            }
            let next = state.segments.next_id().ok_or_else(|| {
                StoreError::NoSpace(
                    "the store has all the segments that its format can name".into(),
                )
            })?;
            (next, prewrite, enough)
        };
        let made = self.create_segment(id, generation, prewrite);
        if made.is_err() {
            self.state.lock().segments.not_made(generation);
        }
        match made {
            Ok(segment) => {
                let mut state = self.state.lock();
                state.segments.insert(id, segment);
                state.exhausted = false;
                if std::mem::take(&mut state.full) {
                    log::info!("store {} has space again", self.store);
                }
                drop(state);
                self.resume_lanes();
                Ok(true)
            }
            Err(e) if is_full(&e) && self.give_back_step() => Ok(true),
            // One more to be written ahead is a luxury: nobody waits for it, and nothing is full without it.
            Err(e) if is_full(&e) && enough => {
                self.state.lock().segments.prewrite = false;
                Ok(false)
            }
            Err(e) if is_full(&e) => {
                if !std::mem::replace(&mut self.state.lock().full, true) {
                    log::warn!(
                        "store {} is full: no space for another segment; free space or delete data",
                        self.store
                    );
                    self.resume_lanes();
                    self.upkeep_bell.ring();
                }
                Ok(false)
            }
            Err(e) => Err(StoreError::io(format!("allocating segment {id:x}"))(e)),
        }
    }

    /// Reclamation has run when there were `before` segments: on a full store that got nothing out of it, writes need not
    /// wait for it any longer.
    pub fn reclaimed(&self, before: usize) {
        let mut state = self.state.lock();
        if state.full && state.segments.count() >= before {
            state.exhausted = true;
            drop(state);
            self.resume_lanes();
        }
    }

    /// Allocates as many spare segments as are kept ready, as far as there is space.
    pub fn allocate_ready(&self) -> Result<(), StoreError> {
        while self.allocate_step()? {}
        Ok(())
    }

    /// Gives back some of the space of a removed segment. `false`: there is none that nobody reads.
    pub fn give_back_step(&self) -> bool {
        let Some(file) = self.removed.lock().take_unread() else {
            return false;
        };
        match shorten(&*file) {
            Ok(true) => self.removed.lock().add(file),
            Ok(false) => {}
            Err(error) => {
                log::warn!("giving back the space of {file:?}: {error}; closing it does");
            }
        }
        true
    }

    fn create_segment(&self, id: u32, generation: u64, prewrite: bool) -> io::Result<Segment> {
        let name = segment_file_name(id);
        let file = match self.disk.create(&name, u64::from(self.segment_size)) {
            // Left over from an allocation that a crash cut short: no table names it.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&name)?;
                self.disk.create(&name, u64::from(self.segment_size))?
            }
            other => other?,
        };
        let header = SegmentHeader {
            store: self.store,
            id,
            generation,
            size: self.segment_size,
        };
        let zeroes = if prewrite { self.segment_size } else { 0 };
        let durable = write_zeroes(&*file, zeroes)
            .and_then(|()| AlignedBuf::from_bytes(&header.encode()))
            .and_then(|page| file.write_at(&page, 0))
            .and_then(|()| file.sync())
            .and_then(|()| self.disk.sync_dir());
        if let Err(error) = durable {
            // The next attempt is another segment: a failing disk must not fill up with what was begun.
            let _ = self.disk.remove(&name);
            return Err(error);
        }
        let written = &self.counters.written;
        written.add(Cause::Header, u64::from(SEGMENT_DATA_START));
        written.add(Cause::Ahead, u64::from(zeroes));
        Ok(Segment {
            generation,
            file,
            phase: Phase::Spare,
            content: Content::Data,
            temperature: Temperature::Unknown,
            used: SEGMENT_DATA_START,
            live: 0,
            total: 0,
            prewritten: prewrite,
            settled: false,
            left: 0,
            touched: 0,
        })
    }
}

/// Writes the first `len` bytes of a file.
fn write_zeroes(file: &dyn DiskFile, len: u32) -> io::Result<()> {
    let zeroes = AlignedBuf::zeroed(PREWRITE_STEP.min(len as usize))?;
    for at in (0..len).step_by(PREWRITE_STEP) {
        let now = PREWRITE_STEP.min((len - at) as usize);
        file.write_at(zeroes.get(..now).unwrap_or_default(), u64::from(at))?;
    }
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
