//! `firn vdisk flatten`.

use crate::args::FlattenArgs;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::settings::Settings;
use std::time::Duration;

/// How often it is asked how far the clone has got.
const GLANCE: Duration = Duration::from_millis(200);

pub(super) async fn run(settings: &Settings, args: &FlattenArgs) -> Result<(), Failure> {
    let mut client = settings.connect().await?;
    let mut vdisk = client.flatten_vdisk(&args.name).await?;
    let size = vdisk.flattening.as_ref().map_or(0, |f| f.of_bytes);
    let mut progress = Progress::new(settings.progress, format!("flatten {}", args.name), size);
    while let Some(flattening) = vdisk.flattening.as_ref().filter(|_| !args.no_wait) {
        if let Some(why) = &flattening.failed {
            return Err(Failure::failed(format!(
                "vDisk {} stays a clone: {why}",
                args.name
            ))
            .hint("see to what is named here, then restart the backend: it tries again by itself, and not before"));
        }
        progress.at(flattening.done_bytes);
        tokio::time::sleep(GLANCE).await;
        vdisk = client.vdisk(&args.name).await?;
    }
    drop(progress);
    settings.show(&vdisk, |vdisk| match &vdisk.flattening {
        Some(_) => format!(
            "vDisk {0}: is being made independent; see: firn vdisk show {0}\n",
            vdisk.name
        ),
        None => format!("vDisk {}: needs nothing of others any more\n", vdisk.name),
    })
}
