//! The Debian package on a host with systemd: installed, upgraded under a running guest, removed, purged; and what its units promise.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use firn_tests::guest::{self, Machine, MachineSpec};
use firn_tests::host::SystemdHost;
use firn_tests::server::Binaries;

type TestResult = Result<(), Box<dyn Error>>;

const SECOND: Duration = Duration::from_secs(1);
const BACKEND: &str = "firn-vhost-backend.service";
const UNITS: [&str; 2] = [BACKEND, "firn-orchestrator.service"];
const STORE: &str = "/var/lib/firn/store";

/// Packs the programs beside this one, once for each test; under which name they are in the host.
fn package(host: &SystemdHost) -> Result<String, Box<dyn Error>> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock();
    let built = Binaries::find()?.cli.parent().map(PathBuf::from);
    let built = built.ok_or("the programs are nowhere")?;
    assert!(
        built.ends_with("debug"),
        "packaging/deb --debug packs those"
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/deb");
    let output = Command::new(script)
        .args(["--debug", "--out"])
        .arg(host.shared().join("firn.deb"))
        .env(
            "CARGO_TARGET_DIR",
            built.parent().ok_or("no target directory")?,
        )
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Ok("/mnt/firn.deb".to_owned())
}

/// The same package as of a later version.
fn newer(host: &SystemdHost, package: &str) -> Result<String, Box<dyn Error>> {
    const PACK: &str = "dpkg-deb -R $0 /tmp/newer && sed -i 's/^Version: .*/&+1/' /tmp/newer/DEBIAN/control && \
                        dpkg-deb -Znone -b /tmp/newer /mnt/newer.deb && rm -r /tmp/newer";
    host.must(&["sh", "-c", PACK, package])?;
    Ok("/mnt/newer.deb".to_owned())
}

fn main_process(host: &SystemdHost) -> std::io::Result<String> {
    host.must(&[
        "systemctl",
        "show",
        "--property",
        "MainPID",
        "--value",
        BACKEND,
    ])
}

/// What there is with our name, outside of the package manager's own records of what was once there.
fn traces(host: &SystemdHost) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let found = ["find", "/etc", "/usr", "/var", "/run", "-iname", "*firn*"];
    let not = ["-not", "-path", "/run/systemd/*", "-not", "-path", "/sys/*"];
    let found = host.must(&[&found[..], &not].concat())?;
    Ok(found.lines().map(str::to_owned).collect())
}

#[test]
fn it_is_installed_upgraded_under_a_guest_and_removed() -> TestResult {
    let mut host = SystemdHost::boot()?;
    let before = traces(&host)?;
    let deb = package(&host)?;
    host.must(&["dpkg", "-i", &deb])?;
    for unit in UNITS {
        assert_eq!(host.must(&["systemctl", "is-enabled", unit])?, "enabled");
        host.must(&["systemd-analyze", "verify", "--man=no", unit])?;
        // 0 to 100; what the rest is for the units say.
        let security = ["systemd-analyze", "security", "--threshold=30", unit];
        host.must(&security)?;
    }
    host.must(&["systemctl", "is-active", "firn-orchestrator.service"])?;
    // Without a store there is nothing to serve, which is no failure.
    assert_eq!(main_process(&host)?, "0");
    host.must_not(&["systemctl", "is-failed", BACKEND])?;
    let hook = host.must(&["firn", "hooks", "status"])?;
    assert!(hook.contains("installed\n"), "{hook}");
    for file in ["man/man1/firn.1", "man/man8/firn-vhost-backend.8"] {
        host.must(&["sh", "-c", "ls /usr/share/$0*", file])?;
    }

    host.must(&["firn", "store", "init", STORE])?;
    host.must(&["systemctl", "start", BACKEND])?;
    let image = guest::image()?.display().to_string();
    host.must(&["firn", "vdisk", "import", &image, "system"])?;
    host.must(&["firn", "vdisk", "create", "data", "8G"])?;
    let machine_dir = host.shared().join("vm");
    fs::create_dir(&machine_dir)?;
    let spec = MachineSpec {
        disks: vec![
            host.path("/run/firn/system.sock"),
            host.path("/run/firn/data.sock"),
        ],
        vcpus: 1,
        memory_mib: 512,
    };
    let mut machine = Machine::boot(&spec, &machine_dir)?;

    // The guest writes, syncs and notes checksums meanwhile.
    machine.must("mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt", 60 * SECOND)?;
    let source = "dd if=/dev/urandom of=/run/source bs=1M count=16 status=none";
    machine.must(source, 60 * SECOND)?;
    machine.must(
        "firn-writer /mnt /run/source >/dev/null 2>&1 &",
        60 * SECOND,
    )?;
    let first = main_process(&host)?;
    let newer = newer(&host, &deb)?;
    let began = Instant::now();
    host.must(&["dpkg", "-i", &newer])?;
    let upgraded = main_process(&host)?;
    assert_ne!(upgraded, first, "the backend is still the old one");
    println!(
        "upgraded under the guest in {:.1} s",
        began.elapsed().as_secs_f32()
    );
    machine.must("sync", 60 * SECOND)?;

    // Killed, it is there again by itself.
    host.must(&["kill", "-9", &upgraded])?;
    host.wait_for("a new backend", |host| {
        main_process(host).is_ok_and(|now| now != "0" && now != upgraded)
    })?;
    host.must(&["firn", "store", "status"])?;
    machine.must("sync", 60 * SECOND)?;

    // Stopped, it is not: not by a client either.
    host.must(&["systemctl", "stop", BACKEND])?;
    host.must_not(&["firn", "store", "status"])?;
    assert_eq!(main_process(&host)?, "0");
    host.must(&["systemctl", "start", BACKEND])?;
    machine.must("sync", 60 * SECOND)?;

    // A guest whose disk went would hang.
    let running = main_process(&host)?;
    let said = host.must_not(&["dpkg", "--remove", "firn"])?;
    assert!(said.contains("guests are attached"), "{said}");
    assert_eq!(main_process(&host)?, running, "refused, and yet touched");
    let written =
        "touch /run/stop; until [ -s /run/written ]; do sleep 0.1; done; cat /run/written";
    let written = machine.must(written, 60 * SECOND)?;
    println!("files that the guest wrote, and the longest time for one in ms: {written}");
    let files: u32 = written.split(' ').next().unwrap_or_default().parse()?;
    assert!(files > 20, "{written}");
    let checked = "echo 3 >/proc/sys/vm/drop_caches; cd /mnt && sha256sum -c sums | grep -c OK$";
    assert_eq!(machine.must(checked, 120 * SECOND)?, files.to_string());
    machine.assert_no_io_errors()?;
    machine.power_off(60 * SECOND)?;

    host.must(&["dpkg", "--remove", "firn"])?;
    host.must_not(&["pgrep", "-x", "firn-vhost-back"])?;
    host.must(&["test", "-e", "/etc/default/firn"])?;
    host.must(&["dpkg", "--purge", "firn"])?;
    let left: Vec<_> = traces(&host)?.difference(&before).cloned().collect();
    assert_eq!(left, ["/var/lib/firn"], "and in it the store");
    assert_eq!(host.must(&["ls", "/var/lib/firn"])?, "store");
    let firn = Binaries::find()?.cli.display().to_string();
    host.must(&[&firn, "store", "check", STORE])?;
    Ok(())
}

/// From the package to a VM with hourly snapshots: what docs/operations.md says, command by command, timed.
#[test]
fn a_new_users_path() -> TestResult {
    let mut host = SystemdHost::boot()?;
    let deb = package(&host)?;
    let image = guest::image()?.display().to_string();
    host.must(&["systemctl", "start", "libvirtd.service"])?;
    let xml = "firn vdisk xml system --domain shop --memory 512M --emulated > /tmp/shop.xml";
    let policy = "virsh metadata shop urn:firn:policy --key firn-policy --live --config --set \
        \"<policy><schedule name='often' every='2s' keep-last='3'/></policy>\"";
    let commands = [
        &format!("dpkg -i {deb}"),
        "firn store init /var/lib/firn/store",
        "systemctl start firn-vhost-backend",
        &format!("firn vdisk import {image} system"),
        xml,
        "virsh define /tmp/shop.xml",
        "virsh start shop",
        policy,
    ];
    let began = Instant::now();
    for command in commands {
        let began = Instant::now();
        host.must(&[
            "env",
            "LIBVIRT_DEFAULT_URI=qemu:///system",
            "sh",
            "-c",
            command,
        ])?;
        println!("{:5.1} s  {command}", began.elapsed().as_secs_f32());
    }
    host.wait_for("a snapshot by schedule", |host| {
        host.must(&["firn", "snapshot", "list", "system"])
            .is_ok_and(|list| list.contains("often-"))
    })?;
    println!(
        "protected after {:.1} s and {} commands",
        began.elapsed().as_secs_f32(),
        commands.len()
    );
    let doctor = host.must(&["firn", "doctor"])?;
    println!("{doctor}");
    Ok(())
}

#[test]
fn what_its_units_promise() -> TestResult {
    let mut host = SystemdHost::boot()?;
    let deb = package(&host)?;
    host.must(&["dpkg", "-i", &deb])?;
    host.must(&["firn", "store", "init", STORE])?;
    let drop_in = format!("/etc/systemd/system/{BACKEND}.d");
    host.must(&["mkdir", "-p", &drop_in])?;
    let shorter =
        "printf '[Service]\nWatchdogSec=2s\n' >$0/shorter.conf && systemctl daemon-reload";
    host.must(&["sh", "-c", shorter, &drop_in])?;
    host.must(&["systemctl", "start", BACKEND])?;
    host.must(&["firn", "vdisk", "create", "web", "1G"])?;

    // One that is well stays, for longer than the watchdog's patience; one that stands still is replaced.
    let stuck = main_process(&host)?;
    std::thread::sleep(5 * SECOND);
    assert_eq!(main_process(&host)?, stuck, "not petted");
    host.must(&["kill", "-STOP", &stuck])?;
    host.wait_for("a new backend", |host| {
        main_process(host).is_ok_and(|now| now != "0" && now != stuck)
    })?;
    host.must(&["firn", "store", "status"])?;

    // Guests have their disks until they have ended.
    host.must(&[
        "systemctl",
        "start",
        "libvirtd.service",
        "libvirt-guests.service",
    ])?;
    let xml = [
        "firn",
        "vdisk",
        "xml",
        "web",
        "--domain",
        "shop",
        "--emulated",
    ];
    let xml = host.must(&[&xml[..], &["--memory", "64M"]].concat())?;
    fs::write(host.shared().join("shop.xml"), xml)?;
    let virsh = ["virsh", "--connect", "qemu:///system"];
    host.must(&[&virsh[..], &["define", "/mnt/shop.xml"]].concat())?;
    host.must(&[&virsh[..], &["start", "shop"]].concat())?;
    let shown = host.must(&["firn", "vdisk", "list"])?;
    assert!(shown.contains("pid "), "{shown}");

    // What the orchestrator does it can do from within its unit, and its own restart is none of the guest's business.
    let snapshot = ["firn", "snapshot", "create", "monday", "--domain", "shop"];
    host.must(&snapshot)?;
    host.must(&["firn", "vm", "clone", "shop@monday", "twin"])?;
    host.must(&["systemctl", "restart", "firn-orchestrator.service"])?;
    let state = host.must(&[&virsh[..], &["domstate", "shop"]].concat())?;
    assert_eq!(state, "running");

    let journal = host.power_off()?;
    let lines: Vec<_> = journal.lines().collect();
    let at = |what: &str| {
        let line = lines.iter().rposition(|line| line.contains(what));
        line.ok_or_else(|| format!("{what} is not in the journal:\n{journal}"))
    };
    assert!(!journal.contains("ordering cycle"), "{journal}");
    let backend = at("SIGTERM: ending")?;
    for ended in [
        "Stopped libvirt-guests.service",
        "shop.scope: Deactivated",
        "Stopped libvirtd.service",
    ] {
        assert!(at(ended)? < backend, "{ended}:\n{journal}");
    }
    assert!(backend < at("ended; everything is on disk")?);
    Ok(())
}
