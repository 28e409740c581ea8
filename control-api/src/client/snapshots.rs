//! Snapshots through the control API.
//!
//! What is read of a snapshot stays readable on this connection, whatever becomes of the snapshot's name meanwhile.

use super::{Client, ClientError, vdisk_path};
use crate::ApiError;
use crate::limits::check_snapshot_name;
use crate::types::*;
use hyper::Method;
use hyper::body::Bytes;

/// Snapshots.
impl Client {
    /// All snapshots of the store, or those of a vDisk, oldest first.
    pub async fn snapshots(&mut self, vdisk: Option<&str>) -> Result<Vec<Snapshot>, ClientError> {
        let path = match vdisk {
            Some(name) => vdisk_path(name, "/snapshots")?,
            None => "/v1/snapshots".into(),
        };
        Ok(self.get::<SnapshotList>(&path).await?.snapshots)
    }

    /// One snapshot.
    pub async fn snapshot(&mut self, vdisk: &str, name: &str) -> Result<Snapshot, ClientError> {
        self.get(&snapshot_path(vdisk, name, "")?).await
    }

    /// Takes a snapshot of some vDisks at one instant; it is durable when this returns.
    pub async fn create_snapshot(
        &mut self,
        request: &CreateSnapshot,
    ) -> Result<CreatedSnapshot, ClientError> {
        self.send(Method::POST, "/v1/snapshots", request).await
    }

    /// Deletes some of a vDisk's snapshots, all at once or none.
    pub async fn delete_snapshots(
        &mut self,
        vdisk: &str,
        request: &DeleteSnapshots,
    ) -> Result<DeletedSnapshots, ClientError> {
        let path = vdisk_path(vdisk, "/delete-snapshots")?;
        self.send(Method::POST, &path, request).await
    }

    /// Gives a snapshot another name.
    pub async fn rename_snapshot(
        &mut self,
        vdisk: &str,
        name: &str,
        request: &RenameSnapshot,
    ) -> Result<Snapshot, ClientError> {
        let path = snapshot_path(vdisk, name, "/rename")?;
        self.send(Method::POST, &path, request).await
    }

    /// Keeps a snapshot from being deleted until `holder` releases it.
    pub async fn hold_snapshot(
        &mut self,
        vdisk: &str,
        name: &str,
        holder: &str,
    ) -> Result<Snapshot, ClientError> {
        self.hold(Method::PUT, vdisk, name, holder).await
    }

    /// Ends a hold.
    pub async fn release_snapshot(
        &mut self,
        vdisk: &str,
        name: &str,
        holder: &str,
    ) -> Result<Snapshot, ClientError> {
        self.hold(Method::DELETE, vdisk, name, holder).await
    }

    async fn hold(
        &mut self,
        method: Method,
        vdisk: &str,
        name: &str,
        holder: &str,
    ) -> Result<Snapshot, ClientError> {
        check_snapshot_name(holder).map_err(ApiError::from)?;
        let path = snapshot_path(vdisk, name, &format!("/holds/{holder}"))?;
        let body = self.request(method, &path, Bytes::new(), "").await?;
        self.decode(&body)
    }

    /// Makes a vDisk what it was at a snapshot. Nobody may be attached.
    pub async fn revert(
        &mut self,
        vdisk: &str,
        request: &RevertVDisk,
    ) -> Result<Reverted, ClientError> {
        let path = vdisk_path(vdisk, "/revert")?;
        self.send(Method::POST, &path, request).await
    }

    /// Deletes the snapshots of a vDisk that no rule keeps, or tells which these are.
    pub async fn prune(
        &mut self,
        vdisk: &str,
        request: &PruneSnapshots,
    ) -> Result<Pruned, ClientError> {
        let path = vdisk_path(vdisk, "/prune")?;
        self.send(Method::POST, &path, request).await
    }

    /// All schedules, and how they are doing.
    pub async fn schedules(&mut self) -> Result<Vec<Schedule>, ClientError> {
        Ok(self.get::<ScheduleList>("/v1/schedules").await?.schedules)
    }

    /// Has snapshots taken by a schedule.
    pub async fn create_schedule(
        &mut self,
        request: &CreateSchedule,
    ) -> Result<Schedule, ClientError> {
        self.send(Method::POST, "/v1/schedules", request).await
    }

    /// Ends a schedule; its snapshots stay.
    pub async fn delete_schedule(&mut self, name: &str) -> Result<(), ClientError> {
        check_snapshot_name(name).map_err(ApiError::from)?;
        let path = format!("/v1/schedules/{name}");
        self.request(Method::DELETE, &path, Bytes::new(), "")
            .await
            .map(drop)
    }

    /// Has a clone take over the snapshots that it was cloned from.
    pub async fn promote_vdisk(&mut self, vdisk: &str) -> Result<VDisk, ClientError> {
        self.act(vdisk, "/promote").await
    }

    /// Has a clone made independent of what it was cloned from; [`VDisk::flattening`] tells how far that has got.
    pub async fn flatten_vdisk(&mut self, vdisk: &str) -> Result<VDisk, ClientError> {
        self.act(vdisk, "/flatten").await
    }

    async fn act(&mut self, vdisk: &str, what: &str) -> Result<VDisk, ClientError> {
        let path = vdisk_path(vdisk, what)?;
        let body = self.request(Method::POST, &path, Bytes::new(), "").await?;
        self.decode(&body)
    }

    /// Makes a new vDisk that begins as a snapshot.
    pub async fn clone_snapshot(
        &mut self,
        vdisk: &str,
        name: &str,
        request: &CloneSnapshot,
    ) -> Result<VDisk, ClientError> {
        let path = snapshot_path(vdisk, name, "/clone")?;
        self.send(Method::POST, &path, request).await
    }

    /// Where a snapshot holds data, from `offset` on; see [`Allocated::next`].
    pub async fn snapshot_allocated(
        &mut self,
        vdisk: &str,
        name: &str,
        offset: u64,
    ) -> Result<Allocated, ClientError> {
        let path = snapshot_path(vdisk, name, &format!("/allocated?offset={offset}"))?;
        self.get(&path).await
    }

    /// What has changed between a snapshot and another one (or the present), from `offset` on; see [`Changes::next`].
    pub async fn snapshot_changes(
        &mut self,
        vdisk: &str,
        name: &str,
        to: Option<&str>,
        offset: u64,
    ) -> Result<Changes, ClientError> {
        let to = match to {
            Some(to) => {
                check_snapshot_name(to).map_err(ApiError::from)?;
                format!("&to={to}")
            }
            None => String::new(),
        };
        let path = snapshot_path(vdisk, name, &format!("/changes?offset={offset}{to}"))?;
        self.get(&path).await
    }

    /// What a snapshot costs, from `offset` on; see [`SnapshotUsage::next`].
    pub async fn snapshot_usage(
        &mut self,
        vdisk: &str,
        name: &str,
        offset: u64,
    ) -> Result<SnapshotUsage, ClientError> {
        let path = snapshot_path(vdisk, name, &format!("/usage?offset={offset}"))?;
        self.get(&path).await
    }

    /// `length` bytes (at most [`crate::DATA_MAX`]) of a snapshot.
    pub async fn read_snapshot(
        &mut self,
        vdisk: &str,
        name: &str,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, ClientError> {
        let range = format!("/data?offset={offset}&length={length}");
        self.data(&snapshot_path(vdisk, name, &range)?, length)
            .await
    }
}

fn snapshot_path(vdisk: &str, name: &str, rest: &str) -> Result<String, ApiError> {
    check_snapshot_name(name)?;
    vdisk_path(vdisk, &format!("/snapshots/{name}{rest}"))
}
