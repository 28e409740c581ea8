//! Bodies, queries and paths of requests, and errors as answers: whatever a peer sends, what it gets is an
//! [`ApiError`] in JSON, never plain text of the framework.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use control_api::{ApiError, ErrorKind, check_name, check_snapshot_name};
use serde::de::DeserializeOwned;

/// An error on its way out.
#[derive(Debug)]
pub(super) struct Failure(pub ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        Failure(error)
    }
}

impl From<control_api::LimitError> for Failure {
    fn from(error: control_api::LimitError) -> Failure {
        Failure(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(self.0)).into_response()
    }
}

/// What the framework says about a body that it could not take.
fn refuse(status: StatusCode, text: String) -> Failure {
    let kind = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::TooLarge,
        status if status.is_server_error() => ErrorKind::Internal,
        _ => ErrorKind::Invalid,
    };
    Failure(ApiError::new(kind, text))
}

/// A JSON body.
pub(super) struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Json(value)),
            Err(error) => Err(refuse(error.status(), error.body_text())),
        }
    }
}

/// A binary body.
pub(super) struct Data(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Data {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Data(bytes)),
            Err(error) => Err(refuse(error.status(), error.body_text())),
        }
    }
}

/// What follows the question mark.
pub(super) struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Query(value)),
            Err(error) => Err(refuse(error.status(), error.body_text())),
        }
    }
}

/// The vDisk's name in the path, checked.
pub(super) struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::<String>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(name)) => {
                check_name(&name)?;
                Ok(Name(name))
            }
            Err(error) => Err(refuse(error.status(), error.body_text())),
        }
    }
}

/// The number of a layer in the path.
pub(super) struct LayerNumber(pub u32);

impl<S: Send + Sync> FromRequestParts<S> for LayerNumber {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::<u32>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(layer)) => Ok(LayerNumber(layer)),
            Err(error) => Err(refuse(error.status(), error.body_text())),
        }
    }
}

/// A schedule's name in the path, checked.
pub(super) struct ScheduleName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for ScheduleName {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::<String>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(name)) => {
                check_snapshot_name(&name)?;
                Ok(ScheduleName(name))
            }
            Err(error) => Err(refuse(error.status(), error.body_text())),
        }
    }
}

/// The names of a vDisk and of one of its snapshots in the path, checked.
pub(super) struct SnapshotName {
    pub vdisk: String,
    pub snapshot: String,
}

impl<S: Send + Sync> FromRequestParts<S> for SnapshotName {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let names = axum::extract::Path::<(String, String)>::from_request_parts(parts, state).await;
        match names {
            Ok(axum::extract::Path((vdisk, snapshot))) => {
                check_name(&vdisk)?;
                check_snapshot_name(&snapshot)?;
                Ok(SnapshotName { vdisk, snapshot })
            }
            Err(error) => Err(refuse(error.status(), error.body_text())),
        }
    }
}

/// The same, and who holds the snapshot.
pub(super) struct Hold {
    pub vdisk: String,
    pub snapshot: String,
    pub holder: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Hold {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        type Names = (String, String, String);
        match axum::extract::Path::<Names>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path((vdisk, snapshot, holder))) => {
                check_name(&vdisk)?;
                check_snapshot_name(&snapshot)?;
                check_snapshot_name(&holder)?;
                Ok(Hold {
                    vdisk,
                    snapshot,
                    holder,
                })
            }
            Err(error) => Err(refuse(error.status(), error.body_text())),
        }
    }
}
