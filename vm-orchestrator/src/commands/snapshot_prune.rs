//! `firn snapshot prune`.

use crate::args::PruneArgs;
use crate::failure::Failure;
use crate::output::{Align, table};
use crate::settings::Settings;
use crate::units::moment;
use control_api::types::{KeptBy, PruneSnapshots, Pruned, SnapshotFate};

pub(super) async fn run(settings: &Settings, args: &PruneArgs) -> Result<(), Failure> {
    let request = PruneSnapshots {
        keep: (&args.keep).into(),
        dry_run: args.dry_run,
    };
    let mut client = settings.connect().await?;
    let pruned = client.prune(&args.vdisk, &request).await?;
    settings.show(&pruned, |pruned| text(&args.vdisk, args.dry_run, pruned))
}

fn text(vdisk: &str, dry_run: bool, pruned: &Pruned) -> String {
    let all = pruned.snapshots.len();
    let left = match pruned.scheduled {
        0 => String::new(),
        n => format!("{n} more are left to their schedules: firn snapshot schedules\n"),
    };
    if all == 0 {
        return format!("vDisk {vdisk} has no snapshots to choose from\n{left}");
    }
    let goes = |fate: &&SnapshotFate| fate.kept_by.is_empty();
    let gone = pruned.snapshots.iter().filter(goes).count();
    let rows: Vec<_> = pruned.snapshots.iter().map(|f| row(dry_run, f)).collect();
    let heading = [
        ("SNAPSHOT", Align::Left),
        ("TAKEN", Align::Left),
        ("", Align::Left),
        ("WHY", Align::Left),
    ];
    let done = match dry_run {
        true => "would be deleted; nothing was",
        false => "deleted",
    };
    let table = table(heading, &rows);
    format!("{table}{gone} of {all} snapshots of vDisk {vdisk}: {done}\n{left}")
}

fn row(dry_run: bool, fate: &SnapshotFate) -> [String; 4] {
    let word = |why: &KeptBy| match why {
        KeptBy::Last => "last".into(),
        KeptBy::Hourly => "hourly".into(),
        KeptBy::Daily => "daily".into(),
        KeptBy::Weekly => "weekly".into(),
        KeptBy::Monthly => "monthly".into(),
        KeptBy::Held => format!("held by {}", fate.holds.join(", ")),
        KeptBy::Cloned => format!("clones: {}", fate.clones.join(", ")),
    };
    let why: Vec<String> = fate.kept_by.iter().map(word).collect();
    let (what, why) = match (why.is_empty(), dry_run) {
        (false, _) => ("stays", why.join(", ")),
        (true, true) => ("would go", "no rule keeps it".into()),
        (true, false) => ("deleted", "no rule keeps it".into()),
    };
    [fate.name.clone(), moment(fate.created), what.into(), why]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(name: &str, kept_by: &[KeptBy], holds: &[&str], clones: &[&str]) -> SnapshotFate {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        SnapshotFate {
            uuid: uuid::Uuid::nil(),
            name: name.into(),
            created: 1_769_842_743,
            kept_by: kept_by.into(),
            holds: all(holds),
            clones: all(clones),
        }
    }

    #[test]
    fn golden() {
        use KeptBy::*;
        let mut pruned = Pruned {
            snapshots: vec![
                fate("a", &[], &[], &[]),
                fate("b", &[Held, Cloned], &["dr", "me"], &["test"]),
                fate("monday", &[Last, Daily], &[], &[]),
            ],
            scheduled: 0,
        };
        assert_eq!(
            text("web", false, &pruned),
            "SNAPSHOT  TAKEN                             WHY\n\
             a         2026-01-31 06:59:03 UTC  deleted  no rule keeps it\n\
             b         2026-01-31 06:59:03 UTC  stays    held by dr, me, clones: test\n\
             monday    2026-01-31 06:59:03 UTC  stays    last, daily\n\
             1 of 3 snapshots of vDisk web: deleted\n"
        );
        pruned.scheduled = 24;
        let said = text("web", true, &pruned);
        assert!(said.contains("UTC  would go  no rule"), "{said}");
        assert!(said.ends_with(
            "1 of 3 snapshots of vDisk web: would be deleted; nothing was\n\
             24 more are left to their schedules: firn snapshot schedules\n"
        ));
        pruned.snapshots.clear();
        assert!(text("web", true, &pruned).contains("no snapshots to choose"));
    }
}
