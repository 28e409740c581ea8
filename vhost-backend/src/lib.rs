//! firn-vhost-backend.
pub mod control;
