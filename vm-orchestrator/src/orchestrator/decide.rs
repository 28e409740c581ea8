//! What is to be done about a domain, by what is seen of it. Nothing here looks at the world.
//!
//! Looking is all there is: events only say when it is worth it. So an event that is lost, or comes twice, changes nothing but the moment.

use crate::hypervisor::{DomainInfo, DomainSnapshot, DomainState};
use control_api::types::DomainDisk;
use std::collections::HashSet;
use std::time::Instant;

/// What is seen of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Who it is.
    pub info: DomainInfo,
    /// Its disks that are vDisks of the backend's.
    pub disks: Vec<DomainDisk>,
    /// Whether it has vDisks of another backend's: its requests are for that one's orchestrator.
    pub others: bool,
    /// Whether it has a job under way.
    pub busy: bool,
    /// When libvirt said so.
    pub idle: Instant,
    /// The snapshot that its present comes from, if it is not known yet: it has not run since that was begun.
    pub new: Option<DomainSnapshot>,
    /// What its metadata asks for.
    pub request: Option<String>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Look again in a moment: libvirt is still at it.
    LookAgain,
    /// Snapshot its vDisks, and resume it.
    Checkpoint(DomainSnapshot),
    /// It waits for somebody else, too: left as it is.
    NotOursAlone(String),
    /// Do what its metadata asks for.
    Request(String),
}

/// Decides.
pub(crate) fn decide(seen: &Seen) -> Option<Step> {
    if seen.disks.is_empty() {
        // Whoever asks us by metadata wants an answer, all the same.
        let request = seen.request.clone().filter(|_| !seen.others);
        return request.map(Step::Request);
    }
    if seen.info.state == DomainState::PausedForSnapshot {
        if seen.busy {
            return Some(Step::LookAgain);
        }
        let snapshot = seen.new.clone()?;
        let ours: HashSet<&str> = seen.disks.iter().map(|disk| disk.target.as_str()).collect();
        let others: Vec<&str> = snapshot
            .manual
            .iter()
            .map(String::as_str)
            .filter(|target| !ours.contains(target))
            .collect();
        return Some(match others.as_slice() {
            // It was not left to us: somebody has paused it within a snapshot of another kind.
            _ if snapshot.manual.is_empty() => return None,
            [] => Step::Checkpoint(snapshot),
            others => Step::NotOursAlone(format!(
                "snapshot {:?} waits for somebody to snapshot {}, which Firn does not serve: do that, then firn snapshot create {} {} and virsh resume",
                snapshot.name,
                others.join(", "),
                snapshot.name,
                seen.disks
                    .iter()
                    .map(|disk| disk.vdisk.as_str())
                    .collect::<Vec<_>>()
                    .join(" "),
            )),
        });
    }
    seen.request.clone().map(Step::Request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn seen(state: DomainState) -> Seen {
        Seen {
            info: DomainInfo {
                uuid: Uuid::from_u128(1),
                name: "shop".into(),
                state,
                persistent: true,
            },
            disks: vec![DomainDisk {
                target: "vda".into(),
                vdisk: "web".into(),
            }],
            others: false,
            busy: false,
            idle: Instant::now(),
            new: None,
            request: None,
        }
    }

    fn snapshot(manual: &[&str]) -> DomainSnapshot {
        DomainSnapshot {
            name: "a".into(),
            created: 1,
            memory: None,
            manual: manual.iter().map(|&target| target.to_owned()).collect(),
        }
    }

    #[test]
    fn a_pause_is_ours_only_when_it_waits_for_us_alone() {
        let mut seen = seen(DomainState::PausedForSnapshot);
        assert_eq!(decide(&seen), None, "nothing says whose it is");
        seen.new = Some(snapshot(&["vda"]));
        assert_eq!(decide(&seen), Some(Step::Checkpoint(snapshot(&["vda"]))));
        seen.busy = true;
        assert_eq!(decide(&seen), Some(Step::LookAgain));
        seen.busy = false;
        seen.new = Some(snapshot(&["vda", "vdb"]));
        let step = decide(&seen);
        assert!(
            matches!(&step, Some(Step::NotOursAlone(why)) if why.contains("vdb")),
            "{step:?}"
        );
        seen.new = Some(snapshot(&[]));
        assert_eq!(decide(&seen), None);
        seen.new = Some(snapshot(&["vda"]));
        for state in [DomainState::Paused, DomainState::Running, DomainState::Off] {
            seen.info.state = state;
            assert_eq!(decide(&seen), None, "{state:?}");
        }
        seen.info.state = DomainState::PausedForSnapshot;
        seen.disks.clear();
        assert_eq!(decide(&seen), None, "not ours at all");
        seen.request = Some("<x/>".into());
        assert!(decide(&seen).is_some(), "an answer all the same");
        seen.others = true;
        assert_eq!(decide(&seen), None, "another orchestrator's");
    }

    #[test]
    fn requests_wait_for_checkpoints() {
        let mut seen = seen(DomainState::Running);
        seen.request = Some("<x/>".into());
        assert_eq!(decide(&seen), Some(Step::Request("<x/>".into())));
        seen.info.state = DomainState::PausedForSnapshot;
        seen.busy = true;
        assert_eq!(decide(&seen), Some(Step::LookAgain));
    }
}
