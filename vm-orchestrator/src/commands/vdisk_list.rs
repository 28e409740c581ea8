//! `firn vdisk list`.

use crate::failure::Failure;
use crate::output::{Align, table};
use crate::settings::Settings;
use crate::units::bytes;
use control_api::types::{VDisk, VDiskList};

pub(super) async fn run(settings: &Settings) -> Result<(), Failure> {
    let vdisks = settings.connect().await?.vdisks().await?;
    settings.show(&VDiskList { vdisks }, |list| text(&list.vdisks))
}

fn text(vdisks: &[VDisk]) -> String {
    if vdisks.is_empty() {
        return "no vDisks yet; make one with: firn vdisk create NAME SIZE\n".into();
    }
    let rows: Vec<_> = vdisks.iter().map(row).collect();
    let heading = [
        ("NAME", Align::Left),
        ("SIZE", Align::Right),
        ("ATTACHED", Align::Left),
        ("SOCKET", Align::Left),
    ];
    table(heading, &rows)
}

fn row(vdisk: &VDisk) -> [String; 4] {
    let attached = vdisk
        .attached
        .map_or("-".into(), |by| format!("pid {}", by.pid));
    [
        vdisk.name.clone(),
        bytes(vdisk.size),
        attached,
        vdisk.socket.clone(),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use control_api::types::Attachment;

    pub(in crate::commands) fn vdisk(name: &str, size: u64, attached: bool) -> VDisk {
        VDisk {
            name: name.into(),
            uuid: uuid::Uuid::from_u128(0x1234),
            serial: "00000000000000000000".into(),
            size,
            created: 1_700_000_000,
            tag: None,
            write_cache: true,
            read_only: false,
            socket: format!("/run/firn/{name}.sock"),
            attached: attached.then_some(Attachment {
                pid: 812,
                uid: 64055,
                since: 1_700_000_100,
            }),
            waiting: None,
            domain: None,
            flattening: None,
        }
    }

    #[test]
    fn golden() {
        assert_eq!(
            text(&[
                vdisk("database", 1 << 40, false),
                vdisk("web", 10 << 30, true)
            ]),
            "NAME          SIZE  ATTACHED  SOCKET\n\
             database  1.00 TiB  -         /run/firn/database.sock\n\
             web       10.0 GiB  pid 812   /run/firn/web.sock\n"
        );
        assert!(text(&[]).contains("firn vdisk create"));
    }
}
