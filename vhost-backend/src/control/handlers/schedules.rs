//! Schedules of snapshots: list, make, end.

use super::{Target, blocking};
use crate::control::extract::{Failure, Json as Body, ScheduleName};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use control_api::types::*;
use control_api::{check_name, check_snapshot_name};

/// All schedules, in order of creation, and how they are doing.
#[utoipa::path(get, path = "/v1/schedules", tag = "snapshots", responses((status = 200, body = ScheduleList)))]
pub async fn list(State(target): State<Target>) -> Result<Json<ScheduleList>, Failure> {
    let schedules = blocking(move || target.schedules()).await?;
    Ok(Json(ScheduleList { schedules }))
}

/// Makes a schedule, durably. Its first snapshot is taken at the next multiple of its interval.
#[utoipa::path(post, path = "/v1/schedules", tag = "snapshots", request_body = CreateSchedule,
    responses((status = 201, body = Schedule), (status = 400, body = ApiError), (status = 404, body = ApiError),
        (status = 409, body = ApiError)))]
pub async fn create(
    State(target): State<Target>,
    Body(request): Body<CreateSchedule>,
) -> Result<(StatusCode, Json<Schedule>), Failure> {
    check_snapshot_name(&request.name)?;
    request
        .prefix
        .as_deref()
        .map(check_snapshot_name)
        .transpose()?;
    for vdisk in &request.vdisks {
        check_name(vdisk)?;
    }
    let made = blocking(move || target.create_schedule(&request)).await?;
    log::info!(
        "schedule {}: a snapshot of {} vDisk(s) every {} s",
        made.name,
        made.vdisks.len(),
        made.every_seconds
    );
    Ok((StatusCode::CREATED, Json(made)))
}

/// Ends a schedule. Its snapshots stay.
#[utoipa::path(delete, path = "/v1/schedules/{name}", tag = "snapshots", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = ApiError)))]
pub async fn delete(
    State(target): State<Target>,
    ScheduleName(name): ScheduleName,
) -> Result<StatusCode, Failure> {
    let ended = name.clone();
    blocking(move || target.delete_schedule(&name)).await?;
    log::info!("schedule {ended}: ended");
    Ok(StatusCode::NO_CONTENT)
}
