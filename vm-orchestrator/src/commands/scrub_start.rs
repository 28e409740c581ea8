//! `firn store scrub start`.

use crate::args::ScrubStartArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::units::bytes;
use control_api::types::{ScrubChanged, ScrubOutcome, StartScrub};

pub(super) async fn run(settings: &Settings, args: &ScrubStartArgs) -> Result<(), Failure> {
    let request = StartScrub {
        rate: args.rate,
        decode: args.decode,
        again: args.again,
    };
    let changed = settings.connect().await?.start_scrub(&request).await?;
    settings.show(&changed, text)
}

fn text(changed: &ScrubChanged) -> String {
    let pass = changed.scrub.pass.as_ref();
    let rate = match pass.map_or(0, |pass| pass.rate) {
        0 => "as fast as guests leave it time".to_owned(),
        rate => format!("at {}/s at most", bytes(rate)),
    };
    let did = match changed.outcome {
        ScrubOutcome::Continued => "the scrub goes on where it was stopped",
        ScrubOutcome::Running => "a scrub is running already, and goes on",
        _ => "a scrub has begun",
    };
    format!("{did}, {rate}; see: firn store scrub status\n")
}
