//! `firn vm status`.

use crate::failure::Failure;
use crate::output::{Align, facts, table};
use crate::settings::Settings;
use crate::units::moment;
use control_api::types::{DomainStatus, Link, OrchestratorStatus};

pub(super) async fn run(settings: &Settings) -> Result<(), Failure> {
    let status = settings.orchestrator().await?.status().await?;
    settings.show(&status, text)
}

fn text(status: &OrchestratorStatus) -> String {
    let mut lines = vec![
        ("libvirt", link(&status.libvirt)),
        ("backend", link(&status.backend)),
    ];
    for task in &status.tasks {
        let waits = task.waits_for.as_deref();
        let waits = waits.map_or(String::new(), |why| format!("; waits: {why}"));
        lines.push((
            "task",
            format!(
                "domain {}: {}, since {}{waits}",
                task.domain,
                task.what,
                moment(task.begun)
            ),
        ));
    }
    for domain in &status.domains {
        if let Some(problem) = &domain.problem {
            lines.push(("problem", format!("domain {}: {problem}", domain.name)));
        }
    }
    let head = facts(&lines);
    if status.domains.is_empty() {
        return head + "no domain has a vDisk of this backend\n";
    }
    let rows: Vec<_> = status.domains.iter().map(row).collect();
    let columns = [
        ("DOMAIN", Align::Left),
        ("STATE", Align::Left),
        ("VDISKS", Align::Left),
        ("CHECKPOINTS", Align::Right),
    ];
    format!("{head}\n{}", table(columns, &rows))
}

fn link(link: &Link) -> String {
    let since = moment(link.since);
    match (link.up, &link.error) {
        (true, _) => format!("answers at {}, since {since}", link.place),
        (false, Some(why)) => format!("DOES NOT ANSWER at {}, since {since}: {why}", link.place),
        (false, None) => format!("DOES NOT ANSWER at {}, since {since}", link.place),
    }
}

fn row(domain: &DomainStatus) -> [String; 4] {
    let disks = domain.disks.iter();
    let disks: Vec<_> = disks.map(|d| format!("{}={}", d.target, d.vdisk)).collect();
    [
        domain.name.clone(),
        domain.state.clone(),
        disks.join(" "),
        domain.checkpoints.len().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::types::{DomainDisk, TaskStatus};
    use uuid::Uuid;

    #[test]
    fn golden() {
        let up = Link {
            place: "qemu:///system".into(),
            up: true,
            since: 0,
            error: None,
        };
        let mut status = OrchestratorStatus {
            version: "1".into(),
            pid: 1,
            uptime_seconds: 1,
            libvirt: up.clone(),
            backend: Link {
                place: "/run/firn/control.sock".into(),
                up: false,
                since: 0,
                error: Some("nobody listens".into()),
            },
            domains: vec![DomainStatus {
                name: "shop".into(),
                uuid: Uuid::nil(),
                state: "running".into(),
                disks: vec![DomainDisk {
                    target: "vda".into(),
                    vdisk: "web".into(),
                }],
                checkpoints: vec!["a".into()],
                problem: Some("it stinks".into()),
            }],
            tasks: vec![TaskStatus {
                what: "snapshot a".into(),
                domain: "shop".into(),
                begun: 0,
                waits_for: Some("the agent".into()),
            }],
        };
        assert_eq!(
            text(&status),
            "libvirt  answers at qemu:///system, since 1970-01-01 00:00:00 UTC\n\
             backend  DOES NOT ANSWER at /run/firn/control.sock, since 1970-01-01 00:00:00 UTC: nobody listens\n\
             task     domain shop: snapshot a, since 1970-01-01 00:00:00 UTC; waits: the agent\n\
             problem  domain shop: it stinks\n\
             \n\
             DOMAIN  STATE    VDISKS   CHECKPOINTS\n\
             shop    running  vda=web            1\n"
        );
        status.domains.clear();
        assert!(text(&status).ends_with("no domain has a vDisk of this backend\n"));
    }
}
