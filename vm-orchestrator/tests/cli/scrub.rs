//! Checking a store that is being served.

use super::{Host, image};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

impl Host {
    /// Changes a byte of some extent under the backend; the number of its segment.
    fn rot(&self) -> String {
        self.store.as_ref().unwrap().checkpoint().unwrap();
        for entry in std::fs::read_dir(self.path("home/store")).unwrap() {
            let path = entry.unwrap().path();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let mut head = [0; 5];
            if file.read_exact_at(&mut head, 4096).is_ok() && head == *b"FXT1\x01" {
                let mut byte = [0];
                file.read_exact_at(&mut byte, 4096 + 70).unwrap();
                file.write_all_at(&[byte[0] ^ 4], 4096 + 70).unwrap();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                return name
                    .trim_start_matches("seg-")
                    .trim_start_matches('0')
                    .to_owned();
            }
        }
        panic!("no segment begins with an extent");
    }
}

#[test]
fn a_served_store_is_checked_by_its_backend() {
    let host = Host::new();
    image(&host.path("disk.raw"), 16 << 20);
    host.ok("vdisk import disk.raw web");
    host.ok("snapshot create monday web");
    let out = host.ok("store check");
    assert!(
        out.starts_with("no damage, notes: 0") && out.contains("while they were served"),
        "{out}"
    );
    let same = host.ok("store check home/store --decode --again");
    assert!(same.starts_with("no damage"), "{same}");
    assert!(host.ok("store status").contains(": no damage\n"));

    let segment = host.rot();
    let (code, out, err) = host.run("store check");
    assert_eq!(code, 1, "{out}{err}");
    for part in [
        &*format!("DAMAGE  segment {segment}, byte 4096, vDisk web, snapshot monday, block"),
        "payload checksum does not match",
        "\n        -> these blocks read as I/O errors",
        "damage: 1, notes: 0; looked at",
    ] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    assert!(err.contains("1 thing is damaged"), "{err}");
    let (code, out, _) = host.run("store check --json --decode");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report["damage"].as_u64()), (1, Some(1)));
    assert_eq!(report["findings"][0]["snapshot"], "monday");
    assert_eq!(report["findings"][0]["kind"], "extent");
    assert!(report["dir"].as_str().unwrap().ends_with("home/store"));
    assert!(
        host.ok("store status")
            .contains("DAMAGE: 1, see firn store scrub status")
    );
    // Nothing was repaired.
    assert_eq!(host.run("store check").0, 1);
}

#[test]
fn a_scrub_is_started_watched_and_stopped() {
    let host = Host::new();
    image(&host.path("disk.raw"), 16 << 20);
    host.ok("vdisk import disk.raw web");
    let out = host.ok("store scrub status");
    assert!(
        out.contains("no scrub is running") && out.contains("every 30 d"),
        "{out}"
    );
    assert_eq!(host.ok("store scrub stop"), "no scrub was running\n");
    let out = host.ok("store scrub start --rate 1K");
    assert!(out.contains("has begun, at 1.00 KiB/s at most"), "{out}");
    let out = host.ok("store scrub start --rate 2K");
    assert!(out.contains("running already"), "{out}");
    assert!(host.ok("store status").contains("running, at "));
    let json = host.json("store scrub status");
    assert_eq!(
        (&json["pass"]["running"], &json["pass"]["rate"]),
        (&true.into(), &2048.into())
    );
    host.ok("store scrub stop");
    assert!(
        host.ok("store scrub status")
            .contains("state      stopped at ")
    );
    let out = host.ok("store scrub start --rate 0");
    assert!(out.contains("goes on where it was stopped"), "{out}");
    let began = Instant::now();
    while host.json("store scrub status")["last"].is_null() {
        assert!(began.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    }
    let out = host.ok("store scrub status");
    assert!(out.contains("damage: 0"), "{out}");
}

#[test]
fn without_a_backend_a_directory_is_needed() {
    let host = Host::new();
    let nowhere = host.path("nowhere");
    let mut command = super::firn(&nowhere);
    let (code, out, err) = super::finished(command.args(["store", "check"]).output().unwrap());
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("firn store check DIR"), "{err}");
    // Served, but not by the one that is asked.
    let mut command = super::firn(&nowhere);
    let command = command
        .args(["store", "check"])
        .arg(host.path("home/store"));
    let (code, _, err) = super::finished(command.output().unwrap());
    assert!(
        code == 2 && err.contains("in use") && err.contains("--run"),
        "{err}"
    );
}
