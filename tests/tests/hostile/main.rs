//! A front end that means harm, against the real backend. What it does may cost it its own connection or queue; the
//! backend says what it refused, and a neighbour on another vDisk, served by the same worker, notices nothing.
//!
//! What needs no process is tested nearer to the code: single descriptors in `virtq/chain/tests.rs`, forged regions in
//! `inflight/region/tests.rs`, statuses in `session/tests.rs`.

mod flood;
mod memory;
mod messages;
mod queues;
mod rings;
mod scene;
mod second;
