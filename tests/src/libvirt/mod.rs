//! A host of libvirt's, beside whatever else this machine is: namespaces with their own `/run`, `/etc/libvirt` and processes, where a real
//! libvirtd starts real QEMUs. Takes root, and nothing of it outlives this.
//!
//! * [`LibvirtHost`]: the host, with libvirt alone.
//! * [`FirnHost`]: with Firn, its hook and a store.
//! * [`LibvirtGuest`]: a Debian guest in a domain there.
//! * [`Load`]: what runs in it and notices when its disk and its memory are of different instants.

mod firn_host;
mod guest;
mod load;

pub use firn_host::{FirnHost, PROMPT};
pub use guest::{GuestSpec, LibvirtGuest};
pub use load::Load;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::rig::PATIENCE;
use crate::server::Binaries;

/// What a host does first, in its namespaces; `$0` is a directory of its own, `$1` its name, `$2` nothing or what its `/run/firn` is.
/// libvirt's sockets and those of its guests can be reached from outside, in `$0/sockets`.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs tmpfs /run
hostname "$1"
for place in etc lib log cache sockets; do mkdir -p "$0/$place"; done
mkdir -p /run/libvirt /run/firn
mount --bind "$0/sockets" /run/libvirt
[ -z "$2" ] || mount --bind "$2" /run/firn
mkdir -p "$0/etc/hooks" /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
cp -a /etc/libvirt/qemu.conf /etc/libvirt/libvirtd.conf /etc/libvirt/virtlogd.conf "$0/etc/" 2>/dev/null || true
# Guests as root, without what takes a systemd.
printf '%s\n' 'user = "root"' 'group = "root"' 'security_driver = "none"' 'namespaces = []' 'cgroup_controllers = []' \
    'remember_owner = 0' >> "$0/etc/qemu.conf"
# A host is told from another by this, and clients of other hosts have no process ids here.
printf 'host_uuid = "%s"\nauth_unix_rw = "none"\n' "$(cat /proc/sys/kernel/random/uuid)" >> "$0/etc/libvirtd.conf"
mount --bind "$0/etc" /etc/libvirt
mount --bind "$0/lib" /var/lib/libvirt
mount --bind "$0/log" /var/log/libvirt
mount --bind "$0/cache" /var/cache/libvirt
ip link set lo up 2>/dev/null || true
virtlogd -d
echo ready > "$0/ready"
# Whose parent has gone is this one's, and to be waited for: a shell does that, and sleep does not.
while sleep 1000; do :; done
"#;

/// How long a program may take that is not said to take longer.
const LIMIT: Duration = Duration::from_secs(120);

/// A host with libvirt, and with Firn's programs in the path.
#[derive(Debug)]
pub struct LibvirtHost {
    unshare: Child,
    /// The first process in its namespaces: when that ends, all do.
    first: u32,
    binaries: Binaries,
    dir: TempDir,
}

impl LibvirtHost {
    /// Starts it, with libvirtd.
    pub fn start(binaries: Binaries) -> io::Result<Self> {
        Self::start_as("host", None, binaries)
    }

    /// The same with a name, and maybe with another host's directory for its `/run/firn`.
    pub fn start_as(name: &str, firn: Option<&Path>, binaries: Binaries) -> io::Result<Self> {
        let dir = TempDir::with_prefix("firn-libvirt-")?;
        // Whatever becomes of the test, nothing of the host stays.
        let unshare = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare"])
            .args([
                "--mount",
                "--net",
                "--uts",
                "--pid",
                "--fork",
                "--mount-proc",
            ])
            .args([
                "--kill-child",
                "--propagation",
                "private",
                "bash",
                "-c",
                SCRIPT,
            ])
            .arg(dir.path())
            .arg(name)
            .arg(firn.unwrap_or(Path::new("")))
            .stdin(Stdio::null())
            .spawn()?;
        let mut host = Self {
            unshare,
            first: 0,
            binaries,
            dir,
        };
        host.wait_for("its namespaces", |host| {
            let id = host.unshare.id();
            let children = format!("/proc/{id}/task/{id}/children");
            let children = fs::read_to_string(children).unwrap_or_default();
            host.first = children.trim().parse().unwrap_or(0);
            host.first != 0 && host.dir.path().join("ready").exists()
        })?;
        host.start_libvirtd()?;
        Ok(host)
    }

    /// A directory that its processes see as this one does.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where its `/run/libvirt` is seen from other hosts.
    pub fn sockets(&self) -> PathBuf {
        self.dir().join("sockets")
    }

    /// The URI that other hosts know its libvirt by.
    pub fn uri(&self) -> String {
        let socket = self.sockets().join("libvirt-sock");
        format!("qemu+unix:///system?socket={}", socket.display())
    }

    /// Installs the hook, as a user would.
    pub fn install_hook(&self) -> io::Result<String> {
        let said = self.must(&["firn", "hooks", "install"])?;
        self.must(&["pkill", "-HUP", "-x", "libvirtd"])?;
        Ok(said)
    }

    /// A program to be run in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let first = self.first.to_string();
        command.args([
            "--target", &first, "--mount", "--net", "--uts", "--pid", "--",
        ]);
        match program {
            "firn" => command.arg(&self.binaries.cli),
            "firn-vhost-backend" => command.arg(&self.binaries.backend),
            "firn-orchestrator" => command.arg(&self.binaries.orchestrator),
            other => command.arg(other),
        };
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program that must succeed; what it prints.
    pub fn must(&self, line: &[&str]) -> io::Result<String> {
        succeeded(line, self.run(line)?)
    }

    /// Runs a program that must fail; what it says.
    pub fn must_not(&self, line: &[&str]) -> io::Result<String> {
        let output = self.run(line)?;
        if output.status.success() {
            return Err(io::Error::other(format!("{} went well", line.join(" "))));
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Like [`must`](Self::must), for what takes its time.
    pub fn must_within(&self, limit: Duration, line: &[&str]) -> io::Result<String> {
        succeeded(line, self.limited(limit, line)?.output()?)
    }

    /// Starts a program, whatever comes of it.
    pub fn start_program(&self, line: &[&str]) -> io::Result<Child> {
        self.limited(LIMIT, line)?
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }

    fn run(&self, line: &[&str]) -> io::Result<Output> {
        self.limited(LIMIT, line)?.output()
    }

    fn limited(&self, limit: Duration, line: &[&str]) -> io::Result<Command> {
        let (program, args) = line
            .split_first()
            .ok_or_else(|| io::Error::other("no program"))?;
        // libvirt waits for ever where it waits.
        let mut command = self.command("timeout");
        command.arg(limit.as_secs().to_string());
        match *program {
            "firn" => command.arg(&self.binaries.cli),
            "virsh" => command.args(["virsh", "--quiet", "--connect", "qemu:///system"]),
            other => command.arg(other),
        };
        command.args(args);
        Ok(command)
    }

    /// `virsh` that must succeed.
    pub fn virsh(&self, args: &[&str]) -> io::Result<String> {
        self.must(&[&["virsh"], args].concat())
    }

    /// `virsh` that must fail; what it says.
    pub fn virsh_fails(&self, args: &[&str]) -> io::Result<String> {
        self.must_not(&[&["virsh"], args].concat())
    }

    /// Defines a domain.
    pub fn define(&self, xml: &str) -> io::Result<()> {
        let file = self.dir().join("domain.xml");
        fs::write(&file, xml)?;
        self.virsh(&["define", &file.display().to_string()])
            .map(drop)
    }

    /// Starts libvirtd, and waits until it answers.
    pub fn start_libvirtd(&mut self) -> io::Result<()> {
        self.must(&["libvirtd", "-d"])?;
        self.wait_for("libvirtd", |host| host.virsh(&["version"]).is_ok())
    }

    /// Ends libvirtd; guests go on.
    pub fn stop_libvirtd(&mut self) -> io::Result<()> {
        self.must(&["pkill", "-x", "libvirtd"])?;
        let gone = |host: &mut Self| host.must(&["pgrep", "-x", "libvirtd"]).is_err();
        if self.wait_for("libvirtd's end", gone).is_err() {
            // Now and then it waits for a thread of its own for ever: systemd would do the same.
            self.must(&["pkill", "-KILL", "-x", "libvirtd"])?;
        }
        self.wait_for("libvirtd's end", gone)
    }

    fn wait_for(
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

fn succeeded(line: &[&str], output: Output) -> io::Result<String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("{}: {said}", line.join(" "))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Drop for LibvirtHost {
    fn drop(&mut self) {
        // With --kill-child the namespaces' first process goes, and with that all the others.
        drop(self.unshare.kill());
        drop(self.unshare.wait());
        let first = format!("/proc/{}", self.first);
        drop(self.wait_for("the host's end", |_| !Path::new(&first).exists()));
    }
}
