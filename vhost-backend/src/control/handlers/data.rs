//! Reading the bytes of a vDisk or a snapshot out, sparsely: first where there is data, then the data.
//!
//! A range is read whole before the answer begins, so that an error is an answer and never a body cut short.

use super::{Target, blocking, check_aligned};
use crate::control::extract::{Failure, Name, Query, SnapshotName};
use crate::control::session::Session;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use control_api::types::Allocated;
use control_api::{ApiError, DATA_MAX, ErrorKind};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// A range of a vDisk or a snapshot.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DataRange {
    /// First byte, a multiple of 512.
    offset: u64,
    /// Number of bytes, a multiple of 512, at most 4 MiB.
    length: u64,
}

impl DataRange {
    /// Whether one request may read it.
    fn check(&self) -> Result<(), ApiError> {
        check_aligned(self.offset, self.length)?;
        match self.length {
            1..=DATA_MAX => Ok(()),
            length => Err(ApiError::new(
                ErrorKind::Invalid,
                format!("a length of {length} bytes: one request reads 512 to {DATA_MAX}"),
            )),
        }
    }
}

/// Bytes of a vDisk. While a front end is attached, answers to several requests are of different instants.
#[utoipa::path(get, path = "/v1/vdisks/{name}/data", tag = "data", params(("name" = String, Path), DataRange),
    responses((status = 200, content_type = "application/octet-stream"), (status = 400, body = ApiError),
        (status = 404, body = ApiError)))]
pub async fn read(
    State(target): State<Target>,
    Name(name): Name,
    Query(range): Query<DataRange>,
) -> Result<impl IntoResponse, Failure> {
    range.check()?;
    let data = blocking(move || target.read(&name, range.offset, range.length)).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], data))
}

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct From {
    /// First byte of interest; 0 without it.
    #[serde(default)]
    offset: u64,
}

/// Where a vDisk holds data, from `offset` on. Answers are bounded: ask on from `next` until it is absent.
#[utoipa::path(get, path = "/v1/vdisks/{name}/allocated", tag = "data", params(("name" = String, Path), From),
    responses((status = 200, body = Allocated), (status = 404, body = ApiError)))]
pub async fn allocated(
    State(target): State<Target>,
    Name(name): Name,
    Query(from): Query<From>,
) -> Result<Json<Allocated>, Failure> {
    Ok(Json(
        blocking(move || target.allocated(&name, from.offset)).await?,
    ))
}

/// Bytes of a snapshot. What was read of it on a connection stays readable there, also when it is deleted meanwhile.
#[utoipa::path(get, path = "/v1/vdisks/{name}/snapshots/{snapshot}/data", tag = "data",
    params(("name" = String, Path), ("snapshot" = String, Path), DataRange),
    responses((status = 200, content_type = "application/octet-stream"), (status = 400, body = ApiError),
        (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub async fn read_snapshot(
    State(target): State<Target>,
    Extension(session): Extension<Arc<Session>>,
    SnapshotName { vdisk, snapshot }: SnapshotName,
    Query(range): Query<DataRange>,
) -> Result<impl IntoResponse, Failure> {
    range.check()?;
    let data = blocking(move || {
        let opened = target.open_snapshot(&vdisk, &snapshot);
        let reader = session.reader(&vdisk, &snapshot, opened)?;
        reader.read(range.offset, range.length)
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], data))
}

/// Where a snapshot holds data, from `offset` on. Answers are bounded: ask on from `next` until it is absent.
#[utoipa::path(get, path = "/v1/vdisks/{name}/snapshots/{snapshot}/allocated", tag = "data",
    params(("name" = String, Path), ("snapshot" = String, Path), From),
    responses((status = 200, body = Allocated), (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub async fn snapshot_allocated(
    State(target): State<Target>,
    Extension(session): Extension<Arc<Session>>,
    SnapshotName { vdisk, snapshot }: SnapshotName,
    Query(from): Query<From>,
) -> Result<Json<Allocated>, Failure> {
    let allocated = blocking(move || {
        let opened = target.open_snapshot(&vdisk, &snapshot);
        let reader = session.reader(&vdisk, &snapshot, opened)?;
        reader.allocated(from.offset)
    });
    Ok(Json(allocated.await?))
}
