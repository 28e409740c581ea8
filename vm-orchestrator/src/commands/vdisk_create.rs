//! `firn vdisk create`.

use crate::args::CreateArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::units::bytes;
use control_api::types::CreateVDisk;

pub(super) async fn run(settings: &Settings, args: CreateArgs) -> Result<(), Failure> {
    let request = CreateVDisk {
        name: args.name,
        size: args.size,
    };
    let vdisk = settings.connect().await?.create(&request).await?;
    settings.show(&vdisk, |vdisk| {
        format!(
            "vDisk {}: {}, on {}\n",
            vdisk.name,
            bytes(vdisk.size),
            vdisk.socket
        )
    })
}
