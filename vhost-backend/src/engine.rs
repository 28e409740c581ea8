//! What the data path needs of a store: implemented by `block-store`'s lanes, and by a RAM disk in tests, which can
//! complete out of order, stall and fail on request.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::memory::GuestPayload;

pub use block_store::{Command, Done, Payload, PayloadError, RequestError};

/// A vDisk, as far as a guest sees it.
pub trait Disk: Send + Sync + 'static {
    /// Its name.
    fn name(&self) -> &str;
    /// Bytes; may grow at any time.
    fn size(&self) -> u64;
    /// What GET_ID tells.
    fn serial(&self) -> [u8; 20];
    /// Whether it refuses writes.
    fn read_only(&self) -> bool;
    /// Whether writes may be volatile until a flush.
    fn write_cache(&self) -> bool;
    /// Switches that, durably.
    fn set_write_cache(&self, on: bool) -> Result<(), String>;
}

/// One worker's way into the store; see `block_store::Lane`, whose words these are.
pub trait Engine: 'static {
    /// Its vDisks.
    type Disk: Disk;
    /// Takes a request in.
    fn submit(&mut self, disk: &Arc<Self::Disk>, command: Command<GuestPayload>, tag: u64);
    /// Pushes I/O to the kernel and collects what is done.
    fn poll(&mut self, done: &mut Vec<Done<GuestPayload>>);
    /// Descriptors that become readable when `poll` has something to do.
    fn pollable(&self) -> Vec<RawFd>;
    /// Hands back requests that are not begun or wait for space, as cancelled.
    fn cancel_stalled(&mut self, done: &mut Vec<Done<GuestPayload>>, which: &dyn Fn(u64) -> bool);
}
