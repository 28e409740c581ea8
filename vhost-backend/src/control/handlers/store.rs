//! The process and the store.

use super::{Target, blocking};
use crate::control::extract::Failure;
use crate::control::routes;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use control_api::types::{Health, StoreStatus};

/// Who answers: program, version, process and directories.
#[utoipa::path(get, path = "/v1/health", tag = "store", responses((status = 200, body = Health)))]
pub async fn health(State(target): State<Target>) -> Json<Health> {
    Json(target.health())
}

/// The store's state: space, write buffer, log and warnings.
#[utoipa::path(get, path = "/v1/store", tag = "store", responses((status = 200, body = StoreStatus)))]
pub async fn status(State(target): State<Target>) -> Result<Json<StoreStatus>, Failure> {
    Ok(Json(blocking(move || target.status()).await?))
}

/// This API's description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "store", responses((status = 200, description = "An OpenAPI 3.1 document")))]
pub async fn openapi() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        routes::openapi(),
    )
}
