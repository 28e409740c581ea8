//! `firn snapshot create`.

use super::snapshot_domain;
use crate::args::CreateSnapshotArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::units::short_duration;
use control_api::types::{CreateSnapshot, CreatedSnapshot};

pub(super) async fn run(settings: &Settings, args: CreateSnapshotArgs) -> Result<(), Failure> {
    if let Some(domain) = &args.domain {
        return snapshot_domain::run(settings, domain, args.name, args.quiesce).await;
    }
    let request = CreateSnapshot {
        name: args.name,
        vdisks: args.vdisks,
        hold: None,
    };
    let created = settings.connect().await?.create_snapshot(&request).await?;
    settings.show(&created, text)
}

fn text(created: &CreatedSnapshot) -> String {
    let vdisks = match created.vdisks.as_slice() {
        [one] => format!("vDisk {one}"),
        several => format!("vDisks {}", several.join(", ")),
    };
    format!(
        "snapshot {} of {vdisks}: durable after {}; guests were held up for {}\n",
        created.name,
        short_duration(created.durable_microseconds),
        short_duration(created.stall_microseconds)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let mut created = CreatedSnapshot {
            name: "monday".into(),
            vdisks: vec!["web".into()],
            lsn: 4711,
            stall_microseconds: 85,
            durable_microseconds: 23_400,
        };
        assert_eq!(
            text(&created),
            "snapshot monday of vDisk web: durable after 23.4 ms; guests were held up for 85 us\n"
        );
        created.vdisks.push("db".into());
        assert!(text(&created).starts_with("snapshot monday of vDisks web, db: durable"));
    }
}
