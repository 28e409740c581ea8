//! The API: `RUN/orchestrator.sock`, HTTP/1.1 with JSON.
//!
//! What was begun goes on when whoever asked for it goes away.

use super::{Orchestrator, Outcome};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use control_api::types::*;
use control_api::{ApiError, ErrorKind};
use std::sync::Arc;

/// Bytes that a body may have.
const BODY_MAX: usize = 64 << 10;

type Shared = State<Arc<Orchestrator>>;
type Body<T> = Result<Json<T>, JsonRejection>;
type Answer<T> = Result<Json<T>, Failure>;

/// An error on its way out.
struct Failure(ApiError);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.status());
        (
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            Json(self.0),
        )
            .into_response()
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        Failure(error)
    }
}

/// All paths.
pub(super) fn router(orchestrator: Arc<Orchestrator>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/domains/{domain}/snapshots", post(snapshot))
        .route("/v1/domains/{domain}/revert", post(revert))
        .route("/v1/domains/{domain}/clone", post(clone))
        .route("/v1/domains/{domain}/disks", post(attach))
        .route("/v1/domains/{domain}/disks/{vdisk}", delete(detach))
        .route("/metrics", get(metrics))
        .fallback(nothing)
        .method_not_allowed_fallback(nothing)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(orchestrator)
}

async fn nothing() -> Failure {
    ApiError::new(
        ErrorKind::NotFound,
        "there is no such endpoint, or no such method of it",
    )
    .into()
}

async fn status(State(orchestrator): Shared) -> Json<OrchestratorStatus> {
    Json(orchestrator.status().await)
}

async fn metrics(State(orchestrator): Shared) -> String {
    orchestrator.metrics_text()
}

async fn snapshot(
    State(orchestrator): Shared,
    Path(domain): Path<String>,
    body: Body<SnapshotDomain>,
) -> Answer<DomainSnapshotTaken> {
    let request = body_of(body)?;
    to_its_end(async move {
        control_api::check_snapshot_name(&request.name).map_err(ApiError::from)?;
        let (info, _) = orchestrator.find(&domain).await?;
        let _one = orchestrator.claim(info.uuid).await;
        let (info, disks) = orchestrator.find(&domain).await?;
        orchestrator
            .snapshot(&info, &disks, &request.name, request.quiesce)
            .await
    })
    .await
}

async fn revert(
    State(orchestrator): Shared,
    Path(domain): Path<String>,
    body: Body<RevertDomain>,
) -> Answer<DomainReverted> {
    let request = body_of(body)?;
    to_its_end(async move { orchestrator.revert(&domain, &request).await }).await
}

async fn clone(
    State(orchestrator): Shared,
    Path(domain): Path<String>,
    body: Body<CloneDomain>,
) -> Answer<DomainCloned> {
    let request = body_of(body)?;
    to_its_end(async move { orchestrator.clone_domain(&domain, &request).await }).await
}

async fn attach(
    State(orchestrator): Shared,
    Path(domain): Path<String>,
    body: Body<AttachDisk>,
) -> Answer<DiskChanged> {
    let request = body_of(body)?;
    to_its_end(async move { orchestrator.attach(&domain, &request).await }).await
}

async fn detach(
    State(orchestrator): Shared,
    Path((domain, vdisk)): Path<(String, String)>,
) -> Answer<DiskChanged> {
    to_its_end(async move { orchestrator.detach(&domain, &vdisk).await }).await
}

fn body_of<T>(body: Body<T>) -> Result<T, Failure> {
    match body {
        Ok(Json(request)) => Ok(request),
        Err(error) => Err(ApiError::new(ErrorKind::Invalid, error.body_text()).into()),
    }
}

/// Does something whether or not anybody waits for its end.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Outcome<T>> + Send + 'static,
) -> Answer<T> {
    match tokio::spawn(work).await {
        Ok(Ok(done)) => Ok(Json(done)),
        Ok(Err(trouble)) => Err(trouble.answer().into()),
        Err(panic) => Err(ApiError::new(ErrorKind::Internal, panic.to_string()).into()),
    }
}
