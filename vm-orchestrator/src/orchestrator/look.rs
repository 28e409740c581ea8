//! A look at a domain, and what follows from it.

use super::decide::{Seen, Step, decide};
use super::{Orchestrator, Outcome, metadata};
use crate::domain::read;
use crate::hypervisor::{Description, DomainState, HypervisorError};
use crate::orchestrator::Trouble;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Between two looks at a domain whose snapshot libvirt is still at.
const AGAIN: Duration = Duration::from_millis(10);
/// Longest pause between these.
const AGAIN_MAX: Duration = Duration::from_millis(250);

impl Orchestrator {
    /// Looks at a domain, and does what is to be done. `noticed`: when it became worth it.
    pub(super) async fn look(self: &Arc<Self>, uuid: Uuid, noticed: Instant) {
        let _one = self.claim(uuid).await;
        let mut pause = AGAIN;
        loop {
            match self.look_once(uuid, noticed).await {
                Ok(true) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(AGAIN_MAX);
                }
                Ok(false) => return,
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

    /// Whether another look is worth it in a moment.
    async fn look_once(self: &Arc<Self>, uuid: Uuid, noticed: Instant) -> Outcome<bool> {
        let seen = self.see(uuid).await?;
        match decide(&seen) {
            Some(Step::LookAgain) => return Ok(true),
            Some(Step::Checkpoint(snapshot)) => {
                self.checkpoint(&seen, &snapshot, noticed).await?;
                return Ok(true);
            }
            Some(Step::NotOursAlone(why)) => self.problem(&seen.info, Some(why)),
            Some(Step::Request(request)) => {
                self.fulfil(&seen, &request).await?;
                return Ok(true);
            }
            None => {
                self.problem(&seen.info, None);
                self.end_snapshots(uuid)?;
                self.record_uses(&seen).await?;
                self.follow_policy(&seen).await?;
            }
        }
        Ok(false)
    }

    async fn see(&self, uuid: Uuid) -> Outcome<Seen> {
        let run = self.run.clone();
        let known = self.journal.known()?.remove(&uuid).unwrap_or_default();
        self.ask(move |h| {
            let info = h.domain(uuid)?;
            let xml = h.xml(uuid, Description::Current)?;
            let paused = info.state == DomainState::PausedForSnapshot;
            let busy = paused && h.is_busy(uuid)?;
            let new = match paused && !busy {
                true => h.snapshots(uuid)?.into_iter().find(|s| s.current && !known.contains(&s.created)),
                false => None,
            };
            Ok(Seen {
                disks: read::vdisks(&xml, &run),
                targets: read::targets(&xml),
                busy,
                new,
                request: h.metadata(uuid, metadata::REQUEST)?,
                info,
            })
        })
        .await
    }

    /// Looks at all domains.
    pub(super) async fn look_at_all(self: &Arc<Self>) {
        let noticed = Instant::now();
        let domains = match self.ask(|h| h.domains()).await {
            Ok(domains) => domains,
            Err(trouble) => {
                log::debug!("{trouble}");
                return;
            }
        };
        for domain in &domains {
            self.look(domain.uuid, noticed).await;
        }
        if let Err(trouble) = self.forget(&domains).await {
            log::debug!("what libvirt has deleted: {trouble}");
        }
    }
}
