//! `firn snapshot rename`.

use crate::args::RenameSnapshotArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use control_api::types::RenameSnapshot;

pub(super) async fn run(settings: &Settings, args: RenameSnapshotArgs) -> Result<(), Failure> {
    let old = args.which.name;
    let request = RenameSnapshot { name: args.new };
    let mut client = settings.connect().await?;
    let renamed = client
        .rename_snapshot(&args.which.vdisk, &old, &request)
        .await?;
    settings.show(&renamed, |renamed| {
        format!(
            "snapshot {} of vDisk {} (was {old})\n",
            renamed.name, renamed.vdisk
        )
    })
}
