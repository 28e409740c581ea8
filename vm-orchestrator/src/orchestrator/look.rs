//! A look at a domain, and what follows from it.

use super::decide::{Seen, Step, decide};
use super::journal::Kind;
use super::{Orchestrator, Outcome, metadata};
use crate::domain::read;
use crate::hypervisor::{Description, DomainState, HypervisorError};
use crate::orchestrator::Trouble;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Between two looks at a domain whose snapshot libvirt is still at, after something has happened: it may be about to end.
const AGAIN: Duration = Duration::from_millis(4);
/// Longest pause between these.
const AGAIN_MAX: Duration = Duration::from_millis(8);
/// How long a look at everything waits for the look at one domain.
const PATIENT: Duration = Duration::from_secs(1);

/// What comes after a look.
enum Next {
    /// Nothing.
    Done,
    /// Another one at once: something was done.
    Again,
    /// Another one when libvirt is done.
    WhenIdle,
}

impl Orchestrator {
    /// Something has happened to a domain: it is looked at, unless somebody is about to.
    pub(super) fn notice(self: &Arc<Self>, uuid: Uuid) {
        if self.attention(uuid).notice() {
            let orchestrator = self.clone();
            tokio::spawn(async move { orchestrator.look(uuid).await });
        }
    }

    /// Looks at a domain, and does what is to be done.
    pub(super) async fn look(self: &Arc<Self>, uuid: Uuid) {
        let _one = self.claim(uuid).await;
        let attention = self.attention(uuid);
        attention.looks();
        let mut late = Duration::ZERO;
        loop {
            match self.look_once(uuid, late).await {
                Ok(Next::Done) => return,
                Ok(Next::Again) => late = Duration::ZERO,
                Ok(Next::WhenIdle) => match self.idle(uuid).await {
                    Ok(slept) => late = slept,
                    Err(_) => return,
                },
                Err(Trouble::Hypervisor(HypervisorError::NoDomain(_))) => {
                    self.problems.lock().remove(&uuid);
                    return;
                }
                Err(trouble) if trouble.passes() => {
                    log::debug!("domain {uuid}: {trouble}");
                    return;
                }
                Err(trouble) => {
                    log::warn!("domain {uuid}: {trouble}");
                    return;
                }
            }
        }
    }

    /// Waits until libvirt is done with what it does to a paused domain. That may have been so much before it is seen.
    async fn idle(&self, uuid: Uuid) -> Outcome<Duration> {
        let attention = self.attention(uuid);
        let (mut pause, mut slept) = (AGAIN, Duration::ZERO);
        loop {
            let busy = self.ask(move |h| {
                Ok(h.domain(uuid)?.state == DomainState::PausedForSnapshot && h.is_busy(uuid)?)
            });
            if !busy.await? {
                return Ok(slept);
            }
            let sleeps = Instant::now();
            let rang = attention.pause(pause).await;
            slept = sleeps.elapsed();
            pause = match rang {
                true => AGAIN,
                false => (pause * 2).min(AGAIN_MAX),
            };
        }
    }

    /// Looks, and does what is to be done. `late`: so long before it may have become worth it.
    async fn look_once(self: &Arc<Self>, uuid: Uuid, late: Duration) -> Outcome<Next> {
        // One that was given up is not begun again.
        for (number, work) in self.journal.all()? {
            if work.uuid == uuid && matches!(work.kind, Kind::Undo(_)) {
                self.go_on_undoing(number, &work).await?;
            }
        }
        let seen = self.see(uuid).await?;
        match decide(&seen) {
            Some(Step::LookAgain) => return Ok(Next::WhenIdle),
            Some(Step::Checkpoint(snapshot)) => {
                self.checkpoint(&seen, &snapshot, late).await?;
                return Ok(Next::Again);
            }
            Some(Step::NotOursAlone(why)) => self.problem(&seen.info, Some(why)),
            Some(Step::Request(request)) => {
                self.fulfil(&seen, &request).await?;
                return Ok(Next::Again);
            }
            None => {
                self.problem(&seen.info, None);
                self.end_snapshots(uuid)?;
                self.record_uses(&seen).await?;
                self.follow_policy(&seen).await?;
            }
        }
        Ok(Next::Done)
    }

    async fn see(&self, uuid: Uuid) -> Outcome<Seen> {
        let run = self.run.clone();
        let known = self.journal.known_of(uuid)?;
        self.ask(move |h| {
            let info = h.domain(uuid)?;
            let xml = h.xml(uuid, Description::Current)?;
            let paused = info.state == DomainState::PausedForSnapshot;
            let busy = paused && h.is_busy(uuid)?;
            let idle = Instant::now();
            let new = match paused && !busy {
                true => h
                    .current_snapshot(uuid)?
                    .filter(|s| !known.iter().any(|known| known.is(s.created, &s.name))),
                false => None,
            };
            Ok(Seen {
                idle,
                disks: read::vdisks(&xml, &run),
                others: read::has_other_vdisks(&xml, &run),
                busy,
                new,
                // One that waits to run again is not held up for it.
                request: match paused {
                    true => None,
                    false => h.metadata(uuid, metadata::REQUEST)?,
                },
                info,
            })
        })
        .await
    }

    /// Looks at all domains.
    pub(super) async fn look_at_all(self: &Arc<Self>) {
        // A look may wait for libvirt to save a large memory: others would pile up behind it.
        let Ok(_one) = self.looking.try_lock() else {
            return;
        };
        let domains = match self.ask(|h| h.domains()).await {
            Ok(domains) => domains,
            Err(trouble) => {
                log::debug!("{trouble}");
                return;
            }
        };
        for domain in &domains {
            // One that waits for libvirt does not hold up the others.
            self.notice(domain.uuid);
        }
        tokio::task::yield_now().await;
        for domain in &domains {
            // Those that are quick have been looked at by then.
            drop(tokio::time::timeout(PATIENT, self.claim(domain.uuid)).await);
        }
        let is_there = |uuid: &Uuid| domains.iter().any(|domain| domain.uuid == *uuid);
        self.policies.lock().retain(|uuid, _| is_there(uuid));
        self.problems.lock().retain(|uuid, _| is_there(uuid));
        if let Err(trouble) = self.forget(&domains).await {
            log::debug!("what libvirt has deleted: {trouble}");
        }
    }
}
