//! Compression rules: the store's and each vDisk's own.

use super::{Target, blocking};
use crate::control::extract::{Failure, Json as Body, Name};
use axum::Json;
use axum::extract::State;
use control_api::check_name;
use control_api::types::ApiError;
use control_api::types::{ExplainRequest, Explanation, Rules};

/// The store's rules.
#[utoipa::path(get, path = "/v1/rules", tag = "rules", responses((status = 200, body = Rules)))]
pub async fn show(State(target): State<Target>) -> Result<Json<Rules>, Failure> {
    Ok(Json(blocking(move || target.rules(None)).await?))
}

/// Replaces the store's rules; they count from the next write on.
#[utoipa::path(put, path = "/v1/rules", tag = "rules", request_body = Rules,
    responses((status = 200, body = Rules), (status = 400, body = ApiError)))]
pub async fn set(
    State(target): State<Target>,
    Body(rules): Body<Rules>,
) -> Result<Json<Rules>, Failure> {
    replace(target, None, rules).await
}

/// The rules that hold for a vDisk: its own, or else the store's.
#[utoipa::path(get, path = "/v1/vdisks/{name}/rules", tag = "rules", params(("name" = String, Path)),
    responses((status = 200, body = Rules), (status = 404, body = ApiError)))]
pub async fn show_of(
    State(target): State<Target>,
    Name(name): Name,
) -> Result<Json<Rules>, Failure> {
    Ok(Json(blocking(move || target.rules(Some(&name))).await?))
}

/// Gives a vDisk rules of its own, which it has instead of the store's.
#[utoipa::path(put, path = "/v1/vdisks/{name}/rules", tag = "rules", params(("name" = String, Path)),
    request_body = Rules,
    responses((status = 200, body = Rules), (status = 400, body = ApiError), (status = 404, body = ApiError)))]
pub async fn set_of(
    State(target): State<Target>,
    Name(name): Name,
    Body(rules): Body<Rules>,
) -> Result<Json<Rules>, Failure> {
    replace(target, Some(name), rules).await
}

/// What the rules make of a request like the one described.
#[utoipa::path(post, path = "/v1/rules/explain", tag = "rules", request_body = ExplainRequest,
    responses((status = 200, body = Explanation), (status = 400, body = ApiError), (status = 404, body = ApiError)))]
pub async fn explain(
    State(target): State<Target>,
    Body(request): Body<ExplainRequest>,
) -> Result<Json<Explanation>, Failure> {
    if let Some(name) = &request.vdisk {
        check_name(name)?;
    }
    Ok(Json(blocking(move || target.explain(&request)).await?))
}

async fn replace(
    target: Target,
    vdisk: Option<String>,
    rules: Rules,
) -> Result<Json<Rules>, Failure> {
    let whose = vdisk
        .clone()
        .map_or("the store".to_owned(), |name| format!("vDisk {name}"));
    let stored = blocking(move || {
        target.set_rules(vdisk.as_deref(), &rules)?;
        target.rules(vdisk.as_deref())
    })
    .await?;
    log::info!("{whose}: {} compression rule(s) set", stored.rules.len());
    Ok(Json(stored))
}
