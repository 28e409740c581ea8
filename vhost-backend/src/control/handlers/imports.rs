//! Filling a new vDisk that nobody sees until all of it is there.

use super::{Target, blocking, check_aligned};
use crate::control::extract::{Data, Failure, Json as Body, Name, Query};
use crate::control::session::Session;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use control_api::types::{BeginImport, Import, VDisk};
use control_api::{ApiError, DATA_MAX, ErrorKind, check_name, check_size};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Begins an import. It lives on this connection: when that ends before the commit, nothing remains.
#[utoipa::path(post, path = "/v1/imports", tag = "imports", request_body = BeginImport,
    responses((status = 201, body = Import), (status = 400, body = ApiError), (status = 409, body = ApiError)))]
pub async fn begin(
    State(target): State<Target>,
    Extension(session): Extension<Arc<Session>>,
    Body(request): Body<BeginImport>,
) -> Result<(StatusCode, Json<Import>), Failure> {
    check_name(&request.name)?;
    check_size(request.size)?;
    session.has_room()?;
    let answer = Import {
        name: request.name.clone(),
        size: request.size,
        chunk_max: DATA_MAX,
    };
    // Into the session from within the task: if the connection ends meanwhile, the import ends with it.
    blocking(move || {
        let import = target.begin_import(&request)?;
        session.insert(request.name, import);
        Ok(())
    })
    .await?;
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Where data goes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct At {
    /// First byte, a multiple of 512.
    offset: u64,
}

/// Writes the body, at most 4 MiB and a multiple of 512, into the vDisk to be. What is never written reads as zeroes.
#[utoipa::path(put, path = "/v1/imports/{name}/data", tag = "imports", params(("name" = String, Path), At),
    request_body(content_type = "application/octet-stream"),
    responses((status = 204), (status = 400, body = ApiError), (status = 404, body = ApiError),
        (status = 413, body = ApiError), (status = 507, body = ApiError)))]
pub async fn data(
    Extension(session): Extension<Arc<Session>>,
    Name(name): Name,
    Query(at): Query<At>,
    Data(data): Data,
) -> Result<StatusCode, Failure> {
    if data.is_empty() {
        return Err(ApiError::new(
            ErrorKind::Invalid,
            "the body is empty: send 512 bytes or more",
        )
        .into());
    }
    check_aligned(at.offset, data.len() as u64)?;
    let import = session.get(&name)?;
    blocking(move || import.lock().write(at.offset, &data)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes everything durable and the vDisk visible. Where this fails the import is over, and nothing of it remains.
#[utoipa::path(post, path = "/v1/imports/{name}/commit", tag = "imports", params(("name" = String, Path)),
    responses((status = 200, body = VDisk), (status = 404, body = ApiError), (status = 507, body = ApiError)))]
pub async fn commit(
    Extension(session): Extension<Arc<Session>>,
    Name(name): Name,
) -> Result<Json<VDisk>, Failure> {
    let import = session.remove(&name)?;
    let vdisk = blocking(move || import.lock().publish()).await?;
    log::info!("vDisk {}: imported with {} bytes", vdisk.name, vdisk.size);
    Ok(Json(vdisk))
}

/// Gives an import up; when the answer comes, nothing of it remains.
#[utoipa::path(delete, path = "/v1/imports/{name}", tag = "imports", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = ApiError)))]
pub async fn abort(
    Extension(session): Extension<Arc<Session>>,
    Name(name): Name,
) -> Result<StatusCode, Failure> {
    let import = session.remove(&name)?;
    blocking(move || {
        drop(import);
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
