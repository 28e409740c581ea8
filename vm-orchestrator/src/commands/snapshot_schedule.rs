//! `firn snapshot schedule`.

use super::snapshot_schedules::rules;
use crate::args::ScheduleArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::units::{interval, moment};
use control_api::types::{CreateSchedule, Schedule};

pub(super) async fn run(settings: &Settings, args: ScheduleArgs) -> Result<(), Failure> {
    let request = CreateSchedule {
        name: args.name,
        vdisks: args.vdisks,
        every_seconds: args.every,
        prefix: args.prefix,
        keep: (&args.keep).into(),
    };
    let made = settings.connect().await?.create_schedule(&request).await?;
    settings.show(&made, text)
}

fn text(made: &Schedule) -> String {
    let vdisks = match made.vdisks.as_slice() {
        [one] => format!("vDisk {one}"),
        several => format!("vDisks {}", several.join(", ")),
    };
    format!(
        "schedule {}: {vdisks} every {}, keeps {}; the first one is due at {}\n",
        made.name,
        interval(made.every_seconds),
        rules(&made.keep),
        moment(made.next)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::snapshot_schedules::tests::schedule;

    #[test]
    fn golden() {
        assert_eq!(
            text(&schedule("hourly")),
            "schedule hourly: vDisks web, db every 1h, keeps 24 hourly, 7 daily; the first one is due at 2026-01-31 07:00:00 UTC\n"
        );
    }
}
