//! `firn snapshot prune`.

use super::Host;

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
