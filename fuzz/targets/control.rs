//! The control API: requests of any method, path, query and body on one connection, and each JSON type by itself.
#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use control_api::types::*;
use firn_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;
use vhost_backend::control::{for_connection, router};
use vhost_backend::testing::MemoryTarget;

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(Builder::new_current_thread().build().expect("a runtime"));
}

const PATHS: [&str; 35] = [
    "/v1/health",
    "/v1/openapi.json",
    "/v1/store",
    "/v1/vdisks",
    "/v1/vdisks/a",
    "/v1/vdisks/a/resize",
    "/v1/vdisks/a/stats",
    "/v1/vdisks/a/data?offset=0&length=512",
    "/v1/vdisks/a/data?",
    "/v1/vdisks/a/allocated?offset=",
    "/v1/vdisks/a/rules",
    "/v1/imports",
    "/v1/imports/a",
    "/v1/imports/a/data?offset=",
    "/v1/imports/a/commit",
    "/v1/rules",
    "/v1/rules/explain",
    "/",
    "/v1/snapshots",
    "/v1/vdisks/a/snapshots",
    "/v1/vdisks/a/snapshots/s",
    "/v1/vdisks/a/snapshots/s?defer=",
    "/v1/vdisks/a/snapshots/s/rename",
    "/v1/vdisks/a/snapshots/s/clone",
    "/v1/vdisks/a/snapshots/s/holds/",
    "/v1/vdisks/a/snapshots/s/data?offset=0&length=512",
    "/v1/vdisks/a/snapshots/s/allocated?offset=",
    "/v1/vdisks/a/snapshots/s/changes?to=t&offset=",
    "/v1/vdisks/a/snapshots/s/usage?offset=",
    "/v1/vdisks/a/revert",
    "/v1/store/stats",
    "/v1/store/layers",
    "/v1/store/layers/7/usage?offset=",
    "/v1/vdisks/a/fragmentation?offset=",
    "/v1/vdisks/a/domain",
];
const METHODS: [Method; 5] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
];

/// What is parsed and written again reads the same.
fn type_of<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(bytes) {
        let written = serde_json::to_vec(&value).expect("it was JSON before");
        let again: T = serde_json::from_slice(&written).expect("it was written by us");
        assert_eq!(value, again);
    }
}

fn types(bytes: &[u8]) {
    type_of::<CreateVDisk>(bytes);
    type_of::<ResizeVDisk>(bytes);
    type_of::<BeginImport>(bytes);
    type_of::<Rules>(bytes);
    type_of::<ExplainRequest>(bytes);
    type_of::<CreateSnapshot>(bytes);
    type_of::<CreatedSnapshot>(bytes);
    type_of::<RenameSnapshot>(bytes);
    type_of::<CloneSnapshot>(bytes);
    type_of::<RevertVDisk>(bytes);
    type_of::<Reverted>(bytes);
    type_of::<SnapshotList>(bytes);
    type_of::<Changes>(bytes);
    type_of::<SnapshotUsage>(bytes);
    type_of::<ApiError>(bytes);
    type_of::<VDisk>(bytes);
    type_of::<VDiskList>(bytes);
    type_of::<VDiskStats>(bytes);
    type_of::<Allocated>(bytes);
    type_of::<Explanation>(bytes);
    type_of::<Health>(bytes);
    type_of::<StoreStatus>(bytes);
}

async fn requests(input: &mut Input<'_>) {
    let router = for_connection(router(Arc::new(MemoryTarget::default())));
    for _ in 0..16 {
        if input.is_empty() {
            break;
        }
        let (path, method) = (input.u8(), input.u8());
        let len = usize::from(input.u8() & 31);
        let more = String::from_utf8_lossy(input.bytes(len));
        let uri = format!("{}{more}", PATHS[usize::from(path) % PATHS.len()]);
        let len = usize::from(input.u16() & 0x3ff);
        let body = match method & 0x80 {
            0 => input.bytes(len).to_vec(),
            _ => vec![method; (len & 7) * 512],
        };
        let mut request = Request::builder()
            .uri(uri)
            .method(METHODS[usize::from(method) % METHODS.len()].clone());
        if method & 0x40 == 0 {
            request = request.header("content-type", "application/json");
        }
        let Ok(request) = request.body(Body::from(body)) else {
            continue;
        };
        let answer = router
            .clone()
            .oneshot(request)
            .await
            .expect("a router has no errors");
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 16 << 20)
            .await
            .expect("a body of bounded length");
        if !status.is_success() {
            let error: ApiError =
                serde_json::from_slice(&body).expect("every refusal is an ApiError");
            assert_eq!(error.kind.status(), status.as_u16());
            assert_ne!(error.kind, ErrorKind::Internal, "{error}");
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    if input.u8() & 1 == 0 {
        return types(input.rest());
    }
    RUNTIME.with_borrow(|runtime| runtime.block_on(requests(&mut input)));
});
