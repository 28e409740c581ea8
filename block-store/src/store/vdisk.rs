//! A vDisk as its users hold it.

use crate::compress::Rules;
use crate::format::{SnapshotRow, UseRow, VDiskRow};
use crate::log::Marks;
use parking_lot::RwLock;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use uuid::Uuid;

/// A vDisk of an open store.
#[derive(Debug)]
pub struct VDisk {
    id: u32,
    uuid: Uuid,
    name: String,
    tag: String,
    created: u64,
    size: AtomicU64,
    layer: AtomicU32,
    write_cache: AtomicBool,
    deleted: AtomicBool,
    /// Of a snapshot: keeps its layer for as long as somebody reads it.
    reader: Option<Arc<()>>,
    rules: RwLock<Arc<Rules>>,
    used: RwLock<Option<UseRow>>,
    /// Where the last write ended: the next one that begins there is sequential.
    write_end: AtomicU64,
    /// What it has written, for its flushes.
    pub(crate) marks: Marks,
    pub(crate) stats: VDiskCounters,
}

/// Counters since the store was opened.
#[derive(Debug, Default)]
pub struct VDiskCounters {
    pub(crate) reads: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    pub(crate) zero_bytes: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) errors: AtomicU64,
}

/// What a vDisk has done since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VDiskStats {
    /// Reads completed.
    pub reads: u64,
    /// Bytes read by the guest.
    pub read_bytes: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written by the guest.
    pub written_bytes: u64,
    /// Bytes that these writes take in segments, headers included.
    pub stored_bytes: u64,
    /// Bytes written or discarded that became zeroes and take no space.
    pub zero_bytes: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Requests that failed.
    pub errors: u64,
}

impl VDisk {
    pub(crate) fn of(row: &VDiskRow, rules: Arc<Rules>) -> Self {
        Self {
            id: row.id,
            uuid: row.uuid,
            name: row.name.clone(),
            tag: row.tag.clone(),
            created: row.created,
            size: AtomicU64::new(row.size),
            layer: AtomicU32::new(row.layer),
            write_cache: AtomicBool::new(row.write_cache),
            deleted: AtomicBool::new(false),
            reader: None,
            rules: RwLock::new(rules),
            used: RwLock::new(row.used.clone()),
            write_end: AtomicU64::new(u64::MAX),
            marks: Marks::default(),
            stats: VDiskCounters::default(),
        }
    }

    /// A snapshot, to be read. While there is this, and `reader` with it, its layer stays.
    pub(crate) fn of_snapshot(
        row: &VDiskRow,
        snapshot: &SnapshotRow,
        rules: Arc<Rules>,
        reader: Arc<()>,
    ) -> Self {
        let row = VDiskRow {
            uuid: snapshot.uuid,
            name: format!("{}@{}", row.name, snapshot.name),
            size: snapshot.size,
            layer: snapshot.layer,
            created: snapshot.created,
            ..row.clone()
        };
        Self {
            reader: Some(reader),
            ..Self::of(&row, rules)
        }
    }

    /// What a sealed layer and those below read as, to be read itself. `reader` keeps the layer.
    pub(crate) fn of_layer(
        row: &VDiskRow,
        layer: u32,
        size: u64,
        rules: Arc<Rules>,
        reader: Arc<()>,
    ) -> Self {
        let row = VDiskRow {
            size,
            layer,
            ..row.clone()
        };
        Self {
            reader: Some(reader),
            ..Self::of(&row, rules)
        }
    }

    /// Number within the store.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// UUID.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Text that rules can match on.
    pub fn tag(&self) -> Option<&str> {
        (!self.tag.is_empty()).then_some(self.tag.as_str())
    }

    /// Who uses it, or did last, see [`crate::Store::set_use`].
    pub fn used(&self) -> Option<UseRow> {
        self.used.read().clone()
    }

    pub(crate) fn set_used(&self, used: Option<UseRow>) {
        *self.used.write() = used;
    }

    /// Seconds since 1970 at which it was made.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// Address range in bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// What a guest reads as the disk's serial: the first 20 hexadecimal digits of the UUID.
    pub fn serial(&self) -> [u8; 20] {
        let mut out = [0; 20];
        let hex = self.uuid.simple().to_string();
        for (to, from) in out.iter_mut().zip(hex.bytes()) {
            *to = from;
        }
        out
    }

    /// Whether writes may complete before they are durable.
    pub fn write_cache(&self) -> bool {
        self.write_cache.load(Relaxed)
    }

    /// Whether it can't be written to.
    pub fn read_only(&self) -> bool {
        self.reader.is_some()
    }

    /// The rules that its writes are stored by.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    /// What it has done since the store was opened.
    pub fn stats(&self) -> VDiskStats {
        let s = &self.stats;
        VDiskStats {
            reads: s.reads.load(Relaxed),
            read_bytes: s.read_bytes.load(Relaxed),
            writes: s.writes.load(Relaxed),
            written_bytes: s.written_bytes.load(Relaxed),
            stored_bytes: s.stored_bytes.load(Relaxed),
            zero_bytes: s.zero_bytes.load(Relaxed),
            flushes: s.flushes.load(Relaxed),
            errors: s.errors.load(Relaxed),
        }
    }

    /// Its live layer. To be asked for under the state's lock: a cut changes it there.
    pub(crate) fn layer(&self) -> u32 {
        self.layer.load(Relaxed)
    }

    pub(crate) fn set_layer(&self, layer: u32) {
        self.layer.store(layer, Relaxed);
    }

    pub(crate) fn set_size(&self, size: u64) {
        self.size.store(size, Relaxed);
    }

    pub(crate) fn set_cache(&self, on: bool) {
        self.write_cache.store(on, Relaxed);
    }

    pub(crate) fn set_rules(&self, rules: Arc<Rules>) {
        *self.rules.write() = rules;
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Relaxed)
    }

    pub(crate) fn mark_deleted(&self) {
        self.deleted.store(true, Relaxed);
    }

    /// Notes a write; whether it goes on where the one before ended.
    pub(crate) fn note_write(&self, offset: u64, len: u64) -> bool {
        self.write_end.swap(offset + len, Relaxed) == offset
    }
}
