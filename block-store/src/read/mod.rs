//! The read path: map -> runs -> reads of whole pages -> verify -> decompress -> the caller.

mod finish;
mod node;
mod plan;
mod search;
mod sweep;

pub use finish::{Decoder, Fault, verify};
pub use node::NodeRead;
pub use plan::{PageRead, Progress, Run, Source, page_reads, plan};
pub use search::Search;
pub use sweep::{Sweep, sweep};
