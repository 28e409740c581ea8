//! `firn-orchestrator`: what libvirt and the backend have to do with one another.
//!
//! ```text
//!   libvirt's events ─┐                      ┌─> checkpoint   libvirt has paused a domain for a snapshot: its vDisks, and on
//!   once in 5 s ──────┼─> look ──> decide ───┼─> request      what its metadata asks for
//!   a link is back ───┘                      └─> policy, records, forget: schedules, who uses what, snapshots that libvirt has deleted
//!
//!   API ──> snapshot, revert, clone, disks       steps of several: in the journal
//! ```
//!
//! # Consistency
//! One thing at a time happens to a domain ([`Orchestrator::claim`]). What is to be done follows from what libvirt and the backend say
//! now, not from what happened before: an event may be lost, or come twice.
//!
//! # Crash
//! Work of several steps is in the [`journal`] before its first step. A checkpoint needs none: the snapshot is held in libvirt's name from its
//! first moment on, so that a second look finds it ([`checkpoint`]).

mod api;
mod attention;
mod checkpoint;
mod clone;
mod daemon;
mod decide;
mod disks;
mod forget;
mod journal;
mod links;
mod look;
mod metadata;
mod metrics;
mod policy;
mod remote;
mod request;
mod revert;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod trouble;
mod unfinished;

pub use daemon::{Settings, run};
pub use remote::Remote;
pub use trouble::Trouble;

use crate::domain::read;
use crate::hypervisor::{Description, DomainInfo, Hypervisor, HypervisorError};
use attention::Attention;
use control_api::types::DomainDisk;
use control_api::{Client, ErrorKind};
use journal::Journal;
use links::Links;
use metrics::Metrics;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

/// What comes of things.
type Outcome<T> = Result<T, Trouble>;

/// The orchestrator.
pub struct Orchestrator {
    hypervisor: Arc<dyn Hypervisor>,
    run: PathBuf,
    journal: Journal,
    links: Links,
    metrics: Metrics,
    started: Instant,
    /// Who does something to which domain, and which are to be looked at.
    attention: Mutex<HashMap<Uuid, Arc<Attention>>>,
    /// Held while everything is looked at.
    looking: tokio::sync::Mutex<()>,
    /// What is wrong with domains.
    problems: Mutex<HashMap<Uuid, String>>,
    /// The policies that are followed, by what they were made of.
    policies: Mutex<HashMap<Uuid, policy::Followed>>,
    /// Why entries of the journal can't go on at the moment.
    waits: Mutex<HashMap<u64, String>>,
}

impl Orchestrator {
    fn new(hypervisor: Arc<dyn Hypervisor>, place: &str, run: PathBuf, journal: Journal) -> Self {
        Orchestrator {
            links: Links::new(place, &control_api::control_socket(&run)),
            hypervisor,
            run,
            journal,
            metrics: Metrics::new(),
            started: Instant::now(),
            attention: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            problems: Mutex::default(),
            policies: Mutex::default(),
            waits: Mutex::default(),
        }
    }

    /// Has the hypervisor do something: its calls block.
    async fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&dyn Hypervisor) -> crate::hypervisor::Result<T> + Send + 'static,
    ) -> Outcome<T> {
        let hypervisor = self.hypervisor.clone();
        let asked = tokio::task::spawn_blocking(move || act(&*hypervisor)).await;
        let answer = asked.map_err(|error| HypervisorError::Refused(error.to_string()))?;
        if let Err(HypervisorError::Lost(why)) = &answer {
            self.links.libvirt(Err(why.clone()));
        }
        Ok(answer?)
    }

    /// A connection to the backend.
    async fn backend(&self) -> Outcome<Client> {
        Ok(Client::connect(&self.run).await?)
    }

    /// Keeps others from doing something to a domain.
    async fn claim(&self, uuid: Uuid) -> OwnedMutexGuard<()> {
        self.attention(uuid).claim.clone().lock_owned().await
    }

    /// The same, if nobody does.
    fn try_claim(&self, uuid: Uuid) -> Option<OwnedMutexGuard<()>> {
        self.attention(uuid).claim.clone().try_lock_owned().ok()
    }

    fn attention(&self, uuid: Uuid) -> Arc<Attention> {
        self.attention.lock().entry(uuid).or_default().clone()
    }

    /// A domain by its name, and its disks that are vDisks as it is now.
    async fn find(&self, name: &str) -> Outcome<(DomainInfo, Vec<DomainDisk>)> {
        let name = name.to_owned();
        let (info, xml) = self
            .ask(move |h| {
                let info = h.find(&name)?;
                let xml = h.xml(info.uuid, Description::Current)?;
                Ok((info, xml))
            })
            .await?;
        let disks = read::vdisks(&xml, &self.run);
        Ok((info, disks))
    }

    /// As [`Self::find`], where there must be some.
    async fn find_ours(&self, name: &str) -> Outcome<(DomainInfo, Vec<DomainDisk>)> {
        let (info, disks) = self.find(name).await?;
        if disks.is_empty() {
            let text = format!(
                "domain {} has no vDisk of {}",
                info.name,
                self.run.display()
            );
            let hint = format!("firn attach VDISK {}", info.name);
            return Err(Trouble::refuse(ErrorKind::Refused, text, &hint));
        }
        Ok((info, disks))
    }

    /// Says what is wrong with a domain, once; `None`: nothing.
    fn problem(&self, info: &DomainInfo, problem: Option<String>) {
        let mut problems = self.problems.lock();
        match problem {
            Some(problem) if problems.get(&info.uuid) != Some(&problem) => {
                log::error!("domain {}: {problem}", info.name);
                problems.insert(info.uuid, problem);
            }
            Some(_) => {}
            None => {
                if let Some(was) = problems.remove(&info.uuid) {
                    log::info!("domain {}: no longer: {was}", info.name);
                }
            }
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn names(disks: &[DomainDisk]) -> Vec<String> {
    disks.iter().map(|disk| disk.vdisk.clone()).collect()
}
