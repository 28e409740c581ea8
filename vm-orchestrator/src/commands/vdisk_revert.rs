//! `firn vdisk revert`.

use crate::args::RevertArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::units::{bytes, moment};
use control_api::types::{RevertVDisk, Reverted};

pub(super) async fn run(settings: &Settings, args: RevertArgs) -> Result<(), Failure> {
    let request = RevertVDisk {
        snapshot: args.snapshot,
        keep: args.keep,
        discard: args.discard,
    };
    let mut client = settings.connect().await?;
    let reverted = client.revert(&args.name, &request).await?;
    settings.show(&reverted, text)
}

fn text(reverted: &Reverted) -> String {
    let vdisk = &reverted.vdisk;
    let mut text = format!(
        "vDisk {}: is what it was at snapshot {}, {}\n",
        vdisk.name,
        reverted.snapshot.name,
        moment(reverted.snapshot.created)
    );
    if let Some(kept) = &reverted.kept {
        text += &format!("what it was before is kept as snapshot {kept}\n");
    }
    if vdisk.size != reverted.old_size {
        text += &format!(
            "its size is {} again (was {})\n",
            bytes(vdisk.size),
            bytes(reverted.old_size)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::snapshot_list::tests::snapshot;
    use crate::commands::vdisk_list::tests::vdisk;

    #[test]
    fn golden() {
        let mut reverted = Reverted {
            vdisk: vdisk("web", 10 << 30, false),
            snapshot: snapshot("monday", &[], &[]),
            old_size: 20 << 30,
            kept: Some("broken".into()),
        };
        assert_eq!(
            text(&reverted),
            "vDisk web: is what it was at snapshot monday, 2026-01-31 06:59:03 UTC\n\
             what it was before is kept as snapshot broken\n\
             its size is 10.0 GiB again (was 20.0 GiB)\n"
        );
        reverted.kept = None;
        reverted.old_size = 10 << 30;
        assert_eq!(text(&reverted).lines().count(), 1);
    }
}
