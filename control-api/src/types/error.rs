//! The one shape of every answer that is not a success.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for a program to decide upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is malformed or asks for what can't be (HTTP 400).
    Invalid,
    /// There is no such vDisk, snapshot, import or endpoint (404).
    NotFound,
    /// The name is taken (409).
    AlreadyExists,
    /// Not now: a front end is attached, or another operation holds it (409).
    Busy,
    /// Allowed only when the request says so explicitly, or never (403).
    Refused,
    /// The body is larger than the endpoint takes (413).
    TooLarge,
    /// The store has no room for it (507).
    NoSpace,
    /// The store's bytes fail their checks (500).
    Damaged,
    /// The backend is starting or stopping (503).
    Unavailable,
    /// Anything else: the backend's log says more (500).
    #[serde(other)]
    Internal,
}

impl ErrorKind {
    /// The HTTP status that this kind travels with.
    pub fn status(self) -> u16 {
        match self {
            ErrorKind::Invalid => 400,
            ErrorKind::NotFound => 404,
            ErrorKind::AlreadyExists | ErrorKind::Busy => 409,
            ErrorKind::Refused => 403,
            ErrorKind::TooLarge => 413,
            ErrorKind::NoSpace => 507,
            ErrorKind::Unavailable => 503,
            ErrorKind::Damaged | ErrorKind::Internal => 500,
        }
    }
}

/// Body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: names the thing.
    pub message: String,
    /// For people: the way out, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// An error without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ApiError {
        ApiError {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// The same error with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> ApiError {
        self.hint = Some(hint.into());
        self
    }
}

impl From<crate::LimitError> for ApiError {
    fn from(error: crate::LimitError) -> ApiError {
        ApiError::new(ErrorKind::Invalid, error.to_string())
    }
}
