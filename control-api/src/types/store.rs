//! The store and the process that serves it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Version of the backend's program.
    pub version: String,
    /// Version of the API: [`crate::API_VERSION`].
    pub api: u32,
    /// The backend's process id.
    pub pid: u32,
    /// Directory of the store that it serves.
    pub store: String,
    /// Its runtime directory.
    pub run: String,
    /// Seconds since it started to serve.
    pub uptime_seconds: u64,
}

/// The store's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StoreStatus {
    /// The store's identity.
    pub uuid: Uuid,
}
