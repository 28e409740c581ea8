//! virtio-blk (virtio 1.2, section 5.2), without a queue or a socket in sight.
//!
//! [`config`] is the configuration space and the features, [`request`] takes the buffers of a chain apart into what
//! the guest asks for, [`token`] makes sure that every request is answered.

pub mod config;
pub mod request;
pub mod token;
