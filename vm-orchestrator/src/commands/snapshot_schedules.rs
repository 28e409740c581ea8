//! `firn snapshot schedules`.

use crate::failure::Failure;
use crate::output::{Align, table};
use crate::settings::Settings;
use crate::units::{interval, moment};
use control_api::types::{Keep, Schedule, ScheduleList};

pub(super) async fn run(settings: &Settings) -> Result<(), Failure> {
    let schedules = settings.connect().await?.schedules().await?;
    settings.show(&ScheduleList { schedules }, |list| text(&list.schedules))
}

fn text(schedules: &[Schedule]) -> String {
    if schedules.is_empty() {
        return "no schedules yet; make one with: firn snapshot schedule NAME VDISK... --every 1h --keep-hourly 24\n".into();
    }
    let rows: Vec<_> = schedules.iter().map(row).collect();
    let heading = [
        ("SCHEDULE", Align::Left),
        ("VDISKS", Align::Left),
        ("EVERY", Align::Right),
        ("KEEPS", Align::Left),
        ("HAS", Align::Right),
        ("LAST", Align::Left),
        ("NEXT", Align::Left),
        ("MISSED", Align::Right),
        ("STATE", Align::Left),
    ];
    let troubles: String = schedules.iter().filter_map(trouble).collect();
    table(heading, &rows) + &troubles
}

fn row(schedule: &Schedule) -> [String; 9] {
    let state = match (&schedule.last_error, schedule.behind) {
        (Some(_), _) => "FAILS",
        (None, true) => "BEHIND",
        (None, false) => "ok",
    };
    [
        schedule.name.clone(),
        schedule.vdisks.join(", "),
        interval(schedule.every_seconds),
        rules(&schedule.keep),
        schedule.kept.to_string(),
        schedule.last.map_or_else(|| "-".into(), moment),
        moment(schedule.next),
        schedule.missed.to_string(),
        state.into(),
    ]
}

/// What is wrong with a schedule, and the way out.
fn trouble(schedule: &Schedule) -> Option<String> {
    let name = &schedule.name;
    if let Some(error) = &schedule.last_error {
        let at = schedule.failed_at.map(moment).unwrap_or_default();
        return Some(format!(
            "{name}: no snapshot was taken at {at}: {error}; it goes on by itself when that is over\n"
        ));
    }
    schedule.behind.then(|| {
        let took = schedule.took_milliseconds.unwrap_or(0);
        format!(
            "{name}: can't keep up; the last snapshot took {took} ms. Make it less frequent: firn snapshot unschedule {name}, and schedule it anew\n"
        )
    })
}

/// `24 hourly, 7 daily`.
pub(super) fn rules(keep: &Keep) -> String {
    let all = [
        (keep.last, "last"),
        (keep.hourly, "hourly"),
        (keep.daily, "daily"),
        (keep.weekly, "weekly"),
        (keep.monthly, "monthly"),
    ];
    let all = all.iter().filter(|(n, _)| *n > 0);
    let all: Vec<String> = all.map(|(n, rule)| format!("{n} {rule}")).collect();
    all.join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::commands) fn schedule(name: &str) -> Schedule {
        Schedule {
            name: name.into(),
            vdisks: vec!["web".into(), "db".into()],
            every_seconds: 3600,
            prefix: name.into(),
            keep: Keep {
                hourly: 24,
                daily: 7,
                ..Keep::default()
            },
            created: 1_769_800_000,
            next: 1_769_842_800,
            last: None,
            kept: 0,
            missed: 0,
            took_milliseconds: None,
            behind: false,
            last_error: None,
            failed_at: None,
        }
    }

    #[test]
    fn golden() {
        let late = Schedule {
            last: Some(1_769_839_200),
            kept: 30,
            missed: 2,
            took_milliseconds: Some(1500),
            behind: true,
            ..schedule("late")
        };
        let said = text(&[schedule("hourly"), late.clone()]);
        assert_eq!(
            said,
            "SCHEDULE  VDISKS   EVERY  KEEPS               HAS  LAST                     NEXT                     MISSED  STATE\n\
             hourly    web, db     1h  24 hourly, 7 daily    0  -                        2026-01-31 07:00:00 UTC       0  ok\n\
             late      web, db     1h  24 hourly, 7 daily   30  2026-01-31 06:00:00 UTC  2026-01-31 07:00:00 UTC       2  BEHIND\n\
             late: can't keep up; the last snapshot took 1500 ms. Make it less frequent: firn snapshot unschedule late, and schedule it anew\n"
        );
        let fails = Schedule {
            last_error: Some("no space: the store is full".into()),
            failed_at: Some(1_769_842_743),
            ..late
        };
        let said = text(&[fails]);
        assert!(said.contains(
            "  2  FAILS\nlate: no snapshot was taken at 2026-01-31 06:59:03 UTC: no space"
        ));
        assert!(text(&[]).contains("firn snapshot schedule NAME"));
    }
}
