//! `firn snapshot create --domain`.

use crate::failure::Failure;
use crate::settings::Settings;
use crate::units::short_duration;
use control_api::types::{DomainSnapshotTaken, SnapshotDomain};

pub(super) async fn run(
    settings: &Settings,
    domain: &str,
    name: String,
    quiesce: bool,
) -> Result<(), Failure> {
    let request = SnapshotDomain { name, quiesce };
    let mut orchestrator = settings.orchestrator().await?;
    let taken = orchestrator.snapshot(domain, &request).await?;
    settings.show(&taken, text)
}

fn text(taken: &DomainSnapshotTaken) -> String {
    let how = match taken.frozen {
        0 => "as a power cut would have left them".to_owned(),
        count => format!(
            "{count} filesystems frozen for {}",
            short_duration(taken.frozen_microseconds)
        ),
    };
    format!(
        "snapshot {} of domain {} (vDisks {}): durable; {how}\n",
        taken.name,
        taken.domain,
        taken.vdisks.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let mut taken = DomainSnapshotTaken {
            domain: "shop".into(),
            name: "monday".into(),
            vdisks: vec!["web".into(), "db".into()],
            frozen: 2,
            frozen_microseconds: 41_300,
        };
        assert_eq!(
            text(&taken),
            "snapshot monday of domain shop (vDisks web, db): durable; 2 filesystems frozen for 41.3 ms\n"
        );
        taken.frozen = 0;
        assert!(text(&taken).ends_with("as a power cut would have left them\n"));
    }
}
