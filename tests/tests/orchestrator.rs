//! `firn-orchestrator` with a real libvirtd, QEMU, guest and backend: snapshots by virsh that are gone back to, with memory.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use firn_tests::guest;
use firn_tests::libvirt::{FirnHost, GuestSpec, LibvirtGuest, Load};

type TestResult = Result<(), Box<dyn Error>>;

const DATA_MIB: u64 = 16;
const SECOND: Duration = Duration::from_secs(1);
const PATTERN: &str = env!("CARGO_BIN_EXE_firn-guest-pattern");

/// Checkpoints by virsh of a guest under load, each gone back to in turn with its memory. `FIRN_CHECKPOINTS` says how many.
#[test]
fn checkpoints_by_virsh_are_gone_back_to() -> TestResult {
    let count: usize = std::env::var("FIRN_CHECKPOINTS").map_or(3, |text| text.parse().unwrap_or(3));
    let (host, mut guest) = with_guest(&["system", "data"])?;
    let load = Load::start(&host, &mut guest, Path::new(PATTERN), "/dev/vdb", DATA_MIB)?;
    let mut steps = Vec::new();
    for number in 0..count {
        let before = load.wait_for_passes(&mut guest, 1)?;
        // With --live the guest goes on while its memory is saved.
        let live = number % 2 == 0;
        checkpoint(&host, &format!("c{number}"), live)?;
        until_running(&host)?;
        steps.push((before, load.wait_for_passes(&mut guest, 1)?));
    }
    for (number, (before, after)) in steps.iter().enumerate() {
        guest.disconnect();
        let began = Instant::now();
        host.firn(&["vm", "revert", "guest", &format!("c{number}"), "--memory", "--discard"])?;
        let took = began.elapsed();
        guest.connect()?;
        let (step, _) = load.progress(&mut guest)?;
        println!("c{number}: taken between steps {before} and {after}; back in {took:.1?} at step {step}");
        assert!(*before <= step, "it is not where it was");
        load.wait_for_passes(&mut guest, 2)?;
    }
    guest.assert_no_io_errors()?;
    // What libvirt deletes goes, nothing else does.
    host.libvirt.virsh(&["snapshot-delete", "guest", "c0"])?;
    let began = Instant::now();
    while host.firn(&["snapshot", "list", "data"])?.contains("c0") {
        assert!(began.elapsed() < 15 * SECOND, "c0 is still there");
        std::thread::sleep(SECOND / 5);
    }
    let left = host.firn(&["snapshot", "list", "data", "--json"])?;
    let left: serde_json::Value = serde_json::from_str(&left)?;
    let left = left["snapshots"].as_array().map_or(0, Vec::len);
    assert_eq!(left, count - 1);
    println!("{}", host.firn(&["vm", "status"])?);
    println!("{}", fs::read_to_string(host.orchestrator_log())?);
    Ok(())
}

/// `virsh snapshot-create-as` as the documentation says.
fn checkpoint(host: &FirnHost, name: &str, live: bool) -> TestResult {
    let memory = format!("file={}", host.libvirt.dir().join(format!("{name}.mem")).display());
    let mut line = vec!["snapshot-create-as", "guest", name, "--memspec", &memory];
    line.extend(["--diskspec", "vda,snapshot=manual", "--diskspec", "vdb,snapshot=manual"]);
    if live {
        line.push("--live");
    }
    host.libvirt.virsh(&line)?;
    Ok(())
}

fn until_running(host: &FirnHost) -> TestResult {
    let began = Instant::now();
    while host.libvirt.virsh(&["domstate", "guest"])?.trim() != "running" {
        if began.elapsed() > 10 * SECOND {
            let state = host.libvirt.virsh(&["domstate", "--reason", "guest"])?;
            let log = fs::read_to_string(host.orchestrator_log())?;
            let current = host.libvirt.virsh(&["snapshot-current", "guest"]);
            return Err(format!("it is left {state}\n{log}\n{current:?}").into());
        }
        std::thread::sleep(SECOND / 20);
    }
    Ok(())
}

/// A host with all of Firn that serves vDisks (the first one bootable), and a guest on them that is up.
fn with_guest(vdisks: &[&str]) -> Result<(FirnHost, LibvirtGuest), Box<dyn Error>> {
    let mut host = FirnHost::start()?;
    host.serve()?;
    host.orchestrate()?;
    let image = guest::image()?.display().to_string();
    host.firn(&["vdisk", "import", &image, vdisks[0]])?;
    for vdisk in &vdisks[1..] {
        host.firn(&["vdisk", "create", vdisk, &format!("{DATA_MIB}M")])?;
    }
    let spec = GuestSpec {
        name: "guest",
        vdisks,
        vcpus: 2,
        uefi: false,
    };
    let mut guest = LibvirtGuest::define(&host.libvirt, &spec)?;
    guest.start(&host.libvirt)?;
    Ok((host, guest))
}
