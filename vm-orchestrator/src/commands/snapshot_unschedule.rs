//! `firn snapshot unschedule`.

use crate::failure::Failure;
use crate::settings::Settings;
use serde::Serialize;

#[derive(Serialize)]
struct Ended {
    schedule: String,
}

pub(super) async fn run(settings: &Settings, name: &str) -> Result<(), Failure> {
    settings.connect().await?.delete_schedule(name).await?;
    let ended = Ended {
        schedule: name.to_owned(),
    };
    settings.show(&ended, |ended| {
        format!("schedule {}: ended; its snapshots stay\n", ended.schedule)
    })
}
