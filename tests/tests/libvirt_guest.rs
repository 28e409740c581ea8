//! A real guest under libvirt, and what its agent is good for: snapshots that need no repair.

use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

use firn_tests::guest;
use firn_tests::libvirt::{FirnHost, GuestSpec, LibvirtGuest};

type TestResult = Result<(), Box<dyn Error>>;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_frozen_guest_has_a_clean_journal_in_the_snapshot() -> TestResult {
    let (host, mut guest) = with_guest(&["system", "data"])?;
    let libvirt = &host.libvirt;
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
    let vdisks = ["system", "data"];
    host.firn(&[&["snapshot", "create", "running"], &vdisks[..]].concat())?;
    let froze = virsh("domfsfreeze")?;
    assert!(froze.contains("2 filesystem"), "{froze}");
    host.firn(&[&["snapshot", "create", "frozen"], &vdisks[..]].concat())?;
    let thawed = virsh("domfsthaw")?;
    assert!(thawed.contains("2 filesystem"), "{thawed}");

    for (snapshot, dirty) in [("running", true), ("frozen", false)] {
        let file = libvirt.dir().join(snapshot).display().to_string();
        host.firn(&["vdisk", "export", "data", &file, "--snapshot", snapshot])?;
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

/// A host that serves vDisks (the first one bootable), and a guest on them that is up.
fn with_guest(vdisks: &[&str]) -> Result<(FirnHost, LibvirtGuest), Box<dyn Error>> {
    let mut host = FirnHost::start()?;
    host.serve()?;
    let image = guest::image()?.display().to_string();
    host.firn(&["vdisk", "import", &image, vdisks[0]])?;
    for vdisk in &vdisks[1..] {
        host.firn(&["vdisk", "create", vdisk, "64M"])?;
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
