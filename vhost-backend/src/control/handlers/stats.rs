//! How the store's data lies: space, layers, fragmentation, and counters of what was written and moved.

use super::{Target, blocking};
use crate::control::extract::{Failure, LayerNumber, Name, Query};
use axum::Json;
use axum::extract::State;
use control_api::types::*;
use serde::Deserialize;
use utoipa::IntoParams;

/// Space by temperature, and what was written, put together and compacted since the backend started. Reads nothing from the disk.
#[utoipa::path(get, path = "/v1/store/stats", tag = "store", responses((status = 200, body = StoreStats)))]
pub async fn store(State(target): State<Target>) -> Result<Json<StoreStats>, Failure> {
    Ok(Json(blocking(move || target.store_stats()).await?))
}

/// All layers, by number, and whose they are.
#[utoipa::path(get, path = "/v1/store/layers", tag = "store", responses((status = 200, body = LayerList)))]
pub async fn layers(State(target): State<Target>) -> Result<Json<LayerList>, Failure> {
    let layers = blocking(move || target.layers()).await?;
    Ok(Json(LayerList { layers }))
}

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// First byte of interest, rounded down to 2 MiB (1 MiB for fragmentation); 0 without it.
    #[serde(default)]
    offset: u64,
}

/// What a layer costs, and what would come free without it: of a vDisk's live layer all of it. Reads its block map, and that of the
/// layer over it. Answers are bounded: ask on from `next` until it is absent, and add up.
#[utoipa::path(get, path = "/v1/store/layers/{layer}/usage", tag = "store", params(("layer" = u32, Path), Start),
    responses((status = 200, body = SnapshotUsage), (status = 400, body = ApiError), (status = 404, body = ApiError)))]
pub async fn layer_usage(
    State(target): State<Target>,
    LayerNumber(layer): LayerNumber,
    Query(from): Query<Start>,
) -> Result<Json<SnapshotUsage>, Failure> {
    let usage = blocking(move || target.layer_usage(layer, from.offset));
    Ok(Json(usage.await?))
}

/// How fragmented a vDisk is: how many reads of the disk it takes, span by span of 1 MiB, and how many it would take side by side.
/// Reads block maps only. Answers are bounded: ask on from `next` until it is absent, and add up.
#[utoipa::path(get, path = "/v1/vdisks/{name}/fragmentation", tag = "vdisks", params(("name" = String, Path), Start),
    responses((status = 200, body = Fragmentation), (status = 400, body = ApiError), (status = 404, body = ApiError)))]
pub async fn fragmentation(
    State(target): State<Target>,
    Name(name): Name,
    Query(from): Query<Start>,
) -> Result<Json<Fragmentation>, Failure> {
    let part = blocking(move || target.fragmentation(&name, from.offset));
    Ok(Json(part.await?))
}
