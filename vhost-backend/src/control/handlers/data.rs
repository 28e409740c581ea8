//! Reading a vDisk's bytes out, sparsely: first where there is data, then the data.
//!
//! A range is read whole before the answer begins, so that an error is an answer and never a body cut short.

use super::{Target, blocking, check_aligned};
use crate::control::extract::{Failure, Name, Query};
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use control_api::types::Allocated;
use control_api::{ApiError, DATA_MAX, ErrorKind};
use serde::Deserialize;
use utoipa::IntoParams;

/// A range of a vDisk.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DataRange {
    /// First byte, a multiple of 512.
    offset: u64,
    /// Number of bytes, a multiple of 512, at most 4 MiB.
    length: u64,
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
    check_aligned(range.offset, range.length)?;
    if range.length == 0 || range.length > DATA_MAX {
        let text = format!(
            "a length of {} bytes: one request reads 512 to {DATA_MAX}",
            range.length
        );
        return Err(ApiError::new(ErrorKind::Invalid, text).into());
    }
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
