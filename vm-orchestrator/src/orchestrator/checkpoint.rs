//! libvirt has saved a domain's memory, paused it, and waits for its disks (`virsh snapshot-create-as --memspec ... --diskspec vda,snapshot=manual`).
//!
//! 1. All its vDisks are snapshotted as one group, by the name of libvirt's snapshot, and held in libvirt's name from the first moment on.
//! 2. It is resumed.
//!
//! # Crash
//! After 1 the hold says that it is done: a second look goes on with 2. What can't be done is undone as a whole, by the journal: the domain is
//! resumed, and libvirt's snapshot, which nobody could go back to, is deleted.

use super::decide::Seen;
use super::forget::known;
use super::journal::{Kind, Undo, Work};
use super::metadata::Said;
use super::trouble::unless_missing;
use super::{Orchestrator, Outcome, Trouble, names, now};
use crate::hypervisor::{DomainSnapshot, DomainState};
use control_api::ErrorKind;
use control_api::types::{CreateSnapshot, Snapshot};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a domain stays paused for a backend that does not answer; then it goes on without the snapshot.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// In whose name a snapshot is held for libvirt: that of a domain's own snapshot of the same name, which was begun at a moment. The name may
/// be given again, and two may be begun within a second; both together don't come again.
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
    /// Snapshots the domain's vDisks and resumes it. `late`: so long libvirt may have been done before that was seen. An error: nothing
    /// is decided, another look will.
    pub(super) async fn checkpoint(
        self: &Arc<Self>,
        seen: &Seen,
        snapshot: &DomainSnapshot,
        late: Duration,
    ) -> Outcome<()> {
        let uuid = seen.info.uuid;
        let began = Instant::now();
        let taken = loop {
            let left = PATIENCE.saturating_sub(began.elapsed());
            let taken = match tokio::time::timeout(left, self.take(seen, snapshot)).await {
                Ok(taken) => taken,
                Err(_) => Err(Trouble::refuse(
                    ErrorKind::Unavailable,
                    format!("the backend did not answer within {} s", PATIENCE.as_secs()),
                    "see its log",
                )),
            };
            match taken {
                Err(trouble) if trouble.passes() && began.elapsed() < PATIENCE => {
                    let waits = format!("snapshot {:?} waits: {trouble}", snapshot.name);
                    self.problem(&seen.info, Some(waits));
                    tokio::time::sleep(PAUSE).await;
                }
                other => break other,
            }
            self.is_still_paused(seen).await?;
        };
        let snapshotted = began.elapsed();
        // Whoever has resumed it meanwhile has had it write: those disks are not of the memory's instant.
        let taken = match self.is_still_paused(seen).await {
            Ok(()) => taken,
            Err(trouble) if trouble.passes() => return Err(trouble),
            Err(resumed) => taken.and(Err(resumed)),
        };
        if let Err(trouble) = taken {
            return self.undo(seen, snapshot, trouble).await;
        }
        self.ask(move |h| h.resume(uuid)).await?;
        let took = late + seen.idle.elapsed();
        self.problem(&seen.info, None);
        let mut all = self.journal.known_of(uuid)?;
        all.insert(known(snapshot, &all));
        self.journal.know(uuid, &all)?;
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
        self.say(uuid, &Said::done("checkpoint", &snapshot.name))
            .await
    }

    async fn is_still_paused(&self, seen: &Seen) -> Outcome<()> {
        let uuid = seen.info.uuid;
        match self.ask(move |h| h.domain(uuid)).await?.state {
            DomainState::PausedForSnapshot => Ok(()),
            state => Err(Trouble::refuse(
                ErrorKind::Refused,
                format!(
                    "somebody else has let domain {} go on: it is {}",
                    seen.info.name,
                    state.as_str()
                ),
                "",
            )),
        }
    }

    /// What can't be is undone as a whole.
    async fn undo(
        self: &Arc<Self>,
        seen: &Seen,
        snapshot: &DomainSnapshot,
        trouble: Trouble,
    ) -> Outcome<()> {
        self.metrics.checkpoint_failed();
        let answer = trouble.answer();
        log::error!(
            "domain {}: snapshot {:?} could not be taken, and is deleted again: {answer}",
            seen.info.name,
            snapshot.name
        );
        let work = Work {
            domain: seen.info.name.clone(),
            uuid: seen.info.uuid,
            begun: now(),
            kind: Kind::Undo(Undo {
                name: snapshot.name.clone(),
                created: snapshot.created,
                vdisks: names(&seen.disks),
                why: Said::reason(&answer),
            }),
        };
        let number = self.journal.begin(&work)?;
        self.go_on_undoing(number, &work).await
    }

    /// Does what is left of it: the domain first.
    pub(super) async fn go_on_undoing(self: &Arc<Self>, number: u64, work: &Work) -> Outcome<()> {
        let Kind::Undo(undo) = &work.kind else {
            return Err(Trouble::Journal(format!("entry {number} is no checkpoint")));
        };
        let uuid = work.uuid;
        let resumed = self.ask(move |h| match h.domain(uuid)?.state {
            DomainState::PausedForSnapshot => h.resume(uuid),
            _ => Ok(()),
        });
        self.unless_final(number, resumed.await)?;
        let (name, created) = (undo.name.clone(), undo.created);
        let deleted = self.ask(move |h| {
            let all = h.snapshots(uuid)?;
            match all.iter().any(|s| s.created == created && s.name == name) {
                true => h.delete_snapshot(uuid, &name),
                false => Ok(()),
            }
        });
        if let Err(trouble) = deleted.await {
            if trouble.passes() {
                return Err(trouble);
            }
            log::error!(
                "domain {}: snapshot {:?} has no disks, and libvirt does not delete it: {trouble}; virsh snapshot-delete it",
                work.domain,
                undo.name
            );
        }
        // One that was given up may have come about all the same.
        let holder = Holder {
            domain: uuid,
            created: undo.created,
        };
        if control_api::check_snapshot_name(&undo.name).is_ok() {
            let mut backend = self.backend().await?;
            for vdisk in &undo.vdisks {
                match backend
                    .snapshot(vdisk, &undo.name)
                    .await
                    .map_err(Trouble::from)
                {
                    Ok(ours) if ours.holds.contains(&holder.to_name()) => {
                        self.let_go(&mut backend, &ours, holder).await?;
                    }
                    Err(trouble) if trouble.passes() => return Err(trouble),
                    _ => {}
                }
            }
        }
        if let Err(trouble) = self
            .say(uuid, &Said::why("checkpoint", &undo.name, &undo.why))
            .await
            && trouble.passes()
        {
            return Err(trouble);
        }
        self.forget_wait(number);
        self.journal.end(number)
    }

    /// The snapshot of the vDisks, if it is not there yet.
    async fn take(&self, seen: &Seen, snapshot: &DomainSnapshot) -> Outcome<()> {
        control_api::check_snapshot_name(&snapshot.name)
            .map_err(|error| Trouble::Asked(error.into()))?;
        let uuid = seen.info.uuid;
        let holder = Holder {
            domain: uuid,
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
            let found = backend.snapshot(vdisk, &request.name).await;
            there.extend(unless_missing(found.map_err(Trouble::from))?);
        }
        let ours = |snapshot: &Snapshot| snapshot.holds.contains(&holder.to_name());
        if there.len() == request.vdisks.len() && there.iter().all(ours) {
            return Ok(());
        }
        let now = self.ask(move |h| h.snapshots(uuid)).await?;
        let before = self.journal.known_of(uuid)?;
        let deleted = |created| {
            let was = before.iter().any(|known| known.is(created, &request.name));
            let is = now
                .iter()
                .any(|s| s.created == created && s.name == request.name);
            was && !is
        };
        for old in &there {
            match Holder::among(&old.holds) {
                Some(holder) if holder.domain == uuid && deleted(holder.created) => {
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
