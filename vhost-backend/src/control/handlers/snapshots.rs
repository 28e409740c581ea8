//! Snapshots: list, take, look at, compare, delete, rename, hold, release, clone.

use super::{Target, blocking};
use crate::control::extract::{Failure, Hold, Json as Body, Name, Query, SnapshotName};
use crate::control::session::Session;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use control_api::types::*;
use control_api::{check_name, check_snapshot_name};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// All snapshots of the store, oldest first.
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", responses((status = 200, body = SnapshotList)))]
pub async fn list(State(target): State<Target>) -> Result<Json<SnapshotList>, Failure> {
    let snapshots = blocking(move || target.snapshots(None)).await?;
    Ok(Json(SnapshotList { snapshots }))
}

/// The snapshots of a vDisk, oldest first.
#[utoipa::path(get, path = "/v1/vdisks/{name}/snapshots", tag = "snapshots", params(("name" = String, Path)),
    responses((status = 200, body = SnapshotList), (status = 404, body = ApiError)))]
pub async fn list_of(
    State(target): State<Target>,
    Name(name): Name,
) -> Result<Json<SnapshotList>, Failure> {
    let snapshots = blocking(move || target.snapshots(Some(&name))).await?;
    Ok(Json(SnapshotList { snapshots }))
}

/// Takes a snapshot of one vDisk, or of several at one instant: all of them get it, or none. It is durable when the answer
/// comes; guests are held up for a moment only.
#[utoipa::path(post, path = "/v1/snapshots", tag = "snapshots", request_body = CreateSnapshot,
    responses((status = 201, body = CreatedSnapshot), (status = 400, body = ApiError), (status = 404, body = ApiError),
        (status = 409, body = ApiError), (status = 507, body = ApiError)))]
pub async fn create(
    State(target): State<Target>,
    Body(request): Body<CreateSnapshot>,
) -> Result<(StatusCode, Json<CreatedSnapshot>), Failure> {
    check_snapshot_name(&request.name)?;
    for vdisk in &request.vdisks {
        check_name(vdisk)?;
    }
    if let Some(holder) = &request.hold {
        check_snapshot_name(holder)?;
    }
    let created = blocking(move || target.create_snapshot(&request)).await?;
    log::info!(
        "snapshot {}: taken of {} vDisk(s) at {}; guests were held up for {} us",
        created.name,
        created.vdisks.len(),
        created.lsn,
        created.stall_microseconds
    );
    Ok((StatusCode::CREATED, Json(created)))
}

/// One snapshot.
#[utoipa::path(get, path = "/v1/vdisks/{name}/snapshots/{snapshot}", tag = "snapshots",
    params(("name" = String, Path), ("snapshot" = String, Path)),
    responses((status = 200, body = Snapshot), (status = 404, body = ApiError)))]
pub async fn show(
    State(target): State<Target>,
    SnapshotName { vdisk, snapshot }: SnapshotName,
) -> Result<Json<Snapshot>, Failure> {
    let shown = blocking(move || target.snapshot(&vdisk, &snapshot));
    Ok(Json(shown.await?))
}

/// Deletes some of a vDisk's snapshots, all at once or none; their space is given back in the background. Refused while one of them
/// is held, and, without `defer`, while clones lie over one.
#[utoipa::path(post, path = "/v1/vdisks/{name}/delete-snapshots", tag = "snapshots", params(("name" = String, Path)),
    request_body = DeleteSnapshots,
    responses((status = 200, body = DeletedSnapshots), (status = 403, body = ApiError), (status = 404, body = ApiError)))]
pub async fn delete(
    State(target): State<Target>,
    Name(name): Name,
    Body(request): Body<DeleteSnapshots>,
) -> Result<Json<DeletedSnapshots>, Failure> {
    let vdisk = name.clone();
    let deleted = blocking(move || target.delete_snapshots(&name, &request)).await?;
    for snapshot in &deleted.deleted {
        log::info!("snapshot {snapshot} of vDisk {vdisk}: deleted");
    }
    Ok(Json(deleted))
}

/// Compared with what, and where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// Another snapshot of the vDisk; the present without it.
    to: Option<String>,
    /// First byte of interest; 0 without it.
    #[serde(default)]
    offset: u64,
}

/// What was written, zeroed or discarded between a snapshot and another one of the vDisk, or the present; which is older makes no
/// difference. Reads metadata only. Answers are bounded: ask on from `next` until it is absent.
#[utoipa::path(get, path = "/v1/vdisks/{name}/snapshots/{snapshot}/changes", tag = "snapshots",
    params(("name" = String, Path), ("snapshot" = String, Path), Compared),
    responses((status = 200, body = Changes), (status = 400, body = ApiError), (status = 403, body = ApiError),
        (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub async fn changes(
    State(target): State<Target>,
    Extension(session): Extension<Arc<Session>>,
    SnapshotName { vdisk, snapshot }: SnapshotName,
    Query(with): Query<Compared>,
) -> Result<Json<Changes>, Failure> {
    let to = with.to;
    to.as_deref().map(check_snapshot_name).transpose()?;
    let changes = blocking(move || {
        let opened = target.open_comparison(&vdisk, &snapshot, to.as_deref());
        let comparison = session.comparison(&vdisk, &snapshot, to.as_deref(), opened)?;
        comparison.changes(with.offset)
    });
    Ok(Json(changes.await?))
}

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct From {
    /// First byte of interest, rounded down to 2 MiB; 0 without it.
    #[serde(default)]
    offset: u64,
}

/// What a snapshot costs, and what deleting it would give back. Reads the block map of its layer, and of the one over it. Answers
/// are bounded: ask on from `next` until it is absent, and add up.
#[utoipa::path(get, path = "/v1/vdisks/{name}/snapshots/{snapshot}/usage", tag = "snapshots",
    params(("name" = String, Path), ("snapshot" = String, Path), From),
    responses((status = 200, body = SnapshotUsage), (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub async fn usage(
    State(target): State<Target>,
    Extension(session): Extension<Arc<Session>>,
    SnapshotName { vdisk, snapshot }: SnapshotName,
    Query(from): Query<From>,
) -> Result<Json<SnapshotUsage>, Failure> {
    let usage = blocking(move || {
        let opened = target.open_snapshot(&vdisk, &snapshot);
        let reader = session.reader(&vdisk, &snapshot, opened)?;
        reader.usage(from.offset)
    });
    Ok(Json(usage.await?))
}

/// Gives a snapshot another name.
#[utoipa::path(post, path = "/v1/vdisks/{name}/snapshots/{snapshot}/rename", tag = "snapshots",
    params(("name" = String, Path), ("snapshot" = String, Path)), request_body = RenameSnapshot,
    responses((status = 200, body = Snapshot), (status = 400, body = ApiError), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn rename(
    State(target): State<Target>,
    SnapshotName { vdisk, snapshot }: SnapshotName,
    Body(request): Body<RenameSnapshot>,
) -> Result<Json<Snapshot>, Failure> {
    check_snapshot_name(&request.name)?;
    let old = snapshot.clone();
    let renamed =
        blocking(move || target.rename_snapshot(&vdisk, &snapshot, &request.name)).await?;
    log::info!(
        "snapshot {old} of vDisk {}: renamed to {}",
        renamed.vdisk,
        renamed.name
    );
    Ok(Json(renamed))
}

/// Keeps a snapshot from being deleted until the holder releases it. Holding it twice is holding it.
#[utoipa::path(put, path = "/v1/vdisks/{name}/snapshots/{snapshot}/holds/{holder}", tag = "snapshots",
    params(("name" = String, Path), ("snapshot" = String, Path), ("holder" = String, Path)),
    responses((status = 200, body = Snapshot), (status = 400, body = ApiError), (status = 404, body = ApiError)))]
pub async fn hold(State(target): State<Target>, hold: Hold) -> Result<Json<Snapshot>, Failure> {
    let held = blocking(move || target.hold_snapshot(&hold.vdisk, &hold.snapshot, &hold.holder));
    Ok(Json(held.await?))
}

/// Ends a hold. Refused where there is none of this holder.
#[utoipa::path(delete, path = "/v1/vdisks/{name}/snapshots/{snapshot}/holds/{holder}", tag = "snapshots",
    params(("name" = String, Path), ("snapshot" = String, Path), ("holder" = String, Path)),
    responses((status = 200, body = Snapshot), (status = 403, body = ApiError), (status = 404, body = ApiError)))]
pub async fn release(State(target): State<Target>, hold: Hold) -> Result<Json<Snapshot>, Failure> {
    let released =
        blocking(move || target.release_snapshot(&hold.vdisk, &hold.snapshot, &hold.holder));
    Ok(Json(released.await?))
}

/// Deletes the snapshots of a vDisk that no rule keeps, all at once, and tells for each why it went or stays; with `dry_run` only
/// tells. Snapshots that are held or that clones lie over stay. Those of the vDisk's schedules are not looked at.
#[utoipa::path(post, path = "/v1/vdisks/{name}/prune", tag = "snapshots", params(("name" = String, Path)),
    request_body = PruneSnapshots,
    responses((status = 200, body = Pruned), (status = 400, body = ApiError), (status = 404, body = ApiError)))]
pub async fn prune(
    State(target): State<Target>,
    Name(name): Name,
    Body(request): Body<PruneSnapshots>,
) -> Result<Json<Pruned>, Failure> {
    let (vdisk, dry_run) = (name.clone(), request.dry_run);
    let pruned = blocking(move || target.prune(&name, &request)).await?;
    let all = pruned.snapshots.iter();
    let gone = all.filter(|fate| fate.kept_by.is_empty()).count();
    if gone > 0 && !dry_run {
        log::info!("vDisk {vdisk}: {gone} snapshot(s) that no rule keeps: deleted");
    }
    Ok(Json(pruned))
}

/// Makes a new vDisk that begins as the snapshot and shares its data; its socket listens when the answer comes.
#[utoipa::path(post, path = "/v1/vdisks/{name}/snapshots/{snapshot}/clone", tag = "snapshots",
    params(("name" = String, Path), ("snapshot" = String, Path)), request_body = CloneSnapshot,
    responses((status = 201, body = VDisk), (status = 400, body = ApiError), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn clone(
    State(target): State<Target>,
    SnapshotName { vdisk, snapshot }: SnapshotName,
    Body(request): Body<CloneSnapshot>,
) -> Result<(StatusCode, Json<VDisk>), Failure> {
    check_name(&request.name)?;
    let from = format!("snapshot {snapshot} of vDisk {vdisk}");
    let clone = blocking(move || target.clone_snapshot(&vdisk, &snapshot, &request.name)).await?;
    log::info!("vDisk {}: cloned from {from}", clone.name);
    Ok((StatusCode::CREATED, Json(clone)))
}
