//! Placeholder
pub mod compress;
pub mod io;
