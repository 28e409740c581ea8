//! The load of [`steps`](crate::steps) in a guest.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{FirnHost, LibvirtGuest};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A load that was started in a guest. It has nothing but what the guest has.
#[derive(Debug)]
pub struct Load;

impl Load {
    /// Starts it on a device of the guest's. `program`: `firn-guest-pattern` of this build.
    pub fn start(
        host: &FirnHost,
        guest: &mut LibvirtGuest,
        program: &Path,
        device: &str,
        mib: u64,
    ) -> Result<Self> {
        let program = guest.install(&host.libvirt, program)?;
        let run = format!(
            "{program} {device} {mib} /run/progress >/run/said 2>&1 & until [ -s /run/progress ]; do sleep 0.1; done"
        );
        guest.must(&run, Duration::from_secs(30))?;
        Ok(Self)
    }

    /// The step it is at, and how often it has read its whole device. An error: it has seen something wrong, or has ended.
    pub fn progress(&self, guest: &mut LibvirtGuest) -> Result<(u64, u64)> {
        let said = guest.must("cat /run/progress", Duration::from_secs(60))?;
        let words: Vec<&str> = said.split_whitespace().collect();
        match words[..] {
            ["step", step, "passes", passes] => Ok((step.parse()?, passes.parse()?)),
            _ => Err(said.into()),
        }
    }

    /// Waits until it has read its whole device so many times more; the step it is at.
    pub fn wait_for_passes(&self, guest: &mut LibvirtGuest, count: u64) -> Result<u64> {
        let began = Instant::now();
        let mut until = None;
        loop {
            let (step, passes) = self.progress(guest)?;
            if passes >= *until.get_or_insert(passes + count) {
                return Ok(step);
            }
            if began.elapsed() > Duration::from_secs(90) {
                return Err(format!("too slow: step {step}, pass {passes}").into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
