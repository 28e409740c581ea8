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
        let wanted = request.name.clone();
        let (xml, taken) = self
            .ask(move |h| {
                Ok((
                    h.xml(uuid, Description::Persistent)?,
                    h.find(&wanted).is_ok(),
                ))
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
            if backend.vdisk(to).await.is_ok() {
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
        let Kind::Clone(clone) = work.kind else {
            return Err(Trouble::Journal(format!("entry {number} is no clone")));
        };
        match self.make(&clone).await {
            Ok(()) => {}
            // It can't be: nothing of it remains.
            Err(trouble) if !trouble.passes() => {
                let undone = self.unmake(&clone).await;
                if undone.as_ref().is_err_and(Trouble::passes) {
                    return Err(trouble);
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

    async fn make(&self, clone: &Clone) -> Outcome<()> {
        let mut backend = self.backend().await?;
        for (from, to) in &clone.vdisks {
            let request = CloneSnapshot { name: to.clone() };
            let made = backend.clone_snapshot(from, &clone.snapshot, &request);
            if let Err(trouble) = made.await.map_err(Trouble::from) {
                let taken = trouble.kind() == Some(ErrorKind::AlreadyExists);
                if !(taken && is_ours(&mut backend, clone, from, to).await?) {
                    return Err(trouble);
                }
            }
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
        self.ask(move |h| h.undefine(uuid)).await?;
        let mut backend = self.backend().await?;
        for (from, to) in &clone.vdisks {
            if !is_ours(&mut backend, clone, from, to).await? {
                continue;
            }
            match backend.delete(to).await.map_err(Trouble::from) {
                Err(trouble) if trouble.kind() != Some(ErrorKind::NotFound) => return Err(trouble),
                _ => {}
            }
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

/// Whether a vDisk of a clone's name is the clone's: of the snapshot, and made since. Others' are neither taken nor deleted.
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
