//! The store's words as the control API's.

use block_store::{RequestError, StoreError};
use control_api::{ApiError, ErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The way out of a full store.
const MAKE_SPACE: &str =
    "delete vDisks or snapshots that are not needed, or give the store's filesystem more space";

/// From one of the store's types to the API's of the same shape, or back. A test takes every such pair through here, so that
/// a field that is renamed on one side is noticed.
pub(super) fn translate<T: DeserializeOwned>(value: &impl Serialize) -> Result<T, ApiError> {
    let translated = serde_json::to_value(value).and_then(serde_json::from_value);
    // What a peer sent can be at fault (a codec that there is not), never a state of the store.
    translated.map_err(|error| ApiError::new(ErrorKind::Invalid, error.to_string()))
}

/// Why the store refused or failed.
pub(super) fn store_error(error: StoreError) -> ApiError {
    let kind = match &error {
        StoreError::Exists(_) => ErrorKind::AlreadyExists,
        StoreError::NotFound(_)
        | StoreError::NoSnapshot { .. }
        | StoreError::NoLayer(_)
        | StoreError::NoSchedule(_) => ErrorKind::NotFound,
        StoreError::Invalid(_) => ErrorKind::Invalid,
        StoreError::Refused(_) => ErrorKind::Refused,
        StoreError::NoSpace(_) => ErrorKind::NoSpace,
        StoreError::Damaged { .. } | StoreError::LogDamaged { .. } => ErrorKind::Damaged,
        StoreError::Failed(_) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let answer = ApiError::new(kind, error.to_string());
    match kind {
        ErrorKind::AlreadyExists => {
            answer.hint("choose another name, or delete that one: firn vdisk delete NAME")
        }
        ErrorKind::NoSpace => answer.hint(MAKE_SPACE),
        _ => answer,
    }
}

/// The same where the name that is taken is a snapshot's.
pub(super) fn snapshot_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Exists(text) => ApiError::new(ErrorKind::AlreadyExists, text)
            .hint("choose another name, or delete that snapshot: firn snapshot delete VDISK NAME"),
        error => store_error(error),
    }
}

/// Why a request to a vDisk failed; `doing` reads like "read".
pub(super) fn request_error(
    vdisk: &str,
    doing: &str,
    offset: u64,
    error: RequestError,
) -> ApiError {
    let text = format!("vDisk {vdisk}: can't {doing} at {offset}: {error}");
    match error {
        RequestError::OutOfRange | RequestError::Unaligned => {
            ApiError::new(ErrorKind::Invalid, text)
        }
        RequestError::ReadOnly => ApiError::new(ErrorKind::Refused, text),
        // Only a full store makes us cancel.
        RequestError::NoSpace | RequestError::Cancelled => ApiError::new(
            ErrorKind::NoSpace,
            format!("vDisk {vdisk}: the store is full"),
        )
        .hint(MAKE_SPACE),
        _ => ApiError::new(ErrorKind::Internal, text)
            .hint("the backend's log names block and segment"),
    }
}
