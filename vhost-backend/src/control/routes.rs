//! Which path leads to which handler, and the OpenAPI document that says so.

use super::extract::Failure;
use super::handlers::{
    Target, data, imports, rules, schedules, scrub, snapshots, stats, store, vdisks,
};
use super::session::Session;
use super::target::ControlTarget;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::routing::{delete, get, post, put};
use control_api::{ApiError, DATA_MAX, ErrorKind};
use std::sync::Arc;
use utoipa::OpenApi;

/// Bytes that a JSON body may have.
const JSON_MAX: usize = 1 << 20;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Firn control API",
        description = "Served by firn-vhost-backend on RUN/control.sock (mode 0600; root and the backend's own user only). \
            Sizes, offsets and lengths are in bytes. Every answer that is not a success is an ApiError."
    ),
    paths(
        store::health,
        store::status,
        store::openapi,
        stats::store,
        stats::layers,
        stats::layer_usage,
        vdisks::list,
        vdisks::create,
        vdisks::show,
        vdisks::delete,
        vdisks::resize,
        vdisks::record_domain,
        vdisks::stats,
        stats::fragmentation,
        vdisks::revert,
        vdisks::promote,
        vdisks::flatten,
        data::read,
        data::allocated,
        snapshots::list,
        snapshots::create,
        snapshots::list_of,
        snapshots::show,
        snapshots::changes,
        snapshots::usage,
        snapshots::delete,
        snapshots::rename,
        snapshots::hold,
        snapshots::release,
        snapshots::clone,
        snapshots::prune,
        schedules::list,
        schedules::create,
        schedules::delete,
        data::read_snapshot,
        data::snapshot_allocated,
        imports::begin,
        imports::data,
        imports::commit,
        imports::abort,
        rules::show,
        rules::set,
        rules::show_of,
        rules::set_of,
        rules::explain,
        scrub::show,
        scrub::start,
        scrub::stop,
    ),
    components(schemas(ApiError))
)]
struct Document;

/// The OpenAPI document as JSON; `docs/openapi.json` is a copy of it.
pub fn openapi() -> String {
    // Only a type whose map keys are not strings could fail here, and it has none.
    Document::openapi().to_pretty_json().unwrap_or_default() + "\n"
}

/// All endpoints.
pub fn router(target: Arc<dyn ControlTarget>) -> Router {
    const SNAPSHOT: &str = "/v1/vdisks/{name}/snapshots/{snapshot}";
    let of_snapshot = |rest: &str| format!("{SNAPSHOT}{rest}");
    let import_data = put(imports::data).layer(DefaultBodyLimit::max(DATA_MAX as usize));
    Router::<Target>::new()
        .route("/v1/health", get(store::health))
        .route("/v1/openapi.json", get(store::openapi))
        .route("/v1/store", get(store::status))
        .route("/v1/store/stats", get(stats::store))
        .route("/v1/store/layers", get(stats::layers))
        .route("/v1/store/layers/{layer}/usage", get(stats::layer_usage))
        .route("/v1/vdisks", get(vdisks::list).post(vdisks::create))
        .route(
            "/v1/vdisks/{name}",
            get(vdisks::show).delete(vdisks::delete),
        )
        .route("/v1/vdisks/{name}/resize", post(vdisks::resize))
        .route("/v1/vdisks/{name}/domain", put(vdisks::record_domain))
        .route("/v1/vdisks/{name}/stats", get(vdisks::stats))
        .route("/v1/vdisks/{name}/fragmentation", get(stats::fragmentation))
        .route("/v1/vdisks/{name}/data", get(data::read))
        .route("/v1/vdisks/{name}/allocated", get(data::allocated))
        .route(
            "/v1/vdisks/{name}/rules",
            get(rules::show_of).put(rules::set_of),
        )
        .route("/v1/vdisks/{name}/revert", post(vdisks::revert))
        .route("/v1/vdisks/{name}/promote", post(vdisks::promote))
        .route("/v1/vdisks/{name}/flatten", post(vdisks::flatten))
        .route("/v1/vdisks/{name}/prune", post(snapshots::prune))
        .route("/v1/vdisks/{name}/snapshots", get(snapshots::list_of))
        .route(
            "/v1/vdisks/{name}/delete-snapshots",
            post(snapshots::delete),
        )
        .route(SNAPSHOT, get(snapshots::show))
        .route(&of_snapshot("/changes"), get(snapshots::changes))
        .route(&of_snapshot("/usage"), get(snapshots::usage))
        .route(&of_snapshot("/rename"), post(snapshots::rename))
        .route(&of_snapshot("/clone"), post(snapshots::clone))
        .route(&of_snapshot("/data"), get(data::read_snapshot))
        .route(&of_snapshot("/allocated"), get(data::snapshot_allocated))
        .route(
            &of_snapshot("/holds/{holder}"),
            put(snapshots::hold).delete(snapshots::release),
        )
        .route(
            "/v1/snapshots",
            get(snapshots::list).post(snapshots::create),
        )
        .route(
            "/v1/schedules",
            get(schedules::list).post(schedules::create),
        )
        .route("/v1/schedules/{name}", delete(schedules::delete))
        .route("/v1/imports", post(imports::begin))
        .route("/v1/imports/{name}", delete(imports::abort))
        .route("/v1/imports/{name}/data", import_data)
        .route("/v1/imports/{name}/commit", post(imports::commit))
        .route("/v1/rules", get(rules::show).put(rules::set))
        .route("/v1/rules/explain", post(rules::explain))
        .route(
            "/v1/scrub",
            get(scrub::show).post(scrub::start).delete(scrub::stop),
        )
        .layer(DefaultBodyLimit::max(JSON_MAX))
        .fallback(nowhere)
        .method_not_allowed_fallback(nowhere)
        .with_state(target)
}

/// The endpoints as one connection sees them: with what it holds.
pub fn for_connection(router: Router) -> Router {
    router.layer(axum::Extension(Arc::new(Session::default())))
}

/// What a process that may not command us gets, whatever it asks.
pub(super) fn stranger() -> Router {
    Router::new().fallback(|| async {
        let error = ApiError::new(
            ErrorKind::Refused,
            "this control socket answers root and the backend's own user only",
        );
        Failure(error.hint("use sudo, or run as the user that the backend runs as"))
    })
}

async fn nowhere(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(100).collect();
    let error = ApiError::new(
        ErrorKind::NotFound,
        format!("there is no such endpoint or method: {path}"),
    );
    Failure(error.hint("GET /v1/openapi.json lists them all"))
}
