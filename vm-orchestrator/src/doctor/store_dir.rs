//! The store's directory: filesystem, facilities, space.

use super::{Finding, Patient, Verdict};
use crate::units::bytes;
use block_store::io::real::{RealDisk, RealOptions};
use std::path::Path;

/// f_type of the filesystems that a store is meant for, and of those that will do or won't.
const EXT4: i64 = 0xEF53;
const XFS: i64 = 0x5846_5342;
const BTRFS: i64 = 0x9123_683E;
const TMPFS: i64 = 0x0102_1994;
const NFS: i64 = 0x6969;

/// Free space below which compaction begins to be pressed, in per cent: the backend's default.
const LOW_PERCENT: u64 = 10;

pub(super) fn check(patient: &Patient) -> Vec<Finding> {
    let Some(dir) = &patient.store else {
        return vec![Finding::bad(
            Verdict::Note,
            "store",
            "not looked at: no backend tells where it is",
            "name it with --store DIR",
        )];
    };
    match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => {
            let mut findings = vec![filesystem(dir), space(dir)];
            findings.extend(facilities(dir));
            findings
        }
        Ok(_) => vec![Finding::bad(
            Verdict::Broken,
            "store",
            format!("{} is not a directory", dir.display()),
            "name the store's directory with --store DIR",
        )],
        Err(error) => vec![Finding::bad(
            Verdict::Broken,
            "store",
            format!("{}: {error}", dir.display()),
            format!("make a store with: firn store init {}", dir.display()),
        )],
    }
}

fn filesystem(dir: &Path) -> Finding {
    const CHECK: &str = "store's filesystem";
    let Ok(stat) = rustix::fs::statfs(dir) else {
        return Finding::bad(
            Verdict::Warning,
            CHECK,
            "can't be asked",
            "check the permissions of the store's directory",
        );
    };
    match stat.f_type {
        EXT4 => Finding::ok(CHECK, "ext4"),
        XFS => Finding::ok(CHECK, "XFS"),
        BTRFS => Finding::bad(
            Verdict::Warning,
            CHECK,
            "btrfs copies on write what the store has logged already, and fragments it",
            format!(
                "chattr +C {} before the store is made, or use ext4 or XFS",
                dir.display()
            ),
        ),
        TMPFS => Finding::bad(
            Verdict::Warning,
            CHECK,
            "tmpfs: everything is lost with the power",
            "keep stores on ext4 or XFS",
        ),
        NFS => Finding::bad(
            Verdict::Warning,
            CHECK,
            "NFS: slow flushes, and locks that may fail",
            "keep stores on a local ext4 or XFS",
        ),
        other => Finding::bad(
            Verdict::Note,
            CHECK,
            format!("of a kind (0x{other:x}) that nobody has tested"),
            "ext4 and XFS are tested",
        ),
    }
}

fn space(dir: &Path) -> Finding {
    const CHECK: &str = "store's space";
    let Ok(stat) = rustix::fs::statvfs(dir) else {
        return Finding::bad(
            Verdict::Warning,
            CHECK,
            "can't be asked",
            "check the permissions of the store's directory",
        );
    };
    // Without what the filesystem keeps for its administrator, as the backend and df count.
    let reserve = stat.f_bfree.saturating_sub(stat.f_bavail);
    let total = stat.f_blocks.saturating_sub(reserve) * stat.f_frsize;
    let free = stat.f_bavail * stat.f_frsize;
    let percent = (free * 100).checked_div(total).unwrap_or(0);
    let found = format!("{} free of {} ({percent} %)", bytes(free), bytes(total));
    match percent < LOW_PERCENT {
        false => Finding::ok(CHECK, found),
        true => Finding::bad(
            Verdict::Warning,
            CHECK,
            found,
            "delete snapshots or vDisks that are not needed, or give the filesystem more space, before guests stall",
        ),
    }
}

/// Found out as the backend does: by trying.
fn facilities(dir: &Path) -> Vec<Finding> {
    let disk = match RealDisk::open(dir, RealOptions::default()) {
        Ok(disk) => disk,
        Err(error) => {
            return vec![Finding::bad(
                Verdict::Broken,
                "store's files",
                format!("{}: {error}", dir.display()),
                "run as root or as the backend's user",
            )];
        }
    };
    let direct = match disk.is_direct() {
        true => Finding::ok("O_DIRECT", "works in the store's directory"),
        false => Finding::bad(
            Verdict::Note,
            "O_DIRECT",
            "does not work here: data goes through the page cache, which costs memory and speed",
            "use ext4 or XFS on a local disk",
        ),
    };
    let uring = match disk.is_uring() {
        true => Finding::ok("io_uring", "works in the store's directory"),
        false => Finding::bad(
            Verdict::Note,
            "io_uring",
            "does not work here: reads go one at a time",
            "Linux 5.6 or newer with sysctl kernel.io_uring_disabled=0; in a container, allow the io_uring system calls",
        ),
    };
    vec![direct, uring]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_looked_through_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let patient = |store| Patient {
            run: "/".into(),
            backend: Err((String::new(), String::new())),
            vdisks: Vec::new(),
            store,
            qemu: (String::new(), None),
        };
        let findings = check(&patient(Some(dir.path().into())));
        assert_eq!(findings.len(), 4);
        assert!(
            findings
                .iter()
                .all(|finding| finding.verdict < Verdict::Broken),
            "{findings:?}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let missing = check(&patient(Some(dir.path().join("none"))));
        assert!(
            missing[0]
                .cure
                .as_ref()
                .unwrap()
                .contains("firn store init")
        );
        assert_eq!(check(&patient(None))[0].verdict, Verdict::Note);
    }
}
