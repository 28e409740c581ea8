//! Real guests: QEMU, booting Debian through SeaBIOS and GRUB from disks served over vhost-user-blk.
//!
//! * [`Machine`]: one QEMU process with its disks, consoles and control channels.
//! * [`Agent`]: runs commands in the guest, over its second serial port.
//! * [`Qmp`]: QEMU's own control protocol.
//! * [`image`] and [`accelerator`]: the system disk to boot, and what to run it with.
//!
//! Errors are [`std::io::Error`]s whose text names what was waited for; a guest's own words
//! (its console) are quoted where they tell more than the host knows.

mod agent;
mod machine;
mod qmp;

pub use agent::{Agent, Answer, Ticket};
pub use machine::{Machine, MachineSpec};
pub use qmp::Qmp;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest boot: through firmware and boot loader, on TCG, with other tests beside it.
pub(crate) const BOOT: Duration = Duration::from_secs(180);

/// The last lines of a log, indented; none where it is not there.
pub(crate) fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let skip = text.lines().count().saturating_sub(15);
    text.lines()
        .skip(skip)
        .map(|line| format!("  {}\n", line.trim_end()))
        .collect()
}

/// Builds (or finds, when already built) the guest's system disk: a raw, sparse file. Do not write to it.
pub fn image() -> io::Result<PathBuf> {
    Ok(PathBuf::from(script("image")?).join("system.img"))
}

/// The accelerator that really runs a guest here: `kvm` or `tcg`.
pub fn accelerator() -> io::Result<String> {
    script("accel")
}

/// Runs one of the scripts beside the guest's files and returns what it prints.
fn script(name: &str) -> io::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("guest")
        .join(name);
    let output = Command::new(&path)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "{} failed: {}",
            path.display(),
            output.status
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
