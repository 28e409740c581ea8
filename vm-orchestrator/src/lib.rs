//! `firn`: the command line people use.
//!
//! ```text
//!  args      what was typed (clap)         settings  what follows from it, the environment and the terminal
//!  commands  one small file each           failure   errors, hints and exit codes
//!  units     sizes in and out              output    tables, JSON, standard output
//!  import    sources of raw disks          progress  bars and lines
//!  doctor    checks of this host           xml       libvirt's elements
//!  hook      what libvirt calls
//! ```
//!
//! Everything goes through the backend's control socket, except `firn store init`, `firn store check` and `firn doctor`,
//! which look at files themselves.

pub mod args;
pub mod commands;
mod doctor;
mod domain;
pub mod failure;
mod hook;
pub mod hypervisor;
mod import;
pub mod interrupt;
pub mod logging;
pub mod orchestrator;
mod output;
mod progress;
pub mod settings;
pub mod units;
mod xml;
