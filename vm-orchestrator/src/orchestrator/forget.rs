//! Snapshots that libvirt has deleted (`virsh snapshot-delete`): ours are let go of, and deleted, unless the domain's policy is to keep them.
//!
//! libvirt raises no event for it. So what the backend holds in libvirt's name is compared with what libvirt has, and had. A snapshot that
//! libvirt only does not know any more (`--metadata`, a domain that was undefined and is defined again) has its memory image still: ours stays.

use super::checkpoint::Holder;
use super::journal::Known;
use super::{Orchestrator, Outcome, Trouble};
use crate::hypervisor::{DomainInfo, DomainSnapshot, DomainState};
use control_api::types::{DeleteSnapshots, Snapshot};
use control_api::{Client, ErrorKind};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

type Held = HashMap<Uuid, Vec<(Snapshot, Holder)>>;

impl Orchestrator {
    /// Lets go of what libvirt has deleted, in domains that are there. What these have is known from then on.
    pub(super) async fn forget(&self, domains: &[DomainInfo]) -> Outcome<()> {
        let mut backend = self.backend().await?;
        let mut held = Held::new();
        for snapshot in backend.snapshots(None).await? {
            if let Some(holder) = Holder::among(&snapshot.holds) {
                let held = held.entry(holder.domain).or_default();
                held.push((snapshot, holder));
            }
        }
        for info in domains {
            // Whoever has claimed it may take its time.
            let Some(_one) = self.try_claim(info.uuid) else {
                continue;
            };
            let held = held.remove(&info.uuid).unwrap_or_default();
            if let Err(trouble) = self.forget_of(&mut backend, info, &held).await {
                log::debug!("domain {}: what libvirt has deleted: {trouble}", info.name);
            }
        }
        for gone in self.journal.known()?.into_keys() {
            if !domains.iter().any(|info| info.uuid == gone) {
                self.journal.know(gone, &HashSet::new())?;
            }
        }
        Ok(())
    }

    async fn forget_of(
        &self,
        backend: &mut Client,
        info: &DomainInfo,
        held: &[(Snapshot, Holder)],
    ) -> Outcome<()> {
        let before = self.journal.known_of(info.uuid)?;
        let uuid = info.uuid;
        let mut now = self.ask(move |h| h.snapshots(uuid)).await?;
        for (snapshot, holder) in held {
            let is = |known: &Known| known.is(holder.created, &snapshot.name);
            let there = now
                .iter()
                .any(|s| s.created == holder.created && s.name == snapshot.name);
            if !there && before.iter().any(|known| is(known) && image_is_gone(known)) {
                self.let_go(backend, snapshot, *holder).await?;
            }
        }
        // Busy first: a save that ends in between leaves it paused.
        let under_way = self.ask(move |h| {
            Ok(h.is_busy(uuid)? || h.domain(uuid)?.state == DomainState::PausedForSnapshot)
        });
        if under_way.await? {
            // The last one may be about to wait for us, or does. libvirt lists it from its beginning on.
            now.retain(|s| before.iter().any(|known| known.is(s.created, &s.name)));
        }
        let now: HashSet<Known> = now.iter().map(|s| known(s, &before)).collect();
        match before == now {
            true => Ok(()),
            false => self.journal.know(uuid, &now),
        }
    }

    /// Lets go of a snapshot that libvirt does not have any more.
    pub(super) async fn let_go(
        &self,
        backend: &mut Client,
        snapshot: &Snapshot,
        holder: Holder,
    ) -> Outcome<()> {
        let (vdisk, name) = (snapshot.vdisk.as_str(), snapshot.name.as_str());
        let hold = holder.to_name();
        let released = backend.release_snapshot(vdisk, name, &hold).await;
        match released.map_err(Trouble::from) {
            // It is not the one that was looked at.
            Err(trouble) if trouble.kind() == Some(ErrorKind::NotFound) => return Ok(()),
            other => drop(other?),
        }
        if self.policy_of(holder.domain).await?.keep_deleted {
            log::info!(
                "snapshot {name} of vDisk {vdisk}: libvirt has deleted its own; this one is kept"
            );
            return Ok(());
        }
        let request = DeleteSnapshots {
            names: vec![name.to_owned()],
            // Clones may lie over it.
            defer: true,
        };
        match backend
            .delete_snapshots(vdisk, &request)
            .await
            .map_err(Trouble::from)
        {
            Ok(_) => log::info!("snapshot {name} of vDisk {vdisk}: deleted, as libvirt's own"),
            // Others hold it: it is theirs now.
            Err(trouble) => log::info!(
                "snapshot {name} of vDisk {vdisk}: libvirt has deleted its own; this one stays: {trouble}"
            ),
        }
        Ok(())
    }
}

/// What is remembered of one of libvirt's. An image that was seen once is one whose end means something.
pub(super) fn known(snapshot: &DomainSnapshot, before: &HashSet<Known>) -> Known {
    let old = before
        .iter()
        .find(|known| known.is(snapshot.created, &snapshot.name));
    let seen = || snapshot.memory.clone().filter(|image| image.exists());
    Known {
        created: snapshot.created,
        name: snapshot.name.clone(),
        image: old.and_then(|known| known.image.clone()).or_else(seen),
    }
}

/// Only where its directory is there: a filesystem that is not mounted has deleted nothing.
fn image_is_gone(known: &Known) -> bool {
    known.image.as_ref().is_some_and(|image| {
        let dir = image.parent().is_some_and(std::path::Path::exists);
        dir && !image.exists()
    })
}
