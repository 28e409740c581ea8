//! Bad input gets a clear error that names the thing, a non-zero exit, and loses nothing.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use firn_tests::client::{ClientOptions, Request, STATUS_OK};
use firn_tests::rig::{PATIENCE, Rig};
use firn_tests::server::Binaries;

const MIB: u64 = 1 << 20;

/// Runs `firn`, which must fail and say all of `says`.
fn refused(rig: &Rig, args: &[&str], says: &[&str]) {
    let output = rig.firn.try_cli(args).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success(),
        "firn {} succeeded",
        args.join(" ")
    );
    for word in says {
        assert!(
            said.contains(word),
            "firn {}: does not say {word:?}: {said}",
            args.join(" ")
        );
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// Starts a backend, which must refuse to serve and say all of `says`.
fn does_not_serve(rig: &Rig, says: &[&str]) {
    let mut server = rig.firn.start().unwrap();
    let status = server.wait(PATIENCE).expect("it must end by itself");
    let said = rig.last_words();
    assert_eq!(
        status.code().map(|code| code != 0),
        Some(true),
        "{status}: {said}"
    );
    for word in says {
        assert!(said.contains(word), "does not say {word:?}: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn names_and_sizes() {
    let mut rig = Rig::new().unwrap();
    rig.create("disk", MIB).unwrap();
    let long = "x".repeat(65);
    for name in [
        "a/b",
        "../up",
        "",
        ".hidden",
        "-dash",
        "with space",
        "n\u{fc}ll",
        &long,
    ] {
        refused(&rig, &["vdisk", "create", "--", name, "1M"], &[]);
    }
    refused(&rig, &["vdisk", "create", "a/b", "1M"], &["a/b"]);
    for size in [
        "0",
        "1000",
        "513",
        "4095",
        "65T",
        "-1",
        "ten",
        "18446744073709551616",
    ] {
        refused(&rig, &["vdisk", "create", "odd", size], &[size]);
    }
    refused(&rig, &["vdisk", "create", "disk", "1M"], &["disk"]);
    refused(&rig, &["vdisk", "show", "nobody"], &["nobody"]);
    refused(&rig, &["vdisk", "delete", "nobody"], &["nobody"]);
    refused(&rig, &["vdisk", "resize", "nobody", "2M"], &["nobody"]);
    // Nothing of that has made anything.
    let list = rig.firn.cli(&["vdisk", "list", "--json"]).unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("\"disk\"") && !list.contains("odd"), "{list}");
}

#[test]
fn an_attached_vdisk_can_be_neither_shrunk_nor_deleted() {
    let mut rig = Rig::new().unwrap();
    let mut client = rig
        .attach("disk", 2 * MIB, ClientOptions::default())
        .unwrap();
    refused(
        &rig,
        &["vdisk", "resize", "disk", "1M", "--shrink"],
        &["disk"],
    );
    refused(&rig, &["vdisk", "delete", "disk"], &["disk", "attached"]);
    let mut data = vec![1; 512];
    assert_eq!(
        client
            .run(Request::write(4000, 512), &mut data)
            .unwrap()
            .status,
        STATUS_OK
    );
    // Growing is fine.
    rig.firn.cli(&["vdisk", "resize", "disk", "4M"]).unwrap();
    assert_eq!(
        client.session().unwrap().read_config().unwrap().capacity,
        4 * MIB / 512
    );
}

#[test]
fn imports_that_do_not_fit_leave_nothing() {
    let mut rig = Rig::new().unwrap();
    rig.create("taken", MIB).unwrap();
    let image = rig.dir().join("image.raw");
    fs::write(&image, vec![7; 2 << 20]).unwrap();
    let path = image.display().to_string();
    refused(
        &rig,
        &["vdisk", "import", &path, "small", "--size", "1M"],
        &["image.raw", "--size"],
    );
    refused(&rig, &["vdisk", "import", &path, "taken"], &["taken"]);
    refused(
        &rig,
        &["vdisk", "import", "/nonexistent/image", "new"],
        &["/nonexistent/image"],
    );
    let list = rig.firn.cli(&["vdisk", "list", "--json"]).unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(!list.contains("small") && !list.contains("new"), "{list}");
    // The same names can be used afterwards.
    rig.firn.cli(&["vdisk", "import", &path, "small"]).unwrap();
}

#[test]
fn no_backend_and_no_permission() {
    let mut rig = Rig::new().unwrap();
    let control = rig.firn.control();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&control), 0o600);
    assert_eq!(mode(&rig.create("disk", MIB).unwrap()), 0o660);
    if rustix::process::geteuid().is_root() {
        // Even where the file's mode would let it in, a stranger is refused.
        let dir = rig.dir().to_owned();
        for path in [&dir, &rig.firn.run().to_owned()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(&control, fs::Permissions::from_mode(0o666)).unwrap();
        let cli = copy_for_everybody(&Binaries::find().unwrap().cli);
        let mut stranger = Command::new(&cli);
        stranger
            .args(["vdisk", "list"])
            .env("FIRN_RUN", rig.firn.run())
            .uid(65534)
            .gid(65534);
        let output = stranger.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "a stranger may list vDisks");
        assert!(!said.contains("panicked") && !said.is_empty(), "{said}");
        fs::remove_file(cli).unwrap();
    }
    rig.server.kill().unwrap();
    refused(&rig, &["vdisk", "list"], &[&control.display().to_string()]);
}

/// The build may lie where only its owner may look.
fn copy_for_everybody(program: &Path) -> PathBuf {
    let copy = std::env::temp_dir().join(format!("firn-{}", std::process::id()));
    fs::copy(program, &copy).unwrap();
    copy
}

#[test]
fn sockets_that_cannot_be() {
    let rig = Rig::new().unwrap();
    // A path of a Unix socket has 107 bytes at most.
    let deep = rig.dir().join("d".repeat(120));
    let long = rig.firn.with_run(&deep);
    let mut server = long.start().unwrap();
    // This store is served already, which may be said first: use a new one.
    server.kill().unwrap();
    let home = tempfile::tempdir().unwrap();
    let fresh = firn_tests::server::Firn::create(Binaries::find().unwrap(), home.path())
        .unwrap()
        .with_run(&deep);
    let mut server = fresh.start().unwrap();
    let status = server.wait(PATIENCE).expect("it can't serve there");
    let said = fs::read_to_string(fresh.log()).unwrap();
    assert!(
        !status.success() && said.contains("ddd") && !said.contains("panicked"),
        "{status}: {said}"
    );
}

#[test]
fn a_socket_path_that_is_taken_is_left_alone() {
    let rig = Rig::new().unwrap();
    let path = rig.firn.socket("disk");
    fs::write(&path, "somebody's").unwrap();
    refused(&rig, &["vdisk", "create", "disk", "1M"], &["disk.sock"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    // And nothing half-made is in the way once it is gone.
    fs::remove_file(&path).unwrap();
    rig.firn.create_vdisk("disk", MIB).unwrap();
}

#[test]
fn directories_that_are_no_stores() {
    let rig = Rig::new().unwrap();
    let path = |name: &str| rig.dir().join(name).display().to_string();
    fs::create_dir(rig.dir().join("full")).unwrap();
    fs::write(rig.dir().join("full/letter"), "dear").unwrap();
    refused(&rig, &["store", "init", &path("full")], &["full"]);
    assert_eq!(
        fs::read_to_string(rig.dir().join("full/letter")).unwrap(),
        "dear"
    );
    refused(&rig, &["store", "init", &path("store")], &["store"]);
    refused(
        &rig,
        &["store", "init", &path("new"), "--segment-size", "12345"],
        &[],
    );
    let backend = Binaries::find().unwrap().backend;
    for dir in ["full", "nowhere"] {
        let output = Command::new(&backend)
            .args(["--store", &path(dir), "--run", &path("run2")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(dir) && !said.contains("panicked"),
            "{said}"
        );
    }
}

/// A store with some data, cleanly closed; returns the data.
fn closed_store() -> (Rig, Vec<u8>) {
    let mut rig = Rig::new().unwrap();
    let mut client = rig
        .attach("disk", 8 * MIB, ClientOptions::default())
        .unwrap();
    let mut data = vec![0; 128 << 10];
    firn_tests::pattern::fill(&mut data, firn_tests::pattern::Kind::Random, 1, 0, 1);
    for at in 0..16 {
        assert_eq!(
            client
                .run(Request::write(at * 256, 128 << 10), &mut data)
                .unwrap()
                .status,
            STATUS_OK
        );
    }
    client.run(Request::flush(), &mut []).unwrap();
    client.stop().unwrap();
    assert!(rig.server.terminate(PATIENCE).unwrap().success());
    (rig, data)
}

fn superblock(rig: &Rig) -> fs::File {
    fs::File::options()
        .read(true)
        .write(true)
        .open(rig.firn.store().join("superblock"))
        .unwrap()
}

#[test]
fn one_damaged_superblock_is_healed_and_two_are_reported() {
    let (mut rig, data) = closed_store();
    let file = superblock(&rig);
    let len = file.metadata().unwrap().len();
    let half = len / 2;
    let mut whole = vec![0; len as usize];
    file.read_exact_at(&mut whole, 0).unwrap();
    for at in [0, half] {
        file.write_all_at(&whole, 0).unwrap();
        file.write_all_at(&vec![0xff; half as usize], at).unwrap();
        rig.server = rig.firn.serve().unwrap();
        let mut client = rig.connect("disk", ClientOptions::default()).unwrap();
        let mut found = vec![0; data.len()];
        assert_eq!(
            client
                .run(Request::read(0, 128 << 10), &mut found)
                .unwrap()
                .status,
            STATUS_OK
        );
        assert!(found == data);
        client.stop().unwrap();
        assert!(rig.server.terminate(PATIENCE).unwrap().success());
        file.read_exact_at(&mut whole, 0).unwrap();
    }
    file.write_all_at(&vec![0xff; len as usize], 0).unwrap();
    does_not_serve(&rig, &["superblock"]);
    file.write_all_at(&whole, 0).unwrap();
    rig.server = rig.firn.serve().unwrap();
}

#[test]
fn a_truncated_segment_is_an_error_and_not_wrong_data() {
    let (mut rig, data) = closed_store();
    // Incompressible data is stored as it is, so the segment that has it can be told from the others.
    let holds_data = |path: &PathBuf| {
        let mut bytes = vec![0; 4 << 20];
        let len = File::open(path).unwrap().read_at(&mut bytes, 0).unwrap();
        bytes[..len]
            .windows(64)
            .any(|window| window == &data[4096..4160])
    };
    let segment = walk(rig.firn.store()).into_iter().find(holds_data);
    let segment = segment.expect("the data lies somewhere");
    let file = File::options().write(true).open(segment).unwrap();
    file.set_len(64 << 10).unwrap();
    // Either it says so at once, or when the data is asked for; it never invents any.
    let mut server = rig.firn.start().unwrap();
    if server
        .listening(&rig.firn.control(), std::time::Duration::from_secs(3))
        .is_ok()
    {
        rig.server = server;
        let mut client = rig.connect("disk", ClientOptions::default()).unwrap();
        let mut found = vec![0; data.len()];
        let mut errors = 0;
        for at in 0..16 {
            match client
                .run(Request::read(at * 256, 128 << 10), &mut found)
                .unwrap()
                .status
            {
                STATUS_OK => assert!(found == data, "wrong data at {at}"),
                _ => errors += 1,
            }
        }
        assert!(errors > 0, "most of the data is gone");
        let said = rig.last_words();
        assert!(
            said.contains("disk") && !said.contains("panicked"),
            "{said}"
        );
    } else {
        assert!(!server.wait(PATIENCE).unwrap().success());
        assert!(
            !rig.last_words().contains("panicked"),
            "{}",
            rig.last_words()
        );
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path))
        } else {
            files.push(path)
        }
    }
    files
}
