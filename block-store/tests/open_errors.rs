//! Bad input: every refusal names the thing and the way out, and changes nothing.

mod support;

use block_store::{InitOptions, OpenConfig, Store, StoreError, VDiskSpec};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use support::{Machine, vdisk};

fn real() -> (tempfile::TempDir, OpenConfig) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let config = OpenConfig::new(dir.path().join("store"), dir.path().join("run"));
    let options = InitOptions {
        segment_size: 1 << 20,
    };
    Store::init(&config.dir, &options).unwrap();
    (dir, config)
}

fn refusal(outcome: Result<Arc<Store>, StoreError>) -> StoreError {
    outcome.err().expect("it must be refused")
}

#[test]
fn a_store_has_one_owner_also_across_processes() {
    if let Ok(dir) = std::env::var("FIRN_TEST_CHILD") {
        // The child of this very test: tries to open what its parent holds.
        let config = OpenConfig::new(Path::new(&dir).join("store"), Path::new(&dir).join("run"));
        let error = refusal(Store::open(config));
        assert!(matches!(error, StoreError::Locked(_)), "{error}");
        return;
    }
    let (dir, config) = real();
    let store = Store::open(config.clone()).unwrap();
    let error = refusal(Store::open(config.clone()));
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
    assert!(error.to_string().contains(&*config.dir.to_string_lossy()));
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_store_has_one_owner_also_across_processes"])
        .env("FIRN_TEST_CHILD", dir.path())
        .status();
    assert!(child.unwrap().success());
    store.shutdown().unwrap();
    drop(store);
    Store::open(config).unwrap();
}

#[test]
fn what_is_no_store_is_not_opened_and_not_made_twice() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let plain = dir.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    for missing in [plain.clone(), dir.path().join("nowhere")] {
        let error = refusal(Store::open(OpenConfig::new(&missing, dir.path())));
        assert!(matches!(error, StoreError::NotAStore(_)), "{error}");
        assert!(error.to_string().contains("firn store init"));
    }
    std::fs::write(plain.join("letter"), "dear").unwrap();
    let error = Store::init(&plain, &InitOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Exists(_)), "{error}");
    assert_eq!(std::fs::read_dir(&plain).unwrap().count(), 1);
    let file = plain.join("letter");
    assert!(Store::init(&file, &InitOptions::default()).is_err());
    let (_dir, config) = real();
    let before = std::fs::read(config.dir.join("superblock")).unwrap();
    let error = Store::init(&config.dir, &InitOptions::default()).unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
    assert!(before == std::fs::read(config.dir.join("superblock")).unwrap());
    for segment_size in [0, 4095, 64 << 10, 128 << 20, (1 << 20) + 1] {
        let new = dir.path().join(format!("s{segment_size}"));
        assert!(Store::init(&new, &InitOptions { segment_size }).is_err());
    }
}

#[test]
fn a_newer_format_asks_for_a_newer_program() {
    let (_dir, config) = real();
    let path = config.dir.join("superblock");
    let mut bytes = std::fs::read(&path).unwrap();
    for half in bytes.chunks_exact_mut(4096) {
        half[8] = 200;
        let sum = crc32c::crc32c(&half[..4092]);
        half[4092..].copy_from_slice(&sum.to_le_bytes());
    }
    std::fs::write(&path, &bytes).unwrap();
    let error = refusal(Store::open(config));
    assert!(error.to_string().contains("newer firn"), "{error}");
    assert!(bytes == std::fs::read(&path).unwrap());
}

#[test]
fn a_runtime_directory_that_cannot_be_written_to() {
    let (dir, mut config) = real();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for bad in [file.clone(), file.join("below"), "/proc/firn-none".into()] {
        config.run_dir = bad.clone();
        let error = refusal(Store::open(config.clone())).to_string();
        assert!(error.contains(&*bad.to_string_lossy()), "{error}");
    }
    config.run_dir = dir.path().join("run");
    Store::open(config).unwrap();
}

#[test]
fn names_and_sizes_of_vdisks() {
    let m = Machine::new(1, 64 << 20);
    let store = m.open();
    let create = |name: &str, size| {
        let spec = VDiskSpec {
            name: name.into(),
            size,
            hidden: false,
        };
        store.create_vdisk(&spec).map(drop)
    };
    let long = "x".repeat(65);
    for name in [
        "", "a/b", "/", "..", ".", ".hidden", "-x", "a b", "ä", "a\0", "a\n", &*long,
    ] {
        let error = create(name, 1 << 20).unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{name:?}: {error}");
    }
    for size in [0, 1, 511, 512, 4095, 4097, (64 << 40) + 512, u64::MAX] {
        let error = create("a", size).unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{size}: {error}");
    }
    assert!(store.vdisks().is_empty());
    for (name, size) in [("a", 4096), ("A.b_c-1", 64 << 40), (&long[1..], 4608)] {
        create(name, size).unwrap();
    }
    assert!(matches!(create("a", 8192), Err(StoreError::Exists(_))));
    assert_eq!(store.vdisk("a").unwrap().size(), 4096);
    for outcome in [
        store.vdisk("b").map(drop),
        store.delete_vdisk("b"),
        store.resize_vdisk("b", 8192),
        store.publish_vdisk("b"),
        store.set_write_cache("b", true),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, StoreError::NotFound(_)), "{error}");
        assert!(error.to_string().contains("\"b\""));
    }
    for size in [0, 4097, u64::MAX - 511] {
        assert!(store.resize_vdisk("a", size).is_err());
    }
    assert_eq!(store.vdisk("a").unwrap().size(), 4096);
}

#[test]
fn an_unfinished_import_leaves_nothing() {
    let mut m = Machine::new(1, 64 << 20);
    let store = m.open();
    let spec = VDiskSpec {
        name: "half".into(),
        size: 1 << 20,
        hidden: true,
    };
    store.create_vdisk(&spec).unwrap();
    assert!(store.vdisks().is_empty());
    drop(vdisk(&store, "whole", 1 << 20));
    drop(store);
    m.kill();
    let store = m.open();
    assert!(store.vdisk("half").is_err());
    assert_eq!(store.vdisks().len(), 1);
}
