//! vDisks: list, make, look at, resize, delete.

use super::{Target, blocking};
use crate::control::extract::{Failure, Json as Body, Name};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use control_api::limits::check_domain;
use control_api::types::*;
use control_api::{check_name, check_size, check_snapshot_name};

/// All visible vDisks, ordered by name.
#[utoipa::path(get, path = "/v1/vdisks", tag = "vdisks", responses((status = 200, body = VDiskList)))]
pub async fn list(State(target): State<Target>) -> Result<Json<VDiskList>, Failure> {
    let mut vdisks = blocking(move || target.vdisks()).await?;
    vdisks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(VDiskList { vdisks }))
}

/// Makes an empty vDisk; its socket listens when the answer comes.
#[utoipa::path(post, path = "/v1/vdisks", tag = "vdisks", request_body = CreateVDisk,
    responses((status = 201, body = VDisk), (status = 400, body = ApiError), (status = 409, body = ApiError)))]
pub async fn create(
    State(target): State<Target>,
    Body(request): Body<CreateVDisk>,
) -> Result<(StatusCode, Json<VDisk>), Failure> {
    check_name(&request.name)?;
    check_size(request.size)?;
    let vdisk = blocking(move || target.create(&request)).await?;
    log::info!("vDisk {}: created with {} bytes", vdisk.name, vdisk.size);
    Ok((StatusCode::CREATED, Json(vdisk)))
}

/// One vDisk.
#[utoipa::path(get, path = "/v1/vdisks/{name}", tag = "vdisks", params(("name" = String, Path)),
    responses((status = 200, body = VDisk), (status = 404, body = ApiError)))]
pub async fn show(State(target): State<Target>, Name(name): Name) -> Result<Json<VDisk>, Failure> {
    Ok(Json(blocking(move || target.vdisk(&name)).await?))
}

/// Deletes a vDisk and everything in it. Refused while a front end is attached, and while it has snapshots.
#[utoipa::path(delete, path = "/v1/vdisks/{name}", tag = "vdisks", params(("name" = String, Path)),
    responses((status = 204), (status = 403, body = ApiError), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn delete(State(target): State<Target>, Name(name): Name) -> Result<StatusCode, Failure> {
    let deleted = name.clone();
    blocking(move || target.delete(&name)).await?;
    log::info!("vDisk {deleted}: deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Changes a vDisk's size. Growing works at any time, an attached guest sees it at its next cold start. Shrinking
/// needs `shrink` and nobody attached.
#[utoipa::path(post, path = "/v1/vdisks/{name}/resize", tag = "vdisks", params(("name" = String, Path)),
    request_body = ResizeVDisk,
    responses((status = 200, body = Resized), (status = 403, body = ApiError), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn resize(
    State(target): State<Target>,
    Name(name): Name,
    Body(request): Body<ResizeVDisk>,
) -> Result<Json<Resized>, Failure> {
    check_size(request.size)?;
    let resized = blocking(move || target.resize(&name, &request)).await?;
    log::info!(
        "vDisk {}: resized from {} to {} bytes",
        resized.vdisk.name,
        resized.old_size,
        resized.vdisk.size
    );
    Ok(Json(resized))
}

/// Keeps what a libvirt domain does with a vDisk: its hook says so. What was written before is durable when the answer comes.
#[utoipa::path(put, path = "/v1/vdisks/{name}/domain", tag = "vdisks", params(("name" = String, Path)),
    request_body = RecordDomain,
    responses((status = 200, body = VDisk), (status = 400, body = ApiError), (status = 404, body = ApiError)))]
pub async fn record_domain(
    State(target): State<Target>,
    Name(name): Name,
    Body(request): Body<RecordDomain>,
) -> Result<Json<VDisk>, Failure> {
    check_domain(&request.name, request.reason.as_deref())?;
    let said = request.clone();
    let vdisk = blocking(move || target.record_domain(&name, &request)).await?;
    log::info!(
        "vDisk {}: domain {} ({}) {}{}",
        vdisk.name,
        said.name,
        said.uuid,
        said.state.as_str(),
        said.reason
            .map_or_else(String::new, |reason| format!(": {reason}"))
    );
    Ok(Json(vdisk))
}

/// Makes a vDisk what it was at a snapshot, size and all. Nobody may be attached. What it is now is kept as a snapshot
/// (`keep`), or lost, which needs `discard`.
#[utoipa::path(post, path = "/v1/vdisks/{name}/revert", tag = "vdisks", params(("name" = String, Path)),
    request_body = RevertVDisk,
    responses((status = 200, body = Reverted), (status = 400, body = ApiError), (status = 403, body = ApiError),
        (status = 404, body = ApiError), (status = 409, body = ApiError), (status = 507, body = ApiError)))]
pub async fn revert(
    State(target): State<Target>,
    Name(name): Name,
    Body(request): Body<RevertVDisk>,
) -> Result<Json<Reverted>, Failure> {
    check_snapshot_name(&request.snapshot)?;
    if let Some(keep) = &request.keep {
        check_snapshot_name(keep)?;
    }
    let reverted = blocking(move || target.revert(&name, &request)).await?;
    log::info!(
        "vDisk {}: reverted to snapshot {}, {}",
        reverted.vdisk.name,
        reverted.snapshot.name,
        match &reverted.kept {
            Some(kept) => format!("what it was is kept as {kept}"),
            None => "what it was is discarded".to_owned(),
        }
    );
    Ok(Json(reverted))
}

/// Has a clone take over the snapshots that it has in common with the vDisk that it was cloned from; that is a clone of it then.
#[utoipa::path(post, path = "/v1/vdisks/{name}/promote", tag = "vdisks", params(("name" = String, Path)),
    responses((status = 200, body = VDisk), (status = 403, body = ApiError), (status = 404, body = ApiError)))]
pub async fn promote(
    State(target): State<Target>,
    Name(name): Name,
) -> Result<Json<VDisk>, Failure> {
    let vdisk = blocking(move || target.promote(&name)).await?;
    log::info!(
        "vDisk {}: has taken over what it was cloned from",
        vdisk.name
    );
    Ok(Json(vdisk))
}

/// Has a clone made independent of what it was cloned from, in the background: `flattening` of the vDisk tells how far it has got.
#[utoipa::path(post, path = "/v1/vdisks/{name}/flatten", tag = "vdisks", params(("name" = String, Path)),
    responses((status = 200, body = VDisk), (status = 403, body = ApiError), (status = 404, body = ApiError)))]
pub async fn flatten(
    State(target): State<Target>,
    Name(name): Name,
) -> Result<Json<VDisk>, Failure> {
    let vdisk = blocking(move || target.flatten(&name)).await?;
    log::info!("vDisk {}: is being made independent", vdisk.name);
    Ok(Json(vdisk))
}

/// A vDisk's counters.
#[utoipa::path(get, path = "/v1/vdisks/{name}/stats", tag = "vdisks", params(("name" = String, Path)),
    responses((status = 200, body = VDiskStats), (status = 404, body = ApiError)))]
pub async fn stats(
    State(target): State<Target>,
    Name(name): Name,
) -> Result<Json<VDiskStats>, Failure> {
    Ok(Json(blocking(move || target.stats(&name)).await?))
}
