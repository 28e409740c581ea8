//! `firn store status`.

use crate::failure::Failure;
use crate::output::facts;
use crate::settings::Settings;
use crate::units::{bytes, duration, moment, ratio};
use control_api::types::{Health, ScrubBrief, StoreStatus};
use serde::Serialize;

/// Both answers in one document.
#[derive(Serialize)]
struct Status {
    backend: Health,
    store: StoreStatus,
}

pub(super) async fn run(settings: &Settings) -> Result<(), Failure> {
    let mut client = settings.connect().await?;
    let status = Status {
        backend: client.health().await?,
        store: client.status().await?,
    };
    settings.show(&status, |status| text(&status.backend, &status.store))
}

fn text(backend: &Health, store: &StoreStatus) -> String {
    let stored = store.data_bytes + store.meta_bytes;
    let percent_free = (store.free_bytes * 100)
        .checked_div(store.filesystem_bytes)
        .unwrap_or(0);
    let mut lines = vec![
        ("store", store.dir.clone()),
        ("state", state(store)),
        (
            "backend",
            format!(
                "process {}, version {}, up {}",
                backend.pid,
                backend.version,
                duration(backend.uptime_seconds as f64)
            ),
        ),
        (
            "vDisks",
            format!(
                "{} of {} together",
                store.vdisks,
                bytes(store.provisioned_bytes)
            ),
        ),
        (
            "snapshots",
            format!("{}, in {} layers", store.snapshots, store.layers),
        ),
        ("schedules", schedules(store)),
        (
            "content",
            format!(
                "{} in {} stored ({})",
                bytes(store.live_bytes),
                bytes(stored),
                ratio(store.live_bytes, stored)
            ),
        ),
        (
            "garbage",
            format!("{} % of what is stored", store.garbage_percent),
        ),
        (
            "space",
            format!(
                "{} free of {} ({percent_free} %)",
                bytes(store.free_bytes),
                bytes(store.filesystem_bytes)
            ),
        ),
        (
            "segments",
            format!(
                "{} in use, {} spare; maps take {}",
                store.segments,
                store.spare_segments,
                bytes(store.meta_bytes)
            ),
        ),
        (
            "log",
            format!(
                "at {}, {} since the last checkpoint, {} in the write buffer",
                store.lsn,
                bytes(store.log_bytes),
                bytes(store.buffered_bytes)
            ),
        ),
        (
            "memory",
            format!(
                "{} for {} map nodes, {} changed; {} for {} presence maps; {} for {} resolved leaves",
                bytes(store.map_memory_bytes),
                store.map_nodes,
                store.dirty_map_nodes,
                bytes(store.presence_memory_bytes),
                store.presence_maps,
                bytes(store.resolved_memory_bytes),
                store.resolved_leaves
            ),
        ),
        (
            "since start",
            format!(
                "{} of data and {} of maps written, {} moved; {} commits, {} checkpoints of {} ms on average",
                bytes(store.log_written_bytes),
                bytes(store.meta_written_bytes),
                bytes(store.relocated_bytes),
                store.commits,
                store.checkpoints,
                store
                    .checkpoint_milliseconds
                    .checked_div(store.checkpoints)
                    .unwrap_or(0)
            ),
        ),
    ];
    lines.push(("scrub", scrub(&store.scrub)));
    let recovery = &store.recovery;
    lines.push((
        "opened",
        format!(
            "in {} ms: {} of log scanned, {} records applied; write buffer: {}",
            recovery.milliseconds,
            bytes(recovery.scanned_bytes),
            recovery.applied_records,
            recovery.buffer
        ),
    ));
    facts(&lines)
}

fn schedules(store: &StoreStatus) -> String {
    match store.late_schedules {
        0 => store.schedules.to_string(),
        late => format!(
            "{}, {late} of them LATE or failing: firn snapshot schedules",
            store.schedules
        ),
    }
}

fn scrub(scrub: &ScrubBrief) -> String {
    let percent = (u128::from(scrub.verified_bytes) * 100)
        .checked_div(scrub.total_bytes.into())
        .unwrap_or(0);
    let damage = |count: u64| match count {
        0 => "no damage".to_owned(),
        many => format!("DAMAGE: {many}, see firn store scrub status"),
    };
    let last = scrub.last_ended.map(|ended| {
        let found = damage(scrub.last_damage);
        format!("the last one ended at {}: {found}", moment(ended))
    });
    let last = last.unwrap_or_else(|| "none has come to its end yet".into());
    match (scrub.running, scrub.stopped) {
        (false, false) => last,
        (running, _) => format!(
            "{} at {percent} %: {}; {last}",
            if running { "running," } else { "stopped" },
            damage(scrub.damage)
        ),
    }
}

fn state(store: &StoreStatus) -> String {
    match (&store.failed, store.full) {
        (Some(why), _) => format!(
            "FAILED, takes no writes: {why}. Stop the backend, see to the disk, start it again"
        ),
        (None, true) => {
            "FULL: writes wait or fail; delete snapshots or vDisks, or give the filesystem more space".into()
        }
        (None, false) => "serving".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::types::Recovery;

    fn status() -> (Health, StoreStatus) {
        let health = Health {
            version: "0.1.0".into(),
            api: 1,
            pid: 4711,
            store: "/srv/firn".into(),
            run: "/run/firn".into(),
            uptime_seconds: 3 * 3600,
        };
        let store = StoreStatus {
            uuid: "u".into(),
            dir: "/srv/firn".into(),
            created: 0,
            failed: None,
            full: false,
            filesystem_bytes: 100 << 30,
            free_bytes: 75 << 30,
            segments: 128,
            spare_segments: 2,
            data_bytes: 8 << 30,
            meta_bytes: 8 << 20,
            live_bytes: 16 << 30,
            garbage_percent: 7,
            vdisks: 3,
            provisioned_bytes: 96 << 30,
            snapshots: 12,
            schedules: 2,
            late_schedules: 0,
            layers: 15,
            presence_maps: 9,
            presence_memory_bytes: 3 << 10,
            resolved_leaves: 160,
            resolved_memory_bytes: 1 << 20,
            lsn: 123_456,
            log_bytes: 42 << 20,
            buffered_bytes: 12 << 10,
            map_nodes: 2048,
            dirty_map_nodes: 17,
            map_memory_bytes: 9 << 20,
            commits: 1000,
            checkpoints: 10,
            checkpoint_milliseconds: 120,
            log_written_bytes: 5 << 30,
            meta_written_bytes: 3 << 20,
            relocated_bytes: 0,
            scrub: ScrubBrief::default(),
            recovery: Recovery {
                buffer: "not needed".into(),
                scanned_bytes: 1 << 20,
                applied_records: 99,
                milliseconds: 31,
            },
        };
        (health, store)
    }

    #[test]
    fn golden() {
        let (health, mut store) = status();
        assert_eq!(
            text(&health, &store),
            "store        /srv/firn\n\
             state        serving\n\
             backend      process 4711, version 0.1.0, up 3 h 00 min\n\
             vDisks       3 of 96.0 GiB together\n\
             snapshots    12, in 15 layers\n\
             schedules    2\n\
             content      16.0 GiB in 8.01 GiB stored (2.00x)\n\
             garbage      7 % of what is stored\n\
             space        75.0 GiB free of 100 GiB (75 %)\n\
             segments     128 in use, 2 spare; maps take 8.00 MiB\n\
             log          at 123456, 42.0 MiB since the last checkpoint, 12.0 KiB in the write buffer\n\
             memory       9.00 MiB for 2048 map nodes, 17 changed; 3.00 KiB for 9 presence maps; 1.00 MiB for 160 resolved leaves\n\
             since start  5.00 GiB of data and 3.00 MiB of maps written, 0 B moved; 1000 commits, 10 checkpoints of 12 ms on average\n\
             scrub        none has come to its end yet\n\
             opened       in 31 ms: 1.00 MiB of log scanned, 99 records applied; write buffer: not needed\n"
        );
        store.late_schedules = 1;
        let late = "schedules    2, 1 of them LATE or failing: firn snapshot schedules\n";
        assert!(text(&health, &store).contains(late));
        store.scrub = ScrubBrief {
            running: true,
            total_bytes: 200,
            verified_bytes: 50,
            last_ended: Some(1_700_000_000),
            last_damage: 2,
            ..ScrubBrief::default()
        };
        let line = "scrub        running, at 25 %: no damage; the last one ended at 2023-11-14 22:13:20 UTC: DAMAGE: 2, see";
        assert!(text(&health, &store).contains(line));
        store.full = true;
        assert!(text(&health, &store).contains("state        FULL"));
        store.failed = Some("fsync: input/output error".into());
        assert!(text(&health, &store).contains("state        FAILED, takes no writes: fsync"));
    }
}
