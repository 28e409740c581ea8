//! How the orchestrator is doing, as it is now.

use super::checkpoint::Holder;
use super::{Orchestrator, now};
use crate::domain::read;
use crate::hypervisor::Description;
use control_api::types::{DomainStatus, OrchestratorStatus, TaskStatus};
use std::collections::HashMap;
use uuid::Uuid;

impl Orchestrator {
    /// What `GET /v1/status` says.
    pub(super) async fn status(&self) -> OrchestratorStatus {
        let domains = self.domains().await;
        let (libvirt, backend) = self.links.both();
        OrchestratorStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            libvirt,
            backend,
            domains,
            tasks: self.tasks(),
        }
    }

    /// Domains that have vDisks. None while libvirt does not answer, which the status says.
    async fn domains(&self) -> Vec<DomainStatus> {
        let run = self.run.clone();
        let all = self.ask(move |h| {
            let mut all = Vec::new();
            for info in h.domains()? {
                let Ok(xml) = h.xml(info.uuid, Description::Current) else {
                    continue;
                };
                let disks = read::vdisks(&xml, &run);
                if !disks.is_empty() {
                    all.push((info, disks));
                }
            }
            Ok(all)
        });
        let mut all = all.await.unwrap_or_default();
        all.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let checkpoints = self.checkpoints().await;
        let problems = self.problems.lock();
        all.into_iter()
            .map(|(info, disks)| DomainStatus {
                checkpoints: checkpoints.get(&info.uuid).cloned().unwrap_or_default(),
                problem: problems.get(&info.uuid).cloned(),
                state: info.state.as_str().into(),
                name: info.name,
                uuid: info.uuid,
                disks,
            })
            .collect()
    }

    /// The names of what is held for libvirt, by domain.
    async fn checkpoints(&self) -> HashMap<Uuid, Vec<String>> {
        let mut held: HashMap<Uuid, Vec<String>> = HashMap::new();
        let Ok(mut backend) = self.backend().await else {
            return held;
        };
        for snapshot in backend.snapshots(None).await.unwrap_or_default() {
            if let Some(holder) = Holder::among(&snapshot.holds) {
                let names = held.entry(holder.domain).or_default();
                if !names.contains(&snapshot.name) {
                    names.push(snapshot.name);
                }
            }
        }
        held
    }

    fn tasks(&self) -> Vec<TaskStatus> {
        let waits = self.waits.lock();
        let all = self.journal.all().unwrap_or_default();
        all.into_iter()
            .map(|(number, work)| TaskStatus {
                what: work.what(),
                domain: work.domain.clone(),
                begun: work.begun.min(now()),
                waits_for: waits.get(&number).cloned(),
            })
            .collect()
    }
}
