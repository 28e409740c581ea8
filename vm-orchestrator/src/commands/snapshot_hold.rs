//! `firn snapshot hold`.

use crate::args::HoldArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use control_api::types::Snapshot;

pub(super) async fn run(settings: &Settings, args: &HoldArgs) -> Result<(), Failure> {
    let mut client = settings.connect().await?;
    let held = client
        .hold_snapshot(&args.which.vdisk, &args.which.name, &args.holder)
        .await?;
    settings.show(&held, text)
}

pub(super) fn text(snapshot: &Snapshot) -> String {
    let by = match snapshot.holds.is_empty() {
        true => "nobody".into(),
        false => snapshot.holds.join(", "),
    };
    format!(
        "snapshot {} of vDisk {}: held by {by}\n",
        snapshot.name, snapshot.vdisk
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::snapshot_list::tests::snapshot;

    #[test]
    fn golden() {
        assert_eq!(
            text(&snapshot("monday", &["dr", "backup"], &[])),
            "snapshot monday of vDisk web: held by dr, backup\n"
        );
        assert!(text(&snapshot("monday", &[], &[])).ends_with("held by nobody\n"));
    }
}
