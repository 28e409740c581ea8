//! `firn vdisk clone`.

use crate::args::CloneArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::units::bytes;
use control_api::types::CloneSnapshot;

pub(super) async fn run(settings: &Settings, args: CloneArgs) -> Result<(), Failure> {
    let request = CloneSnapshot { name: args.new };
    let mut client = settings.connect().await?;
    let clone = client
        .clone_snapshot(&args.name, &args.snapshot, &request)
        .await?;
    settings.show(&clone, |clone| {
        format!(
            "vDisk {}: {} of snapshot {} of vDisk {}, on {}\n",
            clone.name,
            bytes(clone.size),
            args.snapshot,
            args.name,
            clone.socket
        )
    })
}
