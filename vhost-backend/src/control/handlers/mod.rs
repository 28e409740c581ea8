//! HTTP on one side, [`ControlTarget`] on the other: check, hand to a blocking task, answer.

pub(super) mod data;
pub(super) mod imports;
pub(super) mod rules;
pub(super) mod schedules;
pub(super) mod scrub;
pub(super) mod snapshots;
pub(super) mod stats;
pub(super) mod store;
pub(super) mod vdisks;

use super::extract::Failure;
use super::target::ControlTarget;
use control_api::{ApiError, ErrorKind};
use std::sync::Arc;

/// State of every handler.
pub(super) type Target = Arc<dyn ControlTarget>;

/// Runs a call that may block where it blocks nobody.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result.map_err(Failure),
        Err(error) => {
            log::error!("control API: a request failed inside the backend: {error}");
            Err(Failure(ApiError::new(
                ErrorKind::Internal,
                "the request failed inside the backend; its log says more",
            )))
        }
    }
}

/// A range of bytes that guests could address.
fn check_aligned(offset: u64, length: u64) -> Result<(), ApiError> {
    let sector = control_api::limits::SECTOR;
    match offset.is_multiple_of(sector) && length.is_multiple_of(sector) {
        true => Ok(()),
        false => Err(ApiError::new(
            ErrorKind::Invalid,
            format!("offset {offset} and length {length} must be multiples of {sector}"),
        )),
    }
}
