//! Snapshots: layers are sealed by a cut, named by the catalogue, and merged into their child when nothing names them.

mod changed;
mod cut;
mod entries;
mod merge;
mod presence;
mod tree;
mod usage;

pub use changed::{Part, changed};
pub use cut::{apply_cut, cut};
pub use merge::{Tidied, drop_layer, tidy};
pub use presence::{blocks_of, build_one};
pub use tree::{
    Above, Over, Task, above, ancestors, differing, next_task, read_layers, top_of_row,
};
pub use usage::{Usage, usage};
