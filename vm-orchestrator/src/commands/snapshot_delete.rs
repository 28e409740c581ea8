//! `firn snapshot delete`: all that are named go at once, or none.

use crate::args::DeleteSnapshotsArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use control_api::types::{DeleteSnapshots, DeletedSnapshots};
use serde::Serialize;

#[derive(Serialize)]
struct Deleted {
    vdisk: String,
    #[serde(flatten)]
    snapshots: DeletedSnapshots,
}

pub(super) async fn run(settings: &Settings, args: &DeleteSnapshotsArgs) -> Result<(), Failure> {
    let mut client = settings.connect().await?;
    let names = match args.all {
        false => args.names.clone(),
        true => {
            let all = client.snapshots(Some(&args.vdisk)).await?;
            all.into_iter().map(|snapshot| snapshot.name).collect()
        }
    };
    let request = DeleteSnapshots {
        names,
        defer: args.defer,
    };
    let deleted = Deleted {
        vdisk: args.vdisk.clone(),
        snapshots: client.delete_snapshots(&args.vdisk, &request).await?,
    };
    settings.show(&deleted, text)
}

fn text(Deleted { vdisk, snapshots }: &Deleted) -> String {
    if snapshots.deleted.is_empty() {
        return format!("vDisk {vdisk} has no snapshots\n");
    }
    let lines = snapshots.deleted.iter().map(|name| {
        let space = match snapshots.deferred.contains(name) {
            true => "; its space comes back when one branch over it is left",
            false => "",
        };
        format!("snapshot {name} of vDisk {vdisk}: deleted{space}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_clones_is_told() {
        let mut deleted = Deleted {
            vdisk: "web".into(),
            snapshots: DeletedSnapshots {
                deleted: vec!["b".into(), "a".into()],
                deferred: vec!["a".into()],
            },
        };
        assert_eq!(
            text(&deleted),
            "snapshot b of vDisk web: deleted\n\
             snapshot a of vDisk web: deleted; its space comes back when one branch over it is left\n"
        );
        deleted.snapshots.deleted.clear();
        assert_eq!(text(&deleted), "vDisk web has no snapshots\n");
    }
}
