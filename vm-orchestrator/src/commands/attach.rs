//! `firn attach` and `firn detach`.

use crate::args::{AttachArgs, DetachArgs};
use crate::failure::Failure;
use crate::settings::Settings;
use control_api::types::{AttachDisk, DiskChanged};

pub(super) async fn attach(settings: &Settings, args: AttachArgs) -> Result<(), Failure> {
    let request = AttachDisk {
        vdisk: args.vdisk,
        target: args.target,
        queues: args.queues,
        boot: args.boot,
    };
    let mut orchestrator = settings.orchestrator().await?;
    let changed = orchestrator.attach(&args.domain, &request).await?;
    settings.show(&changed, |changed| text(changed, "attached"))
}

pub(super) async fn detach(settings: &Settings, args: DetachArgs) -> Result<(), Failure> {
    let mut orchestrator = settings.orchestrator().await?;
    let changed = orchestrator.detach(&args.domain, &args.vdisk).await?;
    settings.show(&changed, |changed| text(changed, "detached"))
}

fn text(changed: &DiskChanged, done: &str) -> String {
    let how = match (changed.live, changed.persistent) {
        (true, true) => "now and at its next start",
        (true, false) => "now",
        _ => "at its next start",
    };
    let note = changed.note.as_deref();
    let note = note.map_or(String::new(), |note| format!("note: {note}\n"));
    format!(
        "vDisk {}: {done}, {how} ({} of domain {})\n{note}",
        changed.vdisk, changed.target, changed.domain
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let changed = DiskChanged {
            domain: "shop".into(),
            vdisk: "db".into(),
            target: "vdb".into(),
            live: false,
            persistent: true,
            note: Some("restart it".into()),
        };
        assert_eq!(
            text(&changed, "attached"),
            "vDisk db: attached, at its next start (vdb of domain shop)\nnote: restart it\n"
        );
    }
}
