//! Snapshots that libvirt has deleted (`virsh snapshot-delete`): ours are let go of, and deleted, unless the domain's policy is to keep them.
//!
//! libvirt raises no event for it. So what the backend holds in libvirt's name is compared with what libvirt has.

use super::checkpoint::Holder;
use super::{Orchestrator, Outcome, Trouble};
use crate::hypervisor::{DomainInfo, DomainState};
use control_api::types::{DeleteSnapshots, Snapshot};
use control_api::{Client, ErrorKind};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

impl Orchestrator {
    /// When the snapshots of a domain that libvirt has were begun.
    pub(super) async fn known_to_libvirt(&self, uuid: Uuid) -> Outcome<HashSet<u64>> {
        let snapshots = self.ask(move |h| h.snapshots(uuid)).await?;
        Ok(snapshots.iter().map(|snapshot| snapshot.created).collect())
    }

    /// Lets go of what libvirt has deleted: what it had, in a domain that is still there. A domain that was undefined, and defined again,
    /// has deleted nothing. What it has is known from then on.
    pub(super) async fn forget(&self, domains: &[DomainInfo]) -> Outcome<()> {
        let mut backend = self.backend().await?;
        let mut held: HashMap<Uuid, Vec<(Snapshot, Holder)>> = HashMap::new();
        for snapshot in backend.snapshots(None).await? {
            if let Some(holder) = Holder::among(&snapshot.holds) {
                let held = held.entry(holder.domain).or_default();
                held.push((snapshot, holder));
            }
        }
        let mut known = self.journal.known()?;
        for info in domains {
            let before = known.remove(&info.uuid).unwrap_or_default();
            let _one = self.claim(info.uuid).await;
            let mut now = self.known_to_libvirt(info.uuid).await?;
            for (snapshot, holder) in held.remove(&info.uuid).unwrap_or_default() {
                if !now.contains(&holder.created) && before.contains(&holder.created) {
                    self.let_go(&mut backend, &snapshot, holder).await?;
                }
            }
            let uuid = info.uuid;
            let under_way = self.ask(move |h| {
                Ok(h.domain(uuid)?.state == DomainState::PausedForSnapshot || h.is_busy(uuid)?)
            });
            if under_way.await? {
                // The last one may be about to wait for us, or does. libvirt lists it from its beginning on.
                now.retain(|created| before.contains(created));
            }
            self.note_known(info.uuid, &before, now)?;
        }
        for (gone, before) in known {
            self.note_known(gone, &before, HashSet::new())?;
        }
        Ok(())
    }

    fn note_known(&self, domain: Uuid, before: &HashSet<u64>, now: HashSet<u64>) -> Outcome<()> {
        match *before == now {
            true => Ok(()),
            false => self.journal.know(domain, &now),
        }
    }

    /// Lets go of a snapshot that libvirt does not know any more.
    pub(super) async fn let_go(
        &self,
        backend: &mut Client,
        snapshot: &Snapshot,
        holder: Holder,
    ) -> Outcome<()> {
        let (vdisk, name) = (snapshot.vdisk.as_str(), snapshot.name.as_str());
        let released = backend
            .release_snapshot(vdisk, name, &holder.to_name())
            .await;
        match released.map_err(Trouble::from) {
            Err(trouble) if trouble.kind() != Some(ErrorKind::NotFound) => return Err(trouble),
            _ => {}
        }
        if self.policy_of(holder.domain).await?.keeps_deleted() {
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
