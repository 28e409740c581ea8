//! The read path: map -> runs -> reads of whole pages -> verify -> decompress -> the caller.

mod finish;
mod node;
mod plan;

pub use finish::{Decoder, Fault, verify};
pub use node::NodeRead;
pub use plan::{PageRead, Run, Source, page_reads, plan};
