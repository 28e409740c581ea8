//! `firn snapshot`, and what else is done with snapshots.

use super::{Host, noise};
use serde_json::Value;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

impl Host {
    /// What a guest would write at the start of a vDisk, flushed.
    fn write(&self, vdisk: &str, data: &[u8]) {
        let store = self.store.as_ref().unwrap();
        let disk = store.vdisk(vdisk).unwrap();
        let mut client = store.client().unwrap();
        client.write(&disk, 0, data).unwrap();
        client.flush(&disk).unwrap();
    }

    /// What an export of the vDisk (or with `--snapshot`) begins with.
    fn exported(&self, what: &str, len: usize) -> Vec<u8> {
        self.ok(&format!("vdisk export {what} exported.raw --force"));
        let mut content = std::fs::read(self.path("exported.raw")).unwrap();
        content.truncate(len);
        content
    }

    pub(super) fn snapshots(&self, line: &str) -> Vec<String> {
        let list = self.json(&format!("snapshot list {line}"));
        let all = list["snapshots"].as_array().unwrap();
        let name = |s: &Value| format!("{}@{}", text(&s["vdisk"]), text(&s["name"]));
        all.iter().map(name).collect()
    }

    /// [`Host::fails`], and everything is as it was before.
    pub(super) fn refuses(&self, line: &str, code: i32, says: &str) {
        let before = (self.json("snapshot list"), self.json("vdisk list"));
        self.fails(line, code, says);
        let after = (self.json("snapshot list"), self.json("vdisk list"));
        assert_eq!(before, after, "firn {line}");
    }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn snapshots_are_taken_looked_at_and_deleted() {
    let host = Host::new();
    assert!(host.ok("snapshot list").contains("firn snapshot create"));
    for name in ["web", "db"] {
        host.ok(&format!("vdisk create {name} 10G"));
    }
    assert!(host.ok("snapshot list web").contains("create NAME web"));
    assert!(
        host.ok("store status")
            .contains("snapshots    0, in 2 layers\n")
    );
    let made = host.json("snapshot create monday web db");
    assert_eq!(made["vdisks"], serde_json::json!(["web", "db"]));
    let stall = made["stall_microseconds"].as_u64().unwrap();
    assert!(stall < made["durable_microseconds"].as_u64().unwrap());
    let said = host.ok("snapshot create tuesday web");
    assert!(said.starts_with("snapshot tuesday of vDisk web: durable after "));
    assert!(said.contains("guests were held up for"), "{said}");
    let status = &host.json("store status")["store"];
    assert_eq!(
        (&status["snapshots"], &status["layers"]),
        (&3.into(), &5.into())
    );
    let all = ["web@monday", "db@monday", "web@tuesday"];
    assert_eq!(host.snapshots(""), all);
    assert_eq!(host.snapshots("web"), ["web@monday", "web@tuesday"]);
    let shown = ["web", "db"].map(|v| host.json(&format!("snapshot show {v} monday")));
    assert_eq!(shown[0]["lsn"], shown[1]["lsn"]);
    assert_ne!(shown[0]["uuid"], shown[1]["uuid"]);
    let table = host.ok("snapshot ls web");
    assert!(table.starts_with("VDISK  SNAPSHOT"), "{table}");
    assert!(table.contains(" UTC  10.0 GiB  -"), "{table}");
    assert!(
        host.ok("snapshot show web monday")
            .contains("held by   nobody\n")
    );
    assert_eq!(
        host.ok("snapshot rename web monday first"),
        "snapshot first of vDisk web (was monday)\n"
    );
    assert_eq!(
        host.ok("snapshot delete web first"),
        "snapshot first of vDisk web: deleted\n"
    );
    host.ok("snapshot create wednesday web");
    let deleted = host.json("snapshot delete web --all");
    assert_eq!(
        deleted["deleted"],
        serde_json::json!(["tuesday", "wednesday"])
    );
    assert_eq!(host.snapshots(""), ["db@monday"]);
    assert!(
        host.ok("snapshot delete web --all")
            .contains("has no snapshots")
    );
}

#[test]
fn what_is_held_stays_until_all_have_released_it() {
    let host = Host::new();
    host.ok("vdisk create web 10G");
    host.ok("snapshot create a web");
    host.ok("snapshot create b web");
    assert_eq!(
        host.ok("snapshot hold web a backup"),
        "snapshot a of vDisk web: held by backup\n"
    );
    host.ok("snapshot hold web a dr");
    let way_out = "firn snapshot release web a backup dr";
    for line in ["a", "b a", "--all", "a --defer"] {
        host.refuses(&format!("snapshot delete web {line}"), 4, way_out);
    }
    host.refuses("snapshot release web a backup me", 4, "me does not hold");
    assert_eq!(
        host.ok("snapshot release web a backup dr"),
        "snapshot a of vDisk web: held by nobody\n"
    );
    host.ok("snapshot delete web a b");
}

#[test]
fn a_snapshot_is_exported_under_a_running_guest() {
    let host = Host::new();
    host.ok("vdisk create web 64M");
    let (old, new) = (noise(1, 5 * MIB), noise(2, 5 * MIB));
    host.write("web", &old);
    host.ok("snapshot create s web");
    host.write("web", &new);
    host.attached.0.lock().insert("web".into());
    host.fails("vdisk export web out.raw", 4, "--snapshot NAME");
    let done = host.json("vdisk export web out.raw --snapshot s");
    assert_eq!(
        (text(&done["snapshot"]), &done["size"]),
        ("s", &(64 * MIB).into())
    );
    assert_eq!(done["data_bytes"], 5 * MIB);
    let content = std::fs::read(host.path("out.raw")).unwrap();
    assert!(content.len() == 64 * MIB && content[..5 * MIB] == old);
    assert!(host.exported("web --live", 5 * MIB) == new);
    host.fails(
        "vdisk export web x.raw --snapshot t",
        3,
        "firn snapshot list web",
    );
    assert!(!host.path("x.raw").exists() && !host.path("x.raw.part").exists());
}

#[test]
fn a_revert_says_what_it_loses_and_keeps_it_when_asked() {
    let host = Host::new();
    host.ok("vdisk create web 64M");
    let (old, new) = (noise(3, MIB), noise(4, MIB));
    host.write("web", &old);
    host.ok("snapshot create s web");
    host.write("web", &new);
    host.ok("vdisk resize web 128M");
    host.refuses(
        "vdisk revert web s",
        4,
        "loses what was written to vDisk web",
    );
    host.refuses("vdisk revert web s", 4, "--keep NAME");
    host.refuses("vdisk revert web t --discard", 3, "firn snapshot list web");
    host.refuses("vdisk revert web s --keep s", 4, "already");
    host.attached.0.lock().insert("web".into());
    host.refuses("vdisk revert web s --keep kept", 4, "attached");
    host.refuses("vdisk revert web s --discard", 4, "stop its guest");
    host.attached.0.lock().clear();
    assert!(host.exported("web", MIB) == new);
    let said = host.ok("vdisk revert web s --keep kept");
    assert!(said.starts_with("vDisk web: is what it was at snapshot s, 20"));
    assert!(said.contains("kept as snapshot kept\n"), "{said}");
    assert!(
        said.contains("size is 64.0 MiB again (was 128 MiB)"),
        "{said}"
    );
    assert!(host.exported("web", MIB) == old);
    assert!(host.exported("web --snapshot kept", MIB) == new);
    let back = host.json("vdisk revert web kept --discard");
    assert_eq!(back["vdisk"]["size"], 128 * MIB);
    assert!(host.exported("web", MIB) == new);
    // Whatever lies over what: all go, and then the vDisk.
    host.ok("vdisk revert web s --keep again");
    host.refuses("snapshot delete web s", 4, "was reverted to snapshot s");
    host.refuses("vdisk delete web", 4, "firn snapshot delete web --all");
    host.ok("snapshot delete web --all");
    host.ok("vdisk delete web");
}

#[test]
fn a_clone_is_a_vdisk_of_its_own() {
    let host = Host::new();
    host.ok("vdisk create web 64M");
    let (old, new) = (noise(5, MIB), noise(6, MIB));
    host.write("web", &old);
    host.ok("snapshot create s web");
    assert_eq!(
        host.ok("vdisk clone web s test"),
        "vDisk test: 64.0 MiB of snapshot s of vDisk web, on /run/firn/test.sock\n"
    );
    host.write("test", &new);
    assert!(host.exported("web", MIB) == old && host.exported("test", MIB) == new);
    host.refuses("vdisk clone web s test", 4, "firn vdisk delete");
    host.refuses("vdisk clone web t other", 3, "firn snapshot list web");
    host.refuses("vdisk clone nobody s other", 3, "firn vdisk list");
    host.refuses("snapshot delete web s", 4, "web: test");
    host.refuses("snapshot delete web --all", 4, "--defer");
    let said = host.ok("snapshot delete web s --defer");
    assert!(said.contains("space comes back"), "{said}");
    assert!(host.exported("web", MIB) == old && host.exported("test", MIB) == new);
    // With the clone gone a snapshot can go by itself, at once or a moment later.
    host.ok("snapshot create s web");
    host.ok("vdisk clone web s second");
    host.ok("vdisk delete second");
    let start = Instant::now();
    while host.run("snapshot delete web s").0 != 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "it stays");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_has_changed_is_told_by_ranges() {
    let host = Host::new();
    host.ok("vdisk create web 64M");
    host.ok("vdisk create db 64M");
    host.write("web", &noise(7, MIB));
    host.ok("snapshot create a web");
    host.ok("snapshot create other db");
    assert_eq!(
        host.ok("snapshot diff web a"),
        "nothing of vDisk web was written since snapshot a\n"
    );
    host.write("web", &noise(8, 8192));
    host.ok("snapshot create b web");
    host.write("web", &noise(9, 2 * MIB));
    for line in ["a b", "b a"] {
        let diff = host.json(&format!("snapshot diff web {line}"));
        let ranges = serde_json::json!([{"offset": 0, "length": 8192}]);
        assert_eq!(
            (&diff["ranges"], &diff["changed_bytes"]),
            (&ranges, &8192.into())
        );
    }
    let since = host.json("snapshot diff web a");
    assert_eq!(
        (since["changed_bytes"].as_u64(), since.get("to")),
        (Some(2 << 20), None)
    );
    let table = host.ok("snapshot diff web a b");
    assert!(
        table.contains("     0   8192  8.00 KiB\n8.00 KiB of vDisk web in 1 range"),
        "{table}"
    );
    // What either branch has.
    host.ok("vdisk revert web a --keep c");
    assert_eq!(host.json("snapshot diff web b")["changed_bytes"], 8192);
    assert_eq!(host.json("snapshot diff web c b")["changed_bytes"], 2 * MIB);
    for (line, code, says) in [
        ("web a a", 2, "compared with itself"),
        ("web a x", 3, "firn snapshot list web"),
        ("web x a", 3, "firn snapshot list web"),
        ("web a other", 3, "no snapshot named \"other\""),
        ("nobody a b", 3, "firn vdisk list"),
        ("web a b/c", 2, "slash"),
    ] {
        host.refuses(&format!("snapshot diff {line}"), code, says);
    }
}

#[test]
fn what_a_snapshot_costs_is_shown() {
    let host = Host::new();
    host.ok("vdisk create web 64M");
    host.write("web", &noise(10, MIB));
    host.ok("snapshot create s web");
    let shown = host.ok("snapshot show web s");
    assert!(shown.contains("its own   1.00 MiB in "), "{shown}");
    assert!(
        shown.contains("deleting  gives back 0 B: 0 B that"),
        "{shown}"
    );
    assert!(!shown.contains("map "), "{shown}");
    host.write("web", &noise(11, MIB / 4));
    let shown = host.json("snapshot show web s");
    let usage = &shown["usage"];
    assert_eq!(
        (text(&shown["name"]), &usage["data_blocks"]),
        ("s", &256.into())
    );
    assert_eq!(usage["exclusive_blocks"], 64);
    assert!(usage["exclusive_bytes"].as_u64() >= Some(MIB as u64 / 4));
    assert!(shown.get("presence_map").is_none());
    let shown = host.json("snapshot show web s --maps");
    assert_eq!(shown["presence_map"], Value::Null);
    let shown = host.ok("snapshot show web s --maps");
    assert!(shown.contains("map       none"), "{shown}");
}

#[test]
fn bad_input_is_named_and_changes_nothing() {
    let host = Host::new();
    host.ok("vdisk create web 10G");
    host.ok("vdisk create db 10G");
    host.ok("snapshot create s web");
    for (line, code, says) in [
        (
            "snapshot create s web",
            4,
            "\"web\" has a snapshot named \"s\" already",
        ),
        (
            "snapshot create s web",
            4,
            "firn snapshot delete VDISK NAME",
        ),
        ("snapshot create s db web", 4, "already"),
        ("snapshot create t web nobody", 3, "firn vdisk list"),
        ("snapshot create t web web", 2, "twice"),
        ("snapshot create a/b web", 2, "slash"),
        ("snapshot create t", 2, "<VDISK>"),
        ("snapshot list nobody", 3, "firn vdisk list"),
        ("snapshot show web t", 3, "firn snapshot list web"),
        ("snapshot delete web s t", 3, "\"t\""),
        ("snapshot delete web t --defer", 3, "firn snapshot list web"),
        ("snapshot delete web", 2, "<NAME>"),
        ("snapshot rename web s s", 4, "already"),
        ("snapshot rename web t u", 3, "firn snapshot list web"),
        ("snapshot hold web t me", 3, "firn snapshot list web"),
        ("snapshot hold web s -me", 2, "-m"),
        ("snapshot release web t me", 3, "firn snapshot list web"),
        ("snapshot release web s me", 4, "me does not hold"),
        ("vdisk delete web", 4, "firn snapshot delete web --all"),
        ("vdisk revert web s --keep a/b", 2, "slash"),
    ] {
        host.refuses(line, code, says);
    }
    let (code, _, err) = host.run("snapshot show web t --json");
    let error: Value = serde_json::from_str(&err).unwrap();
    assert_eq!((code, error["exit"].as_i64()), (3, Some(3)));
}

/// Two ways to be rid of a clone's origin: to change places with it, or to copy what it shares.
#[test]
fn clones_are_promoted_and_made_independent() {
    let host = Host::new();
    host.ok("vdisk create web 64M");
    let data = noise(8, 4 * MIB);
    host.write("web", &data);
    host.ok("snapshot create s web");
    host.ok("vdisk clone web s one");
    host.ok("vdisk clone web s two");
    host.refuses("vdisk promote web", 4, "shares nothing");
    host.refuses("vdisk flatten web", 4, "shares nothing");
    host.refuses("vdisk promote nobody", 3, "firn vdisk list");
    let said = host.ok("vdisk flatten one");
    assert_eq!(said, "vDisk one: needs nothing of others any more\n");
    assert_eq!(host.json("vdisk show one")["flattening"], Value::Null);
    let said = host.ok("vdisk promote two");
    assert!(said.contains("firn snapshot list two"), "{said}");
    assert_eq!(host.snapshots(""), ["two@s"]);
    host.ok("vdisk delete web");
    assert!(host.exported("one", 4 * MIB) == data);
    host.ok("vdisk delete one");
    assert!(host.exported("two", 4 * MIB) == data);
    assert!(host.exported("two --snapshot s", 4 * MIB) == data);
    host.ok("vdisk clone two s three");
    let said = host.ok("vdisk flatten three --no-wait");
    assert!(said.contains("vDisk three: "), "{said}");
}
