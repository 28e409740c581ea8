//! `firn snapshot show`.

use crate::args::SnapshotArg;
use crate::failure::Failure;
use crate::output::facts;
use crate::settings::Settings;
use crate::units::{bytes, moment};
use control_api::types::Snapshot;

pub(super) async fn run(settings: &Settings, args: &SnapshotArg) -> Result<(), Failure> {
    let mut client = settings.connect().await?;
    let snapshot = client.snapshot(&args.vdisk, &args.name).await?;
    settings.show(&snapshot, text)
}

pub(super) fn text(snapshot: &Snapshot) -> String {
    let names = |names: &[String], none: &str| match names.is_empty() {
        true => none.into(),
        false => names.join(", "),
    };
    facts(&[
        ("snapshot", snapshot.name.clone()),
        ("vDisk", snapshot.vdisk.clone()),
        ("taken", moment(snapshot.created)),
        (
            "size",
            format!("{} ({} bytes)", bytes(snapshot.size), snapshot.size),
        ),
        ("held by", names(&snapshot.holds, "nobody")),
        ("clones", names(&snapshot.clones, "none")),
        ("lsn", snapshot.lsn.to_string()),
        ("uuid", snapshot.uuid.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::snapshot_list::tests::snapshot;

    #[test]
    fn golden() {
        assert_eq!(
            text(&snapshot("monday", &["backup"], &[])),
            "snapshot  monday\n\
             vDisk     web\n\
             taken     2026-01-31 06:59:03 UTC\n\
             size      10.0 GiB (10737418240 bytes)\n\
             held by   backup\n\
             clones    none\n\
             lsn       4711\n\
             uuid      00000000-0000-0000-0000-000000001234\n"
        );
    }
}
