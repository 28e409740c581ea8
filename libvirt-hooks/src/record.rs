//! What has become of a domain is kept with its vDisks.

use crate::call::{Call, Operation};
use crate::domain::{self, Domain};
use crate::process;
use control_api::Client;
use control_api::limits::REASON_MAX;
use control_api::types::{DomainState, RecordDomain, VDisk};
use std::time::{Duration, Instant};

/// How long the connection of a QEMU that has gone may still be there, and how often that is looked at.
const CLOSING: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);

/// What libvirt says of a domain that goes on at another host.
const MIGRATED: &str = "migrated";

/// Tells the backend, if that is news. Failing is of no consequence.
pub async fn record(call: &Call, domain: &Domain, vdisk: &domain::VDisk<'_>) {
    let name = vdisk.name;
    let Ok(mut client) = Client::connect(vdisk.run).await else {
        return;
    };
    let began = Instant::now();
    loop {
        let Ok(vdisk) = client.vdisk(name).await else {
            return;
        };
        match news(call, domain, &vdisk, process::front_end) {
            News::None => return,
            // It is not its: the domain runs on another host of this backend's, whose processes have no names here.
            News::Later if began.elapsed() > CLOSING => return,
            News::Later => tokio::time::sleep(PAUSE).await,
            News::Is(said) => {
                drop(client.record_domain(name, &said).await);
                return;
            }
        }
    }
}

/// What is to be kept.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// Nothing that is not known.
    None,
    /// It is not clear yet.
    Later,
    /// This.
    Is(RecordDomain),
}

fn news(
    call: &Call,
    domain: &Domain,
    vdisk: &VDisk,
    front_end: impl Fn(u32) -> Option<process::FrontEnd>,
) -> News {
    let known = vdisk.domain.as_ref();
    let is_its = known.is_some_and(|known| known.uuid == domain.uuid);
    let state = match call.operation {
        Operation::Started | Operation::Found => DomainState::Running,
        _ => DomainState::Stopped,
    };
    let known_state = known.map(|known| known.state);
    if state == DomainState::Stopped {
        // A start that has failed ends with a release: somebody else may have the vDisk.
        if !is_its || known_state == Some(DomainState::Stopped) {
            return News::None;
        }
        // The host that it has come from says so, and it runs.
        if call.reason.as_deref() == Some(MIGRATED) {
            return News::None;
        }
        let user = vdisk.attached.as_ref().map(|by| front_end(by.pid));
        match user.map(|user| user.and_then(|user| user.uuid)) {
            // It runs elsewhere.
            Some(Some(other)) if other == domain.uuid => return News::None,
            // Its own connection that is not closed yet, or nobody of this host.
            Some(None) => return News::Later,
            Some(Some(_)) | None => {}
        }
    } else if call.operation == Operation::Found
        && is_its
        && known_state == Some(DomainState::Running)
    {
        // A libvirtd that starts finds all domains again. A start is always news: nobody may have heard of the end before.
        return News::None;
    }
    let reason = call
        .reason
        .as_deref()
        .filter(|_| state == DomainState::Stopped);
    let reason = reason.map(|reason| reason.chars().take(REASON_MAX / 4).collect());
    News::Is(RecordDomain {
        name: domain.name.clone(),
        uuid: domain.uuid,
        state,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::types::{Attachment, DomainUse};
    use uuid::Uuid;

    fn domain(uuid: u128) -> Domain {
        Domain {
            name: "shop".into(),
            uuid: Uuid::from_u128(uuid),
            vcpus: 1,
            disks: Vec::new(),
        }
    }

    fn vdisk(known: Option<(u128, DomainState)>, attached: bool) -> VDisk {
        VDisk {
            name: "web".into(),
            uuid: Uuid::nil(),
            serial: String::new(),
            size: 0,
            created: 0,
            tag: None,
            write_cache: true,
            read_only: false,
            socket: String::new(),
            attached: attached.then_some(Attachment {
                pid: 812,
                uid: 0,
                since: 0,
            }),
            waiting: None,
            domain: known.map(|(uuid, state)| DomainUse {
                name: "shop".into(),
                uuid: Uuid::from_u128(uuid),
                state,
                reason: None,
                since: 0,
            }),
            flattening: None,
        }
    }

    fn call(line: &str) -> Call {
        Call::of(line.split(' ').map(str::to_owned))
    }

    fn qemu_of(uuid: u128) -> impl Fn(u32) -> Option<process::FrontEnd> {
        move |_| {
            (uuid != 0).then(|| process::FrontEnd {
                name: None,
                uuid: Some(Uuid::from_u128(uuid)),
            })
        }
    }

    const RUNNING: DomainState = DomainState::Running;
    const STOPPED: DomainState = DomainState::Stopped;

    #[test]
    fn what_is_news() {
        let said =
            |line: &str, vdisk: &VDisk, qemu| news(&call(line), &domain(1), vdisk, qemu_of(qemu));
        let is = |news: News, state, reason: Option<&str>| {
            let News::Is(said) = news else {
                panic!("{news:?}");
            };
            assert_eq!((said.state, said.reason.as_deref()), (state, reason));
        };
        is(
            said("shop started begin -", &vdisk(None, true), 1),
            RUNNING,
            None,
        );
        is(
            said("shop started begin -", &vdisk(Some((2, RUNNING)), true), 1),
            RUNNING,
            None,
        );
        let known = vdisk(Some((1, RUNNING)), true);
        is(said("shop started begin -", &known, 1), RUNNING, None);
        assert_eq!(said("shop reconnect begin -", &known, 1), News::None);
        let gone = vdisk(Some((1, RUNNING)), false);
        is(
            said("shop release end crashed", &gone, 0),
            STOPPED,
            Some("crashed"),
        );
        assert_eq!(
            said(
                "shop release end crashed",
                &vdisk(Some((1, STOPPED)), false),
                0
            ),
            News::None
        );
        // Its connection is not closed yet.
        assert_eq!(said("shop release end shutdown", &known, 0), News::Later);
        // It runs elsewhere, and this may be known or not.
        for qemu in [1, 2, 0] {
            let migrated = said("shop release end migrated", &known, qemu);
            assert_eq!(migrated, News::None);
        }
        assert_eq!(said("shop release end migrated", &gone, 0), News::None);
        // A migration here that has come to nothing.
        assert_eq!(said("shop release end failed", &known, 1), News::None);
        assert_eq!(said("shop release end failed", &known, 0), News::Later);
        // Its start has failed: the vDisk is another one's.
        assert_eq!(
            said(
                "shop release end failed",
                &vdisk(Some((2, RUNNING)), true),
                2
            ),
            News::None
        );
        assert_eq!(
            said("shop release end failed", &vdisk(None, false), 0),
            News::None
        );
    }
}
