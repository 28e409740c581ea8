//! Split virtqueues (virtio 1.2, section 2.7), seen from the device.
//!
//! [`chain`] turns a head into the spans of memory that its descriptors name: a pure function over a trait, because
//! it is what a hostile guest talks to first. [`ring`] is the avail and used rings with their memory ordering and
//! notification suppression. Packed queues are not offered: the in-flight region knows a layout for them, and
//! nothing that Firn serves needs it.

pub mod chain;
pub mod ring;
