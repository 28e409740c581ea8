//! A real guest under libvirt: disks that come while it runs, its agent that makes snapshots need no repair, and its memory, which
//! has to be of the same instant as its disks.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firn_tests::guest;
use firn_tests::libvirt::{FirnHost, LibvirtGuest, Load};
use firn_tests::steps::Steps;

type TestResult = Result<(), Box<dyn Error>>;

const DATA_MIB: u64 = 16;
const SECOND: Duration = Duration::from_secs(1);

/// As many disks as a guest must be able to get while it runs.
const ATTACHED: usize = 20;

#[test]
fn disks_that_were_attached_are_frozen_and_have_a_clean_journal() -> TestResult {
    let _turn = turn();
    let (host, mut guest) = with_guest(&["system"])?;
    let libvirt = &host.libvirt;
    for (number, letter) in (0..ATTACHED).zip('b'..) {
        let (vdisk, target) = (format!("data{number}"), format!("vd{letter}"));
        host.firn(&["vdisk", "create", &vdisk, "64M"])?;
        let line = ["vdisk", "xml", &vdisk, "--only", "disk"];
        let element = host.firn(&[&line[..], &["--target", &target, "--queues", "2"]].concat())?;
        let file = libvirt.dir().join("disk.xml");
        fs::write(&file, element)?;
        let file = file.display().to_string();
        libvirt.virsh(&["attach-device", "guest", &file, "--live"])?;
    }
    let seen = format!(
        "for try in $(seq 100); do [ $(ls -d /sys/block/vd[b-z] | wc -l) = {ATTACHED} ] && exit; sleep 0.2; done; ls /sys/block; false"
    );
    guest.must(&seen, 60 * SECOND)?;

    // So that the journal has something in it at any moment.
    let busy = "while :; do cp -r /etc /mnt/copy; sync; rm -r /mnt/copy; done >/dev/null 2>&1 &";
    guest.must(
        &format!("mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt && {{ {busy} }} && sleep 2"),
        60 * SECOND,
    )?;
    guest.await_guest_agent(libvirt)?;
    // Both are frozen, or not at all.
    let virsh = |command: &str| {
        libvirt.must(&[
            "/usr/bin/virsh",
            "--connect",
            "qemu:///system",
            command,
            "guest",
        ])
    };
    let vdisks = ["system", "data0"];
    host.firn(&[&["snapshot", "create", "running"], &vdisks[..]].concat())?;
    let froze = virsh("domfsfreeze")?;
    assert!(froze.contains("2 filesystem"), "{froze}");
    host.firn(&[&["snapshot", "create", "frozen"], &vdisks[..]].concat())?;
    let thawed = virsh("domfsthaw")?;
    assert!(thawed.contains("2 filesystem"), "{thawed}");

    for (snapshot, dirty) in [("running", true), ("frozen", false)] {
        let file = libvirt.dir().join(snapshot).display().to_string();
        host.firn(&["vdisk", "export", "data0", &file, "--snapshot", snapshot])?;
        let features = said("dumpe2fs", &["-h", &file], &[0])?;
        assert_eq!(features.contains("needs_recovery"), dirty, "{features}");
        if dirty {
            said("e2fsck", &["-E", "journal_only", "-p", &file], &[0, 1])?;
        }
        said("e2fsck", &["-f", "-n", &file], &[0])?;
    }
    guest.assert_no_io_errors()?;
    guest.must("touch /root/goes-on && sync", 30 * SECOND)?;
    Ok(())
}

/// A guest that has a load which would notice: it goes on, memory and disk being of one instant, and stops where they are not.
#[test]
fn a_disk_of_another_instant_than_the_memory_is_noticed() -> TestResult {
    let _turn = turn();
    let (host, mut guest) = with_guest(&["system", "data"])?;
    let libvirt = &host.libvirt;
    let pattern = Path::new(env!("CARGO_BIN_EXE_firn-guest-pattern"));
    let load = Load::start(&host, &mut guest, pattern, "/dev/vdb", DATA_MIB)?;
    load.wait_for_passes(&mut guest, 2)?;

    let memory = libvirt.dir().join("memory");
    guest.disconnect();
    libvirt.virsh(&["save", "guest", &memory.display().to_string()])?;
    host.firn(&["snapshot", "create", "then", "system", "data"])?;
    let disk = libvirt.dir().join("disk");
    let export = ["vdisk", "export", "data", &disk.display().to_string()];
    host.firn(&[&export[..], &["--snapshot", "then"]].concat())?;
    let then = Steps::check(&disk, DATA_MIB << 20)?.step();
    guest.restore(libvirt, &memory)?;
    load.wait_for_passes(&mut guest, 2)?;
    guest.destroy(libvirt)?;

    for vdisk in ["system", "data"] {
        host.firn(&["vdisk", "revert", vdisk, "then", "--discard"])?;
    }
    guest.restore(libvirt, &memory)?;
    let now = load.wait_for_passes(&mut guest, 2)?;
    println!("step {then} in the snapshot, {now} after the revert");
    guest.assert_no_io_errors()?;
    guest.destroy(libvirt)?;

    host.firn(&["vdisk", "revert", "system", "then", "--discard"])?;
    guest.restore(libvirt, &memory)?;
    let wrong = load.wait_for_passes(&mut guest, 2).err();
    let wrong = wrong.ok_or("the guest has not noticed that its disk is ahead")?;
    println!("{wrong}");
    assert!(wrong.to_string().contains("WRONG"), "{wrong}");
    Ok(())
}

/// The command line of docs/operations.md makes a domain that boots.
#[test]
fn virt_install_makes_a_domain_that_boots() -> TestResult {
    let _turn = turn();
    let mut host = FirnHost::start()?;
    host.serve()?;
    let image = guest::image()?.display().to_string();
    host.firn(&["vdisk", "import", &image, "system"])?;
    let operations = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let operations = fs::read_to_string(operations)?;
    // As a reader copies it: an indented block, of which a shell joins the lines.
    let from = operations
        .find("    virt-install ")
        .ok_or("no virt-install")?;
    let block = operations[from..].lines();
    let block = block.map_while(|line| line.strip_prefix("    "));
    let line = block.collect::<Vec<_>>().join("\n");
    // What a machine without KVM and without libvirt's network needs besides.
    let line = format!("{line} --virt-type qemu --network none --noautoconsole");
    host.libvirt.must(&["bash", "-c", &line])?;
    let said = host.comes_up("shop")?;
    assert!(said.contains("root on /dev/vda1"), "{said}");
    Ok(())
}

/// One guest at a time: on TCG two would only make both slow, and their timeouts guesses.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host that serves vDisks (the first one bootable), and a guest on them that is up.
fn with_guest(vdisks: &[&str]) -> Result<(FirnHost, LibvirtGuest), Box<dyn Error>> {
    let mut host = FirnHost::start()?;
    host.serve()?;
    let guest = host.boot_guest(vdisks, DATA_MIB)?;
    Ok((host, guest))
}

/// What a program says that ends with one of these exit codes.
fn said(program: &str, args: &[&str], codes: &[i32]) -> Result<String, Box<dyn Error>> {
    let output = Command::new(program).args(args).output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if !output
        .status
        .code()
        .is_some_and(|code| codes.contains(&code))
    {
        return Err(format!("{program} {args:?}: {}\n{said}", output.status).into());
    }
    Ok(said)
}
