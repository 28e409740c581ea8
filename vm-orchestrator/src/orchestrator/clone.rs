//! A new domain of another one's snapshot.
//!
//! 1. The journal says what is made, with the new domain's identity.
//! 2. Each vDisk is cloned from the snapshot.
//! 3. The domain is defined.
//! 4. It is started, if that was asked for.
//! 5. The journal's entry goes.
//!
//! # Crash
//! Each step finds that it is done: names and UUID were free when the entry was made. What can't be done is undone: no domain, no vDisks.

use super::journal::{Clone, Kind, Work};
use super::trouble::unless_missing;
use super::unfinished::still_going;
use super::{Orchestrator, Outcome, Trouble, now};
use crate::domain::edit;
use crate::hypervisor::{Description, DomainState, HypervisorError};
use control_api::types::{CloneDomain, CloneSnapshot, DomainCloned, DomainDisk};
use control_api::{Client, ErrorKind, check_name, check_snapshot_name};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

impl Orchestrator {
    /// Begins it, and does it.
    pub(super) async fn clone_domain(
        self: &Arc<Self>,
        domain: &str,
        request: &CloneDomain,
    ) -> Outcome<DomainCloned> {
        let asked = |error: control_api::LimitError| Trouble::Asked(error.into());
        check_snapshot_name(&request.snapshot).map_err(asked)?;
        control_api::limits::check_domain(&request.name, None).map_err(asked)?;
        let (info, disks) = self.find_ours(domain).await?;
        let uuid = info.uuid;
        let _one = self.claim(uuid).await;
        self.nothing_under_way(uuid)?;
        let wanted = request.name.clone();
        let (xml, taken) = self
            .ask(move |h| {
                let taken = match h.find(&wanted) {
                    Ok(_) => true,
                    Err(HypervisorError::NoDomain(_)) => false,
                    Err(other) => return Err(other),
                };
                Ok((h.xml(uuid, Description::Persistent)?, taken))
            })
            .await?;
        if taken {
            let text = format!("there is a domain {} already", request.name);
            return Err(Trouble::refuse(
                ErrorKind::AlreadyExists,
                text,
                "choose another name",
            ));
        }
        let vdisks = new_names(&disks, &request.name);
        let mut backend = self.backend().await?;
        for (from, to) in &vdisks {
            check_name(to).map_err(asked)?;
            backend.snapshot(from, &request.snapshot).await?;
            let there = backend.vdisk(to).await;
            if unless_missing(there.map_err(Trouble::from))?.is_some() {
                let text = format!("there is a vDisk {to} already");
                return Err(Trouble::refuse(
                    ErrorKind::AlreadyExists,
                    text,
                    "choose another name for the clone",
                ));
            }
        }
        let new = Uuid::new_v4();
        let sockets = self.sockets(&backend_sockets(&mut backend, &disks).await?, &vdisks);
        let sockets = sockets
            .iter()
            .map(|(from, to)| (from.as_path(), to.as_path()));
        let xml = edit::cloned(&xml, &request.name, new, &sockets.collect()).map_err(|error| {
            let text = format!("domain {} can't be cloned: {error}", info.name);
            Trouble::refuse(ErrorKind::Refused, text, "")
        })?;
        let work = Work {
            domain: info.name,
            uuid,
            begun: now(),
            kind: Kind::Clone(Clone {
                snapshot: request.snapshot.clone(),
                name: request.name.clone(),
                uuid: new,
                begun: now(),
                xml,
                vdisks,
                made: Vec::new(),
                start: request.start,
            }),
        };
        let number = self.journal.begin(&work)?;
        still_going(self.go_on_cloning(number, work).await)
    }

    /// Does what is left of it.
    pub(super) async fn go_on_cloning(
        self: &Arc<Self>,
        number: u64,
        work: Work,
    ) -> Outcome<DomainCloned> {
        let Kind::Clone(mut clone) = work.kind.clone() else {
            return Err(Trouble::Journal(format!("entry {number} is no clone")));
        };
        match self.make(number, &work, &mut clone).await {
            Ok(()) => {}
            // It can't be: nothing of it remains.
            Err(trouble) if !trouble.passes() => {
                match self.unmake(&clone).await {
                    Err(undoing) if undoing.passes() => return Err(trouble),
                    Err(undoing) => log::error!(
                        "domain {}: what was made of it stays: {undoing}",
                        clone.name
                    ),
                    Ok(()) => {}
                }
                self.forget_wait(number);
                self.journal.end(number)?;
                return Err(trouble);
            }
            Err(trouble) => return Err(trouble),
        }
        self.forget_wait(number);
        self.journal.end(number)?;
        log::info!(
            "domain {}: made of snapshot {} of domain {}",
            clone.name,
            clone.snapshot,
            work.domain
        );
        Ok(DomainCloned {
            domain: clone.name,
            uuid: clone.uuid,
            vdisks: clone.vdisks.into_iter().map(|(_, to)| to).collect(),
            started: clone.start,
        })
    }

    async fn make(&self, number: u64, work: &Work, clone: &mut Clone) -> Outcome<()> {
        let mut backend = self.backend().await?;
        for (from, to) in clone.vdisks.clone() {
            if clone.made.contains(&to) {
                continue;
            }
            let request = CloneSnapshot { name: to.clone() };
            let made = backend.clone_snapshot(&from, &clone.snapshot, &request);
            if let Err(trouble) = made.await.map_err(Trouble::from) {
                let taken = trouble.kind() == Some(ErrorKind::AlreadyExists);
                // Made before an interruption: that is not known for sure, so it is never deleted.
                if !(taken && is_ours(&mut backend, clone, &from, &to).await?) {
                    return Err(trouble);
                }
                continue;
            }
            clone.made.push(to);
            let mut work = work.clone();
            work.kind = Kind::Clone(clone.clone());
            self.journal.note(number, &work)?;
        }
        let (uuid, xml, start) = (clone.uuid, clone.xml.clone(), clone.start);
        self.ask(move |h| {
            match h.domain(uuid) {
                Err(HypervisorError::NoDomain(_)) => h.define(&xml)?,
                other => drop(other?),
            }
            match start && h.domain(uuid)?.state == DomainState::Off {
                true => h.start(uuid),
                false => Ok(()),
            }
        })
        .await
    }

    async fn unmake(&self, clone: &Clone) -> Outcome<()> {
        let uuid = clone.uuid;
        let runs = self.ask(move |h| match h.domain(uuid) {
            Err(HypervisorError::NoDomain(_)) => Ok(false),
            Ok(info) if info.state == DomainState::Off => h.undefine(uuid).map(|()| false),
            other => other.map(|_| true),
        });
        if runs.await? {
            let text = format!("domain {} runs", clone.name);
            return Err(Trouble::refuse(ErrorKind::Busy, text, ""));
        }
        let mut backend = self.backend().await?;
        for to in &clone.made {
            let deleted = backend.delete(to).await;
            unless_missing(deleted.map_err(Trouble::from))?;
        }
        Ok(())
    }

    /// From the sockets in the XML to those of the new vDisks, which are beside the control socket.
    fn sockets(
        &self,
        old: &BTreeMap<String, PathBuf>,
        vdisks: &[(String, String)],
    ) -> BTreeMap<PathBuf, PathBuf> {
        let mut sockets = BTreeMap::new();
        for (from, to) in vdisks {
            let new = self.run.join(format!("{to}.sock"));
            let beside = self.run.join(format!("{from}.sock"));
            // /var/run is /run, and XML may say either.
            if let Ok(rest) = beside.strip_prefix("/run") {
                sockets.insert(Path::new("/var/run").join(rest), new.clone());
            }
            sockets.extend(old.get(from).map(|socket| (socket.clone(), new.clone())));
            sockets.insert(beside, new);
        }
        sockets
    }
}

/// Whether a vDisk of a clone's name may be the clone's: of the snapshot, and made since.
async fn is_ours(backend: &mut Client, clone: &Clone, from: &str, to: &str) -> Outcome<bool> {
    let snapshot = backend.snapshot(from, &clone.snapshot).await?;
    if !snapshot.clones.iter().any(|name| name == to) {
        return Ok(false);
    }
    Ok(backend.vdisk(to).await?.created >= clone.begun)
}

/// Where the backend says that vDisks listen.
async fn backend_sockets(
    backend: &mut Client,
    disks: &[DomainDisk],
) -> Outcome<BTreeMap<String, PathBuf>> {
    let mut sockets = BTreeMap::new();
    for disk in disks {
        let socket = backend.vdisk(&disk.vdisk).await?.socket;
        sockets.insert(disk.vdisk.clone(), socket.into());
    }
    Ok(sockets)
}

/// What a clone's vDisks are called: as the domain, with the disk's target where there are several.
fn new_names(disks: &[DomainDisk], name: &str) -> Vec<(String, String)> {
    // What a vDisk's name can't hold is left out of it.
    let plain: String = name
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => c,
            _ => '-',
        })
        .collect();
    let named = disks.iter().map(|disk| {
        let new = match disks.len() {
            1 => plain.clone(),
            _ => format!("{plain}-{}", disk.target),
        };
        (disk.vdisk.clone(), new)
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clones() {
        let disk = |target: &str, vdisk: &str| DomainDisk {
            target: target.into(),
            vdisk: vdisk.into(),
        };
        let one = [disk("vda", "web")];
        assert_eq!(new_names(&one, "my vm"), [("web".into(), "my-vm".into())]);
        let two = [disk("vda", "web"), disk("vdb", "db")];
        assert_eq!(
            new_names(&two, "b"),
            [
                ("web".into(), "b-vda".into()),
                ("db".into(), "b-vdb".into())
            ]
        );
    }
}
