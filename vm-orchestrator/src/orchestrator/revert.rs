//! A domain goes back to a snapshot, with its memory or without.
//!
//! 1. The journal says so.
//! 2. The domain is switched off.
//! 3. The journal says that it is off: if it is not off afterwards, somebody has started it, and the work is given up.
//! 4. Each of its vDisks is reverted, and the journal says so.
//! 5. It goes on with the memory that was saved with the snapshot, if nothing was written since, or is started, or stays off.
//! 6. The journal's entry goes.
//!
//! # Crash
//! Each step finds that it is done. Until a vDisk is reverted, what was written to it since the last snapshot is kept by its name, or was to be
//! lost; afterwards it is not reverted again. That memory and disks belong together is seen by what has changed since the snapshot: nothing.

use super::checkpoint::Holder;
use super::journal::{Kind, Revert, Work};
use super::trouble::unless_missing;
use super::unfinished::still_going;
use super::{Orchestrator, Outcome, Trouble, names, now};
use crate::domain::read;
use crate::hypervisor::{DomainInfo, DomainSnapshot, DomainState};
use control_api::types::{DomainDisk, DomainReverted, RevertDomain, RevertVDisk, VDisk};
use control_api::{Client, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

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
        self.nothing_under_way(info.uuid)?;
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
                off: false,
                done: Vec::new(),
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
        let begun = work.begun;
        let Kind::Revert(mut revert) = work.kind.clone() else {
            return Err(Trouble::Journal(format!("entry {number} is no revert")));
        };
        let uuid = work.uuid;
        let mut note = |revert: &Revert| {
            work.kind = Kind::Revert(revert.clone());
            self.journal.note(number, &work)
        };
        let reverted = |revert: &Revert| revert.vdisks.iter().all(|v| revert.done.contains(v));
        if !revert.off {
            let off = self.ask(move |h| h.destroy(uuid)).await;
            self.unless_final(number, off)?;
            revert.off = true;
            note(&revert)?;
        } else if !reverted(&revert) {
            let off = self.ask(move |h| h.domain(uuid)).await;
            let off = off.and_then(|info| is_off(&info, &revert));
            self.unless_final(number, off)?;
        }
        let mut backend = self.backend().await?;
        for vdisk in revert.vdisks.clone() {
            if revert.done.contains(&vdisk) {
                continue;
            }
            is_let_go(&mut backend, &vdisk).await?;
            let done = revert_one(&mut backend, &vdisk, &revert, begun).await;
            self.unless_final(number, done)?;
            revert.done.push(vdisk);
            note(&revert)?;
        }
        if revert.start {
            let off = self.ask(move |h| Ok(h.domain(uuid)?.state == DomainState::Off));
            if off.await? {
                if revert.memory.is_some() {
                    let unchanged = is_unchanged(&mut backend, &revert).await;
                    self.unless_final(number, unchanged)?;
                }
                let memory = revert.memory.clone();
                let started = self.ask(move |h| match memory {
                    Some(memory) => h.restore(&memory),
                    None => h.start(uuid),
                });
                self.unless_final(number, started.await)?;
            }
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
        if self.ask(move |h| h.has_saved_memory(uuid)).await? {
            let text = format!(
                "libvirt keeps the memory of domain {} for its next start, which would meet other disks",
                info.name
            );
            let hint = format!("virsh managedsave-remove {}", info.name);
            return Err(Trouble::refuse(ErrorKind::Refused, text, &hint));
        }
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
                if unless_missing(there.map_err(Trouble::from))?.is_some() {
                    let text = format!("vDisk {} has a snapshot {keep} already", disk.vdisk);
                    return Err(Trouble::refuse(
                        ErrorKind::AlreadyExists,
                        text,
                        "choose another name for --keep",
                    ));
                }
            }
            let vdisk = backend.vdisk(&disk.vdisk).await?;
            is_not_anothers(&vdisk, info)?;
        }
        if !request.memory {
            return Ok(None);
        }
        let image = memory_of(info, saved, &request.snapshot)?;
        let same = |s: &&DomainSnapshot| s.memory.as_ref() == Some(&image);
        if snapshots.iter().filter(same).count() > 1 {
            let text = format!(
                "several snapshots of domain {} have their memory in {}: it is of one of them",
                info.name,
                image.display()
            );
            return Err(Trouble::refuse(
                ErrorKind::Refused,
                text,
                "without --memory the domain is started anew",
            ));
        }
        let path = image.clone();
        let xml = self.ask(move |h| h.image_xml(&path)).await?;
        belongs_to(&xml, info, disks, &self.run).map_err(|why| {
            Trouble::refuse(
                ErrorKind::Refused,
                format!(
                    "the memory in {} can't go on with these disks: {why}",
                    image.display()
                ),
                "without --memory the domain is started anew",
            )
        })?;
        Ok(Some(image))
    }

    /// Refuses what would come in the way of work that is not done yet.
    pub(super) fn nothing_under_way(&self, uuid: Uuid) -> Outcome<()> {
        let all = self.journal.all()?;
        let busy = all.iter().find(|(_, work)| {
            work.uuid == uuid && matches!(work.kind, Kind::Revert(_) | Kind::Undo(_))
        });
        let Some((_, work)) = busy else {
            return Ok(());
        };
        let text = format!("domain {}: {} is not done yet", work.domain, work.what());
        Err(Trouble::refuse(
            ErrorKind::Busy,
            text,
            "firn vm status tells what it waits for",
        ))
    }
}

/// Whether a memory image is this domain's, with just these disks.
fn belongs_to(
    xml: &str,
    info: &DomainInfo,
    disks: &[DomainDisk],
    run: &Path,
) -> Result<(), String> {
    let domain = libvirt_hooks::Domain::read(xml).map_err(|error| error.to_string())?;
    if domain.uuid != info.uuid {
        return Err(format!("it is domain {}'s", domain.name));
    }
    let mut then = names(&read::vdisks(xml, run));
    let mut now = names(disks);
    then.sort();
    now.sort();
    if then != now {
        return Err(format!(
            "the domain had {} then, and has {} now",
            then.join(", "),
            now.join(", ")
        ));
    }
    match read::others_written(xml, run).as_slice() {
        [] => Ok(()),
        others => Err(format!(
            "its disk {} is no vDisk, and is not reverted",
            others.join(", ")
        )),
    }
}

/// That nobody else's guest writes to it.
fn is_not_anothers(vdisk: &VDisk, info: &DomainInfo) -> Outcome<()> {
    match &vdisk.domain {
        Some(user) if vdisk.attached.is_some() && user.uuid != info.uuid => {
            let text = format!("vDisk {} is in use by domain {}", vdisk.name, user.name);
            Err(Trouble::refuse(
                ErrorKind::Busy,
                text,
                "stop that one first",
            ))
        }
        _ => Ok(()),
    }
}

/// That nobody has started it since it was switched off.
fn is_off(info: &DomainInfo, revert: &Revert) -> Outcome<()> {
    if info.state == DomainState::Off {
        return Ok(());
    }
    let left: Vec<&str> = revert
        .vdisks
        .iter()
        .filter(|v| !revert.done.contains(v))
        .map(String::as_str)
        .collect();
    Err(Trouble::refuse(
        ErrorKind::Refused,
        format!(
            "domain {} was started before all its vDisks were reverted to snapshot {}: {} are not; it is left as it is",
            info.name,
            revert.snapshot,
            left.join(", ")
        ),
        "firn vm revert it once more",
    ))
}

/// That the disks are what they were at the snapshot: a guest that has run since has changed them.
async fn is_unchanged(backend: &mut Client, revert: &Revert) -> Outcome<()> {
    for vdisk in &revert.vdisks {
        let changes = backend
            .snapshot_changes(vdisk, &revert.snapshot, None, 0)
            .await?;
        if !changes.ranges.is_empty() {
            return Err(Trouble::refuse(
                ErrorKind::Refused,
                format!(
                    "vDisk {vdisk} was written to since it was reverted to snapshot {}: the domain has run, and is left off",
                    revert.snapshot
                ),
                "start it, or firn vm revert it once more",
            ));
        }
    }
    Ok(())
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

async fn revert_one(backend: &mut Client, vdisk: &str, revert: &Revert, begun: u64) -> Outcome<()> {
    if let Some(keep) = &revert.keep {
        let there = backend.snapshot(vdisk, keep).await;
        match unless_missing(there.map_err(Trouble::from))? {
            None => {}
            // It was free when this was begun: done before an interruption.
            Some(kept) if kept.created >= begun => return Ok(()),
            Some(_) => {
                let text = format!("vDisk {vdisk} has a snapshot {keep} already");
                return Err(Trouble::refuse(ErrorKind::AlreadyExists, text, ""));
            }
        }
    }
    let request = RevertVDisk {
        snapshot: revert.snapshot.clone(),
        keep: revert.keep.clone(),
        discard: revert.keep.is_none(),
    };
    Ok(backend.revert(vdisk, &request).await.map(drop)?)
}
