//! Whether a domain can be started with what it asks for. Nothing here looks at the world.

use crate::domain::{Disk, Domain};
use crate::process::FrontEnd;
use control_api::limits::QUEUES_MAX;
use control_api::types::VDisk;
use std::collections::HashSet;
use std::path::Path;

/// What a backend says of a vDisk.
#[derive(Debug)]
pub enum Found {
    /// It is served.
    Served(Box<VDisk>),
    /// There is none of that name.
    Unknown,
    /// No backend answers, and why.
    Nobody(String),
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can be attached.
    Ready,
    /// Not yet: the backend may be starting.
    NotYet(String),
    /// Somebody else has it, who may be ending.
    InUse(String),
    /// Waiting will not help.
    Never(String),
}

/// What is wrong with a domain whatever the backends say. That its memory is shared libvirt sees to.
pub fn domain(domain: &Domain, ours: &[(&Path, &str, &Disk)]) -> Result<(), String> {
    let mut seen = HashSet::new();
    for (run, name, disk) in ours {
        if !seen.insert((run, name)) {
            return Err(format!(
                "domain {} names vDisk {name} twice, the second time as {}: a vDisk has one user",
                domain.name, disk.target
            ));
        }
        let queues = disk.queues.unwrap_or(domain.vcpus);
        if queues > u32::from(QUEUES_MAX) {
            return Err(format!(
                "vDisk {name} would have {queues} queues, {} at most: give {} <driver name='qemu' type='raw' queues='{QUEUES_MAX}'/>, or fewer",
                QUEUES_MAX, disk.target
            ));
        }
    }
    Ok(())
}

/// Whether a vDisk can be attached now. `front_end` tells who a process is.
pub fn disk(
    domain: &Domain,
    run: &Path,
    name: &str,
    disk: &Disk,
    found: &Found,
    front_end: impl Fn(u32) -> Option<FrontEnd>,
) -> Verdict {
    let vdisk = match found {
        Found::Served(vdisk) => vdisk,
        Found::Unknown => {
            return Verdict::Never(format!(
                "there is no vDisk {name} in {}, which {} of domain {} is: firn --run {} vdisk list",
                run.display(),
                disk.target,
                domain.name,
                run.display()
            ));
        }
        Found::Nobody(why) => {
            return Verdict::NotYet(format!(
                "no backend serves vDisk {name} ({why}); start it: firn-vhost-backend --store DIR --run {}",
                run.display()
            ));
        }
    };
    if Path::new(&vdisk.socket) != disk.socket {
        return Verdict::Never(format!(
            "vDisk {name} listens on {} and not on {}",
            vdisk.socket,
            disk.socket.display()
        ));
    }
    let Some(attached) = &vdisk.attached else {
        return Verdict::Ready;
    };
    match front_end(attached.pid) {
        // Its QEMU on another libvirt: this is a migration, and the lease is handed over at its end.
        Some(other) if other.uuid == Some(domain.uuid) && !domain.uuid.is_nil() => Verdict::Ready,
        Some(other) => Verdict::InUse(format!(
            "vDisk {name} is in use by {} (process {}): a vDisk has one user; clone it (firn snapshot create {name} S, firn vdisk clone {name}@S NEW), or stop that one",
            other.what(),
            attached.pid
        )),
        None => Verdict::InUse(format!(
            "vDisk {name} is in use by process {}: a vDisk has one user",
            attached.pid
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::types::Attachment;
    use uuid::Uuid;

    const RUN: &str = "/run/firn";

    fn web() -> Domain {
        Domain {
            name: "shop".into(),
            uuid: Uuid::from_u128(1),
            vcpus: 2,
            disks: vec![Disk {
                socket: "/run/firn/web.sock".into(),
                target: "vda".into(),
                queues: None,
            }],
        }
    }

    fn served(attached: bool) -> Found {
        Found::Served(Box::new(VDisk {
            name: "web".into(),
            uuid: Uuid::nil(),
            serial: String::new(),
            size: 1 << 30,
            created: 0,
            tag: None,
            write_cache: true,
            read_only: false,
            socket: "/run/firn/web.sock".into(),
            attached: attached.then_some(Attachment {
                pid: 812,
                uid: 0,
                since: 0,
            }),
            domain: None,
            flattening: None,
        }))
    }

    fn judged(found: &Found, user: Option<FrontEnd>) -> Verdict {
        let domain = web();
        disk(
            &domain,
            Path::new(RUN),
            "web",
            &domain.disks[0],
            found,
            |pid| {
                assert_eq!(pid, 812);
                user.clone()
            },
        )
    }

    fn of(uuid: u128) -> Option<FrontEnd> {
        Some(FrontEnd {
            name: Some("other".into()),
            uuid: Some(Uuid::from_u128(uuid)),
        })
    }

    #[test]
    fn what_can_be_attached() {
        assert_eq!(judged(&served(false), None), Verdict::Ready);
        assert_eq!(judged(&served(true), of(1)), Verdict::Ready);
        let Verdict::InUse(why) = judged(&served(true), of(2)) else {
            panic!("somebody else's");
        };
        assert!(why.contains("domain other (process 812)"), "{why}");
        let unknown = judged(&served(true), None);
        assert!(matches!(unknown, Verdict::InUse(why) if why.contains("process 812")));
        let none = judged(&Found::Unknown, None);
        assert!(matches!(none, Verdict::Never(why) if why.contains("no vDisk web")));
        let down = judged(&Found::Nobody("refused".into()), None);
        assert!(matches!(down, Verdict::NotYet(why) if why.contains("--run /run/firn")));
    }

    #[test]
    fn what_no_backend_can_help_with() {
        let judge = |change: &dyn Fn(&mut Domain)| {
            let mut it = web();
            change(&mut it);
            let ours: Vec<_> = it
                .disks
                .iter()
                .map(|d| (Path::new(RUN), "web", d))
                .collect();
            domain(&it, &ours)
        };
        assert_eq!(judge(&|_| {}), Ok(()));
        assert!(judge(&|d| d.vcpus = 65).unwrap_err().contains("64 at most"));
        assert_eq!(
            judge(&|d| {
                d.vcpus = 65;
                d.disks[0].queues = Some(64);
            }),
            Ok(())
        );
        let twice = judge(&|d| d.disks.push(d.disks[0].clone()));
        assert!(twice.unwrap_err().contains("twice"));
    }
}
