//! The benchmark still runs: all servers, each kind of cell, each table, as small as they can be. Figures
//! mean nothing here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// On the disk of the build: temporary directories may lie in memory, where O_DIRECT is not to be had.
fn place(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Runs `firn-bench` with these words, `--dir` and `--json`, and returns the records.
fn bench(name: &str, words: &str) -> (PathBuf, Vec<serde_json::Value>) {
    let dir = place(name);
    let json = dir.join("figures.json");
    let output = Command::new(env!("CARGO_BIN_EXE_firn-bench"))
        .args(words.split_whitespace())
        .arg("--dir")
        .arg(dir.join("work"))
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "firn-bench {words}: {said}");
    let lines = fs::read_to_string(json).unwrap();
    let records = lines.lines().map(|l| serde_json::from_str(l).unwrap());
    (dir, records.collect())
}

fn runs(records: &[serde_json::Value], cell: &str, server: &str) -> usize {
    let these = |r: &&serde_json::Value| r["cell"] == cell && r["server"] == server;
    records.iter().filter(these).count()
}

#[test]
fn every_server_is_compared_and_the_report_is_made() {
    let (dir, records) = bench(
        "compare",
        "compare --size-mib 16 --written-mib 1 --seconds 0.01 --rounds 1 \
         --cells randread-32,writeflush,writeflush-beside,randread-1-scattered,randread-1-cold,seqwrite-fresh",
    );
    for server in ["raw", "firn", "raw-cache", "qcow2", "qcow2-zstd"] {
        assert_eq!(runs(&records, "randread-32", server), 1, "{server}");
        assert_eq!(runs(&records, "writeflush-beside", server), 1, "{server}");
        assert_eq!(runs(&records, "randread-1-cold", server), 1, "{server}");
    }
    for server in ["raw", "firn", "qcow2-compress"] {
        assert_eq!(runs(&records, "seqwrite-fresh", server), 1, "{server}");
    }
    let out = dir.join("report");
    let made = Command::new(env!("CARGO_BIN_EXE_firn-bench"))
        .arg("report")
        .arg(dir.join("figures.json"))
        .arg("--out")
        .arg(&out)
        .status();
    assert!(made.unwrap().success());
    let page = fs::read_to_string(out.join("figures.md")).unwrap();
    for chart in ["ratios-2.0.svg", "latency-2.0.svg"] {
        assert!(page.contains(chart));
        assert!(
            fs::read_to_string(out.join(chart))
                .unwrap()
                .contains("</svg>")
        );
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn every_table_of_growth_is_made_and_idle_vdisks_use_no_cpu() {
    let (dir, records) = bench(
        "grow",
        "grow --seconds 0.01 --map-mib 8,16 --vdisks 1,50 --queues 1,8 --vdisk-mib 4 --overwrites 2 \
         --idle-seconds 2",
    );
    let table = |name: &str| {
        let these =
            |r: &&serde_json::Value| r["table"].as_str().is_some_and(|t| t.starts_with(name));
        records.iter().filter(these).collect::<Vec<_>>()
    };
    assert_eq!(table("map: fill").len(), 4);
    assert_eq!(table("vdisks").len(), 4);
    assert_eq!(table("queues").len(), 4);
    assert_eq!(table("overwrite").len(), 2);
    let idle = table("idle");
    assert_eq!(idle[0]["values"][0], serde_json::json!(["CPU us", 0.0]));
    fs::remove_dir_all(dir).unwrap();
}
