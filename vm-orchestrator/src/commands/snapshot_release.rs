//! `firn snapshot release`.

use super::snapshot_hold;
use crate::args::ReleaseArgs;
use crate::failure::Failure;
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, args: &ReleaseArgs) -> Result<(), Failure> {
    let mut client = settings.connect().await?;
    let (vdisk, name) = (&args.which.vdisk, &args.which.name);
    let mut snapshot = client.snapshot(vdisk, name).await?;
    let holds = |holder: &&String| snapshot.holds.contains(holder);
    if let Some(stranger) = args.holders.iter().find(|holder| !holds(holder)) {
        return Err(Failure::refused(format!(
            "{stranger} does not hold snapshot {name} of vDisk {vdisk}"
        ))
        .hint(format!("see: firn snapshot show {vdisk} {name}")));
    }
    for holder in &args.holders {
        // Named twice is released once.
        if snapshot.holds.contains(holder) {
            snapshot = client.release_snapshot(vdisk, name, holder).await?;
        }
    }
    settings.show(&snapshot, snapshot_hold::text)
}
