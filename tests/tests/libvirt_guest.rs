//! A real guest under libvirt: disks that come while it runs, its agent that makes snapshots need no repair, and its memory, which
//! has to be of the same instant as its disks.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use firn_tests::guest;
use firn_tests::libvirt::{FirnHost, GuestSpec, LibvirtGuest};
use firn_tests::steps::Steps;

type TestResult = Result<(), Box<dyn Error>>;

const DATA_MIB: u64 = 16;
const SECOND: Duration = Duration::from_secs(1);

/// As many disks as a guest must be able to get while it runs.
const ATTACHED: usize = 20;

#[test]
fn disks_that_were_attached_are_frozen_and_have_a_clean_journal() -> TestResult {
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
    let virsh =
        |command: &str| libvirt.must(&["virsh", "--connect", "qemu:///system", command, "guest"]);
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
    let (host, mut guest) = with_guest(&["system", "data"])?;
    let libvirt = &host.libvirt;
    let program = guest.install(libvirt, Path::new(env!("CARGO_BIN_EXE_firn-guest-pattern")))?;
    guest.must(
        &format!("{program} /dev/vdb {DATA_MIB} /run/progress >/run/said 2>&1 & until [ -s /run/progress ]; do sleep 0.1; done"),
        30 * SECOND,
    )?;
    wait_for_passes(&mut guest, 2)?;

    let memory = libvirt.dir().join("memory");
    guest.disconnect();
    libvirt.virsh(&["save", "guest", &memory.display().to_string()])?;
    host.firn(&["snapshot", "create", "then", "system", "data"])?;
    let disk = libvirt.dir().join("disk");
    let export = ["vdisk", "export", "data", &disk.display().to_string()];
    host.firn(&[&export[..], &["--snapshot", "then"]].concat())?;
    let then = Steps::check(&disk, DATA_MIB << 20)?.step();
    guest.restore(libvirt, &memory)?;
    wait_for_passes(&mut guest, 2)?;
    guest.destroy(libvirt)?;

    for vdisk in ["system", "data"] {
        host.firn(&["vdisk", "revert", vdisk, "then", "--discard"])?;
    }
    guest.restore(libvirt, &memory)?;
    let now = wait_for_passes(&mut guest, 2)?;
    println!("step {then} in the snapshot, {now} after the revert");
    guest.assert_no_io_errors()?;
    guest.destroy(libvirt)?;

    host.firn(&["vdisk", "revert", "system", "then", "--discard"])?;
    guest.restore(libvirt, &memory)?;
    let wrong = wait_for_passes(&mut guest, 2).err();
    let wrong = wrong.ok_or("the guest has not noticed that its disk is ahead")?;
    println!("{wrong}");
    assert!(wrong.to_string().contains("WRONG"), "{wrong}");
    Ok(())
}

/// Waits until the load has read its whole disk so many times more; the step it is at.
fn wait_for_passes(guest: &mut LibvirtGuest, count: u64) -> Result<u64, Box<dyn Error>> {
    let began = Instant::now();
    let mut until = None;
    loop {
        let said = guest.must("cat /run/progress", 30 * SECOND)?;
        let words: Vec<&str> = said.split_whitespace().collect();
        let ["step", step, "passes", passes] = words[..] else {
            return Err(said.into());
        };
        let (step, passes): (u64, u64) = (step.parse()?, passes.parse()?);
        if passes >= *until.get_or_insert(passes + count) {
            return Ok(step);
        }
        if began.elapsed() > 60 * SECOND {
            return Err(format!("too slow: {said}").into());
        }
        std::thread::sleep(SECOND / 5);
    }
}

/// A host that serves vDisks (the first one bootable), and a guest on them that is up.
fn with_guest(vdisks: &[&str]) -> Result<(FirnHost, LibvirtGuest), Box<dyn Error>> {
    let mut host = FirnHost::start()?;
    host.serve()?;
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
    let began = Instant::now();
    guest.start(&host.libvirt)?;
    println!("up in {:.1} s", began.elapsed().as_secs_f32());
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
