//! What was in flight when the backend died: INFLIGHT_SHMFD for split queues.
//!
//! The front end keeps a shared-memory region for us over our death and hands it to the next backend. In it, per
//! queue, we note which heads we have taken and not yet given back. With it, requests may complete in any order and
//! a restart is still exact; without it a front end can only assume that requests complete in ring order.
//!
//! # Crash
//!
//! Taking a request (worker, before the store hears of it):
//!
//! 1. read the head from the avail ring,
//! 2. store its `counter` (one more than the last one's),
//! 3. store `inflight = 1`,
//! 4. advance our private position in the avail ring, and submit.
//!
//! Giving a batch back, when the store has finished all of it:
//!
//! 5. write data and status to guest memory,
//! 6. per head: write its used element; store `next = last_batch_head`, then `last_batch_head = head`,
//! 7. store the used ring's index, once: **this is the moment at which the guest can see the batch**,
//! 8. per head: store `inflight = 0`,
//! 9. store the region's `used_idx` = the used ring's index.
//!
//! After a death, at whichever step, [`QueueRegion::recover`]
//!
//! - finds the used ring's index ahead of `used_idx` by n if and only if the death was between 7 and 9, and then
//!   clears the n heads that are linked from `last_batch_head`: the published batch. So **a request is never executed
//!   again once its used index was published**;
//! - finds every other head that is marked was taken and not published: it is executed (again), in the order of the
//!   counters, before anything new. So **nothing taken is lost**;
//! - takes next from the avail ring what follows: entries taken = entries published + entries in flight, so the
//!   position is the used index plus the number of heads marked. A death between 1 and 3 has marked nothing and
//!   moved nothing.
//!
//! Stores go to shared memory in program order (release), and the kernel keeps shared memory when a process dies:
//! nothing else is needed against SIGKILL. Power loss takes the guest along, and the region with it.
//!
//! # Why executing a write again is right
//!
//! Say write A was in flight at the death, and the store had or had not executed it. Executing it now could put A's data
//! over that of a *newer* write B to the same blocks only if B was taken after A and published before the death. B
//! was then submitted by the guest while A was in flight: two overlapping writes at the same time, and the device may
//! order them as it likes (virtio-blk has no ordering but FLUSH, which covers only completed writes); A after B is one
//! of those orders. If the guest submitted B *because* A had completed, then A's used index was published, and A is not
//! executed again. Overlapping requests that were all in flight are executed in the order of their counters, the order in
//! which they were taken at first. The same holds for discards and write-zeroes; reads and flushes have no effect to
//! repeat. The data of A is read from guest memory again: the buffers belong to the device until A is published.
//!
//! # Hostile input
//!
//! The region comes from the front end's hands. Every value is bounds-checked when it is read, loops are
//! bounded by the queue's size, and a region that can't belong to the ring it is given for (see
//! [`QueueRegion::recover`]) is started afresh, with a warning, instead of being believed.

mod region;
mod tracker;

pub use region::{InflightError, InflightRegion, QueueRegion, Recovery};
pub use tracker::Tracker;
