use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use vhost::VhostBackend;
use vhost::vhost_user::Frontend;

use super::*;
use crate::testing::{RamDisk, eventually, pool};

fn exports(dir: &tempfile::TempDir, disks: &[Arc<RamDisk>]) -> Exports<RamDisk> {
    let options = SocketOptions {
        run: dir.path().to_owned(),
        group: None,
    };
    Exports::new(options, pool(disks)).unwrap()
}

#[test]
fn a_socket_is_there_as_long_as_its_vdisk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RamDisk::new("one", 1 << 20);
    let exports = exports(&dir, std::slice::from_ref(&disk));
    let path = exports.add(Arc::clone(&disk)).unwrap();
    assert_eq!(path, dir.path().join("one.sock"));
    let meta = std::fs::metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    assert!(matches!(
        exports.add(disk).unwrap_err(),
        ExportError::Exists(_)
    ));
    let front = Frontend::connect(&path, 1).unwrap();
    front.get_features().unwrap();
    let attached = exports.get("one").unwrap().attached.unwrap();
    assert_eq!(attached.front_end.pid, std::process::id() as i32);
    let refused = exports.remove("one").unwrap_err();
    assert!(
        refused.to_string().contains("attached by process"),
        "{refused}"
    );
    // A second one may come too, a third one is turned away, and the others are not disturbed.
    assert!(exports.get("one").unwrap().waiting.is_none());
    let second = Frontend::connect(&path, 1).unwrap();
    second.get_features().unwrap();
    assert!(exports.get("one").unwrap().waiting.is_some());
    let third = Frontend::connect(&path, 1).unwrap();
    assert!(third.get_features().is_err());
    front.get_features().unwrap();
    second.get_features().unwrap();
    drop(front);
    eventually("there is one", || {
        exports.get("one").unwrap().waiting.is_none()
    });
    let refused = exports.remove("one").unwrap_err();
    assert!(matches!(refused, ExportError::Attached { .. }), "{refused}");
    let fourth = Frontend::connect(&path, 1).unwrap();
    fourth.get_features().unwrap();
    drop((second, fourth));
    eventually("the vDisk can go", || exports.remove("one").is_ok());
    assert!(!path.exists());
    assert!(matches!(
        exports.remove("one").unwrap_err(),
        ExportError::NotFound(_)
    ));
}

#[test]
fn one_that_hangs_up_and_comes_back_at_once_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RamDisk::new("one", 1 << 20);
    let exports = exports(&dir, std::slice::from_ref(&disk));
    let path = exports.add(disk).unwrap();
    for _ in 0..200 {
        let front = Frontend::connect(&path, 1).unwrap();
        front.get_features().unwrap();
        drop(front);
    }
}

#[test]
fn what_is_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let exports = exports(&dir, &[]);
    let add = |name: &str| exports.add(RamDisk::new(name, 1 << 20));
    // Left by a dead process: replaced.
    drop(UnixListener::bind(dir.path().join("stale.sock")).unwrap());
    add("stale").unwrap();
    let _living = UnixListener::bind(dir.path().join("living.sock")).unwrap();
    let error = add("living").unwrap_err().to_string();
    assert!(error.contains("living.sock is taken"), "{error}");
    std::fs::write(dir.path().join("file.sock"), "precious").unwrap();
    let error = add("file").unwrap_err().to_string();
    assert!(error.contains("is not a socket"), "{error}");
    assert_eq!(
        std::fs::read(dir.path().join("file.sock")).unwrap(),
        b"precious"
    );
    let error = add(&"n".repeat(100)).unwrap_err().to_string();
    assert!(error.contains("too long"), "{error}");
    assert!(add("control").is_err());
}

#[test]
fn shutting_down_ends_everything() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RamDisk::new("one", 1 << 20);
    let exports = exports(&dir, std::slice::from_ref(&disk));
    let path = exports.add(disk).unwrap();
    let front = Frontend::connect(&path, 1).unwrap();
    front.get_features().unwrap();
    let second = Frontend::connect(&path, 1).unwrap();
    second.get_features().unwrap();
    exports.shut_down();
    assert!(front.get_features().is_err());
    assert!(second.get_features().is_err());
    assert!(!path.exists());
    assert!(matches!(
        exports.add(RamDisk::new("two", 1 << 20)).unwrap_err(),
        ExportError::Closing
    ));
    assert!(UnixStream::connect(&path).is_err());
}
