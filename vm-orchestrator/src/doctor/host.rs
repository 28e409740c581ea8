//! Limits, processors, QEMU and libvirt.

use super::{Finding, Patient, Verdict};
use crate::hook::{self, Installed};
use rustix::process::{Resource, getrlimit};
use std::path::Path;
use std::process::{Command, Stdio};

/// Descriptors that a backend with some dozens of vDisks needs: sockets, queues, segments.
const DESCRIPTORS: u64 = 4096;
/// First libvirt with `<disk type='vhostuser'>`, and first QEMU whose vhost-user-blk reconnects and resubmits.
const LIBVIRT: (u32, u32) = (7, 1);
const QEMU: (u32, u32) = (5, 2);

pub(super) fn check(patient: &Patient) -> Vec<Finding> {
    vec![
        descriptors(patient),
        locked_memory(patient),
        kvm(),
        hugepages(),
        libvirt(),
        libvirt_hook(Path::new("/etc/libvirt/hooks")),
        qemu(),
    ]
}

/// A limit of the backend's process, or of ours where there is none: (soft limit, whose).
fn limit(patient: &Patient, row: &str, own: Resource) -> (Option<u64>, String) {
    if let Ok(health) = &patient.backend
        && let Ok(text) = std::fs::read_to_string(format!("/proc/{}/limits", health.pid))
        && let Some(soft) = soft_limit(&text, row)
    {
        return (soft, format!("process {}", health.pid));
    }
    (getrlimit(own).current, "this shell".into())
}

/// The soft limit in a row of /proc/PID/limits; `Some(None)` is no limit.
fn soft_limit(text: &str, row: &str) -> Option<Option<u64>> {
    let rest = text.lines().find_map(|line| line.strip_prefix(row))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

fn descriptors(patient: &Patient) -> Finding {
    const CHECK: &str = "open files";
    match limit(patient, "Max open files", Resource::Nofile) {
        (Some(soft), who) if soft < DESCRIPTORS => Finding::bad(
            Verdict::Warning,
            CHECK,
            format!("{who} may have {soft} open: many vDisks or segments will fail"),
            "LimitNOFILE=65536 in the backend's unit, or ulimit -n 65536 before it starts",
        ),
        (Some(soft), who) => Finding::ok(CHECK, format!("{who} may have {soft} open")),
        (None, who) => Finding::ok(CHECK, format!("{who} has no limit")),
    }
}

fn locked_memory(patient: &Patient) -> Finding {
    const CHECK: &str = "locked memory";
    // io_uring has charged rings to this limit until Linux 5.12; 8 MiB hold those of 64 workers.
    match limit(patient, "Max locked memory", Resource::Memlock) {
        (Some(soft), who) if soft < 8 << 20 && kernel_is_older((5, 12)) => Finding::bad(
            Verdict::Warning,
            CHECK,
            format!("{who} may lock {soft} bytes, and this kernel charges io_uring to that"),
            "LimitMEMLOCK=64M in the backend's unit, or ulimit -l 65536 before it starts",
        ),
        (soft, who) => {
            let limit = soft.map_or("any amount".into(), |soft| format!("{soft} bytes"));
            Finding::ok(
                CHECK,
                format!("{who} may lock {limit}; nothing of ours needs more"),
            )
        }
    }
}

fn kernel_is_older(than: (u32, u32)) -> bool {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    version(&release).is_some_and(|kernel| kernel < than)
}

fn kvm() -> Finding {
    const CHECK: &str = "KVM";
    let cure = "enable virtualisation in the firmware or nested virtualisation on the outer host; without it, guests run slowly (TCG)";
    match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        // Opening says that the module is there; whether a guest runs only a guest can tell.
        Ok(_) => Finding::ok(CHECK, "/dev/kvm is there"),
        Err(error) if Path::new("/dev/kvm").exists() => Finding::bad(
            Verdict::Note,
            CHECK,
            format!("/dev/kvm: {error}"),
            "run as root or as a member of the group kvm",
        ),
        Err(_) => Finding::bad(Verdict::Note, CHECK, "there is no /dev/kvm", cure),
    }
}

fn hugepages() -> Finding {
    Finding::ok(
        "huge pages",
        "not needed: guests share ordinary memory (memfd) with the backend",
    )
}

fn libvirt() -> Finding {
    const CHECK: &str = "libvirt";
    let cure = "apt-get install libvirt-daemon-system libvirt-clients";
    let Some(text) = ask("virsh", &["--version"]) else {
        return Finding::bad(
            Verdict::Note,
            CHECK,
            "virsh is not installed; vDisks can be attached to QEMU directly",
            cure,
        );
    };
    match version(&text) {
        Some(found) if found < LIBVIRT => Finding::bad(
            Verdict::Broken,
            CHECK,
            format!("version {text} knows no <disk type='vhostuser'>: it came with 7.1"),
            "upgrade libvirt",
        ),
        _ if !["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"]
            .iter()
            .any(|path| Path::new(path).exists()) =>
        {
            Finding::bad(
                Verdict::Note,
                CHECK,
                format!("version {text} is installed, its daemon is not running"),
                "systemctl start libvirtd, or without systemd: virtlogd -d; libvirtd -d",
            )
        }
        _ => Finding::ok(CHECK, format!("version {text}")),
    }
}

fn libvirt_hook(hooks: &Path) -> Finding {
    const CHECK: &str = "libvirt's hook";
    let (verdict, found) = match hook::installed(hooks, hook::program().as_deref()) {
        Installed::Yes => return Finding::ok(CHECK, "installed"),
        Installed::No => (
            Verdict::Note,
            "not installed: a domain whose vDisks are not served hangs when it is started, and does not say why",
        ),
        Installed::Other => (
            Verdict::Note,
            "installed, of another release than this firn",
        ),
        Installed::NotExecutable => (
            Verdict::Warning,
            "it can't be run, and libvirt passes it over: domains start without being looked at",
        ),
    };
    Finding::bad(verdict, CHECK, found, "firn hooks install")
}

fn qemu() -> Finding {
    const CHECK: &str = "QEMU";
    let program = format!("qemu-system-{}", std::env::consts::ARCH);
    let Some(text) = ask(&program, &["--version"]) else {
        return Finding::bad(
            Verdict::Note,
            CHECK,
            format!("{program} is not installed"),
            "apt-get install qemu-system-x86 (or that of this machine's architecture)",
        );
    };
    let text = text.trim_start_matches("QEMU emulator version ").to_owned();
    match version(&text) {
        Some(found) if found < QEMU => Finding::bad(
            Verdict::Warning,
            CHECK,
            format!("version {text} does not resubmit requests after the backend's restart"),
            "upgrade QEMU to 5.2 or newer",
        ),
        _ => Finding::ok(CHECK, format!("version {text}")),
    }
}

/// The first line that a program prints.
fn ask(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()?
        .trim()
        .to_owned();
    output.status.success().then_some(text)
}

/// Major and minor number at the start of a text.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_can_not_be_run_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(libvirt_hook(dir.path()).verdict, Verdict::Note);
        let copy = hook::copy(dir.path());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::write(copy, "").unwrap();
        assert_eq!(libvirt_hook(dir.path()).verdict, Verdict::Warning);
    }

    #[test]
    fn versions_and_limits_are_read() {
        assert_eq!(version("11.3.0"), Some((11, 3)));
        assert_eq!(version("10.0.2 (Debian 1:10.0.2+ds-2)"), Some((10, 0)));
        assert_eq!(version("6.12.3-amd64"), Some((6, 12)));
        assert_eq!(version("unknown"), None);
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n\
                    Max locked memory         unlimited            unlimited            bytes     \n";
        assert_eq!(soft_limit(text, "Max open files"), Some(Some(1024)));
        assert_eq!(soft_limit(text, "Max locked memory"), Some(None));
        assert_eq!(soft_limit(text, "Max nothing"), None);
    }
}
