//! Whether a domain can be started with what it asks for. Nothing here looks at the world.

use crate::domain::{self, Disk, Domain};
use crate::process::FrontEnd;
use control_api::limits::QUEUES_MAX;
use control_api::types::{DomainState, VDisk};
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

/// Whether a vDisk can be attached now. `incoming`: the domain runs on another host of this backend's, and is being migrated here. `front_end` tells who a process
/// is, if it is one of this host: the other host may have processes of its own, and then the vDisk's record tells whose it is.
pub fn disk(
    domain: &Domain,
    vdisk: &domain::VDisk<'_>,
    disk: &Disk,
    incoming: bool,
    found: Found,
    front_end: impl Fn(u32) -> Option<FrontEnd>,
) -> Verdict {
    let (run, name) = (vdisk.run.display(), vdisk.name);
    let served = match found {
        Found::Served(vdisk) => vdisk,
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
    let Some(attached) = served.attached else {
        return Verdict::Ready;
    };
    let holder = front_end(attached.pid);
    if incoming && is_its(domain, &served, holder.as_ref()) {
        return match served.waiting {
            None => Verdict::Ready,
            Some(waiting) => Verdict::InUse(format!(
                "vDisk {name} is in use by domain {} itself, and another front end (process {}) waits for it already: stop that one",
                domain.name, waiting.pid
            )),
        };
    }
    let by = match holder {
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

/// Whether it is this domain that a vDisk is attached by.
fn is_its(domain: &Domain, vdisk: &VDisk, holder: Option<&FrontEnd>) -> bool {
    let uuid = match holder.and_then(|holder| holder.uuid) {
        Some(uuid) => Some(uuid),
        None => vdisk
            .domain
            .as_ref()
            .filter(|known| known.state == DomainState::Running)
            .map(|known| known.uuid),
    };
    uuid == Some(domain.uuid) && !domain.uuid.is_nil()
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::types::{Attachment, DomainUse};
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
            waiting: None,
            domain: None,
            flattening: None,
        }))
    }

    /// Served to somebody; the record says who, if anything.
    fn known_as(uuid: Option<u128>, state: DomainState) -> Found {
        let Found::Served(mut vdisk) = served(true) else {
            panic!("served");
        };
        vdisk.domain = uuid.map(|uuid| DomainUse {
            name: "shop".into(),
            uuid: Uuid::from_u128(uuid),
            state,
            reason: None,
            since: 0,
        });
        Found::Served(vdisk)
    }

    fn judged(found: Found, user: Option<FrontEnd>) -> Verdict {
        judged_as(false, found, user)
    }

    fn judged_as(incoming: bool, found: Found, user: Option<FrontEnd>) -> Verdict {
        let domain = web();
        disk(
            &domain,
            &vdisk(&domain.disks[0]),
            &domain.disks[0],
            incoming,
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
    fn what_a_migration_may_attach_beside_its_domain() {
        let its = |found, user| judged_as(true, found, user) == Verdict::Ready;
        let nobody = || served(true);
        assert!(its(served(false), None));
        assert!(its(nobody(), of(1)));
        assert!(!its(nobody(), of(2)));
        assert!(!its(nobody(), None));
        // A process that this host does not know, or that only has the number of the right one.
        let stranger = Some(FrontEnd {
            name: None,
            uuid: None,
        });
        for user in [None, stranger] {
            let recorded = |uuid, state| its(known_as(uuid, state), user.clone());
            assert!(recorded(Some(1), DomainState::Running));
            assert!(!recorded(Some(1), DomainState::Stopped));
            assert!(!recorded(Some(2), DomainState::Running));
            assert!(!recorded(None, DomainState::Running));
        }
        // What is seen counts for more than what was said.
        assert!(!its(known_as(Some(1), DomainState::Running), of(2)));
        let not_incoming = judged(known_as(Some(1), DomainState::Running), None);
        assert!(matches!(not_incoming, Verdict::InUse(_)));
        let Found::Served(mut vdisk) = served(true) else {
            panic!("served");
        };
        vdisk.waiting = vdisk.attached;
        let third = judged_as(true, Found::Served(vdisk), of(1));
        assert!(matches!(third, Verdict::InUse(why) if why.contains("waits for it already")));
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
