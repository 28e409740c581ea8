//! `firn vdisk show`.

use crate::failure::Failure;
use crate::output::facts;
use crate::settings::Settings;
use crate::units::{bytes, moment, ratio};
use control_api::types::{Attachment, VDisk, VDiskStats};
use serde::Serialize;

/// The vDisk and its counters in one document.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    vdisk: VDisk,
    stats: VDiskStats,
}

pub(super) async fn run(settings: &Settings, name: &str) -> Result<(), Failure> {
    let mut client = settings.connect().await?;
    let shown = Shown {
        vdisk: client.vdisk(name).await?,
        stats: client.stats(name).await?,
    };
    settings.show(&shown, |shown| text(&shown.vdisk, &shown.stats))
}

fn text(vdisk: &VDisk, stats: &VDiskStats) -> String {
    let front_end = |by: &Attachment| format!("by process {} (uid {})", by.pid, by.uid);
    let mut attached = vdisk.attached.as_ref().map_or("no".into(), front_end);
    if let Some(waiting) = &vdisk.waiting {
        attached = format!("{attached}, waited for {}", front_end(waiting));
    }
    let cache = match vdisk.write_cache {
        true => "on: writes are durable after a flush",
        false => "off: every write is durable when it completes",
    };
    let compressed = stats.written_bytes.saturating_sub(stats.zero_bytes);
    let mut lines = vec![
        ("vDisk", vdisk.name.clone()),
        (
            "size",
            format!("{} ({} bytes)", bytes(vdisk.size), vdisk.size),
        ),
        ("attached", attached),
        ("socket", vdisk.socket.clone()),
        ("write cache", cache.into()),
        ("serial", vdisk.serial.clone()),
        ("uuid", vdisk.uuid.to_string()),
    ];
    if let Some(domain) = &vdisk.domain {
        let why = domain.reason.as_ref();
        let why = why.map_or_else(String::new, |reason| format!(" ({reason})"));
        let state = domain.state.as_str();
        let since = moment(domain.since);
        let text = format!("{}, {state}{why} since {since}", domain.name);
        lines.push(("domain", text));
    }
    if let Some(flattening) = &vdisk.flattening {
        let percent =
            u128::from(flattening.done_bytes) * 100 / u128::from(flattening.of_bytes.max(1));
        let state = match &flattening.failed {
            Some(why) => format!("STOPPED at {percent} %: {why}"),
            None => format!("{percent} % of it is its own by now"),
        };
        lines.push(("being flattened", state));
    }
    if vdisk.read_only {
        lines.push(("read-only", "yes".into()));
    }
    if let Some(tag) = &vdisk.tag {
        lines.push(("tag", tag.clone()));
    }
    lines.push((
        "since start",
        format!(
            "{} read, {} written, {} of it zeroes, {} stored ({}), {} errors",
            bytes(stats.read_bytes),
            bytes(stats.written_bytes),
            bytes(stats.zero_bytes),
            bytes(stats.stored_bytes),
            ratio(compressed, stats.stored_bytes),
            stats.errors
        ),
    ));
    facts(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::vdisk_list::tests::vdisk;
    use control_api::types::{DomainState, DomainUse};

    #[test]
    fn golden() {
        let stats = VDiskStats {
            name: "web".into(),
            reads: 10,
            read_bytes: 1 << 20,
            writes: 20,
            written_bytes: 5 << 30,
            stored_bytes: 2 << 30,
            zero_bytes: 1 << 30,
            flushes: 3,
            errors: 0,
        };
        let mut web = vdisk("web", 10 << 30, true);
        web.waiting = Some(Attachment {
            pid: 913,
            uid: 0,
            since: 0,
        });
        web.domain = Some(DomainUse {
            name: "shop".into(),
            uuid: uuid::Uuid::nil(),
            state: DomainState::Stopped,
            reason: Some("crashed".into()),
            since: 1_700_000_200,
        });
        assert_eq!(
            text(&web, &stats),
            "vDisk        web\n\
             size         10.0 GiB (10737418240 bytes)\n\
             attached     by process 812 (uid 64055), waited for by process 913 (uid 0)\n\
             socket       /run/firn/web.sock\n\
             write cache  on: writes are durable after a flush\n\
             serial       00000000000000000000\n\
             uuid         00000000-0000-0000-0000-000000001234\n\
             domain       shop, stopped (crashed) since 2023-11-14 22:16:40 UTC\n\
             since start  1.00 MiB read, 5.00 GiB written, 1.00 GiB of it zeroes, 2.00 GiB stored (2.00x), 0 errors\n"
        );
    }
}
