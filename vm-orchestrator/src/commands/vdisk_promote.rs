//! `firn vdisk promote`.

use crate::failure::Failure;
use crate::settings::Settings;

pub(super) async fn run(settings: &Settings, name: &str) -> Result<(), Failure> {
    let vdisk = settings.connect().await?.promote_vdisk(name).await?;
    settings.show(&vdisk, |vdisk| {
        format!(
            "vDisk {0}: has the snapshots now that it was cloned from; see: firn snapshot list {0}\n",
            vdisk.name
        )
    })
}
