//! The write path: blocks -> pieces (pure, outside of the lock) -> log and map (one critical section each).

mod apply;
mod pool;
mod prepare;

pub(crate) use apply::{append, clear, point_at};
pub use apply::{apply, apply_range};
pub use pool::{PackJob, Packed, Packers};
pub use prepare::{Body, Packer, Piece, PreparedWrite};
