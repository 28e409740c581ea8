//! A load whose memory and whose disk belong to one instant, and that notices when they do not.
//!
//! Step after step it writes blocks of which every byte follows from the step, and remembers for each block which step wrote it
//! last. What it reads must be what it remembers. Run in a guest (`firn-guest-pattern`), that memory is a part of the guest's: a
//! revert of the guest's memory and its disk to one instant it does not notice at all; a disk of another instant it finds out:
//!
//! * the disk is newer: the next step looks at its blocks before it writes them, and finds itself there already;
//! * the disk is older: after each step the blocks of one of the last [`RECENT`] are read again;
//! * whichever it is: no block is written before it was found right, and a pass over the whole disk goes on all the time. So
//!   a difference can neither be overwritten nor stay.
//!
//! # A block
//! Numbers are little-endian; a block that no step has written is zeroes.
//!
//! ```text
//! 0          8      16     24      32                             4096
//! | FIRNSTEP | seed | step | block | numbers that follow from these |
//! ```
//!
//! # From the disk alone
//! What a step writes follows from the seed and its number, so [`Steps::check`] can tell from a disk alone whether it is what steps
//! 1 to N have left, for some N: what a crash-consistent snapshot must hold, of acknowledged writes that are one at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Bytes of a block.
pub const BLOCK: usize = 4096;
/// Most blocks that a step writes, and that are read at once.
const RUN: u64 = 16;
/// So many of the last steps are read again.
const RECENT: u64 = 32;
const MAGIC: u64 = u64::from_le_bytes(*b"FIRNSTEP");

/// Why it can not go on.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The disk is not what it must be.
    #[error("WRONG {0}")]
    Wrong(String),
    /// No matter of contents.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The load.
#[derive(Debug)]
pub struct Steps {
    disk: Disk,
    seed: u64,
    /// The last step taken.
    step: u64,
    /// The step that wrote each block last; 0: none.
    written: Vec<u64>,
    /// Where the pass over the whole disk is.
    next: u64,
    passes: u64,
}

impl Steps {
    /// Begins on a disk of zeroes, or goes on where an earlier run has stopped. A file is made as large as `size`.
    pub fn open(path: &Path, size: u64, seed: u64) -> Result<Self, StepError> {
        let disk = Disk::open(path, size, true)?;
        let mut steps = Self::read(disk, seed)?;
        if steps.step > 0 {
            // Its last step may have been cut off.
            steps.write(steps.step)?;
        }
        Ok(steps)
    }

    /// Whether a disk is what its steps have left. Of the last one some blocks may be missing.
    pub fn check(path: &Path, size: u64) -> Result<Self, StepError> {
        Self::read(Disk::open(path, size, false)?, 0)
    }

    /// The last step.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// How often the whole disk was read and found right.
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// The next step: reads and writes some blocks.
    pub fn advance(&mut self) -> Result<(), StepError> {
        let step = self.step + 1;
        let (first, count) = self.blocks_of(self.seed, step);
        self.verify(first, count)?;
        self.write(step)?;
        if step.is_multiple_of(64) {
            self.disk.file.sync_data()?;
        }

        // What comes back is decided anew each time: it leaves nothing.
        let back = mix(step ^ self.passes.rotate_left(32)) % RECENT;
        let (first, count) = self.blocks_of(self.seed, step.saturating_sub(back).max(1));
        self.verify(first, count)?;
        let random = mix(!step) % self.disk.blocks;
        self.verify(random, 1)?;
        let count = RUN.min(self.disk.blocks - self.next);
        self.verify(self.next, count)?;
        self.next += count;
        if self.next == self.disk.blocks {
            (self.next, self.passes) = (0, self.passes + 1);
        }
        Ok(())
    }

    /// Which blocks a step writes: the first one, and how many.
    fn blocks_of(&self, seed: u64, step: u64) -> (u64, u64) {
        let choice = mix(seed ^ mix(step));
        let first = (choice >> 16) % self.disk.blocks;
        // One in eight is longer.
        let count = match choice % 8 {
            0 => 2 + (choice >> 3) % (RUN - 1),
            _ => 1,
        };
        (first, count.min(self.disk.blocks - first))
    }

    fn write(&mut self, step: u64) -> Result<(), StepError> {
        let (first, count) = self.blocks_of(self.seed, step);
        let buffer = self.disk.buffer.of(count);
        for (bytes, block) in buffer.chunks_exact_mut(BLOCK).zip(first..) {
            fill(bytes, self.seed, step, block);
        }
        self.disk.file.write_all_at(buffer, first * BLOCK as u64)?;
        self.step = step;
        for block in first..first + count {
            self.written[block as usize] = step;
        }
        Ok(())
    }

    /// Reads blocks, which must be what they were when they were written last.
    fn verify(&mut self, first: u64, count: u64) -> Result<(), StepError> {
        let buffer = self.disk.buffer.of(count);
        self.disk.file.read_exact_at(buffer, first * BLOCK as u64)?;
        let mut expected = [0; BLOCK];
        for (bytes, block) in buffer.chunks_exact(BLOCK).zip(first..) {
            let step = self.written[block as usize];
            fill(&mut expected, self.seed, step, block);
            if bytes != expected {
                let mut pairs = bytes.iter().zip(&expected);
                let at = pairs.position(|(a, b)| a != b).unwrap_or(0);
                let found = Found::of(bytes, block);
                return Err(StepError::Wrong(format!(
                    "block {block}, byte {at}: of step {step} by memory, which is at step {}; on disk {found}",
                    self.step
                )));
            }
        }
        Ok(())
    }

    /// What a disk holds, whose memory is gone.
    fn read(mut disk: Disk, mut seed: u64) -> Result<Self, StepError> {
        let mut written = Vec::new();
        let mut known = None;
        for first in (0..disk.blocks).step_by(RUN as usize) {
            let buffer = disk.buffer.of(RUN.min(disk.blocks - first));
            disk.file.read_exact_at(buffer, first * BLOCK as u64)?;
            for (bytes, block) in buffer.chunks_exact(BLOCK).zip(first..) {
                let found = Found::of(bytes, block);
                match found {
                    Found::Nothing => written.push(0),
                    Found::Step { seed, step } if *known.get_or_insert(seed) == seed => {
                        written.push(step);
                    }
                    _ => return Err(StepError::Wrong(format!("block {block}: {found}"))),
                }
            }
        }
        seed = known.unwrap_or(seed);
        let mut steps = Self {
            step: written.iter().copied().max().unwrap_or(0),
            disk,
            seed,
            written,
            next: 0,
            passes: 0,
        };
        steps.compare_with_replay()?;
        Ok(steps)
    }

    /// Takes all the steps again, in memory, and compares what they would leave.
    fn compare_with_replay(&mut self) -> Result<(), StepError> {
        let mut expected = vec![0; self.written.len()];
        for step in 1..self.step {
            self.replay(step, &mut expected);
        }
        let before = expected.clone();
        self.replay(self.step, &mut expected);
        for (block, &found) in self.written.iter().enumerate() {
            if found != expected[block] && found != before[block] {
                return Err(StepError::Wrong(format!(
                    "block {block}: of step {found}, where step {} has to be by all that is there up to step {}",
                    expected[block], self.step
                )));
            }
        }
        Ok(())
    }

    fn replay(&self, step: u64, written: &mut [u64]) {
        if step > 0 {
            let (first, count) = self.blocks_of(self.seed, step);
            written[first as usize..(first + count) as usize].fill(step);
        }
    }
}

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Zeroes.
    Nothing,
    /// What a step has written there, every byte of it.
    Step { seed: u64, step: u64 },
    /// A part of what a step has written, or that of another block.
    Torn { step: u64, block: u64 },
    /// Something else.
    Garbage,
}

impl Found {
    fn of(bytes: &[u8], block: u64) -> Self {
        if bytes.iter().all(|&byte| byte == 0) {
            return Self::Nothing;
        }
        let mut numbers = bytes.chunks_exact(8).map(|number| {
            let number = number.try_into().unwrap_or_default();
            u64::from_le_bytes(number)
        });
        let mut number = || numbers.next().unwrap_or(0);
        let (magic, seed, step, at) = (number(), number(), number(), number());
        if magic != MAGIC {
            return Self::Garbage;
        }
        let mut expected = [0; BLOCK];
        fill(&mut expected, seed, step, block);
        match bytes == expected {
            true => Self::Step { seed, step },
            false => Self::Torn { step, block: at },
        }
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => write!(f, "zeroes"),
            Self::Step { seed, step } => write!(f, "of step {step} with seed {seed:x}"),
            Self::Torn { step, block } => {
                write!(
                    f,
                    "not whole, or misplaced: of step {step} for block {block}"
                )
            }
            Self::Garbage => write!(f, "no step's"),
        }
    }
}

/// What a step leaves in a block; step 0: zeroes.
fn fill(bytes: &mut [u8], seed: u64, step: u64, block: u64) {
    if step == 0 {
        return bytes.fill(0);
    }
    let start = mix(mix(seed ^ mix(step)) ^ block);
    let rest = (0..).map(|index| mix(start.wrapping_add(index)));
    let numbers = [MAGIC, seed, step, block].into_iter().chain(rest);
    for (bytes, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
}

/// The finaliser of splitmix64.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A file or device, past the page cache.
#[derive(Debug)]
struct Disk {
    file: File,
    blocks: u64,
    buffer: Buffer,
}

impl Disk {
    fn open(path: &Path, size: u64, write: bool) -> io::Result<Self> {
        let blocks = size / BLOCK as u64;
        if blocks == 0 {
            let what = format!("{size} bytes are too few: a block has {BLOCK}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(write).create(write);
        let file = options.custom_flags(libc::O_DIRECT).open(path)?;
        let mut disk = Self {
            file,
            blocks,
            buffer: Buffer::new(),
        };
        if write && !disk.file.metadata()?.file_type().is_block_device() {
            disk.extend()?;
        }
        Ok(disk)
    }

    /// Writes zeroes where a file has nothing yet: from then on a write changes data alone, and the file system's journal has no
    /// part in what a snapshot holds of it.
    fn extend(&mut self) -> io::Result<()> {
        for block in self.file.metadata()?.len() / BLOCK as u64..self.blocks {
            let zeroes = self.buffer.of(1);
            zeroes.fill(0);
            self.file.write_all_at(zeroes, block * BLOCK as u64)?;
        }
        self.file.sync_all()
    }
}

/// Memory that begins at a multiple of a block, as O_DIRECT wants it.
#[derive(Debug)]
struct Buffer(Vec<u8>);

impl Buffer {
    fn new() -> Self {
        Self(vec![0; (RUN as usize + 1) * BLOCK])
    }

    /// For so many blocks, [`RUN`] at most.
    fn of(&mut self, blocks: u64) -> &mut [u8] {
        let start = self.0.as_ptr().align_offset(BLOCK);
        &mut self.0[start..][..blocks as usize * BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    const SIZE: u64 = 4 << 20;
    /// Steps that read the whole disk.
    const PASS: u64 = SIZE / BLOCK as u64 / RUN;

    fn advance(steps: &mut Steps, count: u64) -> Result<(), StepError> {
        (0..count).try_for_each(|_| steps.advance())
    }

    #[test]
    fn a_disk_and_its_memory_go_on_and_can_be_checked_alone() -> TestResult {
        let dir = TempDir::new()?;
        let file = dir.path().join("disk");
        let mut steps = Steps::open(&file, SIZE, 7)?;
        advance(&mut steps, 3 * PASS)?;
        assert_eq!(steps.passes(), 3);
        assert_eq!(Steps::check(&file, SIZE)?.step(), 3 * PASS);
        // A process that begins anew, on the disk of one that has ended.
        let mut steps = Steps::open(&file, SIZE, 8)?;
        advance(&mut steps, PASS)?;
        assert_eq!(Steps::check(&file, SIZE)?.step(), 4 * PASS);
        Ok(())
    }

    /// Whatever the distance: a disk that was rolled back beneath the memory, or that is ahead of it, is noticed within a pass.
    #[test]
    fn a_disk_of_another_instant_is_noticed_within_a_pass() -> TestResult {
        let dir = TempDir::new()?;
        let file = dir.path().join("disk");
        let (older, newer) = (dir.path().join("older"), dir.path().join("newer"));
        for seed in 0..3 {
            for distance in [1, 2, 3, 40, 500] {
                drop(fs::remove_file(&file));
                let mut steps = Steps::open(&file, SIZE, seed)?;
                advance(&mut steps, 100)?;
                fs::copy(&file, &older)?;
                advance(&mut steps, distance)?;
                fs::copy(&file, &newer)?;
                let mut memory = Steps::open(&newer, SIZE, seed)?;
                fs::copy(&older, &newer)?;
                let noticed = advance(&mut memory, PASS);
                assert!(
                    matches!(noticed, Err(StepError::Wrong(_))),
                    "{seed} {distance}: older"
                );

                let mut memory = Steps::open(&older, SIZE, seed)?;
                fs::copy(&file, &older)?;
                let noticed = advance(&mut memory, 1);
                assert!(
                    matches!(noticed, Err(StepError::Wrong(_))),
                    "{seed} {distance}: newer"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn a_revert_of_both_is_not_noticed() -> TestResult {
        let dir = TempDir::new()?;
        let (file, kept) = (dir.path().join("disk"), dir.path().join("kept"));
        let mut steps = Steps::open(&file, SIZE, 7)?;
        advance(&mut steps, 100)?;
        fs::copy(&file, &kept)?;
        // The memory of that instant.
        let mut memory = Steps::open(&kept, SIZE, 7)?;
        advance(&mut steps, 100)?;
        advance(&mut memory, 2 * PASS)?;
        Ok(())
    }

    #[test]
    fn a_check_tells_lost_torn_and_foreign_blocks() -> TestResult {
        let dir = TempDir::new()?;
        let (file, copy) = (dir.path().join("disk"), dir.path().join("copy"));
        let mut steps = Steps::open(&file, SIZE, 7)?;
        advance(&mut steps, 200)?;
        let (last, _) = steps.blocks_of(7, 200);
        let victim = steps
            .written
            .iter()
            .position(|&step| step == 150)
            .ok_or("none")? as u64;
        let foreign = (victim + 1) % steps.disk.blocks;
        assert_ne!(victim, last);
        let spoilt = |at: u64, bytes: &[u8]| -> Result<String, Box<dyn std::error::Error>> {
            fs::copy(&file, &copy)?;
            OpenOptions::new()
                .write(true)
                .open(&copy)?
                .write_all_at(bytes, at)?;
            Ok(Steps::check(&copy, SIZE)
                .err()
                .ok_or("not noticed")?
                .to_string())
        };
        let at = victim * BLOCK as u64;
        let lost = spoilt(at, &[0; BLOCK])?;
        assert!(lost.contains("of step 0, where step 150"), "{lost}");
        let torn = spoilt(at + 512, &[0; 512])?;
        assert!(torn.contains("not whole"), "{torn}");
        let mut bytes = [0; BLOCK];
        fill(&mut bytes, 7, 150, victim);
        let misplaced = spoilt(foreign * BLOCK as u64, &bytes)?;
        assert!(misplaced.contains("misplaced"), "{misplaced}");
        fill(&mut bytes, 8, 150, victim);
        assert!(spoilt(at, &bytes)?.contains("with seed 8"), "foreign");
        // All but the last step, of which a part may be missing.
        fill(&mut bytes, 7, steps.written[last as usize], last);
        assert!(spoilt(last * BLOCK as u64, &bytes).is_err());
        Ok(())
    }
}
