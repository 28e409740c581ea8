//! Whether a domain can be started with what it asks for. Nothing here looks at the world.

use crate::domain::{self, Disk, Domain};
use crate::process::FrontEnd;
use control_api::limits::QUEUES_MAX;
use control_api::types::VDisk;
use std::collections::HashSet;

/// What a backend says of a vDisk.
#[derive(Debug)]
pub enum Found {
    /// It is served.
    Served(Box<VDisk>),
    /// There is none of that name.
    Unknown,
    /// No backend says so, why, and the way out.
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
pub fn domain(domain: &Domain, ours: &[(domain::VDisk<'_>, &Disk)]) -> Result<(), String> {
    let mut seen = HashSet::new();
    for (domain::VDisk { run, name, .. }, disk) in ours {
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
    vdisk: &domain::VDisk<'_>,
    disk: &Disk,
    found: Found,
    front_end: impl Fn(u32) -> Option<FrontEnd>,
) -> Verdict {
    let (run, name) = (vdisk.run.display(), vdisk.name);
    let attached = match found {
        Found::Served(vdisk) => vdisk.attached,
        Found::Unknown => {
            return Verdict::Never(format!(
                "there is no vDisk {name} in {run}, which {} of domain {} is: see firn --run {run} vdisk list",
                disk.target, domain.name
            ));
        }
        Found::Nobody(why) => {
            return Verdict::NotYet(format!("vDisk {name} is not served: {why}"));
        }
    };
    let Some(attached) = attached else {
        return Verdict::Ready;
    };
    let by = match front_end(attached.pid) {
        Some(other) if other.uuid == Some(domain.uuid) && !domain.uuid.is_nil() => {
            "another QEMU of this same domain".into()
        }
        Some(other) => other.what(),
        None => "another front end".into(),
    };
    Verdict::InUse(format!(
        "vDisk {name} is in use by {by} (process {}): a vDisk has one user; stop that one, or use a clone: \
         firn snapshot create SNAPSHOT {name}, firn vdisk clone {name} SNAPSHOT NEW",
        attached.pid
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::types::Attachment;
    use uuid::Uuid;

    fn vdisk(disk: &Disk) -> domain::VDisk<'_> {
        disk.vdisk().unwrap()
    }

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

    fn judged(found: Found, user: Option<FrontEnd>) -> Verdict {
        let domain = web();
        disk(
            &domain,
            &vdisk(&domain.disks[0]),
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
        assert_eq!(judged(served(false), None), Verdict::Ready);
        let itself = judged(served(true), of(1));
        assert!(matches!(itself, Verdict::InUse(why) if why.contains("same domain")));
        let Verdict::InUse(why) = judged(served(true), of(2)) else {
            panic!("somebody else's");
        };
        assert!(why.contains("domain other (process 812)"), "{why}");
        let unknown = judged(served(true), None);
        assert!(matches!(unknown, Verdict::InUse(why) if why.contains("process 812")));
        let none = judged(Found::Unknown, None);
        assert!(matches!(none, Verdict::Never(why) if why.contains("no vDisk web")));
        let down = judged(Found::Nobody("refused".into()), None);
        assert!(matches!(down, Verdict::NotYet(why) if why.contains("not served: refused")));
    }

    #[test]
    fn what_no_backend_can_help_with() {
        let judge = |change: &dyn Fn(&mut Domain)| {
            let mut it = web();
            change(&mut it);
            let ours: Vec<_> = it.disks.iter().map(|d| (vdisk(d), d)).collect();
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
