//! A snapshot of all vDisks of a domain, its filesystems frozen for the instant or not.
//!
//! 1. The journal says so.
//! 2. The guest's agent freezes the filesystems.
//! 3. The vDisks are snapshotted as one group.
//! 4. They are thawed, whatever has become of 2 and 3; as often as it takes.
//! 5. The journal's entry goes, when whoever has asked has got the answer.
//!
//! # Crash
//! While there is an entry, thawing is tried again, by this process or the next one.

use super::journal::{Kind, Work};
use super::{Orchestrator, Outcome, Trouble, names, now};
use crate::hypervisor::{DomainInfo, DomainState, HypervisorError};
use control_api::ErrorKind;
use control_api::types::{CreateSnapshot, DomainDisk, DomainSnapshotTaken};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Seconds that the guest's agent may take for an answer. A freeze syncs everything first.
const AGENT: u16 = 20;
/// How long filesystems stay frozen for the backend.
const FROZEN_MAX: Duration = Duration::from_secs(10);

impl Orchestrator {
    /// Takes the snapshot. Whoever calls it has claimed the domain, and ends the journal's entry when nobody will ask again
    /// ([`Self::end_snapshots`]).
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        info: &DomainInfo,
        disks: &[DomainDisk],
        name: &str,
        quiesce: bool,
    ) -> Outcome<DomainSnapshotTaken> {
        let refuse =
            |text: String, hint: &str| Err(Trouble::refuse(ErrorKind::Refused, text, hint));
        if disks.is_empty() {
            return refuse(
                format!(
                    "domain {} has no vDisk of {}",
                    info.name,
                    self.run.display()
                ),
                &format!("firn attach VDISK {}", info.name),
            );
        }
        if quiesce && info.state != DomainState::Running {
            return refuse(
                format!(
                    "domain {} is {}: there is nobody to freeze its filesystems",
                    info.name,
                    info.state.as_str()
                ),
                "without --quiesce it can be snapshotted: nothing writes to its vDisks now",
            );
        }
        let mut backend = self.backend().await?;
        let request = CreateSnapshot {
            name: name.to_owned(),
            vdisks: names(disks),
            hold: None,
        };
        if let Some(begun) = self.begun(info.uuid, name)? {
            // Interrupted after it was taken: the answer was lost.
            if self.is_there(&mut backend, &request, begun).await? {
                return Ok(taken(info, request, 0, Duration::ZERO));
            }
            self.end_snapshots(info.uuid)?;
        }
        let work = Work {
            domain: info.name.clone(),
            uuid: info.uuid,
            begun: now(),
            kind: Kind::Snapshot {
                name: name.to_owned(),
                quiesce,
            },
        };
        let number = self.journal.begin(&work)?;
        if !quiesce {
            let created = backend.create_snapshot(&request).await;
            self.unless_final(number, created.map_err(Trouble::from))?;
            return Ok(taken(info, request, 0, Duration::ZERO));
        }
        let (uuid, began) = (info.uuid, Instant::now());
        let frozen = self.ask(move |h| h.freeze(uuid, AGENT)).await;
        let created = match &frozen {
            Ok(_) => {
                let created = backend.create_snapshot(&request);
                match tokio::time::timeout(FROZEN_MAX, created).await {
                    Ok(created) => created.map(drop).map_err(Trouble::from),
                    Err(_) => Err(Trouble::refuse(
                        ErrorKind::Unavailable,
                        format!(
                            "the backend did not answer within {} s",
                            FROZEN_MAX.as_secs()
                        ),
                        "see its log",
                    )),
                }
            }
            Err(_) => Ok(()),
        };
        match &frozen {
            // Somebody else has frozen them, for a reason of their own.
            Err(trouble) if trouble.to_string().contains("frozen") => self.journal.end(number)?,
            _ => self.thaw(number, &work).await,
        }
        let count = frozen.map_err(|trouble| match trouble {
            Trouble::Hypervisor(HypervisorError::Refused(why)) => Trouble::refuse(
                ErrorKind::Refused,
                format!("domain {}: its filesystems can't be frozen: {why}", info.name),
                "install qemu-guest-agent in the guest, and give the domain its channel (firn vdisk xml --domain shows it); or take it without --quiesce",
            ),
            other => other,
        });
        let count = self.unless_thawing(number, count)?;
        self.unless_thawing(number, created)?;
        let frozen_for = began.elapsed();
        self.metrics.quiesced(frozen_for);
        Ok(taken(info, request, count, frozen_for))
    }

    /// Thaws a domain's filesystems; where that can't be done now, others go on trying.
    async fn thaw(self: &Arc<Self>, number: u64, work: &Work) {
        if let Err(trouble) = self.thaw_again(number, work).await {
            log::error!(
                "domain {}: its filesystems may be frozen, and can't be thawed: {trouble}; it is tried again",
                work.domain
            );
            self.waits.lock().insert(number, trouble.to_string());
        }
    }

    /// Goes on thawing.
    pub(super) async fn thaw_again(self: &Arc<Self>, number: u64, work: &Work) -> Outcome<()> {
        let uuid = work.uuid;
        let state = match self.ask(move |h| h.domain(uuid)).await {
            Err(Trouble::Hypervisor(HypervisorError::NoDomain(_))) => DomainState::Off,
            other => other?.state,
        };
        if state != DomainState::Off {
            // A guest that has frozen itself can't say so: this is harmless where nothing is frozen.
            self.ask(move |h| h.thaw(uuid, AGENT)).await?;
        }
        self.forget_wait(number);
        // Whoever has asked by metadata may ask again, and wants to know whether it was taken.
        let mut work = work.clone();
        if let Kind::Snapshot { quiesce, .. } = &mut work.kind {
            *quiesce = false;
        }
        self.journal.note(number, &work)
    }

    /// What does not pass ends the entry, unless there is something left to thaw.
    fn unless_thawing<T>(&self, number: u64, done: Outcome<T>) -> Outcome<T> {
        match self.waits.lock().contains_key(&number) {
            true => done,
            false => self.unless_final(number, done),
        }
    }

    /// When a snapshot of this name was begun that did not end.
    fn begun(&self, uuid: Uuid, wanted: &str) -> Outcome<Option<u64>> {
        let all = self.journal.all()?;
        let begun = all.iter().find_map(|(_, work)| match &work.kind {
            Kind::Snapshot { name, .. } if work.uuid == uuid && name == wanted => Some(work.begun),
            _ => None,
        });
        Ok(begun)
    }

    /// Whether all vDisks have a snapshot that was taken since then.
    async fn is_there(
        &self,
        backend: &mut control_api::Client,
        request: &CreateSnapshot,
        since: u64,
    ) -> Outcome<bool> {
        for vdisk in &request.vdisks {
            let found = backend.snapshot(vdisk, &request.name).await;
            match found.map_err(Trouble::from) {
                Ok(snapshot) if snapshot.created >= since => {}
                Ok(_) => return Ok(false),
                Err(trouble) if trouble.kind() == Some(ErrorKind::NotFound) => return Ok(false),
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(true)
    }

    /// Ends what was begun, and is not frozen: nobody will ask.
    pub(super) fn end_snapshots(&self, uuid: Uuid) -> Outcome<()> {
        for (number, work) in self.journal.all()? {
            let plain = matches!(work.kind, Kind::Snapshot { quiesce: false, .. });
            if plain && work.uuid == uuid {
                self.journal.end(number)?;
            }
        }
        Ok(())
    }

    pub(super) fn forget_wait(&self, number: u64) {
        self.waits.lock().remove(&number);
    }
}

fn taken(
    info: &DomainInfo,
    request: CreateSnapshot,
    frozen: u32,
    frozen_for: Duration,
) -> DomainSnapshotTaken {
    log::info!(
        "domain {}: snapshot {} of vDisks {}, {frozen} filesystems frozen for {} us",
        info.name,
        request.name,
        request.vdisks.join(", "),
        frozen_for.as_micros()
    );
    DomainSnapshotTaken {
        domain: info.name.clone(),
        name: request.name,
        vdisks: request.vdisks,
        frozen,
        frozen_microseconds: frozen_for.as_micros() as u64,
    }
}
