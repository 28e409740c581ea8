//! What the control API asks of the store, and nothing else of it: handlers are tested against a store in memory.

use control_api::ApiError;
use control_api::types::*;
use std::sync::Arc;
use uuid::Uuid;

/// The store as the control API sees it. Calls may block; they come from blocking tasks, several at once.
/// Names and sizes have been checked against [`control_api::limits`].
pub trait ControlTarget: SnapshotTarget + StatsTarget + Send + Sync + 'static {
    /// Who answers. Never blocks.
    fn health(&self) -> Health;
    /// The store's state.
    fn status(&self) -> Result<StoreStatus, ApiError>;
    /// All visible vDisks, in any order.
    fn vdisks(&self) -> Result<Vec<VDisk>, ApiError>;
    /// One vDisk.
    fn vdisk(&self, name: &str) -> Result<VDisk, ApiError>;
    /// Makes an empty vDisk and opens its socket.
    fn create(&self, request: &CreateVDisk) -> Result<VDisk, ApiError>;
    /// Closes a vDisk's socket and deletes it. Refused while a front end is attached.
    fn delete(&self, name: &str) -> Result<(), ApiError>;
    /// Changes a vDisk's size; what is refused when is in `docs/control-api.md`.
    fn resize(&self, name: &str, request: &ResizeVDisk) -> Result<Resized, ApiError>;
    /// Keeps what a libvirt domain does with a vDisk.
    fn record_domain(&self, name: &str, request: &RecordDomain) -> Result<VDisk, ApiError>;
    /// A vDisk's counters.
    fn stats(&self, name: &str) -> Result<VDiskStats, ApiError>;
    /// Where a vDisk holds data from `offset` on: a bounded part of the answer, see [`Allocated::next`].
    fn allocated(&self, name: &str, offset: u64) -> Result<Allocated, ApiError>;
    /// `length` bytes of a vDisk, at most [`control_api::DATA_MAX`].
    fn read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, ApiError>;
    /// Makes a hidden vDisk to import into.
    fn begin_import(&self, request: &BeginImport) -> Result<Box<dyn ImportTarget>, ApiError>;
    /// The store's rules, or those that hold for a vDisk.
    fn rules(&self, vdisk: Option<&str>) -> Result<Rules, ApiError>;
    /// Replaces the store's rules, or gives a vDisk its own.
    fn set_rules(&self, vdisk: Option<&str>, rules: &Rules) -> Result<(), ApiError>;
    /// What the rules make of a request like the one described.
    fn explain(&self, request: &ExplainRequest) -> Result<Explanation, ApiError>;
    /// How checking what is stored is getting on.
    fn scrub(&self) -> Result<ScrubStatus, ApiError>;
    /// Begins to check what is stored, or goes on with that.
    fn start_scrub(&self, request: &StartScrub) -> Result<ScrubChanged, ApiError>;
    /// Stops that.
    fn stop_scrub(&self) -> Result<ScrubChanged, ApiError>;
}

/// A hidden vDisk that is being filled. Dropping it unpublished deletes it.
pub trait ImportTarget: Send {
    /// Writes `data` at `offset`; both are multiples of 512.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), ApiError>;
    /// Makes everything durable, the vDisk visible, and opens its socket.
    fn publish(&mut self) -> Result<VDisk, ApiError>;
}

/// How the store's data lies, likewise.
pub trait StatsTarget {
    /// Space by temperature, and counters.
    fn store_stats(&self) -> Result<StoreStats, ApiError>;
    /// All layers, by number.
    fn layers(&self) -> Result<Vec<Layer>, ApiError>;
    /// What a layer costs from `offset` on: a bounded part of the answer, see [`SnapshotUsage::next`].
    fn layer_usage(&self, layer: u32, offset: u64) -> Result<SnapshotUsage, ApiError>;
    /// How fragmented a vDisk is from `offset` on: a bounded part of the answer, see [`Fragmentation::next`].
    fn fragmentation(&self, name: &str, offset: u64) -> Result<Fragmentation, ApiError>;
}

/// The store's snapshots, likewise.
pub trait SnapshotTarget {
    /// All snapshots, or those of one vDisk, oldest first.
    fn snapshots(&self, vdisk: Option<&str>) -> Result<Vec<Snapshot>, ApiError>;
    /// One snapshot.
    fn snapshot(&self, vdisk: &str, name: &str) -> Result<Snapshot, ApiError>;
    /// Takes a snapshot of some vDisks at one instant.
    fn create_snapshot(&self, request: &CreateSnapshot) -> Result<CreatedSnapshot, ApiError>;
    /// Deletes snapshots of a vDisk, all or none; what is refused when is in `docs/control-api.md`.
    fn delete_snapshots(
        &self,
        vdisk: &str,
        request: &DeleteSnapshots,
    ) -> Result<DeletedSnapshots, ApiError>;
    /// Gives a snapshot another name.
    fn rename_snapshot(&self, vdisk: &str, name: &str, to: &str) -> Result<Snapshot, ApiError>;
    /// Keeps a snapshot from being deleted until the holder releases it.
    fn hold_snapshot(&self, vdisk: &str, name: &str, holder: &str) -> Result<Snapshot, ApiError>;
    /// Ends a hold.
    fn release_snapshot(&self, vdisk: &str, name: &str, holder: &str)
    -> Result<Snapshot, ApiError>;
    /// Makes a vDisk what it was at a snapshot. Refused while a front end is attached.
    fn revert(&self, vdisk: &str, request: &RevertVDisk) -> Result<Reverted, ApiError>;
    /// A clone takes over the snapshots that it was cloned from.
    fn promote(&self, vdisk: &str) -> Result<VDisk, ApiError>;
    /// A clone is made independent, in the background.
    fn flatten(&self, vdisk: &str) -> Result<VDisk, ApiError>;
    /// Deletes the snapshots of a vDisk that no rule keeps, or tells which these are.
    fn prune(&self, vdisk: &str, request: &PruneSnapshots) -> Result<Pruned, ApiError>;
    /// All schedules, and how they are doing.
    fn schedules(&self) -> Result<Vec<Schedule>, ApiError>;
    /// Has snapshots taken by a schedule.
    fn create_schedule(&self, request: &CreateSchedule) -> Result<Schedule, ApiError>;
    /// Ends a schedule.
    fn delete_schedule(&self, name: &str) -> Result<(), ApiError>;
    /// Makes a new vDisk that begins as a snapshot, and opens its socket.
    fn clone_snapshot(&self, vdisk: &str, name: &str, new: &str) -> Result<VDisk, ApiError>;
    /// Opens a snapshot to be read.
    fn open_snapshot(&self, vdisk: &str, name: &str) -> Result<Arc<dyn SnapshotReader>, ApiError>;
    /// Opens a snapshot and another one (or the present) to be compared.
    fn open_comparison(
        &self,
        vdisk: &str,
        name: &str,
        to: Option<&str>,
    ) -> Result<Arc<dyn Comparison>, ApiError>;
}

/// A snapshot that is being read: it stays readable until this is dropped, whatever becomes of its name.
pub trait SnapshotReader: Send + Sync {
    /// Which snapshot it is.
    fn uuid(&self) -> Uuid;
    /// Where it holds data from `offset` on: a bounded part of the answer, see [`Allocated::next`].
    fn allocated(&self, offset: u64) -> Result<Allocated, ApiError>;
    /// `length` bytes of it, at most [`control_api::DATA_MAX`].
    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, ApiError>;
    /// What it costs from `offset` on: a bounded part of the answer, see [`SnapshotUsage::next`].
    fn usage(&self, offset: u64) -> Result<SnapshotUsage, ApiError>;
}

/// Two states of a vDisk that are being compared: those that are snapshots stay until this is dropped, whatever becomes of their names.
pub trait Comparison: Send + Sync {
    /// Which ones these are; the vDisk's own stands for the present.
    fn uuids(&self) -> [Uuid; 2];
    /// What has changed between them from `offset` on: a bounded part of the answer, see [`Changes::next`].
    fn changes(&self, offset: u64) -> Result<Changes, ApiError>;
}
