//! Pins the on-disk format: every size and offset that `docs/disk-format.md` names is held against the code, and golden
//! images of each format must open and read back.
//!
//! `FIRN_REGENERATE_GOLDEN=1` writes the golden images of the present format anew; see `golden.rs`.

mod doc;
mod golden;
mod layout;
#[path = "../histories/sim.rs"]
mod sim;
