//! One front end's connection.
//!
//! `vhost` reads and writes the messages ([`vhost::vhost_user::BackendReqHandler`]); what they mean is here, because
//! `vhost-user-backend`'s handler refuses the in-flight messages and can't be extended (docs/adr/0002-session.md).
//!
//! ```text
//!   connected ── messages ──> handler ── start / rewire / stop ──> workers
//!       │                                                            ^
//!       └── hang-up, bad message, shutdown ── stop all queues, wait ─┘
//! ```
//!
//! # State of a queue
//!
//! A queue runs when it has everything: size, addresses, kick, is enabled (SET_VRING_ENABLE, or at once where
//! PROTOCOL_FEATURES wasn't negotiated), and memory. From then on messages change its wiring at its worker, and each
//! is answered after the worker has taken it over. GET_VRING_BASE stops it: the answer comes when nothing of it is in
//! flight. Requests that wait for space would make that last for ever, so after a while they are taken back out of the store and
//! stay with the guest (see `settle_left` in `workers`).
//!
//! A session that wants to start queues while another one has the vDisk's lease (`lease`: who may, and when it changes hands) waits
//! for it or is closed; one that waits answers everything as if its queues ran.
//!
//! # Crash, disconnect
//!
//! When a connection ends, all of its queues are stopped in the same way before another one gets the lease. So two sessions never touch the same rings, and what the in-flight region says is settled when the
//! next front end hands it over. If we are killed instead, it says what was in flight: see [`crate::inflight`].

mod attachments;
mod device;
mod handler;
mod lease;
mod serve;
mod vring;

pub use attachments::{AdmitError, Attachment, Attachments, Seat};
pub use serve::{FrontEnd, serve};

#[cfg(test)]
mod handover;
#[cfg(test)]
mod tests;
