//! Checking what is stored: begin, look at, stop.

use super::{Target, blocking};
use crate::control::extract::{Failure, Json as Body};
use axum::Json;
use axum::extract::State;
use control_api::types::*;

/// How checking what is stored is getting on, and what was found.
#[utoipa::path(get, path = "/v1/scrub", tag = "scrub", responses((status = 200, body = ScrubStatus)))]
pub async fn show(State(target): State<Target>) -> Result<Json<ScrubStatus>, Failure> {
    Ok(Json(blocking(move || target.scrub()).await?))
}

/// Begins to check everything that is stored, in the background, or goes on with what was stopped. A pass that is running goes
/// on with these options.
#[utoipa::path(post, path = "/v1/scrub", tag = "scrub", request_body = StartScrub,
    responses((status = 200, body = ScrubChanged), (status = 400, body = ApiError)))]
pub async fn start(
    State(target): State<Target>,
    Body(request): Body<StartScrub>,
) -> Result<Json<ScrubChanged>, Failure> {
    Ok(Json(blocking(move || target.start_scrub(&request)).await?))
}

/// Stops the pass that is running; it goes on from there when it is started again.
#[utoipa::path(delete, path = "/v1/scrub", tag = "scrub", responses((status = 200, body = ScrubChanged)))]
pub async fn stop(State(target): State<Target>) -> Result<Json<ScrubChanged>, Failure> {
    Ok(Json(blocking(move || target.stop_scrub()).await?))
}
