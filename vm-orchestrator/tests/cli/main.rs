//! The `firn` program against the control API in front of a real store.

mod retention;
mod scrub;
mod snapshots;
mod stats;

use block_store::{InitOptions, OpenConfig, Store, VDisk};
use control_api::ApiError;
use control_api::types::{Attachment, ErrorKind};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vhost_backend::control::{ControlServer, Sockets, StoreTarget};

/// Sockets that only exist as names.
#[derive(Default, Clone)]
struct Names(Arc<Mutex<BTreeSet<String>>>);

impl Sockets for Names {
    fn path(&self, name: &str) -> PathBuf {
        format!("/run/firn/{name}.sock").into()
    }

    fn attached(&self, name: &str) -> Option<Attachment> {
        let attachment = Attachment {
            pid: 4711,
            uid: 0,
            since: 0,
        };
        self.0.lock().contains(name).then_some(attachment)
    }

    fn open(&self, _vdisk: Arc<VDisk>) -> Result<(), ApiError> {
        Ok(())
    }

    fn close(&self, name: &str) -> Result<(), ApiError> {
        match self.0.lock().contains(name) {
            true => Err(ApiError::new(
                ErrorKind::Busy,
                format!("vDisk {name} is attached"),
            )),
            false => Ok(()),
        }
    }
}

/// A served store in `DIR/store`, its runtime directory in `DIR/run`.
struct Host {
    dir: tempfile::TempDir,
    attached: Names,
    server: Option<ControlServer>,
    store: Option<Arc<Store>>,
}

impl Host {
    fn new() -> Host {
        Host::in_directory(|_| {})
    }

    fn in_directory(prepare: impl FnOnce(&Path)) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let (home, run) = (dir.path().join("home"), dir.path().join("run"));
        std::fs::create_dir(&home).unwrap();
        std::fs::create_dir(&run).unwrap();
        prepare(&home);
        let home = home.join("store");
        Store::init(
            &home,
            &InitOptions {
                segment_size: 4 << 20,
            },
        )
        .unwrap();
        let store = Store::open(OpenConfig::new(&home, &run)).unwrap();
        let attached = Names::default();
        let target = StoreTarget::new(Arc::clone(&store), Box::new(attached.clone()), run.clone());
        let server = ControlServer::start(&run, Arc::new(target)).unwrap();
        Host {
            dir,
            attached,
            server: Some(server),
            store: Some(store),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = firn(&self.path("run"));
        command
            .args(line.split_whitespace())
            .current_dir(self.dir.path());
        command
    }

    /// Runs firn; tells its exit code, what it printed and what it complained about.
    fn run(&self, line: &str) -> (i32, String, String) {
        finished(self.command(line).output().unwrap())
    }

    /// Runs firn, which must succeed; what it printed.
    fn ok(&self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!(code, 0, "firn {line}: {err}");
        assert!(!err.contains("firn:"), "firn {line}: {err}");
        out
    }

    fn json(&self, line: &str) -> Value {
        let out = self.ok(&format!("{line} --json"));
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("firn {line}: {error}: {out}"))
    }

    /// Runs firn, which must end with this code and say this.
    fn fails(&self, line: &str, code: i32, says: &str) {
        let (actual, out, err) = self.run(line);
        assert_eq!(actual, code, "firn {line}: {err}");
        assert!(
            err.contains(says) && out.is_empty(),
            "firn {line}: {out}{err}"
        );
    }

    fn names(&self) -> Vec<String> {
        let list = self.json("vdisk list");
        list["vdisks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.server.take());
        if let Some(store) = self.store.take() {
            let _ = store.shutdown();
        }
    }
}

fn firn(run: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
    command
        .env("FIRN_RUN", run)
        .env_remove("FIRN_LOG")
        .stdin(Stdio::null());
    command
}

fn finished(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// Bytes that no codec makes smaller.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (0..len.div_ceil(8))
        .flat_map(|_| next().to_ne_bytes())
        .take(len)
        .collect()
}

/// A sparse image with data here and there.
fn image(path: &Path, len: u64) -> Vec<u8> {
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    let mut whole = vec![0; len as usize];
    for (number, at) in [0, 3 << 20, (9 << 20) + 700, len - 5000]
        .into_iter()
        .enumerate()
    {
        let data = noise(number as u64, if number == 1 { 2 << 20 } else { 5000 });
        file.write_all_at(&data, at).unwrap();
        whole[at as usize..at as usize + data.len()].copy_from_slice(&data);
    }
    whole
}

#[test]
fn vdisks_come_change_and_go() {
    let host = Host::new();
    assert!(host.ok("vdisk list").contains("no vDisks yet"));
    assert_eq!(
        host.ok("vdisk create web 10G"),
        "vDisk web: 10.0 GiB, on /run/firn/web.sock\n"
    );
    host.fails("vdisk create web 10G", 4, "already");
    assert_eq!(host.json("vdisk show web")["size"], 10u64 << 30);
    assert!(
        host.ok("vdisk show web")
            .contains("size         10.0 GiB (10737418240 bytes)\n")
    );
    assert_eq!(
        host.ok("vdisk resize web 20G"),
        "vDisk web: 20.0 GiB (was 10.0 GiB)\n"
    );
    host.fails("vdisk resize web 1G", 4, "--shrink");
    host.attached.0.lock().insert("web".into());
    assert!(host.ok("vdisk resize web 30G").contains("cold start"));
    host.fails("vdisk resize web 1G --shrink", 4, "attached");
    host.fails("vdisk delete web", 4, "attached");
    host.attached.0.lock().clear();
    assert_eq!(
        host.json("vdisk resize web 1G --shrink")["old_size"],
        30u64 << 30
    );
    assert_eq!(host.ok("vdisk delete web"), "vDisk web: deleted\n");
    host.fails("vdisk show web", 3, "firn vdisk list");
    assert_eq!(host.json("vdisk stats")["stats"], Value::Array(vec![]));
    assert_eq!(host.json("store status")["store"]["vdisks"], 0);
    assert!(host.ok("store status").contains("state        serving\n"));
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let host = Host::new();
    host.fails("vdisk create a/b 10G", 2, "slash");
    host.fails("vdisk create odd 4097", 2, "multiple of 512");
    host.fails("vdisk create odd 0", 2, "zero");
    host.fails("vdisk create big 65T", 2, "64T");
    let (code, _, err) = host.run("vdisk show nobody --json");
    let error: Value = serde_json::from_str(&err).unwrap();
    assert_eq!((code, error["exit"].as_i64()), (3, Some(3)));
    assert!(error["error"].as_str().unwrap().contains("nobody"));
}

#[test]
fn without_a_backend_the_way_out_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = finished(firn(dir.path()).args(["vdisk", "list"]).output().unwrap());
    assert_eq!(code, 5);
    assert!(
        err.contains("firn-vhost-backend is not running: nobody listens on")
            && err.contains("firn-vhost-backend --store DIR --run"),
        "{err}"
    );
    let doctor = firn(dir.path())
        .args(["doctor", "--json"])
        .output()
        .unwrap();
    let (code, out, _) = finished(doctor);
    let report: Value = serde_json::from_str(&out).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let broken = findings
        .iter()
        .find(|finding| finding["check"] == "backend")
        .unwrap();
    assert_eq!((code, broken["verdict"].as_str()), (1, Some("broken")));
    assert!(
        broken["cure"]
            .as_str()
            .unwrap()
            .contains("firn-vhost-backend")
    );
}

#[test]
fn a_store_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let init = || {
        finished(
            firn(dir.path())
                .args(["store", "init"])
                .arg(&path)
                .output()
                .unwrap(),
        )
    };
    let (code, out, _) = init();
    assert_eq!(code, 0);
    assert!(out.contains("firn-vhost-backend --store"), "{out}");
    assert_eq!(init().0, 4);
}

#[test]
fn an_image_goes_in_and_comes_out_the_same() {
    let host = Host::new();
    let content = image(&host.path("in.raw"), (40 << 20) + 512);
    let imported = host.json("vdisk import in.raw disk");
    assert_eq!(imported["vdisk"]["size"], (40 << 20) + 512);
    assert!(
        imported["data_bytes"].as_u64().unwrap() < 3 << 20,
        "holes were sent: {imported}"
    );
    host.fails("vdisk import in.raw disk", 4, "already");
    host.ok("vdisk export disk out.raw");
    assert!(std::fs::read(host.path("out.raw")).unwrap() == content);
    assert!(
        std::fs::metadata(host.path("out.raw")).unwrap().blocks() * 512 < 4 << 20,
        "not sparse"
    );
    host.fails("vdisk export disk out.raw", 4, "--force");
    host.ok("vdisk export disk out.raw --force");
    assert!(!host.path("out.raw.part").exists());
    host.attached.0.lock().insert("disk".into());
    host.fails("vdisk export disk live.raw", 4, "--live");
    assert!(!host.path("live.raw").exists() && !host.path("live.raw.part").exists());
    host.ok("vdisk export disk live.raw --live");
    assert!(std::fs::read(host.path("live.raw")).unwrap() == content);
}

#[test]
fn standard_input_can_be_imported() {
    let host = Host::new();
    let content = image(&host.path("in.raw"), 16 << 20);
    let piped = |args: &str| {
        let mut child = host
            .command(args)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may give up before it has taken everything.
        let _ = stdin.write_all(&content);
        drop(stdin);
        finished(child.wait_with_output().unwrap())
    };
    let (code, _, err) = piped("vdisk import - a");
    assert_eq!(code, 2);
    assert!(err.contains("--size"), "{err}");
    let (code, _, err) = piped("vdisk import - b --size 17M");
    assert_eq!(code, 1);
    assert!(err.contains("ended after 16777216 bytes"), "{err}");
    let (code, _, err) = piped("vdisk import - c --size 15M");
    assert_eq!(code, 1);
    assert!(err.contains("brings more"), "{err}");
    assert!(host.names().is_empty());
    assert_eq!(piped("vdisk import - d --size 16M").0, 0);
    host.ok("vdisk export d out.raw");
    assert!(std::fs::read(host.path("out.raw")).unwrap() == content);
    let redirected = host
        .command("vdisk import - e")
        .stdin(File::open(host.path("in.raw")).unwrap())
        .output();
    assert_eq!(finished(redirected.unwrap()).0, 0);
    assert_eq!(host.names(), ["d", "e"]);
}

#[test]
fn what_is_no_raw_image_is_refused() {
    let host = Host::new();
    std::fs::write(
        host.path("image.qcow2"),
        [b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 8192]].concat(),
    )
    .unwrap();
    host.fails(
        "vdisk import image.qcow2 disk",
        2,
        "qemu-img convert -p -f qcow2 -O raw",
    );
    host.fails("vdisk import nowhere disk", 3, "nowhere");
    host.fails("vdisk import . disk", 2, "a directory");
    assert!(host.names().is_empty());
}

#[test]
fn an_interrupted_import_leaves_nothing() {
    let host = Host::new();
    for signal in ["INT", "KILL"] {
        let mut child = host
            .command("vdisk import - lost --size 64M")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&noise(1, 20 << 20)).unwrap();
        assert!(host.names().is_empty(), "visible before it is whole");
        match signal {
            "INT" => interrupt(&child),
            _ => child.kill().unwrap(),
        }
        let (code, _, err) = finished(child.wait_with_output().unwrap());
        match signal {
            "INT" => assert!(code == 130 && err.contains("interrupted"), "{code}: {err}"),
            _ => assert_eq!(code, -1),
        }
        drop(stdin);
        // The name comes free a moment later.
        let start = Instant::now();
        while host.run("vdisk create lost 4K").0 != 0 {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the name is still taken"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        host.ok("vdisk delete lost");
    }
}

#[test]
fn an_interrupted_export_leaves_nothing() {
    let host = Host::new();
    std::fs::write(host.path("in.raw"), noise(2, 128 << 20)).unwrap();
    host.ok("vdisk import in.raw disk");
    let child = host
        .command("vdisk export disk out.raw")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !host.path("out.raw.part").exists() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    interrupt(&child);
    let (code, _, err) = finished(child.wait_with_output().unwrap());
    assert_eq!(code, 130, "{err}");
    assert!(!host.path("out.raw.part").exists() && !host.path("out.raw").exists());
}

#[test]
fn rules_are_shown_set_and_explained() {
    let host = Host::new();
    let shipped = host.json("rules show");
    std::fs::write(host.path("rules.json"), shipped.to_string()).unwrap();
    assert_eq!(host.json("rules set rules.json"), shipped);
    host.ok("vdisk create web 1G");
    let own = r#"{"rules": [{"name": "all", "use": {"codec": "zstd:9", "extent_kib": 128}}]}"#;
    std::fs::write(host.path("own.json"), own).unwrap();
    assert!(host.ok("rules set own.json --vdisk web").contains("zstd:9"));
    assert_eq!(host.json("rules show"), shipped);
    let explained = host.ok("rules explain --size 4k --vdisk web");
    assert!(explained.contains("> all: decides (zstd:9)"), "{explained}");
    assert!(
        host.ok("rules explain --size 1M --sequential --incompressible")
            .contains("result: codec none")
    );
    std::fs::write(host.path("bad.json"), own.replace("zstd:9", "zstd:99")).unwrap();
    host.fails("rules set bad.json", 2, "zstd:99");
    std::fs::write(host.path("bad.json"), own.replace("128", "100")).unwrap();
    host.fails("rules set bad.json", 2, "extent_kib");
    host.fails("rules set nowhere.json", 3, "nowhere.json");
}

#[test]
fn libvirt_gets_its_elements() {
    let host = Host::new();
    host.ok("vdisk create web 1G");
    let both = host.ok("vdisk xml web --target vdb --queues 4 --boot");
    assert!(
        both.contains("<memoryBacking>")
            && both.contains("queues='4'")
            && both.contains("<target dev='vdb'"),
        "{both}"
    );
    let disk = host.ok("vdisk xml web --only disk");
    assert!(
        disk.starts_with("<disk ")
            && disk.contains("path='/run/firn/web.sock'")
            && !disk.contains("memoryBacking")
    );
    host.fails("vdisk xml nobody", 3, "nobody");
}

#[test]
fn doctor_looks_at_the_served_store() {
    let host = Host::new();
    let report = host.json("doctor");
    let findings = report["findings"].as_array().unwrap();
    assert!(
        findings
            .iter()
            .any(|finding| finding["check"] == "io_uring"),
        "{report}"
    );
    assert!(
        findings
            .iter()
            .all(|finding| finding["verdict"] == "ok" || finding["cure"].is_string()),
        "{report}"
    );
}

/// A filesystem of 96 MiB on `dir`, if we may mount one.
fn mount_small(dir: &Path) -> bool {
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=96m", "firn-test"])
        .arg(dir);
    mount
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn an_import_that_does_not_fit_is_refused_or_fails_and_leaves_nothing() {
    let mut mounted = None;
    let host =
        Host::in_directory(|home| mounted = mount_small(home).then(|| Mounted(home.to_owned())));
    let Some(_mounted) = mounted else {
        eprintln!("skipped: no permission to mount a small filesystem");
        return;
    };
    host.ok("vdisk create other 1M");
    std::fs::write(host.path("big.raw"), noise(3, 200 << 20)).unwrap();
    // A file can be looked at beforehand, a pipe can not.
    let start = Instant::now();
    host.fails("vdisk import big.raw big", 6, "does not fit");
    assert!(start.elapsed() < Duration::from_secs(5), "it was tried");
    let mut command = host.command("vdisk import - big --size 200M");
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(&std::fs::read(host.path("big.raw")).unwrap());
    drop(stdin);
    let (code, _, err) = finished(child.wait_with_output().unwrap());
    assert!(code == 6 && err.contains("full"), "{code}: {err}");
    assert_eq!(host.names(), ["other"]);
    // And the space comes back.
    std::fs::write(host.path("small.raw"), noise(4, 8 << 20)).unwrap();
    let start = Instant::now();
    while host.run("vdisk import small.raw small").0 != 0 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the space does not come back"
        );
    }
}
