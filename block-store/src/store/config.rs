//! How a store is made and opened.

use std::path::PathBuf;
use std::time::Duration;

/// Largest vDisk in bytes: 64 TiB.
pub const MAX_VDISK: u64 = 64 << 40;
/// Smallest vDisk in bytes: one block.
pub const MIN_VDISK: u64 = 4096;
/// Snapshots of one vDisk, at most. Each checkpoint copies the catalogue while guests wait, and writes it: a snapshot and its
/// layer are 0.2 us of the one, and 1.6 us of CPU time and 54 bytes of the other.
pub const MAX_SNAPSHOTS: usize = 4096;
/// Snapshots of a store, at most: their part of a cut is 7 ms then.
const MAX_OF_STORE: usize = 32_768;
/// Bytes of a segment for each snapshot: the catalogue must fit into one, with the longest names there are.
const SEGMENT_PER_SNAPSHOT: u32 = 256;

/// How a new store is made.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Bytes of a segment: a multiple of 4096 from 256 KiB to 64 MiB.
    pub segment_size: u32,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            segment_size: 64 << 20,
        }
    }
}

/// What guests get when the store is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// Their writes wait until there is space.
    #[default]
    Stall,
    /// Their writes fail.
    Error,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct OpenConfig {
    /// The store's directory.
    pub dir: PathBuf,
    /// The runtime directory: the write buffer lives in it.
    pub run_dir: PathBuf,
    /// Memory for the block map in bytes.
    pub map_memory: usize,
    /// Memory for leaves of the map that were resolved through snapshots, in bytes.
    pub resolved_memory: usize,
    /// Memory for presence maps of snapshots' layers in bytes.
    pub presence_memory: usize,
    /// Bytes of the write buffer.
    pub write_buffer: usize,
    /// Bytes of log after which a checkpoint is taken: bounds the time that recovery takes.
    pub checkpoint_log: u64,
    /// Bytes of blocks a second that are put together where reads find them scattered, at most; 0: none.
    pub coalesce_rate: u64,
    /// Bytes a second that checking what is stored reads at most, where nobody says another rate.
    pub scrub_rate: u64,
    /// How long after the beginning of the last check of what is stored the next one begins by itself.
    pub scrub_every: Option<Duration>,
    /// What guests get when the store is full.
    pub on_full: OnFull,
    /// Free space of the filesystem, in percent, below which sparse segments are compacted and a warning is logged.
    pub low_space_percent: u32,
    /// Open although the write buffer with acknowledged data is missing: loses what was in it.
    pub discard_write_buffer: bool,
    /// Open although flushed parts of the log are damaged: loses what was in them.
    pub accept_log_damage: bool,
}

impl OpenConfig {
    /// The shipped defaults.
    pub fn new(dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            run_dir: run_dir.into(),
            map_memory: 32 << 20,
            resolved_memory: 26 << 20,
            presence_memory: 6 << 20,
            write_buffer: 16 << 20,
            checkpoint_log: 256 << 20,
            coalesce_rate: 256 << 20,
            scrub_rate: 64 << 20,
            scrub_every: Some(Duration::from_secs(30 * 86_400)),
            on_full: OnFull::Stall,
            low_space_percent: 10,
            discard_write_buffer: false,
            accept_log_damage: false,
        }
    }
}

/// A vDisk to be made.
#[derive(Debug, Clone)]
pub struct VDiskSpec {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`, not beginning with a dot or dash.
    pub name: String,
    /// Bytes: a multiple of 512, 4 KiB to 64 TiB.
    pub size: u64,
    /// Invisible until published; gone when the store is opened again before that.
    pub hidden: bool,
}

/// Why a name can't be a vDisk's, if it can't.
pub fn check_name(name: &str) -> Result<(), String> {
    let ok = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 64 {
        return Err(format!(
            "a name has 1 to 64 characters, {name:?} has {}",
            name.len()
        ));
    }
    if let Some(bad) = name.chars().find(|c| !ok(*c)) {
        return Err(format!(
            "a name can't contain {bad:?}; letters, digits, '.', '_' and '-' can be used"
        ));
    }
    if name.starts_with(['.', '-']) {
        return Err(format!("a name can't begin with {:?}", &name[..1]));
    }
    Ok(())
}

/// Why a size can't be a vDisk's, if it can't.
pub fn check_size(size: u64) -> Result<(), String> {
    if !size.is_multiple_of(512) {
        return Err(format!(
            "a vDisk's size is a multiple of 512 bytes, {size} is not"
        ));
    }
    if !(MIN_VDISK..=MAX_VDISK).contains(&size) {
        return Err(format!("a vDisk has 4 KiB to 64 TiB, not {size} bytes"));
    }
    Ok(())
}

/// Snapshots that a store of such segments may have.
pub fn max_of_store(segment_size: u32) -> usize {
    MAX_OF_STORE.min((segment_size / SEGMENT_PER_SNAPSHOT) as usize)
}
