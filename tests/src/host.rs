//! A host of its own, beside whatever else this machine is: namespaces with a root over this machine's (an overlay in memory, so that nothing
//! of this machine changes) and a real systemd as their first process. Packages are installed and removed there. Takes root, and nothing of it outlives this.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest time for one command, or for the host to come up, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A host with systemd.
#[derive(Debug)]
pub struct SystemdHost {
    unshare: Child,
    /// systemd: when it ends, all of the host does.
    first: u32,
    dir: TempDir,
}

impl SystemdHost {
    /// Boots it.
    pub fn boot() -> io::Result<Self> {
        let dir = TempDir::with_prefix("firn-host-")?;
        let log = fs::File::create(dir.path().join("boot.log"))?;
        // Whatever becomes of the test, nothing of the host stays.
        let unshare = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--net",
                "--uts",
                "--ipc",
            ])
            .args([
                "--cgroup",
                "--pid",
                "--fork",
                "--kill-child",
                "--propagation",
                "private",
            ])
            .args(["bash", "-c", include_str!("host/boot.sh")])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut host = Self {
            unshare,
            first: 0,
            dir,
        };
        let up = host.wait_for("systemd", |host| {
            let id = host.unshare.id();
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            host.first = children.unwrap_or_default().trim().parse().unwrap_or(0);
            host.first != 0
                && host
                    .must(&["systemctl", "is-active", "multi-user.target"])
                    .is_ok()
        });
        up.map_err(|error| {
            let log = fs::read_to_string(host.dir.path().join("boot.log"));
            io::Error::other(format!("{error}: {}", log.unwrap_or_default()))
        })?;
        Ok(host)
    }

    /// A directory that is `/mnt` there.
    pub fn shared(&self) -> PathBuf {
        self.dir.path().join("shared")
    }

    /// What is this file there, for processes here.
    pub fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{file}", self.first))
    }

    /// Runs a program that must succeed; what it prints, without white space around it.
    pub fn must(&self, line: &[&str]) -> io::Result<String> {
        let output = self.run(line)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if !output.status.success() {
            let said = format!("{} {}", text(&output.stdout), text(&output.stderr));
            return Err(io::Error::other(format!("{}: {said}", line.join(" "))));
        }
        Ok(text(&output.stdout))
    }

    /// Runs a program that must fail; what it says.
    pub fn must_not(&self, line: &[&str]) -> io::Result<String> {
        let output = self.run(line)?;
        if output.status.success() {
            return Err(io::Error::other(format!("{} went well", line.join(" "))));
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn run(&self, line: &[&str]) -> io::Result<Output> {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.first.to_string(),
                "--mount",
                "--net",
                "--uts",
            ])
            .args(["--ipc", "--cgroup", "--pid", "--", "timeout"])
            .arg(PATIENCE.as_secs().to_string())
            .args(line)
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command.output()
    }

    /// Shuts it down in order; what its journal says.
    pub fn power_off(mut self) -> io::Result<String> {
        self.must(&["systemctl", "poweroff"])?;
        self.wait_for("the host's end", |host| {
            host.unshare.try_wait().is_ok_and(|ended| ended.is_some())
        })?;
        let journal = Command::new("journalctl")
            .args(["--no-pager", "--output", "short-precise", "--directory"])
            .arg(self.shared().join("journal"))
            .output()?;
        Ok(String::from_utf8_lossy(&journal.stdout).into_owned())
    }

    /// Waits for something that must come.
    pub fn wait_for(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&mut Self) -> bool,
    ) -> io::Result<()> {
        let began = Instant::now();
        while !condition(self) {
            if began.elapsed() > PATIENCE {
                let what = format!("{what} did not come within {} s", PATIENCE.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for SystemdHost {
    fn drop(&mut self) {
        // With --kill-child the namespaces' first process goes, and with that all the others.
        drop(self.unshare.kill());
        drop(self.unshare.wait());
        let first = format!("/proc/{}", self.first);
        drop(self.wait_for("the host's end", |_| !Path::new(&first).exists()));
    }
}
