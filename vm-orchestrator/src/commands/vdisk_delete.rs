//! `firn vdisk delete`.

use crate::failure::Failure;
use crate::settings::Settings;
use serde::Serialize;

#[derive(Serialize)]
struct Deleted<'a> {
    deleted: &'a str,
}

pub(super) async fn run(settings: &Settings, name: &str) -> Result<(), Failure> {
    settings.connect().await?.delete(name).await?;
    settings.show(&Deleted { deleted: name }, |_| {
        format!("vDisk {name}: deleted\n")
    })
}
