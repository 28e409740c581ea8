//! Whole-product tests of Firn, and the tools they share with the benchmark.
//!
//! * [`client`]: a user-space vhost-user-blk front end, as QEMU would be one, without a guest.
//! * [`guest`]: QEMU with a real guest in it.
//! * [`host`]: a host with a systemd of its own, where packages are installed.
//! * [`libvirt`]: a host with a libvirtd of its own.
//! * [`pair`]: two such hosts, one backend and a guest between them.
//! * [`pattern`]: block contents that say where they belong and how well they compress.
//! * [`steps`]: a load in a guest that notices when its disk and its memory are of different instants.
//! * [`verify`]: which contents a sector may have, given what was written, acknowledged and flushed.
//! * [`rig`]: a store with its backend, for one test.
//! * [`server`]: starts, kills and restarts the backends under test.
//! * [`workload`]: a load that checks all of that.
//! * [`measure`]: latency histograms and what `/proc` says of a server.

pub mod client;
pub mod guest;
pub mod host;
pub mod libvirt;
pub mod measure;
pub mod pair;
pub mod pattern;

pub mod rig;
pub mod server;
pub mod steps;
pub mod verify;
pub mod workload;
