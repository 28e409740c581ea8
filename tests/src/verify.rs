//! What a disk may contain, given what was written to it.
//!
//! The model keeps, per 512-byte sector, every value that a correct disk may still return:
//!
//! * **A write that has completed** replaces what completed before it was submitted. Of writes that
//!   overlap in time any may come last, sector by sector.
//! * **A write in flight** may or may not have happened yet. After a kill it is executed again, so it
//!   stays in flight and completes later: the model needs no notion of a process's death.
//! * **A read** whose sector no write overlapped in time settles the sector: from then on it has the value
//!   read, after any number of restarts too (invariant 1).
//! * **A flush** that has completed makes durable what was completed when it was submitted. After a loss
//!   of power a sector has its durable value or any written since (invariant 2): [`Model::power_loss`].
//!
//! Values are versions of [`crate::pattern`]; 0 is zeroes. Time is a counter that each event advances.

use std::collections::HashMap;
use std::fmt;

use crate::pattern::{self, Found, SECTOR};

const NEVER: u64 = u64::MAX;

/// A value that a sector has or may have had.
#[derive(Debug, Clone, Copy)]
struct Entry {
    version: u32,
    submitted: u64,
    /// [`NEVER`] while in flight.
    completed: u64,
    /// When a later value was known to have replaced it; [`NEVER`] while it may be the current one.
    replaced: u64,
}

impl Entry {
    fn in_flight(&self) -> bool {
        self.completed == NEVER
    }

    fn alive(&self) -> bool {
        self.replaced == NEVER
    }
}

/// An event that was announced and has not completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    submitted: u64,
    first: u64,
    count: u64,
    version: u32,
}

/// A sector with contents that it may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The vDisk's number.
    pub vdisk: u16,
    /// The sector, of 512 bytes.
    pub sector: u64,
    /// What it holds.
    pub found: Found,
    /// The versions that it may hold.
    pub permitted: Vec<u32>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            vdisk,
            sector,
            found,
            permitted,
        } = self;
        write!(
            f,
            "vDisk {vdisk}, sector {sector} (block {}): found {found:?}, permitted versions {permitted:?}",
            sector / 8
        )
    }
}

/// The permitted contents of one vDisk.
#[derive(Debug)]
pub struct Model {
    vdisk: u16,
    now: u64,
    /// The value of sectors with nothing to remember but that.
    settled: Vec<u32>,
    /// All others, in order of submission.
    open: HashMap<u64, Vec<Entry>>,
    /// Submission times of the reads in flight: what was replaced after the oldest may still be read.
    reads: Vec<u64>,
    /// Submission time of the newest completed flush.
    flushed: u64,
    /// Whether what is replaced but not yet durably so is kept, for [`Model::power_loss`].
    power: bool,
    torn_races: bool,
    next_version: u32,
    sweep_at: usize,
}

const SWEEP_AT: usize = 1 << 16;

impl Model {
    /// A vDisk of `sectors` that was never written. `power` keeps what [`Model::power_loss`] needs.
    pub fn new(vdisk: u16, sectors: u64, power: bool) -> Self {
        Self {
            vdisk,
            now: 1,
            settled: vec![0; sectors as usize],
            open: HashMap::new(),
            reads: Vec::new(),
            flushed: 0,
            power,
            torn_races: false,
            next_version: 1,
            sweep_at: SWEEP_AT,
        }
    }

    /// Lets a read that overlaps a write in time return a sector torn between the two, as a server
    /// does that reads through the page cache. Ours must not.
    pub fn tolerate_torn_races(&mut self) {
        self.torn_races = true;
    }

    /// The vDisk's number in the stamps.
    pub fn vdisk(&self) -> u16 {
        self.vdisk
    }

    /// Sectors of the vDisk.
    pub fn sectors(&self) -> u64 {
        self.settled.len() as u64
    }

    /// Announces a write just before it is submitted. Its data must be of the version in the ticket.
    pub fn write(&mut self, first: u64, count: u64) -> Ticket {
        let version = self.next_version;
        self.next_version += 1;
        self.begin(first, count, version)
    }

    /// Announces a write of zeroes (or a discard that promises them).
    pub fn zero(&mut self, first: u64, count: u64) -> Ticket {
        self.begin(first, count, 0)
    }

    /// The version that a write's data must carry.
    pub fn version(&self, ticket: Ticket) -> u32 {
        ticket.version
    }

    /// A write or zeroing has completed without an error.
    pub fn written(&mut self, ticket: Ticket) {
        self.end(ticket, false);
    }

    /// It has failed, or is one that may do nothing (a discard of less than a block): it may have
    /// happened or not.
    pub fn maybe_written(&mut self, ticket: Ticket) {
        self.end(ticket, true);
    }

    /// Announces a read just before it is submitted.
    pub fn read(&mut self, first: u64, count: u64) -> Ticket {
        let submitted = self.tick();
        self.reads.push(submitted);
        Ticket {
            submitted,
            first,
            count,
            version: 0,
        }
    }

    /// Checks what a read has returned and settles the sectors that no write overlapped.
    pub fn check(&mut self, ticket: Ticket, data: &[u8]) -> Result<(), Violation> {
        self.finish_read(ticket);
        for (sector, bytes) in (ticket.first..).zip(data.chunks_exact(SECTOR)) {
            self.check_sector(ticket.submitted, sector, bytes)?;
        }
        Ok(())
    }

    /// A read has failed, or its data is of no interest.
    pub fn finish_read(&mut self, ticket: Ticket) {
        if let Some(at) = self.reads.iter().position(|&r| r == ticket.submitted) {
            self.reads.swap_remove(at);
        }
    }

    /// Announces a flush just before it is submitted.
    pub fn flush(&mut self) -> Ticket {
        Ticket {
            submitted: self.tick(),
            first: 0,
            count: 0,
            version: 0,
        }
    }

    /// A flush has completed without an error.
    pub fn flushed(&mut self, ticket: Ticket) {
        self.flushed = self.flushed.max(ticket.submitted);
    }

    /// The power failed, and the guest with it: nothing is in flight any more, and what was not flushed
    /// may be there or not. Reads settle what is.
    ///
    /// # Panics
    /// When the model was not made to keep track of it.
    pub fn power_loss(&mut self) {
        assert!(self.power, "this model does not remember what is durable");
        self.reads.clear();
        let now = self.tick();
        for sector in self.open.keys().copied().collect::<Vec<_>>() {
            self.prune(sector);
        }
        for entries in self.open.values_mut() {
            for entry in entries {
                entry.replaced = NEVER;
                entry.completed = entry.completed.min(now);
            }
        }
    }

    /// Versions that the sector may read as now.
    pub fn permitted(&self, sector: u64) -> Vec<u32> {
        match self.open.get(&sector) {
            Some(entries) => entries
                .iter()
                .filter(|e| e.alive())
                .map(|e| e.version)
                .collect(),
            None => vec![self.settled[sector as usize]],
        }
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn begin(&mut self, first: u64, count: u64, version: u32) -> Ticket {
        let submitted = self.tick();
        assert!(
            first + count <= self.sectors(),
            "{count} sectors from {first} leave the vDisk"
        );
        for sector in first..first + count {
            let old = self.settled[sector as usize];
            let entries = self.open.entry(sector).or_insert_with(|| {
                vec![Entry {
                    version: old,
                    submitted: 0,
                    completed: 0,
                    replaced: NEVER,
                }]
            });
            entries.push(Entry {
                version,
                submitted,
                completed: NEVER,
                replaced: NEVER,
            });
        }
        if self.open.len() > self.sweep_at {
            self.sweep();
        }
        Ticket {
            submitted,
            first,
            count,
            version,
        }
    }

    fn end(&mut self, ticket: Ticket, maybe: bool) {
        let now = self.tick();
        for sector in ticket.first..ticket.first + ticket.count {
            let Some(entries) = self.open.get_mut(&sector) else {
                continue;
            };
            for entry in entries.iter_mut() {
                if entry.submitted == ticket.submitted {
                    entry.completed = now;
                } else if !maybe && entry.alive() && entry.completed < ticket.submitted {
                    entry.replaced = now;
                }
            }
            self.prune(sector);
        }
    }

    fn check_sector(&mut self, submitted: u64, sector: u64, bytes: &[u8]) -> Result<(), Violation> {
        let now = self.now;
        let found = pattern::inspect(bytes);
        let version = match found {
            Found::Zero => Some(0),
            Found::Version {
                vdisk,
                sector: at,
                version,
            } if vdisk == self.vdisk && at == sector => Some(version),
            _ => None,
        };
        let Some(entries) = self.open.get_mut(&sector) else {
            let settled = self.settled[sector as usize];
            let good = version == Some(settled);
            return if good {
                Ok(())
            } else {
                Err(self.violation(sector, found, vec![settled]))
            };
        };
        let readable = |e: &Entry| e.replaced > submitted;
        let raced = entries
            .iter()
            .any(|e| e.in_flight() || e.completed >= submitted);
        if raced && self.torn_races && found == Found::Garbage {
            return Ok(());
        }
        if !entries
            .iter()
            .any(|e| Some(e.version) == version && readable(e))
        {
            let permitted = entries
                .iter()
                .filter(|e| readable(e))
                .map(|e| e.version)
                .collect();
            return Err(self.violation(sector, found, permitted));
        }
        // A write that overlapped the read in time may come after it: then the read decides nothing.
        if entries
            .iter()
            .all(|e| !e.in_flight() && e.completed < submitted)
        {
            // Of equal values (zeroes) the newest stays: it is the one that a flush finds last.
            let keep = entries
                .iter()
                .rposition(|e| Some(e.version) == version && readable(e));
            for (at, entry) in entries.iter_mut().enumerate() {
                if Some(at) != keep && entry.alive() {
                    entry.replaced = now;
                }
            }
        }
        self.prune(sector);
        Ok(())
    }

    fn violation(&self, sector: u64, found: Found, permitted: Vec<u32>) -> Violation {
        Violation {
            vdisk: self.vdisk,
            sector,
            found,
            permitted,
        }
    }

    /// Forgets what no read in flight and no power loss can bring back.
    fn prune(&mut self, sector: u64) {
        let oldest_read = self.reads.iter().copied().min().unwrap_or(self.now);
        let limit = if self.power {
            oldest_read.min(self.flushed)
        } else {
            oldest_read
        };
        let Some(entries) = self.open.get_mut(&sector) else {
            return;
        };
        entries.retain(|e| e.replaced > limit);
        // A lone value is settled once no power loss can undo it; without `power` at once.
        if let [only] = entries[..]
            && only.completed <= limit
        {
            self.settled[sector as usize] = only.version;
            self.open.remove(&sector);
        }
    }

    fn sweep(&mut self) {
        for sector in self.open.keys().copied().collect::<Vec<_>>() {
            self.prune(sector);
        }
        self.sweep_at = (2 * self.open.len()).max(SWEEP_AT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector_of(version: u32, sector: u64) -> Vec<u8> {
        let mut data = vec![0; SECTOR];
        if version != 0 {
            pattern::fill(&mut data, pattern::Kind::Half, 9, sector, version);
        }
        data
    }

    fn reads_as(model: &mut Model, sector: u64, version: u32) -> bool {
        let ticket = model.read(sector, 1);
        model.check(ticket, &sector_of(version, sector)).is_ok()
    }

    #[test]
    fn a_completed_write_replaces_the_former() {
        let mut model = Model::new(9, 8, false);
        let one = model.write(0, 8);
        model.written(one);
        assert!(!reads_as(&mut model, 3, 0));
        assert!(reads_as(&mut model, 3, 1));
        let two = model.write(3, 1);
        assert!(reads_as(&mut model, 3, 1) && reads_as(&mut model, 3, 2));
        model.written(two);
        assert!(!reads_as(&mut model, 3, 1));
        assert!(reads_as(&mut model, 3, 2) && reads_as(&mut model, 4, 1));
    }

    #[test]
    fn overlapping_writes_keep_the_winner_that_was_read() {
        let mut model = Model::new(9, 8, false);
        let one = model.write(0, 4);
        let two = model.write(0, 4);
        model.written(two);
        // The first may still be applied, so reading the second settles nothing yet.
        assert!(reads_as(&mut model, 0, 2));
        model.written(one);
        assert_eq!(model.permitted(0), [1, 2]);
        assert!(!reads_as(&mut model, 1, 0));
        assert!(reads_as(&mut model, 0, 1));
        assert!(!reads_as(&mut model, 0, 2), "the winner must stay");
        assert!(reads_as(&mut model, 1, 2), "each sector has its own winner");
    }

    #[test]
    fn a_read_may_return_what_was_replaced_while_it_was_in_flight() {
        let mut model = Model::new(9, 8, false);
        let one = model.write(0, 1);
        model.written(one);
        let read = model.read(0, 1);
        let two = model.write(0, 1);
        model.written(two);
        model.check(read, &sector_of(1, 0)).unwrap();
        assert!(!reads_as(&mut model, 0, 1));
    }

    #[test]
    fn zeroes_and_failures() {
        let mut model = Model::new(9, 8, false);
        let one = model.write(0, 2);
        model.written(one);
        let zero = model.zero(0, 1);
        model.written(zero);
        let partial = model.zero(1, 1);
        model.maybe_written(partial);
        assert!(!reads_as(&mut model, 0, 1));
        assert!(reads_as(&mut model, 0, 0));
        assert_eq!(model.permitted(1), [1, 0]);
        assert!(reads_as(&mut model, 1, 1));
        assert!(!reads_as(&mut model, 1, 0));
    }

    #[test]
    fn other_sectors_and_other_vdisks_contents_are_violations() {
        let mut model = Model::new(9, 8, false);
        let one = model.write(0, 8);
        model.written(one);
        let read = model.read(2, 1);
        assert!(model.check(read, &sector_of(1, 3)).is_err());
        let mut foreign = vec![0; SECTOR];
        pattern::fill(&mut foreign, pattern::Kind::Half, 8, 2, 1);
        let read = model.read(2, 1);
        let violation = model.check(read, &foreign).unwrap_err();
        assert_eq!(
            violation.found,
            Found::Version {
                vdisk: 8,
                sector: 2,
                version: 1
            }
        );
    }

    #[test]
    fn power_loss_keeps_the_flushed_or_something_later() {
        let mut model = Model::new(9, 8, true);
        for _ in 0..2 {
            let write = model.write(0, 8);
            model.written(write);
        }
        let flush = model.flush();
        let three = model.write(0, 1);
        model.written(three);
        model.flushed(flush);
        let four = model.write(0, 1);
        model.written(four);
        let _in_flight = model.write(0, 1);
        assert!(!reads_as(&mut model, 0, 2));
        model.power_loss();
        assert_eq!(model.permitted(0), [2, 3, 4, 5]);
        assert!(!reads_as(&mut model, 0, 1));
        assert!(reads_as(&mut model, 0, 3));
        assert!(!reads_as(&mut model, 0, 4), "a value once read stays");
        assert!(reads_as(&mut model, 7, 2) && !reads_as(&mut model, 7, 1));
    }

    #[test]
    fn nothing_is_remembered_of_a_disk_at_rest() {
        let mut model = Model::new(9, 64, true);
        for round in 0..10 {
            let write = model.write(round, 50);
            model.written(write);
        }
        let flush = model.flush();
        model.flushed(flush);
        model.sweep();
        assert!(model.open.is_empty());
        assert_eq!(model.permitted(9), [10]);
    }
}
