//! The write buffer that the last process left.

use crate::error::StoreError;
use crate::format::{
    BufferHeader, BufferName, SegmentHeader, Superblock, has_failed, note_failure,
    segment_file_name,
};
use crate::host::Host;
use crate::io::{AlignedBuf, BufferMemory, Disk, PAGE};
use crate::log::SlotPool;
use std::io;

/// What has become of the write buffer that the superblock names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferFound {
    /// The last stop was clean.
    None,
    /// It was made in another boot of the machine and is gone, with what had not been flushed.
    OtherBoot,
    /// This many slots of it were written to their segments.
    Replayed(usize),
    /// The same, after a failed write or fsync: what had left the buffer before must be written again too.
    ReplayedAfterFailure(usize),
    /// It was given up, as told.
    Discarded,
}

/// Writes what waits in the write buffer to the segments that it belongs to. Doing it twice does no harm.
///
/// In the same boot the buffer must be there, at the place that the superblock names, and that place must be the
/// one we were told to use: anything else would lose acknowledged writes.
pub fn replay_buffer(
    host: &dyn Host,
    superblock: &Superblock,
    discard: bool,
) -> Result<BufferFound, StoreError> {
    let Some(name) = &superblock.buffer else {
        return Ok(BufferFound::None);
    };
    let boot = host
        .runtime()
        .boot_id()
        .map_err(StoreError::io("reading the machine's boot id"))?;
    if *name.boot.as_bytes() != boot {
        log::info!(
            "the machine was restarted without a clean stop: writes that were not flushed are gone"
        );
        return Ok(BufferFound::OtherBoot);
    }
    if discard {
        log::warn!(
            "giving up the write buffer {} and the acknowledged writes in it, as told",
            path(name)
        );
        return Ok(BufferFound::Discarded);
    }
    if host.run_dir() != name.dir {
        return Err(elsewhere(name));
    }
    let memory = match host.runtime().open_memory(
        &name.file(),
        usize::try_from(name.len).unwrap_or(usize::MAX),
    ) {
        Ok(memory) => memory,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing(name)),
        Err(e) => {
            return Err(StoreError::io(format!(
                "opening the write buffer {}",
                path(name)
            ))(e));
        }
    };
    let header = BufferHeader::decode(memory.bytes()).map_err(StoreError::damaged(format!(
        "the write buffer {}",
        path(name)
    )))?;
    if header.store != superblock.store || header.nonce != name.nonce {
        return Err(missing(name));
    }
    let disk = host.disk();
    let slots = replay(&*disk, superblock, &*memory, &header)?;
    Ok(if has_failed(memory.bytes()) {
        BufferFound::ReplayedAfterFailure(slots)
    } else {
        BufferFound::Replayed(slots)
    })
}

/// Recovery has failed, perhaps in an fsync: the next one must write the log's tail again, or it would take what only the
/// page cache holds for durable. The tail outlives this boot in the buffer's sense alone, so the note is made there.
pub fn note_failed_recovery(host: &dyn Host, superblock: &Superblock) {
    let Some(name) = &superblock.buffer else {
        return;
    };
    let len = usize::try_from(name.len).unwrap_or(usize::MAX);
    match host.runtime().open_memory(&name.file(), len) {
        Ok(mut memory)
            if BufferHeader::decode(memory.bytes()).is_ok_and(|h| h.nonce == name.nonce) =>
        {
            note_failure(memory.bytes_mut());
        }
        // Another boot's: what is read then comes from the disk.
        _ => {}
    }
}

fn replay(
    disk: &dyn Disk,
    superblock: &Superblock,
    memory: &dyn BufferMemory,
    header: &BufferHeader,
) -> Result<usize, StoreError> {
    let mut slots = 0;
    for (row, bytes) in SlotPool::left_in(memory, header) {
        let name = segment_file_name(row.segment);
        let context = || StoreError::io(format!("writing the write buffer to {name}"));
        let file = disk.open(&name).map_err(context())?;
        let mut page = AlignedBuf::zeroed(PAGE).map_err(context())?;
        file.read_at(&mut page, 0).map_err(context())?;
        let segment = SegmentHeader::decode(&page).map_err(StoreError::damaged(name.clone()))?;
        if segment.store != superblock.store || segment.generation != row.generation {
            // The slot's segment has been emptied and removed since; its number is another segment's now.
            continue;
        }
        let room = file
            .len()
            .map_err(context())?
            .saturating_sub(u64::from(row.offset)) as usize;
        let bytes = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        let pages = AlignedBuf::from_bytes(bytes).map_err(context())?;
        file.write_at(&pages, u64::from(row.offset))
            .map_err(context())?;
        slots += 1;
    }
    Ok(slots)
}

fn elsewhere(name: &BufferName) -> StoreError {
    StoreError::WriteBuffer(format!(
        "acknowledged writes wait in the write buffer {}: start the backend with --run {}, or give them up with \
         --discard-write-buffer",
        path(name),
        name.dir
    ))
}

fn missing(name: &BufferName) -> StoreError {
    StoreError::WriteBuffer(format!(
        "the write buffer {} is gone, and with it writes that guests were told are done. Put it back, or give them up \
         with --discard-write-buffer: flushed data is not affected",
        path(name)
    ))
}

fn path(name: &BufferName) -> String {
    format!("{}/{}", name.dir, name.file())
}
