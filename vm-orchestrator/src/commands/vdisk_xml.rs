//! `firn vdisk xml`.

use crate::args::XmlArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use crate::xml::{DiskElement, DomainElement, disk, domain, memory_backing};
use control_api::limits::QUEUES_MAX;
use serde::Serialize;

#[derive(Serialize)]
struct Elements {
    disk: String,
    memory_backing: String,
}

#[derive(Serialize)]
struct Whole {
    domain: String,
}

pub(super) async fn run(settings: &Settings, args: &XmlArgs) -> Result<(), Failure> {
    let vdisk = settings.connect().await?.vdisk(&args.name).await?;
    let whole = &args.whole;
    if let Some(name) = &whole.domain {
        let disk = disk(&DiskElement {
            socket: &vdisk.socket,
            target: &args.target,
            queues: Some(args.queues.unwrap_or(whole.vcpus.min(QUEUES_MAX))),
            boot: true,
        });
        let element = DomainElement {
            name,
            memory: whole.memory,
            vcpus: whole.vcpus,
            uefi: whole.uefi,
            emulated: whole.emulated,
        };
        let domain = Whole {
            domain: domain(&element, &disk),
        };
        return settings.show(&domain, |it| it.domain.clone());
    }
    let element = DiskElement {
        socket: &vdisk.socket,
        target: &args.target,
        queues: args.queues,
        boot: args.boot,
    };
    let elements = Elements {
        disk: disk(&element),
        memory_backing: memory_backing(),
    };
    settings.show(&elements, |elements| text(elements, args))
}

fn text(elements: &Elements, args: &XmlArgs) -> String {
    use crate::args::XmlPart::{Disk, Memory};
    match args.only {
        Some(Disk) => elements.disk.clone(),
        Some(Memory) => elements.memory_backing.clone(),
        None => format!(
            "<!-- inside <domain>: the backend must share the guest's memory -->\n{}\n<!-- inside <devices> -->\n{}",
            elements.memory_backing, elements.disk
        ),
    }
}
