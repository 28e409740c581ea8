//! `firn snapshot prune` and `firn snapshot schedule`.

use super::Host;
use super::snapshots::text;
use std::time::{Duration, Instant};

#[test]
fn what_no_rule_keeps_goes_and_all_is_told() {
    let host = Host::new();
    host.ok("vdisk create web 10G");
    assert!(
        host.ok("snapshot prune web --keep-last 1")
            .contains("no snapshots to choose from")
    );
    for name in ["a", "b", "c", "d", "e"] {
        host.ok(&format!("snapshot create {name} web"));
    }
    host.ok("snapshot hold web a backup");
    host.ok("vdisk clone web b test");
    let dry = host.ok("snapshot prune web --keep-last 1 --dry-run");
    assert!(dry.contains(" UTC  stays     held by backup\n"), "{dry}");
    assert!(dry.contains(" UTC  stays     clones: test\n"), "{dry}");
    assert!(dry.contains(" UTC  would go  no rule keeps it\n"), "{dry}");
    assert!(dry.ends_with("2 of 5 snapshots of vDisk web: would be deleted; nothing was\n"));
    assert_eq!(host.snapshots("web").len(), 5);
    let done = host.json("snapshot prune web --keep-last 1 --keep-monthly 1");
    let kept_by = |n: usize| &done["snapshots"][n]["kept_by"];
    assert_eq!(*kept_by(0), serde_json::json!(["held"]));
    assert_eq!(*kept_by(2), serde_json::json!([]));
    assert_eq!(*kept_by(4), serde_json::json!(["last", "monthly"]));
    assert_eq!(host.snapshots("web"), ["web@a", "web@b", "web@e"]);
    let again = host.ok("snapshot prune web --keep-last 1");
    assert!(again.ends_with("0 of 3 snapshots of vDisk web: deleted\n"));
    for (line, code, says) in [
        ("web", 2, "--keep-last"),
        ("web --keep-last 0", 2, "keep nothing"),
        ("nobody --keep-last 1", 3, "firn vdisk list"),
    ] {
        host.refuses(&format!("snapshot prune {line}"), code, says);
    }
}

#[test]
fn a_schedule_takes_them_and_is_ended() {
    let host = Host::new();
    assert!(
        host.ok("snapshot schedules")
            .contains("firn snapshot schedule NAME")
    );
    for name in ["web", "db"] {
        host.ok(&format!("vdisk create {name} 64M"));
    }
    assert!(host.ok("store status").contains("schedules    0\n"));
    let said = host.ok("snapshot schedule daily web --every 1d --keep-daily 7");
    assert!(
        said.starts_with(
            "schedule daily: vDisk web every 1d, keeps 7 daily; the first one is due at 20"
        ),
        "{said}"
    );
    assert!(said.ends_with(" 00:00:00 UTC\n"), "{said}");
    let made = host.json("snapshot schedule s web db --every 1s --keep-last 2 --prefix auto");
    assert_eq!(made["every_seconds"], 1);
    let start = Instant::now();
    let list = loop {
        let list = host.json("snapshot schedules");
        if list["schedules"][1]["kept"] == 2 {
            break list;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{list}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(text(&list["schedules"][0]["name"]), "daily");
    let table = host.ok("snapshot schedules");
    assert!(
        table.contains("\ns         web, db     1s  2 last     2  20"),
        "{table}"
    );
    host.fails("vdisk delete web", 4, "firn snapshot unschedule");
    for (line, code, says) in [
        ("s web --every 1s --keep-last 1", 4, "unschedule s"),
        ("t nobody --every 1s --keep-last 1", 3, "firn vdisk list"),
        ("t web web --every 1s --keep-last 1", 2, "twice"),
        ("t web --every 1s --keep-last 0", 2, "keep nothing"),
        ("t web --every 1s --keep-last 4090", 2, "can have 4096"),
        ("t web --every 0s --keep-last 1", 2, "1s to 366d"),
        ("t web --every 367d --keep-last 1", 2, "1s to 366d"),
        ("a/b web --every 1s --keep-last 1", 2, "slash"),
    ] {
        host.fails(&format!("snapshot schedule {line}"), code, says);
    }
    host.fails("snapshot unschedule t", 3, "firn snapshot schedules");
    assert_eq!(
        host.ok("snapshot unschedule s"),
        "schedule s: ended; its snapshots stay\n"
    );
    host.ok("snapshot unschedule daily");
    let mine = host.snapshots("db");
    assert_eq!(mine.len(), 2);
    let name = mine[0].strip_prefix("db@").unwrap();
    assert!(name.starts_with("auto-20"), "{name}");
    let shown = host.ok(&format!("snapshot show db {name}"));
    assert!(shown.contains(" UTC, by schedule s\n"), "{shown}");
    for name in ["web", "db"] {
        host.ok(&format!("snapshot delete {name} --all"));
        host.ok(&format!("vdisk delete {name}"));
    }
}
