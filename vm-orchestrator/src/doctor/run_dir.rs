//! The runtime directory, the sockets in it, and who can reach them.

use super::{Finding, Patient, Verdict};
use std::path::Path;

/// f_type of a filesystem in memory.
const TMPFS: i64 = 0x0102_1994;

pub(super) fn check(patient: &Patient) -> Vec<Finding> {
    let mut findings = vec![directory(&patient.run)];
    if patient.run.is_dir() {
        findings.push(memory(&patient.run));
    }
    findings.push(backend(patient));
    findings.push(qemu(patient));
    findings
}

fn directory(run: &Path) -> Finding {
    const CHECK: &str = "runtime directory";
    let path = run.display();
    match std::fs::metadata(run) {
        Ok(meta) if meta.is_dir() => Finding::ok(CHECK, format!("{path} is there")),
        Ok(_) => Finding::bad(
            Verdict::Broken,
            CHECK,
            format!("{path} is not a directory"),
            "name another one with --run DIR or FIRN_RUN",
        ),
        Err(error) => Finding::bad(
            Verdict::Broken,
            CHECK,
            format!("{path}: {error}"),
            format!("mkdir -m 0755 {path}, or name another one with --run DIR or FIRN_RUN"),
        ),
    }
}

fn memory(run: &Path) -> Finding {
    const CHECK: &str = "write buffer's place";
    match rustix::fs::statfs(run) {
        Ok(stat) if stat.f_type == TMPFS => {
            Finding::ok(CHECK, format!("{} is in memory (tmpfs)", run.display()))
        }
        Ok(_) => Finding::bad(
            Verdict::Warning,
            CHECK,
            format!(
                "{} is on a disk: every write goes there a second time",
                run.display()
            ),
            "use a directory on a tmpfs, like /run/firn; it need not survive a reboot",
        ),
        Err(error) => Finding::bad(
            Verdict::Warning,
            CHECK,
            format!("{}: {error}", run.display()),
            "check the permissions of the runtime directory",
        ),
    }
}

fn backend(patient: &Patient) -> Finding {
    const CHECK: &str = "backend";
    let own = env!("CARGO_PKG_VERSION");
    match &patient.backend {
        Ok(health) if health.api != control_api::API_VERSION => Finding::bad(
            Verdict::Broken,
            CHECK,
            format!(
                "process {} speaks version {} of the API, this program {}",
                health.pid,
                health.api,
                control_api::API_VERSION
            ),
            "install firn and firn-vhost-backend of the same release, and restart the backend",
        ),
        Ok(health) if health.version != own => Finding::bad(
            Verdict::Note,
            CHECK,
            format!(
                "process {} has version {}, this program {own}",
                health.pid, health.version
            ),
            "restart the backend after an upgrade: guests go on meanwhile",
        ),
        Ok(health) => Finding::ok(
            CHECK,
            format!("process {} serves {}", health.pid, health.store),
        ),
        Err((message, hint)) => Finding::bad(Verdict::Broken, CHECK, message.clone(), hint.clone()),
    }
}

fn qemu(patient: &Patient) -> Finding {
    const CHECK: &str = "QEMU's way to the sockets";
    let (name, account) = &patient.qemu;
    let Some(account) = account else {
        return Finding::bad(
            Verdict::Note,
            CHECK,
            format!("there is no user {name} on this host"),
            "install libvirt, or name the user that QEMU runs as with --qemu-user USER",
        );
    };
    let blocked: Vec<_> = patient
        .vdisks
        .iter()
        .filter_map(|vdisk| account.obstacle(Path::new(&vdisk.socket)))
        .collect();
    let Some(first) = blocked.first() else {
        return match patient.vdisks.len() {
            0 => Finding::ok(CHECK, "there are no vDisks to reach"),
            count => Finding::ok(
                CHECK,
                format!("user {name} can connect to all {count} vDisks"),
            ),
        };
    };
    Finding::bad(
        Verdict::Warning,
        CHECK,
        format!(
            "user {name} can't reach {} of {} vDisks: {} has mode {:o}, owner {} and group {}",
            blocked.len(),
            patient.vdisks.len(),
            first.path.display(),
            first.mode,
            first.uid,
            first.gid
        ),
        format!(
            "start the backend with --group GROUP, a group that {name} is in (kvm on Debian), and let it pass every directory on the way (chmod o+x)"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::types::Health;

    fn patient(run: &Path) -> Patient {
        Patient {
            run: run.into(),
            backend: Err(("no backend is listening".into(), "start it".into())),
            vdisks: Vec::new(),
            store: None,
            qemu: ("nobody-here".into(), None),
        }
    }

    #[test]
    fn every_bad_finding_has_a_cure() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for run in [Path::new("/nowhere"), file.path(), Path::new("/")] {
            for finding in check(&patient(run)) {
                assert_eq!(
                    finding.cure.is_some(),
                    finding.verdict != Verdict::Ok,
                    "{finding:?}"
                );
            }
        }
        assert_eq!(directory(file.path()).verdict, Verdict::Broken);
    }

    #[test]
    fn a_backend_of_another_release_is_noticed() {
        let mut patient = patient(Path::new("/"));
        let mut health = Health {
            version: env!("CARGO_PKG_VERSION").into(),
            api: control_api::API_VERSION,
            pid: 7,
            store: "/srv".into(),
            run: "/run".into(),
            uptime_seconds: 1,
        };
        patient.backend = Ok(health.clone());
        assert_eq!(backend(&patient).verdict, Verdict::Ok);
        health.version = "0.0.0".into();
        patient.backend = Ok(health.clone());
        assert_eq!(backend(&patient).verdict, Verdict::Note);
        health.api += 1;
        patient.backend = Ok(health);
        assert_eq!(backend(&patient).verdict, Verdict::Broken);
    }
}
