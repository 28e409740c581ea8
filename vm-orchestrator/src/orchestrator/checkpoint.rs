//! libvirt has saved a domain's memory, paused it, and waits for its disks (`virsh snapshot-create-as --memspec ... --diskspec vda,snapshot=manual`).
//!
//! 1. All its vDisks are snapshotted as one group, by the name of libvirt's snapshot, and held in libvirt's name from the first moment on.
//! 2. It is resumed.
//!
//! # Crash
//! After 1 the hold says that it is done: a second look goes on with 2. What can't be done is undone as a whole: libvirt's snapshot is deleted, for
//! nobody could go back to it, and the domain resumed.

use super::decide::Seen;
use super::metadata::Said;
use super::{Orchestrator, Outcome, Trouble, names};
use crate::hypervisor::DomainSnapshot;
use control_api::ErrorKind;
use control_api::types::{CreateSnapshot, Snapshot};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a domain stays paused for a backend that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// In whose name a snapshot is held for libvirt: that of a domain's own snapshot, which was begun at a moment. Its name may be given
/// again; the moment never comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub domain: Uuid,
    /// Seconds since 1970.
    pub created: u64,
}

impl Holder {
    pub fn to_name(self) -> String {
        format!("libvirt-{}-{}", self.domain.simple(), self.created)
    }

    pub fn of(name: &str) -> Option<Holder> {
        let (domain, created) = name.strip_prefix("libvirt-")?.split_once('-')?;
        let holder = Holder {
            domain: Uuid::try_parse(domain).ok()?,
            created: created.parse().ok()?,
        };
        // Nothing but what is made here.
        (holder.to_name() == name).then_some(holder)
    }

    /// For which of libvirt's snapshots this one is held.
    pub fn among(holds: &[String]) -> Option<Holder> {
        holds.iter().find_map(|name| Holder::of(name))
    }
}

impl Orchestrator {
    /// Snapshots the domain's vDisks and resumes it. `late`: so long libvirt may have been done
    /// before that was seen. An error: nothing is decided, another look
    /// will.
    pub(super) async fn checkpoint(
        self: &Arc<Self>,
        seen: &Seen,
        snapshot: &DomainSnapshot,
        late: Duration,
    ) -> Outcome<()> {
        let uuid = seen.info.uuid;
        let began = Instant::now();
        let taken = loop {
            match self.take(seen, snapshot).await {
                Err(trouble) if trouble.passes() && began.elapsed() < PATIENCE => {
                    self.problem(
                        &seen.info,
                        Some(format!("snapshot {:?} waits: {trouble}", snapshot.name)),
                    );
                    tokio::time::sleep(PAUSE).await;
                }
                other => break other,
            }
        };
        if let Err(trouble) = &taken {
            // Before it is resumed: who sees it run finds no snapshot that is none.
            let name = snapshot.name.clone();
            self.ask(move |h| h.delete_snapshot(uuid, &name)).await?;
            log::error!(
                "domain {}: snapshot {:?} could not be taken, and is deleted again: {trouble}",
                seen.info.name,
                snapshot.name
            );
            self.metrics.checkpoint_failed();
        }
        let snapshotted = began.elapsed();
        self.ask(move |h| h.resume(uuid)).await?;
        self.problem(&seen.info, None);
        let said = match taken {
            Ok(()) => {
                let took = late + seen.idle.elapsed();
                let mut known = self.journal.known()?.remove(&uuid).unwrap_or_default();
                known.insert(snapshot.created);
                self.journal.know(uuid, &known)?;
                self.metrics.checkpoint(took);
                log::info!(
                    "domain {}: snapshot {} of vDisks {} is there; it runs again {} us after libvirt was done ({} of them for the snapshot, {} to resume)",
                    seen.info.name,
                    snapshot.name,
                    names(&seen.disks).join(", "),
                    took.as_micros(),
                    snapshotted.as_micros(),
                    (began.elapsed() - snapshotted).as_micros(),
                );
                Said::done("checkpoint", &snapshot.name)
            }
            Err(trouble) => Said::failed("checkpoint", &snapshot.name, &trouble.answer()),
        };
        self.say(uuid, &said).await
    }

    /// The snapshot of the vDisks, if it is not there yet.
    async fn take(&self, seen: &Seen, snapshot: &DomainSnapshot) -> Outcome<()> {
        control_api::check_snapshot_name(&snapshot.name)
            .map_err(|error| Trouble::Asked(error.into()))?;
        let holder = Holder {
            domain: seen.info.uuid,
            created: snapshot.created,
        };
        let request = CreateSnapshot {
            name: snapshot.name.clone(),
            vdisks: names(&seen.disks),
            hold: Some(holder.to_name()),
        };
        let mut backend = self.backend().await?;
        let trouble = match backend.create_snapshot(&request).await {
            Ok(_) => return Ok(()),
            Err(error) => Trouble::from(error),
        };
        if trouble.kind() != Some(ErrorKind::AlreadyExists) {
            return Err(trouble);
        }
        // Ours already, or one of libvirt's that has been deleted since?
        let mut there = Vec::new();
        for vdisk in &request.vdisks {
            match backend
                .snapshot(vdisk, &request.name)
                .await
                .map_err(Trouble::from)
            {
                Ok(snapshot) => there.push(snapshot),
                Err(missing) if missing.kind() == Some(ErrorKind::NotFound) => {}
                Err(other) => return Err(other),
            }
        }
        let ours = |snapshot: &Snapshot| snapshot.holds.contains(&holder.to_name());
        if there.len() == request.vdisks.len() && there.iter().all(ours) {
            return Ok(());
        }
        let known = self.known_to_libvirt(seen.info.uuid).await?;
        let before = self
            .journal
            .known()?
            .remove(&seen.info.uuid)
            .unwrap_or_default();
        let deleted = |created| before.contains(&created) && !known.contains(&created);
        for old in &there {
            match Holder::among(&old.holds) {
                Some(holder) if holder.domain == seen.info.uuid && deleted(holder.created) => {
                    self.let_go(&mut backend, old, holder).await?;
                }
                _ => return Err(trouble),
            }
        }
        Ok(backend.create_snapshot(&request).await.map(drop)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders() {
        let holder = Holder {
            domain: Uuid::from_u128(0x1234),
            created: 1_700_000_000,
        };
        let name = holder.to_name();
        assert!(control_api::check_snapshot_name(&name).is_ok(), "{name}");
        assert_eq!(Holder::of(&name), Some(holder));
        assert_eq!(Holder::among(&["backup".into(), name]), Some(holder));
        for other in [
            "",
            "libvirt-",
            "libvirt-x-1",
            "libvirt-00000000-0000-0000-0000-000000000001-1",
        ] {
            assert_eq!(Holder::of(other), None, "{other}");
        }
    }
}
