//! Drives one cell through a client and times it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use firn_tests::client::{Client, ClientError, Completion, Op, Queue, Request, SECTOR, STATUS_OK};
use firn_tests::measure::Histogram;
use firn_tests::pattern::{self, Found, Kind};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::cell::{Cell, NEIGHBOUR, State};

/// Every how many reads one is looked at: a server that returned nothing would be a fast one.
const CHECK_EVERY: u64 = 64;

const HANG: Duration = Duration::from_secs(30);

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub enum Until<'a> {
    /// Not before both are reached.
    Amount(Amount),
    /// When this is set.
    Told(&'a AtomicBool),
    /// After so many operations.
    Count(u64),
}

/// How much a run does at least.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Seconds.
    pub seconds: f64,
    /// Bytes written; only for cells with [`Cell::buffered_writes`].
    pub written: u64,
}

/// The data.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    /// Compressibility of what is written.
    pub kind: Kind,
    /// Bytes of the vDisk that the load covers.
    pub span: u64,
    /// All of these hold contents of ours, so that a read of zeroes is a fault.
    pub filled: bool,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// Operations completed.
    pub ios: u64,
    /// Bytes read or written.
    pub bytes: u64,
    /// From the first submission to the completion of the final flush.
    pub elapsed: Duration,
    /// Of each operation.
    pub latency: Histogram,
}

/// Where requests go.
#[derive(Debug)]
enum Places {
    Random,
    /// The next one, and whether to begin again at the end.
    Next(u64, bool),
    /// Every place once, in random order within each window; first what is left of this window, from
    /// `next` on the other ones.
    Shuffled {
        left: Vec<u32>,
        next: u32,
    },
}

/// Requests in a window of a shuffled fill: 8 GiB of 4 KiB blocks. Larger vDisks are filled window by window,
/// which makes maps as dense as one shuffle would, but not days of paging while that is done.
const WINDOW: u32 = 2 << 20;

struct Load<'a> {
    cell: &'a Cell,
    data: Data,
    rng: SmallRng,
    places: Places,
    version: &'a mut u32,
    scratch: Vec<u8>,
    zeroes: bool,
}

/// How a load ends.
#[derive(Debug, PartialEq)]
enum End {
    /// Everything completed and flushed.
    Flushed,
    /// With requests in flight.
    InFlight,
}

impl<'a> Load<'a> {
    fn new(cell: &'a Cell, data: Data, seed: u64, version: &'a mut u32) -> Self {
        Self {
            cell,
            data,
            rng: SmallRng::seed_from_u64(seed),
            places: if cell.sequential {
                Places::Next(0, cell.state != State::Fresh)
            } else {
                Places::Random
            },
            version,
            scratch: vec![0; cell.bytes as usize],
            zeroes: false,
        }
    }

    fn next(&mut self) -> Option<Request> {
        let blocks = self.data.span / u64::from(self.cell.bytes);
        let block = match &mut self.places {
            Places::Random => self.rng.random_range(0..blocks),
            Places::Next(next, wrap) => {
                if *next >= blocks && !*wrap {
                    return None;
                }
                let block = *next % blocks;
                *next += 1;
                block
            }
            Places::Shuffled { left, next } => {
                if left.is_empty() {
                    let end = u64::from(*next + WINDOW).min(blocks) as u32;
                    left.extend(*next..end);
                    left.shuffle(&mut self.rng);
                    *next = end;
                }
                u64::from(left.pop()?)
            }
        };
        let sector = block * u64::from(self.cell.bytes) / SECTOR;
        let read = self.cell.reads > 0 && self.rng.random_range(0..100) < self.cell.reads;
        Some(if read {
            Request::read(sector, self.cell.bytes)
        } else {
            Request::write(sector, self.cell.bytes)
        })
    }

    /// The contents of the next write.
    fn contents(&mut self, request: Request) -> &[u8] {
        if !self.zeroes {
            *self.version += 1;
            pattern::fill(
                &mut self.scratch,
                self.data.kind,
                1,
                request.sector,
                *self.version,
            );
        }
        &self.scratch
    }
}

/// Runs a cell; on a fresh vDisk to its end at most. `version` counts the writes of a vDisk over all runs.
pub fn run(
    client: &mut Client,
    cell: &Cell,
    data: Data,
    until: Until<'_>,
    seed: u64,
    version: &mut u32,
) -> Result<Outcome, ClientError> {
    let load = Load::new(cell, data, seed, version);
    drive(client, load, enough(cell, until), End::Flushed)
}

/// Like [`run`], but stops with the queue full of requests in flight.
pub fn run_without_flush(
    client: &mut Client,
    cell: &Cell,
    data: Data,
    until: Until<'_>,
    seed: u64,
    version: &mut u32,
) -> Result<Outcome, ClientError> {
    let load = Load::new(cell, data, seed, version);
    drive(client, load, enough(cell, until), End::InFlight)
}

fn enough(cell: &Cell, until: Until<'_>) -> impl Fn(&Progress) -> bool {
    let buffered = cell.buffered_writes();
    move |progress| match until {
        Until::Amount(amount) => {
            progress.elapsed.as_secs_f64() >= amount.seconds
                && (!buffered || progress.written >= amount.written)
        }
        Until::Count(operations) => progress.submitted >= operations,
        Until::Told(told) => told.load(Ordering::Relaxed),
    }
}

/// What has been done so far.
#[derive(Debug, Default)]
struct Progress {
    /// Requests submitted, flushes after writes aside.
    submitted: u64,
    /// Bytes of writes begun.
    written: u64,
    elapsed: Duration,
}

/// Writes every block of the span once, in order or shuffled, and flushes. `kind` none writes zeroes.
pub fn fill(
    client: &mut Client,
    span: u64,
    kind: Option<Kind>,
    shuffled: bool,
    version: &mut u32,
) -> Result<Outcome, ClientError> {
    let cell = Cell {
        name: "fill",
        bytes: if shuffled { 4096 } else { 1 << 20 },
        depth: if shuffled { 32 } else { 4 },
        ..NEIGHBOUR
    };
    let load = Load {
        cell: &cell,
        data: Data {
            kind: kind.unwrap_or(Kind::Half),
            span,
            filled: false,
        },
        rng: SmallRng::seed_from_u64(1),
        places: match shuffled {
            true => Places::Shuffled {
                left: Vec::new(),
                next: 0,
            },
            false => Places::Next(0, false),
        },
        version,
        scratch: vec![0; cell.bytes as usize],
        zeroes: kind.is_none(),
    };
    drive(client, load, |_| false, End::Flushed)
}

fn drive(
    client: &mut Client,
    mut load: Load<'_>,
    enough: impl Fn(&Progress) -> bool,
    end: End,
) -> Result<Outcome, ClientError> {
    let queues = usize::from(load.cell.queues).min(client.queues.len());
    let depth = usize::from(load.cell.depth) / queues;
    let mut outcome = Outcome {
        ios: 0,
        bytes: 0,
        elapsed: Duration::ZERO,
        latency: Histogram::default(),
    };
    let mut done: Vec<Completion> = Vec::with_capacity(256);
    let begin = Instant::now();
    let mut started = vec![[begin; 256]; queues];
    let (mut progress, mut over) = (Progress::default(), false);
    loop {
        for (at, queue) in client.queues[..queues].iter_mut().enumerate() {
            while !over && queue.in_flight() < depth {
                if enough(&progress) {
                    over = true;
                    break;
                }
                let Some(request) = load.next() else {
                    over = true;
                    break;
                };
                let Some(tag) = queue.reserve() else { break };
                if request.op == Op::Write {
                    queue.put_data(tag, 0, load.contents(request));
                    progress.written += u64::from(request.bytes);
                }
                progress.submitted += 1;
                started[at][usize::from(tag)] = Instant::now();
                queue.submit(tag, request);
            }
            queue.publish();
        }
        if over && (end == End::InFlight || client.in_flight() == 0) {
            break;
        }
        if !client.wait(HANG) {
            return Err(ClientError::Timeout(format!(
                "{} requests in flight",
                client.in_flight()
            )));
        }
        for (at, queue) in client.queues[..queues].iter_mut().enumerate() {
            queue.poll(&mut done)?;
            let now = Instant::now();
            progress.elapsed = now - begin;
            for completion in done.drain(..) {
                good(&completion)?;
                if load.cell.flush_each && completion.request.op == Op::Write {
                    let begun = started[at][usize::from(completion.tag)];
                    outcome.bytes += u64::from(completion.request.bytes);
                    if let Some(tag) = queue.reserve() {
                        started[at][usize::from(tag)] = begun;
                        queue.submit(tag, Request::flush());
                    }
                    continue;
                }
                if completion.request.op == Op::Read && outcome.ios.is_multiple_of(CHECK_EVERY) {
                    check(queue, &completion, load.data)?;
                }
                outcome
                    .latency
                    .record(now - started[at][usize::from(completion.tag)]);
                outcome.ios += 1;
                outcome.bytes += u64::from(completion.request.bytes);
            }
        }
    }
    if load.cell.reads < 100 && end == End::Flushed {
        good(&client.run(Request::flush(), &mut [])?)?;
    }
    outcome.elapsed = begin.elapsed();
    Ok(outcome)
}

/// A read's first sector is what some write of ours wrote there.
fn check(queue: &Queue, read: &Completion, data: Data) -> Result<(), ClientError> {
    let mut bytes = [0; SECTOR as usize];
    queue.get_data(read.tag, 0, &mut bytes);
    match pattern::inspect(&bytes) {
        Found::Version { sector, .. } if sector == read.request.sector => Ok(()),
        Found::Zero if !data.filled => Ok(()),
        found => Err(wrong(format!("{:?} returned {found:?}", read.request))),
    }
}

fn good(completion: &Completion) -> Result<(), ClientError> {
    if completion.status == STATUS_OK {
        return Ok(());
    }
    Err(wrong(format!(
        "{:?} ended with status {}",
        completion.request, completion.status
    )))
}

fn wrong(what: String) -> ClientError {
    ClientError::Io {
        what,
        source: std::io::ErrorKind::InvalidData.into(),
    }
}
