//! `firn store scrub stop`.

use crate::failure::Failure;
use crate::settings::Settings;
use control_api::types::{ScrubChanged, ScrubOutcome};

pub(super) async fn run(settings: &Settings) -> Result<(), Failure> {
    let changed = settings.connect().await?.stop_scrub().await?;
    settings.show(&changed, text)
}

fn text(changed: &ScrubChanged) -> String {
    match changed.outcome {
        ScrubOutcome::Stopped => "stopped; firn store scrub start goes on from there\n".to_owned(),
        _ => "no scrub was running\n".to_owned(),
    }
}
