//! `firn snapshot show`: what it costs is told in parts by the backend, and added up here.

use crate::args::ShowSnapshotArgs;
use crate::failure::Failure;
use crate::output::facts;
use crate::settings::Settings;
use crate::units::{bytes, moment, ratio};
use control_api::types::{PresenceMap, Snapshot, SnapshotUsage};
use serde::Serialize;

/// Bytes of a block.
const BLOCK: u64 = 4096;

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    snapshot: Snapshot,
    usage: SnapshotUsage,
    /// With `--maps`: the presence map, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_map: Option<Option<PresenceMap>>,
}

pub(super) async fn run(settings: &Settings, args: &ShowSnapshotArgs) -> Result<(), Failure> {
    let (vdisk, name) = (&args.which.vdisk, &args.which.name);
    let mut client = settings.connect().await?;
    let snapshot = client.snapshot(vdisk, name).await?;
    let mut usage = SnapshotUsage::default();
    let mut next = Some(0);
    while let Some(at) = next {
        let part = client.snapshot_usage(vdisk, name, at).await?;
        // An answer that does not get on would have us ask for ever.
        next = part.next.filter(|next| *next > at);
        usage.add(&part);
    }
    let map = usage.presence_map.take();
    let shown = Shown {
        snapshot,
        usage,
        presence_map: args.maps.then_some(map),
    };
    settings.show(&shown, text)
}

fn text(shown: &Shown) -> String {
    let Shown {
        snapshot, usage, ..
    } = shown;
    let names = |names: &[String], none: &str| match names.is_empty() {
        true => none.into(),
        false => names.join(", "),
    };
    let by = snapshot.schedule.as_ref();
    let by = by.map_or_else(String::new, |name| format!(", by schedule {name}"));
    let content = |blocks: u64| blocks.saturating_mul(BLOCK);
    let data = content(usage.data_blocks);
    let mut lines = vec![
        ("snapshot", snapshot.name.clone()),
        ("vDisk", snapshot.vdisk.clone()),
        ("taken", moment(snapshot.created) + &by),
        (
            "size",
            format!("{} ({} bytes)", bytes(snapshot.size), snapshot.size),
        ),
        ("held by", names(&snapshot.holds, "nobody")),
        ("clones", names(&snapshot.clones, "none")),
        ("lsn", snapshot.lsn.to_string()),
        ("uuid", snapshot.uuid.to_string()),
        (
            "its own",
            format!(
                "{} in {} stored ({}), and {} of zeroes",
                bytes(data),
                bytes(usage.stored_bytes),
                ratio(data, usage.stored_bytes),
                bytes(content(usage.zero_blocks))
            ),
        ),
        (
            "deleting",
            format!(
                "gives back {}: {} that nobody else reads",
                bytes(usage.exclusive_bytes),
                bytes(content(usage.exclusive_blocks))
            ),
        ),
    ];
    if let Some(map) = &shown.presence_map {
        let map = map.as_ref().map_or_else(
            || "none; one is built when a read has to pass the layer".into(),
            |map| format!("{} blocks in {} of memory", map.blocks, bytes(map.bytes)),
        );
        lines.push(("map", map));
    }
    facts(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::snapshot_list::tests::snapshot;

    #[test]
    fn golden() {
        let mut usage = SnapshotUsage::default();
        let map = PresenceMap {
            blocks: 1024,
            bytes: 2048,
        };
        for presence_map in [None, Some(map)] {
            let part = SnapshotUsage {
                data_blocks: 256,
                zero_blocks: 256,
                stored_bytes: 512 << 10,
                exclusive_blocks: 2,
                exclusive_bytes: 4096,
                presence_map,
                next: None,
            };
            usage.add(&part);
        }
        let mut shown = Shown {
            snapshot: snapshot("monday", &["backup"], &[]),
            presence_map: Some(usage.presence_map.take()),
            usage,
        };
        assert_eq!(
            text(&shown),
            "snapshot  monday\n\
             vDisk     web\n\
             taken     2026-01-31 06:59:03 UTC\n\
             size      10.0 GiB (10737418240 bytes)\n\
             held by   backup\n\
             clones    none\n\
             lsn       4711\n\
             uuid      00000000-0000-0000-0000-000000001234\n\
             its own   2.00 MiB in 1.00 MiB stored (2.00x), and 2.00 MiB of zeroes\n\
             deleting  gives back 8.00 KiB: 16.0 KiB that nobody else reads\n\
             map       1024 blocks in 2.00 KiB of memory\n"
        );
        shown.presence_map = Some(None);
        assert!(text(&shown).contains("map       none; one is built"));
        shown.presence_map = None;
        assert!(!text(&shown).contains("map "));
    }
}
