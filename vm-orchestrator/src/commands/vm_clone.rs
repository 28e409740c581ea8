//! `firn vm clone`.

use crate::args::VmCloneArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use control_api::types::{CloneDomain, DomainCloned};

pub(super) async fn run(settings: &Settings, args: VmCloneArgs) -> Result<(), Failure> {
    let (domain, snapshot) = args.from;
    let request = CloneDomain {
        snapshot,
        name: args.new,
        start: args.start,
    };
    let mut orchestrator = settings.orchestrator().await?;
    let cloned = orchestrator.clone_domain(&domain, &request).await?;
    settings.show(&cloned, text)
}

fn text(cloned: &DomainCloned) -> String {
    let now = match cloned.started {
        true => "runs".to_owned(),
        false => format!("is off: virsh start {}", cloned.domain),
    };
    format!(
        "domain {}: has vDisks {}, and {now}\n",
        cloned.domain,
        cloned.vdisks.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let cloned = DomainCloned {
            domain: "test".into(),
            uuid: uuid::Uuid::nil(),
            vdisks: vec!["test".into()],
            started: false,
        };
        assert_eq!(
            text(&cloned),
            "domain test: has vDisks test, and is off: virsh start test\n"
        );
    }
}
