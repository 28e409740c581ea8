//! Snapshots: layers are sealed by a cut, named by the catalogue, and merged into their child when nothing names them.

mod calendar;
mod changed;
mod cut;
mod due;
mod entries;
mod merge;
mod presence;
mod retain;
mod tree;
mod usage;

pub use calendar::{begin_of_slot, stamp};
pub use changed::{Part, changed};
pub use cut::{apply_cut, cut};
pub use due::{Due, due, pause_after, pause_after_failure};
pub use merge::{Tidied, drop_layer, tidy};
pub use presence::{blocks_of, build_one};
pub use retain::{Candidate, Reason, retain};
#[cfg(test)]
pub(crate) use tree::tests::catalogue;
pub use tree::{
    Above, Graft, Spread, Task, above, ancestors, differing, graft, next_task, to_take_over,
    top_of_row,
};
pub use usage::{Usage, usage};
