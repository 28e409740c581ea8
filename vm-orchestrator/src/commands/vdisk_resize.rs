//! `firn vdisk resize`.

use crate::args::ResizeArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::units::bytes;
use control_api::types::{ResizeVDisk, Resized};

pub(super) async fn run(settings: &Settings, args: &ResizeArgs) -> Result<(), Failure> {
    let request = ResizeVDisk {
        size: args.size,
        shrink: args.shrink,
    };
    let resized = settings
        .connect()
        .await?
        .resize(&args.name, &request)
        .await?;
    settings.show(&resized, text)
}

fn text(resized: &Resized) -> String {
    let vdisk = &resized.vdisk;
    let mut text = match vdisk.size == resized.old_size {
        true => format!("vDisk {}: has {} already\n", vdisk.name, bytes(vdisk.size)),
        false => format!(
            "vDisk {}: {} (was {})\n",
            vdisk.name,
            bytes(vdisk.size),
            bytes(resized.old_size)
        ),
    };
    if let Some(note) = &resized.note {
        text += &format!("note: {note}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::vdisk_list::tests::vdisk;

    #[test]
    fn golden() {
        let note = Some("the guest sees it at its next cold start".into());
        let resized = Resized {
            vdisk: vdisk("web", 20 << 30, true),
            old_size: 10 << 30,
            note,
        };
        assert_eq!(
            text(&resized),
            "vDisk web: 20.0 GiB (was 10.0 GiB)\nnote: the guest sees it at its next cold start\n"
        );
    }
}
