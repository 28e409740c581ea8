//! The worker threads: a fixed number, each serving queues of many vDisks.
//!
//! ```text
//!   session threads ── start/update/stop, answered ──> worker 0 ── owns ──> queues, its lane into the store
//!   (control plane)                                    worker 1 ── owns ──> ...
//! ```
//!
//! A queue belongs to exactly one worker, which owns all of its state: so the data path takes no lock. Sessions change
//! a queue by sending its worker an [`Order`] and waiting for the answer. Queues are dealt out round robin.
//!
//! A worker sleeps in one epoll: the queues' kicks, its lane's descriptors, and the arrival of orders. While it has
//! work it looks at its queues without being kicked; when a round brought nothing it asks for kicks again, looks once
//! more, and sleeps; where the next request tends to come soon it goes on looking for some microseconds before that
//! (`patience`). No timers: an idle backend uses no CPU.
//!
//! | module | does |
//! |---|---|
//! | [`pool`](self) | threads and dealing out |
//! | `worker` | the loop |
//! | `queue` | one queue: starting, taking heads, publishing answers, stopping |
//! | `execute` | from a head to a request |
//! | `request` | one request: which commands the store must carry out for it |
//! | `patience` | how long to look before sleeping |
//! | `event` | eventfds of a front end, which may be anything |

mod event;
mod execute;
mod order;
mod patience;
mod pool;
pub(crate) mod queue;
mod request;
mod worker;

pub use event::{Call, EventError, Kick};
pub use order::{Haste, Order, QueueKey, QueueSetup, QueueWiring, StartError, Stopped};
pub use pool::{Pool, PoolError, Pulse, WorkerHandle};
