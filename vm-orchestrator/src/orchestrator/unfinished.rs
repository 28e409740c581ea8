//! Work that was interrupted, by the end of this process or of those that it stands on: gone on with, as often as it takes.

use super::journal::{Kind, Work};
use super::{Orchestrator, Outcome, Trouble};
use crate::hypervisor::HypervisorError;
use control_api::ErrorKind;
use std::sync::Arc;

impl Orchestrator {
    /// Says at the start what was interrupted.
    pub(super) fn tell_unfinished(&self) -> Result<(), Trouble> {
        for (_, work) in self.journal.all()? {
            let domain = &work.domain;
            match &work.kind {
                Kind::Snapshot { quiesce: true, .. } => {
                    log::warn!(
                        "domain {domain}: its filesystems may be frozen, by a snapshot that was interrupted: they are thawed"
                    );
                }
                Kind::Snapshot { .. } => {}
                Kind::Undo(undo) => {
                    log::warn!(
                        "domain {domain}: giving up its snapshot {:?} was interrupted: it is gone on with",
                        undo.name
                    );
                }
                Kind::Revert(revert) => {
                    log::warn!(
                        "domain {domain}: going back to snapshot {} was interrupted: it is gone on with",
                        revert.snapshot
                    );
                }
                Kind::Clone(clone) => {
                    log::warn!(
                        "domain {}: its making from snapshot {} of domain {domain} was interrupted: it is gone on with",
                        clone.name,
                        clone.snapshot
                    );
                }
            }
        }
        Ok(())
    }

    /// Goes on with all of it that nobody is at; without a backend, with what lets guests go on.
    pub(super) async fn finish_all(self: &Arc<Self>, backend: bool) {
        let all = match self.journal.all() {
            Ok(all) => all,
            Err(trouble) => {
                log::error!("{trouble}");
                return;
            }
        };
        for (number, work) in all {
            if !backend && !matches!(work.kind, Kind::Snapshot { .. } | Kind::Undo(_)) {
                continue;
            }
            // Whoever has claimed the domain may just be at it.
            let Some(_one) = self.try_claim(work.uuid) else {
                continue;
            };
            let still = self
                .journal
                .all()
                .is_ok_and(|all| all.contains(&(number, work.clone())));
            if !still {
                continue;
            }
            if let Err(trouble) = self.finish(number, work.clone()).await {
                let mut waits = self.waits.lock();
                let text = trouble.to_string();
                if waits.get(&number) != Some(&text) {
                    log::error!(
                        "domain {}: {} does not go on: {text}",
                        work.domain,
                        work.what()
                    );
                }
                // What is given up waits for nothing, and its number may be given again.
                match self
                    .journal
                    .all()
                    .is_ok_and(|all| all.iter().any(|(n, _)| *n == number))
                {
                    true => drop(waits.insert(number, text)),
                    false => drop(waits.remove(&number)),
                }
            }
        }
    }

    /// Waits for whoever does something to a domain, and thaws what is frozen.
    pub(super) async fn come_to_an_end(self: &Arc<Self>) {
        let claimed: Vec<_> = self.attention.lock().keys().copied().collect();
        for uuid in claimed {
            drop(self.claim(uuid).await);
        }
        self.finish_all(false).await;
    }

    /// Nobody asks for a snapshot of a domain that is not there.
    async fn end_if_gone(&self, number: u64, work: &Work) -> Result<(), Trouble> {
        let uuid = work.uuid;
        match self.ask(move |h| h.domain(uuid)).await {
            Err(Trouble::Hypervisor(HypervisorError::NoDomain(_))) => self.journal.end(number),
            other => other.map(drop),
        }
    }

    async fn finish(self: &Arc<Self>, number: u64, work: Work) -> Result<(), Trouble> {
        match &work.kind {
            Kind::Snapshot { quiesce: false, .. } => self.end_if_gone(number, &work).await,
            Kind::Undo(_) => self.go_on_undoing(number, &work).await,
            Kind::Snapshot { .. } => self.thaw_again(number, &work).await,
            Kind::Revert(_) => self.go_on_reverting(number, work).await.map(drop),
            Kind::Clone(_) => self.go_on_cloning(number, work).await.map(drop),
        }
    }
}

/// For whoever has asked for work that is in the journal: it goes on by itself.
pub(super) fn still_going<T>(done: Outcome<T>) -> Outcome<T> {
    done.map_err(|trouble| match trouble.passes() {
        true => Trouble::refuse(
            ErrorKind::Unavailable,
            format!("not done yet: {trouble}"),
            "it goes on by itself as soon as that answers again: firn vm status tells",
        ),
        false => trouble,
    })
}

impl Work {
    /// In words.
    pub(super) fn what(&self) -> String {
        match &self.kind {
            Kind::Snapshot { name, .. } => format!("snapshot {name}"),
            Kind::Undo(undo) => format!("giving up snapshot {:?}", undo.name),
            Kind::Revert(revert) => format!("revert to snapshot {}", revert.snapshot),
            Kind::Clone(clone) => format!("clone {} of snapshot {}", clone.name, clone.snapshot),
        }
    }
}
