//! A check of a directory of the operating system: its lock, and files that are only read.

use super::{CheckOptions, Report, Watch, check};
use crate::checkpoint::SUPERBLOCK_FILE;
use crate::error::StoreError;
use crate::format::segment_id_of;
use crate::host::LOCK_FILE;
use crate::io::Disk;
use crate::io::real::{RealDisk, lock_unwritten};
use std::io;
use std::path::Path;

/// Checks the store in `dir`. `Locked` when a backend has it open; nothing is written, not even to the lock.
pub fn check_directory(
    dir: &Path,
    options: &CheckOptions,
    watch: &mut dyn Watch,
) -> Result<Report, StoreError> {
    let name = dir.display().to_string();
    let disk = RealDisk::open_read_only(dir).map_err(StoreError::io(format!("opening {name}")))?;
    let files = disk
        .list()
        .map_err(StoreError::io(format!("listing {name}")))?;
    let is_store = |f: &String| f == SUPERBLOCK_FILE || segment_id_of(f).is_some();
    if !files.iter().any(is_store) {
        return Err(StoreError::NotAStore(name));
    }
    let lock = dir.join(LOCK_FILE);
    let held = match lock_unwritten(&lock) {
        Ok(held) => Some(held),
        // Nobody has ever served it, so there is nothing to lock, and none is made.
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(StoreError::Locked(name)),
        Err(e) => return Err(StoreError::io(format!("locking {name}"))(e)),
    };
    let report = check(&disk, options, watch)?;
    if held.is_none() && lock.exists() {
        return Err(StoreError::Locked(name));
    }
    Ok(report)
}
