//! `firn snapshot list`.

use crate::failure::Failure;
use crate::output::{Align, table};
use crate::settings::Settings;
use crate::units::{bytes, moment};
use control_api::types::{Snapshot, SnapshotList};

pub(super) async fn run(settings: &Settings, vdisk: Option<&str>) -> Result<(), Failure> {
    let snapshots = settings.connect().await?.snapshots(vdisk).await?;
    settings.show(&SnapshotList { snapshots }, |list| {
        text(vdisk, &list.snapshots)
    })
}

fn text(vdisk: Option<&str>, snapshots: &[Snapshot]) -> String {
    if snapshots.is_empty() {
        return match vdisk {
            Some(name) => format!(
                "no snapshots of vDisk {name}; take one with: firn snapshot create NAME {name}\n"
            ),
            None => "no snapshots yet; take one with: firn snapshot create NAME VDISK...\n".into(),
        };
    }
    let rows: Vec<_> = snapshots.iter().map(row).collect();
    let heading = [
        ("VDISK", Align::Left),
        ("SNAPSHOT", Align::Left),
        ("TAKEN", Align::Left),
        ("SIZE", Align::Right),
        ("HELD BY", Align::Left),
        ("CLONES", Align::Left),
    ];
    table(heading, &rows)
}

fn row(snapshot: &Snapshot) -> [String; 6] {
    let names = |names: &[String]| match names.is_empty() {
        true => "-".into(),
        false => names.join(", "),
    };
    [
        snapshot.vdisk.clone(),
        snapshot.name.clone(),
        moment(snapshot.created),
        bytes(snapshot.size),
        names(&snapshot.holds),
        names(&snapshot.clones),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::commands) fn snapshot(name: &str, holds: &[&str], clones: &[&str]) -> Snapshot {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Snapshot {
            vdisk: "web".into(),
            name: name.into(),
            uuid: uuid::Uuid::from_u128(0x1234),
            size: 10 << 30,
            lsn: 4711,
            created: 1_769_842_743,
            holds: all(holds),
            clones: all(clones),
            schedule: None,
        }
    }

    #[test]
    fn golden() {
        assert_eq!(
            text(
                None,
                &[
                    snapshot("monday", &["backup", "dr"], &[]),
                    snapshot("x", &[], &["web", "test"])
                ]
            ),
            "VDISK  SNAPSHOT  TAKEN                        SIZE  HELD BY     CLONES\n\
             web    monday    2026-01-31 06:59:03 UTC  10.0 GiB  backup, dr  -\n\
             web    x         2026-01-31 06:59:03 UTC  10.0 GiB  -           web, test\n"
        );
        assert!(text(None, &[]).contains("NAME VDISK..."));
        assert!(text(Some("web"), &[]).contains("create NAME web"));
    }
}
