//! `firn vm revert`.

use crate::args::VmRevertArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use control_api::types::{DomainReverted, RevertDomain};

pub(super) async fn run(settings: &Settings, args: VmRevertArgs) -> Result<(), Failure> {
    let request = RevertDomain {
        snapshot: args.snapshot,
        memory: args.memory,
        keep: args.keep,
        discard: args.discard,
    };
    let reverted = settings
        .orchestrator()
        .await?
        .revert(&args.domain, &request)
        .await?;
    settings.show(&reverted, text)
}

fn text(reverted: &DomainReverted) -> String {
    let now = match (reverted.runs, reverted.memory) {
        (true, true) => "goes on where it was",
        (true, false) => "is started anew",
        (false, _) => "is off",
    };
    format!(
        "domain {}: back at snapshot {} ({}), and {now}\n",
        reverted.domain,
        reverted.snapshot,
        reverted.vdisks.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let reverted = DomainReverted {
            domain: "shop".into(),
            snapshot: "monday".into(),
            vdisks: vec!["web".into(), "db".into()],
            memory: true,
            runs: true,
        };
        assert_eq!(
            text(&reverted),
            "domain shop: back at snapshot monday (web, db), and goes on where it was\n"
        );
    }
}
