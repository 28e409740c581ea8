//! A domain's policy, in its metadata: schedules of its vDisks, which the backend keeps.
//!
//! The backend's schedules of a domain are called `libvirt-UUID-NAME`: there is nothing else to remember.

use super::decide::Seen;
use super::metadata::{POLICY, Policy, Said, Scheduled};
use super::{Orchestrator, Outcome, Trouble, names};
use control_api::ErrorKind;
use control_api::types::{CreateSchedule, Schedule};
use std::sync::Arc;
use uuid::Uuid;

/// What was followed: there is nothing to do before that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Followed {
    element: Option<String>,
    vdisks: Vec<String>,
}

impl Orchestrator {
    /// A domain's policy. One that can't be read says nothing, but keeps what is to be deleted.
    pub(super) async fn policy_of(&self, uuid: Uuid) -> Outcome<Policy> {
        let element = self.ask(move |h| h.metadata(uuid, POLICY)).await?;
        let policy = element.map(|element| Policy::read(&element));
        Ok(match policy {
            None => Policy::default(),
            Some(Ok(policy)) => policy,
            Some(Err(_)) => Policy {
                keep_deleted: true,
                ..Policy::default()
            },
        })
    }

    /// Has the backend keep the schedules that the policy asks for, and no others of this domain.
    pub(super) async fn follow_policy(self: &Arc<Self>, seen: &Seen) -> Outcome<()> {
        let uuid = seen.info.uuid;
        let element = self.ask(move |h| h.metadata(uuid, POLICY)).await?;
        let wanted = Followed {
            element,
            vdisks: names(&seen.disks),
        };
        if self.policies.lock().get(&uuid) == Some(&wanted) {
            return Ok(());
        }
        let policy = match wanted.element.as_deref().map(Policy::read) {
            None => Policy::default(),
            Some(Ok(policy)) => policy,
            Some(Err(why)) => {
                // What was followed before is followed on.
                let text = format!("{POLICY} in its metadata: {why}");
                log::error!("domain {}: {text}", seen.info.name);
                let error = Trouble::refuse(ErrorKind::Invalid, text, "").answer();
                self.say(uuid, &Said::failed("policy", "", &error)).await?;
                self.policies.lock().insert(uuid, wanted);
                return Ok(());
            }
        };
        if self.follow(seen, &policy).await? {
            self.say(uuid, &Said::done("policy", "")).await?;
        }
        self.policies.lock().insert(uuid, wanted);
        Ok(())
    }

    /// Whether anything was to be done.
    async fn follow(&self, seen: &Seen, policy: &Policy) -> Outcome<bool> {
        let prefix = format!("libvirt-{}-", seen.info.uuid.simple());
        let mut backend = self.backend().await?;
        let mut there = backend.schedules().await?;
        there.retain(|schedule| schedule.name.starts_with(&prefix));
        let vdisks = names(&seen.disks);
        let wanted: Vec<CreateSchedule> = match vdisks.is_empty() {
            true => Vec::new(),
            false => policy
                .schedules
                .iter()
                .map(|s| wanted(s, &prefix, &vdisks))
                .collect(),
        };
        let (remove, add) = difference(&there, &wanted);
        for name in &remove {
            backend.delete_schedule(name).await?;
        }
        for request in &add {
            backend.create_schedule(request).await?;
            log::info!(
                "domain {}: schedule {} every {} s",
                seen.info.name,
                request.name,
                request.every_seconds
            );
        }
        Ok(!remove.is_empty() || !add.is_empty())
    }
}

fn wanted(schedule: &Scheduled, prefix: &str, vdisks: &[String]) -> CreateSchedule {
    CreateSchedule {
        name: format!("{prefix}{}", schedule.name),
        vdisks: vdisks.to_vec(),
        every_seconds: schedule.every_seconds,
        prefix: Some(schedule.name.clone()),
        keep: schedule.keep,
    }
}

/// Which are removed, and which are made. One that differs is both: its snapshots stay its own, by its name.
fn difference(there: &[Schedule], wanted: &[CreateSchedule]) -> (Vec<String>, Vec<CreateSchedule>) {
    let same = |there: &Schedule, wanted: &CreateSchedule| {
        there.name == wanted.name
            && there.vdisks == wanted.vdisks
            && there.every_seconds == wanted.every_seconds
            && Some(&there.prefix) == wanted.prefix.as_ref()
            && there.keep == wanted.keep
    };
    let remove = there.iter().filter(|t| !wanted.iter().any(|w| same(t, w)));
    let add = wanted.iter().filter(|w| !there.iter().any(|t| same(t, w)));
    (
        remove.map(|schedule| schedule.name.clone()).collect(),
        add.cloned().collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::types::Keep;

    #[test]
    fn what_differs_is_made_anew() {
        let keep = Keep {
            last: 3,
            ..Keep::default()
        };
        let want = |name: &str, every_seconds| CreateSchedule {
            name: name.into(),
            vdisks: vec!["a".into()],
            every_seconds,
            prefix: Some("h".into()),
            keep,
        };
        let there = |name: &str, every_seconds| Schedule {
            name: name.into(),
            vdisks: vec!["a".into()],
            every_seconds,
            prefix: "h".into(),
            keep,
            created: 0,
            next: 0,
            last: None,
            kept: 0,
            missed: 0,
            took_milliseconds: None,
            behind: false,
            last_error: None,
            failed_at: None,
        };
        let (remove, add) = difference(
            &[there("same", 60), there("other", 60), there("old", 60)],
            &[want("same", 60), want("other", 90), want("new", 60)],
        );
        assert_eq!(remove, ["other", "old"]);
        assert_eq!(add, [want("other", 90), want("new", 60)]);
    }
}
