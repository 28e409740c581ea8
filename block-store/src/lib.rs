//! Placeholder
pub mod io;
