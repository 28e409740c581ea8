//! `firn-orchestrator` with a real libvirtd, QEMU, guest and backend: snapshots by virsh that are gone back to, with memory.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use firn_tests::libvirt::{FirnHost, LibvirtGuest, Load};

type TestResult = Result<(), Box<dyn Error>>;

const DATA_MIB: u64 = 16;
const SECOND: Duration = Duration::from_secs(1);
const PATTERN: &str = env!("CARGO_BIN_EXE_firn-guest-pattern");

/// Checkpoints by virsh of a guest under load, each gone back to in turn with its memory. `FIRN_CHECKPOINTS` says how many.
#[test]
fn checkpoints_by_virsh_are_gone_back_to() -> TestResult {
    let count: usize =
        std::env::var("FIRN_CHECKPOINTS").map_or(3, |text| text.parse().unwrap_or(3));
    let (host, mut guest) = with_guest(&["system", "data", "log", "spool"])?;
    let load = Load::start(&host, &mut guest, Path::new(PATTERN), "/dev/vdb", DATA_MIB)?;
    let mut steps = Vec::new();
    for number in 0..count {
        let before = load.wait_for_passes(&mut guest, 1)?;
        // With --live the guest goes on while its memory is saved.
        let live = number % 2 == 0;
        checkpoint(&host, &format!("c{number}"), live)?;
        until_running(&host)?;
        steps.push((before, load.wait_for_passes(&mut guest, 1)?));
    }
    for (number, (before, after)) in steps.iter().enumerate() {
        guest.disconnect();
        let began = Instant::now();
        host.firn(&[
            "vm",
            "revert",
            "guest",
            &format!("c{number}"),
            "--memory",
            "--discard",
        ])?;
        let took = began.elapsed();
        guest.connect()?;
        let (step, _) = load.progress(&mut guest)?;
        println!(
            "c{number}: taken between steps {before} and {after}; back in {took:.1?} at step {step}"
        );
        assert!(*before <= step, "it is not where it was");
        load.wait_for_passes(&mut guest, 2)?;
    }
    guest.assert_no_io_errors()?;
    // What libvirt deletes goes, nothing else does.
    host.libvirt.virsh(&["snapshot-delete", "guest", "c0"])?;
    let began = Instant::now();
    while host.firn(&["snapshot", "list", "data"])?.contains("c0") {
        assert!(began.elapsed() < 15 * SECOND, "c0 is still there");
        std::thread::sleep(SECOND / 5);
    }
    let left = host.firn(&["snapshot", "list", "data", "--json"])?;
    let left: serde_json::Value = serde_json::from_str(&left)?;
    let left = left["snapshots"].as_array().map_or(0, Vec::len);
    assert_eq!(left, count - 1);
    println!("{}", host.firn(&["vm", "status"])?);
    println!("{}", fs::read_to_string(host.orchestrator_log())?);
    Ok(())
}

/// Whatever is asked for and whoever dies meanwhile: nothing hangs, nothing stays frozen or paused, and the guest goes on.
/// `FIRN_ROUNDS` says how often each pair is tried.
#[test]
fn whoever_dies_during_whatever() -> TestResult {
    let rounds: u64 = std::env::var("FIRN_ROUNDS").map_or(1, |text| text.parse().unwrap_or(1));
    let seed: u64 = std::env::var("FIRN_SEED").map_or(1, |text| text.parse().unwrap_or(1));
    println!("FIRN_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut host, mut guest) = with_guest(&["system", "data"])?;
    host.firn(&["vdisk", "create", "more", "64M"])?;
    let load = Load::start(&host, &mut guest, Path::new(PATTERN), "/dev/vdb", DATA_MIB)?;
    checkpoint(&host, "base", false)?;
    until_running(&host)?;
    for round in 0..rounds {
        for operation in ["checkpoint", "quiesced", "revert", "attach", "clone"] {
            for victim in ["backend", "orchestrator", "libvirtd"] {
                let name = format!("{operation}-{victim}-{round}");
                let memory = format!("file={}", host.libvirt.dir().join(&name).display());
                let line: Vec<&str> = match operation {
                    "checkpoint" => vec![
                        "virsh",
                        "snapshot-create-as",
                        "guest",
                        &name,
                        "--memspec",
                        &memory,
                        "--diskspec",
                        "vda,snapshot=manual",
                        "--live",
                    ],
                    "quiesced" => vec![
                        "firn",
                        "snapshot",
                        "create",
                        &name,
                        "--domain",
                        "guest",
                        "--quiesce",
                    ],
                    "revert" => vec![
                        "firn", "vm", "revert", "guest", "base", "--memory", "--keep", &name,
                    ],
                    "attach" => vec!["firn", "attach", "more", "guest"],
                    _ => vec!["firn", "vm", "clone", "guest@base", &name],
                };
                if operation == "revert" {
                    guest.disconnect();
                }
                let delay = Duration::from_millis(rng.random_range(0..400));
                let mut doing = host.libvirt.start_program(&line)?;
                std::thread::sleep(delay);
                match victim {
                    "backend" => {
                        host.kill_backend()?;
                        host.serve()?;
                    }
                    "orchestrator" => {
                        host.kill_orchestrator()?;
                        host.orchestrate()?;
                    }
                    _ => {
                        host.libvirt.must(&["pkill", "-KILL", "-x", "libvirtd"])?;
                        host.libvirt.start_libvirtd()?;
                    }
                }
                let began = Instant::now();
                while doing.try_wait()?.is_none() {
                    assert!(began.elapsed() < 90 * SECOND, "{name}: it hangs");
                    std::thread::sleep(SECOND / 20);
                }
                let ended = doing.wait()?;
                println!("{name}: {victim} died after {delay:?}; the command ended with {ended}");
                settled(&host).map_err(|error| format!("{name}: {error}"))?;
                if operation == "revert" {
                    guest.connect()?;
                }
                guest.must("touch /root/goes-on && sync", 60 * SECOND)?;
                load.wait_for_passes(&mut guest, 1)
                    .map_err(|error| format!("{name}: {error}"))?;
                // For the next one.
                drop(host.firn(&["detach", "more", "guest"]));
            }
        }
    }
    guest.assert_no_io_errors()?;
    Ok(())
}

/// Waits until the guest runs and nothing is left to do.
fn settled(host: &FirnHost) -> TestResult {
    let began = Instant::now();
    loop {
        let status = host.firn(&["vm", "status", "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        let tasks = status["tasks"].as_array().map_or(1, Vec::len);
        let domains = status["domains"].as_array().cloned().unwrap_or_default();
        let runs = domains
            .iter()
            .any(|d| d["name"] == "guest" && d["state"] == "running" && d["problem"].is_null());
        if tasks == 0 && runs && status["libvirt"]["up"] == true && status["backend"]["up"] == true
        {
            return Ok(());
        }
        if began.elapsed() > 60 * SECOND {
            let log = fs::read_to_string(host.orchestrator_log())?;
            let domstate = host.libvirt.virsh(&["domstate", "--reason", "guest"])?;
            return Err(format!("not settled: {status}\n{domstate}{log}").into());
        }
        std::thread::sleep(SECOND / 10);
    }
}

/// What people ask for in other ways, and what they ask for in vain: each says so where they look.
#[test]
fn what_is_asked_for_is_answered() -> TestResult {
    let (host, mut guest) = with_guest(&["system", "data"])?;
    guest.must("mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt && { while :; do cp -r /etc /mnt/copy; sync; rm -r /mnt/copy; done >/dev/null 2>&1 & }", 60 * SECOND)?;
    guest.await_guest_agent(&host.libvirt)?;
    let snapshots = || -> Result<Vec<String>, Box<dyn Error>> {
        let list = host.firn(&["snapshot", "list", "data", "--json"])?;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        let all = list["snapshots"].as_array().cloned().unwrap_or_default();
        Ok(all
            .iter()
            .filter_map(|s| s["name"].as_str())
            .map(str::to_owned)
            .collect())
    };

    // By the command line: frozen, or not.
    let said = host.firn(&[
        "snapshot",
        "create",
        "frozen",
        "--domain",
        "guest",
        "--quiesce",
    ])?;
    assert!(said.contains("2 filesystems frozen"), "{said}");
    host.firn(&["snapshot", "create", "running", "--domain", "guest"])?;
    for (name, dirty) in [("frozen", false), ("running", true)] {
        let file = host.libvirt.dir().join(name).display().to_string();
        host.firn(&["vdisk", "export", "data", &file, "--snapshot", name])?;
        let features = host.libvirt.must(&["dumpe2fs", "-h", &file])?;
        assert_eq!(
            features.contains("needs_recovery"),
            dirty,
            "{name}: {features}"
        );
        if dirty {
            host.libvirt.must(&[
                "bash",
                "-c",
                "e2fsck -E journal_only -p $0; [ $? -le 1 ]",
                &file,
            ])?;
        }
        host.libvirt.must(&["e2fsck", "-f", "-n", &file])?;
    }

    // By metadata.
    request(&host, "<snapshot name='asked' quiesce='yes'/>")?;
    let said = result(&host)?;
    assert!(said.contains("done") && said.contains("asked"), "{said}");
    assert!(snapshots()?.contains(&"asked".to_owned()));
    for (element, why) in [
        ("<snapshot name='asked'/>", "already"),
        ("<snapshot name='a b'/>", "a b"),
        ("<snapshot nam='a'/>", "no attribute nam"),
        ("<reboot/>", "reboot"),
    ] {
        request(&host, element)?;
        let said = result(&host)?;
        assert!(
            said.contains("failed") && said.contains(why),
            "{element}: {said}"
        );
    }

    // A name that libvirt takes, and we do not: nothing half done.
    checkpoint(&host, "not a name", true)?;
    until_running(&host)?;
    let said = result(&host)?;
    assert!(
        said.contains("failed") && said.contains("not a name"),
        "{said}"
    );
    assert!(
        !host
            .libvirt
            .virsh(&["snapshot-list", "guest", "--name"])?
            .contains("not a name")
    );
    assert!(!host.libvirt.dir().join("not a name.mem").exists());
    // And one that is taken.
    checkpoint(&host, "asked", false)?;
    until_running(&host)?;
    let said = result(&host)?;
    assert!(
        said.contains("failed") && said.contains("already"),
        "{said}"
    );

    // A policy, until it goes.
    let policy = "<policy><schedule name='often' every='1s' keep-last='3'/></policy>";
    let set = [
        "metadata",
        "guest",
        "urn:firn:policy",
        "--key",
        "firn-policy",
    ];
    host.libvirt
        .virsh(&[&set[..], &["--set", policy, "--live"]].concat())?;
    let began = Instant::now();
    while !snapshots()?.iter().any(|name| name.starts_with("often-")) {
        assert!(began.elapsed() < 15 * SECOND, "no snapshot by schedule");
        std::thread::sleep(SECOND / 5);
    }
    host.libvirt
        .virsh(&["metadata", "guest", "urn:firn:policy", "--remove", "--live"])?;
    let began = Instant::now();
    while host.firn(&["snapshot", "schedules"])?.contains("often") {
        assert!(began.elapsed() < 15 * SECOND, "the schedule is still there");
        std::thread::sleep(SECOND / 5);
    }

    // What can not be: sentences.
    let refused = |args: &[&str]| host.libvirt.must_not(&[&["firn"], args].concat());
    for (args, why) in [
        (&["vm", "revert", "guest", "frozen"][..], "--keep"),
        (&["vm", "revert", "guest", "none", "--discard"], "none"),
        (
            &["vm", "revert", "guest", "frozen", "--memory", "--discard"],
            "no memory",
        ),
        (
            &["vm", "revert", "nobody", "frozen", "--discard"],
            "no domain nobody",
        ),
        (&["vm", "clone", "guest@frozen", "guest"], "already"),
        (&["attach", "data", "guest"], "already, as vdb"),
        (&["attach", "none", "guest"], "none"),
        (&["detach", "none", "guest"], "no vDisk none"),
    ] {
        let said = refused(args)?;
        assert!(said.contains(why), "{args:?}: {said}");
    }
    guest.assert_no_io_errors()?;

    // The guest is another one after a revert without memory; before it, what it was is kept.
    host.firn(&["vm", "revert", "guest", "frozen", "--keep", "before"])?;
    assert!(snapshots()?.contains(&"before".to_owned()));
    until_running(&host)?;
    Ok(())
}

/// Disks come and go while a guest is at them, and while it is off.
#[test]
fn disks_are_attached_and_detached() -> TestResult {
    const DISKS: usize = 20;
    let (host, mut guest) = with_guest(&["system", "data"])?;
    let load = Load::start(&host, &mut guest, Path::new(PATTERN), "/dev/vdb", DATA_MIB)?;
    let names: Vec<String> = (0..DISKS).map(|n| format!("d{n}")).collect();
    let began = Instant::now();
    for name in &names {
        host.firn(&["vdisk", "create", name, "64M"])?;
        let said = host.firn(&["attach", name, "guest"])?;
        assert!(said.contains("now and at its next start"), "{said}");
    }
    println!("{DISKS} disks attached in {:.1?}", began.elapsed());
    let seen = format!(
        "for try in $(seq 100); do [ $(ls -d /sys/block/vd[c-z] | wc -l) = {DISKS} ] && exit; sleep 0.2; done; ls /sys/block; false"
    );
    guest.must(&seen, 60 * SECOND)?;
    // All of them are written to, and the first load goes on.
    guest.must("for d in /dev/vd[c-v]; do { dd if=/dev/urandom of=$d bs=64k oflag=direct 2>/dev/null & } ; done", 60 * SECOND)?;
    load.wait_for_passes(&mut guest, 1)?;
    guest.must(
        "for try in 1 2 3 4 5; do pkill -x dd; done; true",
        60 * SECOND,
    )?;
    let used = host.domain_of("d0", "running")?;
    assert_eq!(used["name"], "guest");
    // A snapshot of the domain has all of them.
    let said = host.firn(&["snapshot", "create", "all", "--domain", "guest"])?;
    assert!(said.contains("d19"), "{said}");
    let began = Instant::now();
    for name in &names {
        let said = host.firn(&["detach", name, "guest"])?;
        assert!(!said.contains("note"), "{said}");
    }
    println!("{DISKS} disks detached in {:.1?}", began.elapsed());
    assert_eq!(host.domain_of("d0", "stopped")?["reason"], "detached");
    load.wait_for_passes(&mut guest, 1)?;
    guest.assert_no_io_errors()?;
    guest.destroy(&host.libvirt)?;

    // A domain whose memory is not shared gets that, and says when.
    host.define("plain", &[])?;
    let private = host
        .libvirt
        .virsh(&["dumpxml", "plain"])?
        .replace("<access mode='shared'/>", "");
    host.libvirt.define(&private)?;
    host.libvirt.virsh(&["start", "plain"])?;
    let said = host.firn(&["attach", "d0", "plain", "--boot"])?;
    assert!(
        said.contains("at its next start") && said.contains("Restart it"),
        "{said}"
    );
    host.libvirt.virsh(&["destroy", "plain"])?;
    host.libvirt.virsh(&["start", "plain"])?;
    host.domain_of("d0", "running")?;
    // And is cloned, which is another domain.
    host.firn(&["snapshot", "create", "s", "--domain", "plain"])?;
    let said = host.firn(&["vm", "clone", "plain@s", "copy", "--start"])?;
    assert!(said.contains("copy") && said.contains("runs"), "{said}");
    assert_eq!(host.domain_of("copy", "running")?["name"], "copy");
    assert_eq!(host.libvirt.virsh(&["domstate", "copy"])?.trim(), "running");
    Ok(())
}

/// On TCP there is an API for those alone who have the token, and whom TLS shows who answers.
#[test]
fn the_api_on_tcp_wants_tls_and_a_token() -> TestResult {
    let mut host = FirnHost::start()?;
    host.serve()?;
    let file = |name: &str| host.libvirt.dir().join(name).display().to_string();
    let (cert, key, token) = (file("cert.pem"), file("key.pem"), file("token"));
    let make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
         -out $0 -keyout $1 2>/dev/null && umask 077 && echo 0123456789abcdef0123 > $2";
    host.libvirt
        .must(&["bash", "-c", make, &cert, &key, &token])?;
    let options = [
        "--listen",
        "127.0.0.1:7443",
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--token-file",
        &token,
    ];
    host.orchestrate_with(&options)?;
    let ask = |host: &FirnHost, url: &str, options: &[&str]| {
        let curl = [
            "curl",
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--max-time",
            "10",
            url,
        ];
        host.libvirt.must(&[&curl[..], options].concat())
    };
    let (url, known) = (
        "https://localhost:7443/v1/status",
        "Authorization: Bearer 0123456789abcdef0123",
    );
    let said = ask(&host, url, &["--cacert", &cert, "-H", known])?;
    assert!(said.contains("qemu:///system"), "{said}");
    let metrics = ask(
        &host,
        "https://localhost:7443/metrics",
        &["--cacert", &cert, "-H", known],
    )?;
    assert!(
        metrics.contains("firn_orchestrator_backend_up 1"),
        "{metrics}"
    );
    assert!(
        ask(&host, url, &["--cacert", &cert]).is_err(),
        "without a token"
    );
    let other = "Authorization: Bearer 0123456789abcdef0124";
    assert!(
        ask(&host, url, &["--cacert", &cert, "-H", other]).is_err(),
        "with another"
    );
    assert!(
        ask(&host, "http://localhost:7443/v1/status", &["-H", known]).is_err(),
        "without TLS"
    );

    // Its backend dies: within a second that is known, and told.
    host.kill_backend()?;
    let began = Instant::now();
    loop {
        let metrics = ask(
            &host,
            "https://localhost:7443/metrics",
            &["--cacert", &cert, "-H", known],
        )?;
        if metrics.contains("firn_orchestrator_backend_up 0") {
            break;
        }
        assert!(began.elapsed() < 2 * SECOND, "nobody has noticed");
    }
    println!("the backend's end was told after {:.0?}", began.elapsed());
    assert!(host.firn(&["vm", "status"])?.contains("DOES NOT ANSWER"));
    host.serve()?;
    let began = Instant::now();
    while host.firn(&["vm", "status"])?.contains("DOES NOT ANSWER") {
        assert!(began.elapsed() < 2 * SECOND, "nobody has noticed");
    }
    let log = fs::read_to_string(host.orchestrator_log())?;
    assert!(
        log.contains("the backend does not answer") && log.contains("the backend answers again"),
        "{log}"
    );
    Ok(())
}

/// Asks for something by metadata, as from plain virsh.
fn request(host: &FirnHost, element: &str) -> TestResult {
    let set = [
        "metadata",
        "guest",
        "urn:firn:request",
        "--key",
        "firn-request",
    ];
    drop(
        host.libvirt
            .virsh(&["metadata", "guest", "urn:firn:result", "--remove", "--live"]),
    );
    host.libvirt
        .virsh(&[&set[..], &["--set", element, "--live"]].concat())?;
    Ok(())
}

/// What was written back.
fn result(host: &FirnHost) -> Result<String, Box<dyn Error>> {
    let began = Instant::now();
    loop {
        let said = host
            .libvirt
            .virsh(&["metadata", "guest", "urn:firn:result"]);
        // Without any, virsh succeeds and says nothing.
        let said = said.unwrap_or_default();
        if !said.trim().is_empty() {
            drop(host.libvirt.virsh(&[
                "metadata",
                "guest",
                "urn:firn:result",
                "--remove",
                "--live",
            ]));
            return Ok(said);
        }
        assert!(began.elapsed() < 15 * SECOND, "no result");
        std::thread::sleep(SECOND / 10);
    }
}

/// `virsh snapshot-create-as` as the documentation says.
fn checkpoint(host: &FirnHost, name: &str, live: bool) -> TestResult {
    let memory = format!(
        "file={}",
        host.libvirt.dir().join(format!("{name}.mem")).display()
    );
    // One is enough to make libvirt wait: all vDisks are snapshotted.
    let mut line = vec!["snapshot-create-as", "guest", name, "--memspec", &memory];
    line.extend(["--diskspec", "vda,snapshot=manual"]);
    if live {
        line.push("--live");
    }
    host.libvirt.virsh(&line)?;
    Ok(())
}

fn until_running(host: &FirnHost) -> TestResult {
    let began = Instant::now();
    while host.libvirt.virsh(&["domstate", "guest"])?.trim() != "running" {
        if began.elapsed() > 10 * SECOND {
            let state = host.libvirt.virsh(&["domstate", "--reason", "guest"])?;
            let log = fs::read_to_string(host.orchestrator_log())?;
            let current = host.libvirt.virsh(&["snapshot-current", "guest"]);
            return Err(format!("it is left {state}\n{log}\n{current:?}").into());
        }
        std::thread::sleep(SECOND / 20);
    }
    Ok(())
}

/// A host with all of Firn that serves vDisks (the first one bootable), and a guest on them that is up.
fn with_guest(vdisks: &[&str]) -> Result<(FirnHost, LibvirtGuest), Box<dyn Error>> {
    let mut host = FirnHost::start()?;
    host.serve()?;
    host.orchestrate()?;
    let guest = host.boot_guest(vdisks, DATA_MIB)?;
    Ok((host, guest))
}
