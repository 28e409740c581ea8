//! `firn store check` against stores in real directories.

use block_store::{InitOptions, OpenConfig, Store, StoreError, VDiskSpec};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A directory with a store in it that has some data, and was stopped cleanly.
fn store() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let home = dir.path().join("store");
    let segment_size = 1 << 20;
    Store::init(&home, &InitOptions { segment_size }).unwrap();
    let store = open(&dir, &home);
    let spec = VDiskSpec {
        name: "web".into(),
        size: 64 << 20,
        hidden: false,
    };
    let vdisk = store.create_vdisk(&spec).unwrap();
    let data: Vec<u8> = (0..1u32 << 20)
        .flat_map(|n| (n / 7).to_le_bytes())
        .collect();
    let mut client = store.client().unwrap();
    client.write(&vdisk, 0, &data).unwrap();
    store.shutdown().unwrap();
    (dir, home)
}

/// A command that another test starts just now holds all locks between its fork and its exec: a moment later they are free.
fn open(dir: &tempfile::TempDir, home: &Path) -> Arc<Store> {
    for _ in 0..500 {
        match Store::open(OpenConfig::new(home, dir.path().join("run"))) {
            Err(StoreError::Locked(_)) => std::thread::sleep(std::time::Duration::from_millis(10)),
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays locked", home.display());
}

fn check(home: &Path, options: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_firn"))
        .args(["store", "check"])
        .arg(home)
        .args(options)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or(-1);
    (code, text(output.stdout), text(output.stderr))
}

/// Names, lengths and times of all files.
fn state(home: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut files: Vec<_> = std::fs::read_dir(home)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let metadata = path.metadata().unwrap();
            (path, metadata.len(), metadata.modified().unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_sound_store_is_left_as_it_is() {
    let (_dir, home) = store();
    let before = state(&home);
    let (code, out, err) = check(&home, &["--decode"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(
        out.starts_with("no damage") && !out.contains(" 0 extents"),
        "{out}"
    );
    assert_eq!(state(&home), before);
    let (code, out, _) = check(&home, &["--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &report["damage"], &report["findings"]),
        (0, &0.into(), &Value::Array(vec![]))
    );
    assert!(report["blocks"].as_u64() >= Some(1000), "{report}");
}

#[test]
fn a_store_in_use_and_what_is_no_store_are_not_checked() {
    let (dir, home) = store();
    let served = open(&dir, &home);
    let (code, out, err) = check(&home, &[]);
    assert!(
        code == 2 && out.is_empty() && err.contains("in use"),
        "{code} {out}{err}"
    );
    assert!(err.contains("stop the backend first"), "{err}");
    served.shutdown().unwrap();
    drop(served);
    assert_eq!(check(&home, &[]).0, 0);
    for missing in [dir.path().to_owned(), dir.path().join("nowhere")] {
        let (code, _, err) = check(&missing, &[]);
        let name = missing.file_name().unwrap().to_string_lossy();
        assert!(code == 2 && err.contains(&*name), "{code} {err}");
    }
}

#[test]
fn damage_is_named_with_its_place_and_the_way_out() {
    let (_dir, home) = store();
    let segment = state(&home)
        .into_iter()
        .map(|(path, ..)| path)
        .filter(|path| path.to_string_lossy().contains("seg-"))
        .find(|path| {
            let mut kind = [0; 6];
            File::open(path)
                .unwrap()
                .read_exact_at(&mut kind, 4096)
                .unwrap();
            kind[..5] == *b"FXT1\x01"
        })
        .expect("a segment that begins with an extent");
    let write = |path: &Path, at| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"rot", at).unwrap();
    };
    write(&segment, 4096 + 70);
    write(&home.join("superblock"), 4096 + 20);
    let (code, out, err) = check(&home, &[]);
    assert_eq!(code, 1, "{out}{err}");
    let name = segment.file_name().unwrap().to_string_lossy();
    let id = name.trim_start_matches("seg-").trim_start_matches('0');
    for part in [
        "DAMAGE  superblock, byte 4096",
        "heals it",
        &format!("DAMAGE  segment {id}, byte 4096, vDisk web, blocks"),
        "payload checksum does not match",
        "-> ",
    ] {
        assert!(out.contains(part), "{part:?} is not in {out}");
    }
    assert!(err.contains("2 things are damaged"), "{err}");
    let (code, out, _) = check(&home, &["--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report["damage"].as_u64()), (1, Some(2)));
    assert_eq!(report["findings"][1]["vdisk"], "web");
    assert_eq!(report["findings"][1]["kind"], "extent");
}
