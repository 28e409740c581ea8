//! A domain goes back to a snapshot, with its memory or without.
//!
//! 1. The journal says so.
//! 2. The domain is switched off.
//! 3. Each of its vDisks is reverted.
//! 4. The journal says that they are: from here on the domain may write to them.
//! 5. It goes on with the memory that was saved with the snapshot, or is started, or stays off.
//! 6. The journal's entry goes.
//!
//! # Crash
//! Each step finds that it is done. Before 4, what was written to vDisks since the last snapshot is kept by its name, or was to be lost;
//! after it, nothing is reverted again.

use super::checkpoint::Holder;
use super::journal::{Kind, Revert, Work};
use super::unfinished::still_going;
use super::{Orchestrator, Outcome, Trouble, names, now};
use crate::hypervisor::{DomainInfo, DomainSnapshot, DomainState};
use control_api::types::{DomainDisk, DomainReverted, RevertDomain, RevertVDisk};
use control_api::{Client, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long QEMU may take to let go of its vDisks.
const LETTING_GO: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

impl Orchestrator {
    /// Begins it, and does it.
    pub(super) async fn revert(
        self: &Arc<Self>,
        domain: &str,
        request: &RevertDomain,
    ) -> Outcome<DomainReverted> {
        let (info, _) = self.find(domain).await?;
        let _one = self.claim(info.uuid).await;
        let (info, disks) = self.find_ours(domain).await?;
        may_revert(&info, request)?;
        let memory = self.check(&info, &disks, request).await?;
        let work = Work {
            domain: info.name.clone(),
            uuid: info.uuid,
            begun: now(),
            kind: Kind::Revert(Revert {
                snapshot: request.snapshot.clone(),
                vdisks: names(&disks),
                keep: request.keep.clone(),
                start: memory.is_some() || info.state != DomainState::Off,
                memory,
                reverted: false,
            }),
        };
        let number = self.journal.begin(&work)?;
        still_going(self.go_on_reverting(number, work).await)
    }

    /// Does what is left of it. Whoever calls it has claimed the domain.
    pub(super) async fn go_on_reverting(
        self: &Arc<Self>,
        number: u64,
        mut work: Work,
    ) -> Outcome<DomainReverted> {
        let Kind::Revert(mut revert) = work.kind.clone() else {
            return Err(Trouble::Journal(format!("entry {number} is no revert")));
        };
        let uuid = work.uuid;
        if !revert.reverted {
            self.ask(move |h| h.destroy(uuid)).await?;
            let mut backend = self.backend().await?;
            for vdisk in &revert.vdisks {
                is_let_go(&mut backend, vdisk).await?;
                let done = revert_one(&mut backend, vdisk, &revert).await;
                self.unless_final(number, done)?;
            }
            revert.reverted = true;
            work.kind = Kind::Revert(revert.clone());
            self.journal.note(number, &work)?;
        }
        if revert.start {
            let memory = revert.memory.clone();
            let started = self
                .ask(move |h| match (h.domain(uuid)?.state, memory) {
                    (DomainState::Off, Some(memory)) => h.restore(&memory),
                    (DomainState::Off, None) => h.start(uuid),
                    _ => Ok(()),
                })
                .await;
            self.unless_final(number, started)?;
        }
        self.forget_wait(number);
        self.journal.end(number)?;
        log::info!(
            "domain {}: back at snapshot {}{}",
            work.domain,
            revert.snapshot,
            if revert.memory.is_some() {
                ", with its memory"
            } else {
                ""
            }
        );
        Ok(DomainReverted {
            domain: work.domain,
            snapshot: revert.snapshot,
            vdisks: revert.vdisks,
            memory: revert.memory.is_some(),
            runs: revert.start,
        })
    }

    /// What does not pass ends the work: it would fail again for ever.
    pub(super) fn unless_final<T>(&self, number: u64, done: Outcome<T>) -> Outcome<T> {
        if let Err(trouble) = &done
            && !trouble.passes()
        {
            self.forget_wait(number);
            self.journal.end(number)?;
        }
        done
    }

    /// Looks whether it can be done, before anything is. The memory image, if that is wanted.
    async fn check(
        &self,
        info: &DomainInfo,
        disks: &[DomainDisk],
        request: &RevertDomain,
    ) -> Outcome<Option<PathBuf>> {
        let uuid = info.uuid;
        let snapshots = match request.memory {
            true => self.ask(move |h| h.snapshots(uuid)).await?,
            false => Vec::new(),
        };
        let saved = snapshots.iter().find(|s| s.name == request.snapshot);
        let mut backend = self.backend().await?;
        for disk in disks {
            let snapshot = backend.snapshot(&disk.vdisk, &request.snapshot).await?;
            if let Some(saved) = saved {
                let holder = Holder {
                    domain: uuid,
                    created: saved.created,
                };
                same_instant(&snapshot.holds, holder, &disk.vdisk, &request.snapshot)?;
            }
            if let Some(keep) = &request.keep {
                let there = backend.snapshot(&disk.vdisk, keep).await;
                if there.is_ok() {
                    let text = format!("vDisk {} has a snapshot {keep} already", disk.vdisk);
                    return Err(Trouble::refuse(
                        ErrorKind::AlreadyExists,
                        text,
                        "choose another name for --keep",
                    ));
                }
            }
        }
        match request.memory {
            false => Ok(None),
            true => memory_of(info, saved, &request.snapshot).map(Some),
        }
    }
}

/// Whether what is lost may be lost.
fn may_revert(info: &DomainInfo, request: &RevertDomain) -> Outcome<()> {
    control_api::check_snapshot_name(&request.snapshot).map_err(|e| Trouble::Asked(e.into()))?;
    match (&request.keep, request.discard) {
        (Some(keep), false) => {
            control_api::check_snapshot_name(keep).map_err(|e| Trouble::Asked(e.into()))
        }
        (None, true) => Ok(()),
        (Some(_), true) => Err(Trouble::refuse(
            ErrorKind::Invalid,
            "what its vDisks are now can't be both kept and discarded",
            "give one of --keep NAME and --discard",
        )),
        (None, false) => Err(Trouble::refuse(
            ErrorKind::Refused,
            format!(
                "going back to snapshot {} switches domain {} off, and loses what it has written since its last snapshot",
                request.snapshot, info.name
            ),
            "keep what its vDisks are now as a snapshot with --keep NAME, or lose it with --discard",
        )),
    }
}

/// The memory image of libvirt's own snapshot.
fn memory_of(info: &DomainInfo, saved: Option<&DomainSnapshot>, name: &str) -> Outcome<PathBuf> {
    let memory = saved.and_then(|saved| saved.memory.clone());
    memory.ok_or_else(|| {
        Trouble::refuse(
            ErrorKind::NotFound,
            format!(
                "libvirt has no memory of domain {} at snapshot {name}",
                info.name
            ),
            "without --memory it is started anew; see virsh snapshot-list",
        )
    })
}

/// Memory and disks of different instants would destroy filesystems.
fn same_instant(holds: &[String], holder: Holder, vdisk: &str, name: &str) -> Outcome<()> {
    if holds.contains(&holder.to_name()) {
        return Ok(());
    }
    Err(Trouble::refuse(
        ErrorKind::Refused,
        format!(
            "snapshot {name} of vDisk {vdisk} is not of the instant at which libvirt has saved the memory"
        ),
        "without --memory the domain is started anew from it",
    ))
}

/// Waits until nobody is attached: QEMU has gone, and the backend has noticed.
async fn is_let_go(backend: &mut Client, vdisk: &str) -> Outcome<()> {
    let began = Instant::now();
    while backend.vdisk(vdisk).await?.attached.is_some() && began.elapsed() < LETTING_GO {
        tokio::time::sleep(PAUSE).await;
    }
    // If somebody is still there, reverting says who.
    Ok(())
}

async fn revert_one(backend: &mut Client, vdisk: &str, revert: &Revert) -> Outcome<()> {
    if let Some(keep) = &revert.keep {
        match backend.snapshot(vdisk, keep).await.map_err(Trouble::from) {
            // It was free when this was begun: done before an interruption.
            Ok(_) => return Ok(()),
            Err(trouble) if trouble.kind() == Some(ErrorKind::NotFound) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    let request = RevertVDisk {
        snapshot: revert.snapshot.clone(),
        keep: revert.keep.clone(),
        discard: revert.keep.is_none(),
    };
    Ok(backend.revert(vdisk, &request).await.map(drop)?)
}
