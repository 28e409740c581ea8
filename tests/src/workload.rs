//! A verifying load on one vDisk: every read is checked against the model, every completion against the
//! request it completes.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::client::{Client, ClientError, Completion, Op, Request, SECTOR, STATUS_OK};
use crate::pattern::{self, Kind};
use crate::verify::{Model, Ticket, Violation};

/// Sectors per block of the store.
const BLOCK: u64 = 8;

/// Something that a correct backend does not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The connection or the ring.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Wrong data.
    #[error("{0}")]
    Data(Violation),
    /// A request failed.
    #[error("vDisk {vdisk}: {request:?} ended with status {status}")]
    Status {
        /// The vDisk's number.
        vdisk: u16,
        /// The request.
        request: Request,
        /// Its status byte.
        status: u8,
    },
    /// The used ring tells a wrong length.
    #[error("vDisk {vdisk}: {request:?} reports {used_len} bytes written by the device")]
    UsedLen {
        /// The vDisk's number.
        vdisk: u16,
        /// The request.
        request: Request,
        /// What the used ring says.
        used_len: u32,
    },
    /// Requests that never complete.
    #[error("vDisk {vdisk}: after {waited:?} still in flight: {requests:?}")]
    Hung {
        /// The vDisk's number.
        vdisk: u16,
        /// How long nothing has completed.
        waited: Duration,
        /// What is in flight.
        requests: Vec<Request>,
    },
}

/// What the load is made of.
#[derive(Debug, Clone)]
pub struct Mix {
    /// Sectors per request.
    pub sectors: RangeInclusive<u64>,
    /// Parts of 100 that are reads, flushes, discards, write-zeroes; the rest are writes.
    pub reads: u8,
    /// See `reads`.
    pub flushes: u8,
    /// See `reads`.
    pub discards: u8,
    /// See `reads`.
    pub zeroes: u8,
    /// Whole blocks discarded read as zeroes. Otherwise they may also keep what they had.
    pub exact_discards: bool,
    /// A read that overlaps a write in time may be torn inside a sector.
    pub torn_races: bool,
    /// The used ring's lengths must be exact.
    pub exact_lengths: bool,
    /// Remember what is durable, for [`Workload::power_loss`].
    pub power: bool,
    /// The write cache is off: what is completed is durable.
    pub write_through: bool,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            sectors: 1..=512,
            reads: 25,
            flushes: 5,
            discards: 5,
            zeroes: 5,
            exact_discards: true,
            torn_races: false,
            exact_lengths: true,
            power: false,
            write_through: false,
        }
    }
}

/// What a request in flight means to the model.
#[derive(Debug, Clone, Copy)]
enum Pending {
    Read(Ticket),
    Flush(Ticket),
    Write(Ticket),
    /// Head, middle and tail of a range: only whole blocks are sure to be discarded.
    Discard([Option<Ticket>; 3]),
}

/// Requests completed, by what they were.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Reads, all of them checked.
    pub reads: u64,
    /// Writes, zeroings and discards.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
}

/// A client with its model and what is in flight.
#[derive(Debug)]
pub struct Workload {
    /// The front end.
    pub client: Client,
    /// What the vDisk may contain.
    pub model: Model,
    mix: Mix,
    rng: SmallRng,
    pending: Vec<Vec<Option<Pending>>>,
    done: Vec<Completion>,
    scratch: Vec<u8>,
    tally: Tally,
    progress: Instant,
}

impl Workload {
    /// A load on a vDisk of zeroes. `vdisk` goes into the stamps; the client needs room for requests of
    /// the mix's size.
    pub fn new(client: Client, vdisk: u16, mix: Mix, seed: u64) -> Self {
        let sectors = client.config().capacity;
        let pending = client
            .queues
            .iter()
            .map(|_| vec![None; usize::from(u16::MAX)])
            .collect();
        let mut model = Model::new(vdisk, sectors, mix.power);
        if mix.torn_races {
            model.tolerate_torn_races();
        }
        let scratch = vec![0; (*mix.sectors.end() * SECTOR) as usize];
        Self {
            client,
            model,
            mix,
            rng: SmallRng::seed_from_u64(seed ^ u64::from(vdisk) << 40),
            pending,
            done: Vec::new(),
            scratch,
            tally: Tally::default(),
            progress: Instant::now(),
        }
    }

    /// What has been done so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Tops the queues up with new requests, up to `depth` on each.
    pub fn submit(&mut self, depth: usize) {
        for at in 0..self.client.queues.len() {
            while self.client.queues[at].in_flight() < depth {
                let request = self.choose();
                if !self.start(at, request) {
                    break;
                }
            }
            self.client.queues[at].publish();
        }
    }

    /// Collects and checks what has completed. Returns how many requests.
    pub fn collect(&mut self) -> Result<usize, Failure> {
        let mut count = 0;
        for at in 0..self.client.queues.len() {
            let mut done = std::mem::take(&mut self.done);
            self.client.queues[at].poll(&mut done)?;
            count += done.len();
            for completion in done.drain(..) {
                self.finish(at, completion)?;
            }
            self.done = done;
        }
        if count > 0 {
            self.progress = Instant::now();
        }
        Ok(count)
    }

    /// Keeps the queues full for a while.
    pub fn run_for(&mut self, time: Duration, depth: usize) -> Result<(), Failure> {
        let until = Instant::now() + time;
        self.progress = Instant::now();
        while Instant::now() < until {
            self.submit(depth);
            self.client.wait(Duration::from_millis(1));
            self.collect()?;
        }
        Ok(())
    }

    /// Waits until nothing is in flight; an error when nothing completes for `patience`.
    pub fn drain(&mut self, patience: Duration) -> Result<(), Failure> {
        self.progress = Instant::now();
        while self.client.in_flight() > 0 {
            self.client.wait(Duration::from_millis(100));
            self.collect()?;
            let waited = self.progress.elapsed();
            if waited > patience {
                let requests = self
                    .client
                    .queues
                    .iter()
                    .flat_map(|q| q.outstanding().map(|(_, r)| r))
                    .collect();
                return Err(Failure::Hung {
                    vdisk: self.model.vdisk(),
                    waited,
                    requests,
                });
            }
        }
        Ok(())
    }

    /// Reads the whole vDisk and checks it. Nothing may be in flight.
    pub fn verify(&mut self, patience: Duration) -> Result<(), Failure> {
        let step = *self.mix.sectors.end();
        let mut next = 0;
        let sectors = self.model.sectors();
        while next < sectors {
            for at in 0..self.client.queues.len() {
                while next < sectors && self.client.queues[at].in_flight() < 16 {
                    let count = step.min(sectors - next);
                    if !self.start(at, Request::read(next, (count * SECTOR) as u32)) {
                        break;
                    }
                    next += count;
                }
                self.client.queues[at].publish();
            }
            self.client.wait(patience);
            if self.collect()? == 0 {
                break;
            }
        }
        self.drain(patience)
    }

    /// Guest and backend are gone; `client` is the rebooted guest's.
    pub fn power_loss(&mut self, client: Client) {
        self.model.power_loss();
        self.client = client;
        self.pending
            .iter_mut()
            .flatten()
            .for_each(|pending| *pending = None);
    }

    /// Runs one flush on queue 0. Nothing may be in flight.
    pub fn flush(&mut self, patience: Duration) -> Result<(), Failure> {
        self.start(0, Request::flush());
        self.client.queues[0].publish();
        self.drain(patience)
    }

    fn choose(&mut self) -> Request {
        let roll = self.rng.random_range(0..100u8);
        let Mix {
            reads,
            flushes,
            discards,
            zeroes,
            ..
        } = self.mix;
        let op = if roll < reads {
            Op::Read
        } else if roll < reads + flushes {
            return Request::flush();
        } else if roll < reads + flushes + discards {
            Op::Discard
        } else if roll < reads + flushes + discards + zeroes {
            Op::WriteZeroes {
                unmap: self.rng.random(),
            }
        } else {
            Op::Write
        };
        let (sector, count) = self.place();
        Request {
            op,
            sector,
            bytes: (count * SECTOR) as u32,
        }
    }

    /// Half of all requests meet in a sixteenth of the vDisk, so that many overlap; most begin at a
    /// block, and small ones are as frequent as large ones.
    fn place(&mut self) -> (u64, u64) {
        let (least, most) = (*self.mix.sectors.start(), *self.mix.sectors.end());
        let most = most.min(self.model.sectors());
        let scale = self.rng.random_range(0..=most.ilog2());
        let mut count = self
            .rng
            .random_range(1..=(2u64 << scale))
            .clamp(least, most);
        let span = self.model.sectors() / if self.rng.random() { 16 } else { 1 };
        let mut sector = self
            .rng
            .random_range(0..span.max(1))
            .min(self.model.sectors() - count);
        if self.rng.random_range(0..4) != 0 {
            sector -= sector % BLOCK;
            if count > BLOCK {
                count -= count % BLOCK;
            }
        }
        (sector, count)
    }

    fn start(&mut self, at: usize, request: Request) -> bool {
        let queue = &mut self.client.queues[at];
        let Some(tag) = queue.reserve() else {
            return false;
        };
        let Request { sector, .. } = request;
        let count = request.sectors();
        let pending = match request.op {
            Op::Read => Pending::Read(self.model.read(sector, count)),
            Op::Write => {
                let ticket = self.model.write(sector, count);
                let data = &mut self.scratch[..request.bytes as usize];
                let kind = if self.rng.random_range(0..8) == 0 {
                    Kind::Random
                } else {
                    Kind::Half
                };
                pattern::fill(
                    data,
                    kind,
                    self.model.vdisk(),
                    sector,
                    self.model.version(ticket),
                );
                queue.put_data(tag, 0, data);
                Pending::Write(ticket)
            }
            Op::WriteZeroes { .. } => Pending::Write(self.model.zero(sector, count)),
            Op::Discard => Pending::Discard(discard(&mut self.model, sector, count)),
            Op::Flush | Op::GetId => Pending::Flush(self.model.flush()),
        };
        self.pending[at][usize::from(tag)] = Some(pending);
        queue.submit(tag, request);
        true
    }

    fn finish(&mut self, at: usize, completion: Completion) -> Result<(), Failure> {
        let Completion {
            tag,
            request,
            status,
            used_len,
        } = completion;
        let vdisk = self.model.vdisk();
        if status != STATUS_OK {
            return Err(Failure::Status {
                vdisk,
                request,
                status,
            });
        }
        if self.mix.exact_lengths && used_len != request.used_len() {
            return Err(Failure::UsedLen {
                vdisk,
                request,
                used_len,
            });
        }
        match self.pending[at][usize::from(tag)].take() {
            Some(Pending::Read(ticket)) => {
                let data = &mut self.scratch[..request.bytes as usize];
                self.client.queues[at].get_data(tag, 0, data);
                self.model.check(ticket, data).map_err(Failure::Data)?;
                self.tally.reads += 1;
            }
            Some(Pending::Flush(ticket)) => {
                self.model.flushed(ticket);
                self.tally.flushes += 1;
            }
            Some(Pending::Write(ticket)) => {
                self.model.written(ticket);
                self.tally.writes += 1;
            }
            Some(Pending::Discard(tickets)) => {
                for (part, ticket) in tickets.into_iter().enumerate() {
                    match ticket {
                        Some(ticket) if part == 1 && self.mix.exact_discards => {
                            self.model.written(ticket)
                        }
                        Some(ticket) => self.model.maybe_written(ticket),
                        None => {}
                    }
                }
                self.tally.writes += 1;
            }
            // The queue has already refused completions of what is not in flight.
            None => {}
        }
        if self.mix.write_through {
            let flush = self.model.flush();
            self.model.flushed(flush);
        }
        Ok(())
    }
}

fn discard(model: &mut Model, sector: u64, count: u64) -> [Option<Ticket>; 3] {
    let end = sector + count;
    let whole = sector.next_multiple_of(BLOCK).min(end);
    let tail = (end - end % BLOCK).max(whole);
    [(sector, whole), (whole, tail), (tail, end)]
        .map(|(from, to)| (from < to).then(|| model.zero(from, to - from)))
}
