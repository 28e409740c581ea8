//! What the tests of this crate and fuzz/ share: a disk in memory that does as it is told, a guest's side of the rings,
//! a front end that connects the two as QEMU would, a queue that is served without a thread, and
//! a store in memory behind the control API.

mod front;
mod guest;
mod queue;
mod ram;
mod snapshots;
mod target;

pub use front::{
    Attached, Connect, addresses, connect, event, pool, prepare, shake_hands, shake_hands_among,
};
pub use guest::{Guest, MEMORY_AT, USER_AT, seg_in, seg_out};
pub use queue::BareQueue;
pub use ram::{RamDisk, Seen, Trick};
pub use target::MemoryTarget;

use std::time::{Duration, Instant};

/// Waits for something that must become true soon.
pub fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "timed out: {what}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
