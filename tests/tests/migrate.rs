//! A guest that writes all the time is migrated between two libvirts, while one backend serves its vDisks.

use std::error::Error;
use std::time::{Duration, Instant};

use firn_tests::pair::Pair;
use serde_json::Value;

type TestResult = Result<(), Box<dyn Error>>;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn there_and_back_under_load() -> TestResult {
    let mut pair = Pair::start()?;
    pair.boot_and_load()?;
    for round in 0..4 {
        let files = pair.progress()?;
        let began = Instant::now();
        let downtime = pair.migrate(&["--live"])?;
        println!(
            "migration {round} after {files} files: {:?}, the guest stood still for {downtime:?}",
            began.elapsed()
        );
        let shown = pair.shown("data")?;
        assert_eq!(shown["domain"]["state"], "running", "{shown}");
        assert_eq!(shown["waiting"], Value::Null, "{shown}");
    }
    assert_eq!(pair.said("data: handed over")?, 4);
    let worst = pair.verify()?;
    assert!(worst < 60 * SECOND, "{worst:?}");
    Ok(())
}

/// What is not live: the guest is paused before anything is copied, so that nothing tells its stop from a reboot's.
#[test]
fn paused_guests_are_migrated_too() -> TestResult {
    let mut pair = Pair::start()?;
    pair.boot_and_load()?;
    pair.progress()?;
    let downtime = pair.migrate(&[])?;
    println!("not live: {downtime:?}");
    pair.progress()?;

    pair.here().virsh(&["suspend", "guest"])?;
    pair.migrate(&["--live"])?;
    pair.here().virsh(&["resume", "guest"])?;
    pair.progress()?;
    let worst = pair.verify()?;
    assert!(worst < 60 * SECOND, "{worst:?}");
    Ok(())
}

#[test]
fn one_that_is_cancelled_leaves_the_guest_where_it_was() -> TestResult {
    let mut pair = Pair::start()?;
    pair.boot_and_load()?;
    pair.progress()?;
    for round in 0..3 {
        let migration = pair.begin_slowly()?;
        std::thread::sleep(Duration::from_millis(200 + 700 * round));
        pair.here().virsh(&["domjobabort", "guest"])?;
        let output = migration.wait_with_output()?;
        assert!(!output.status.success(), "it was over already");
        pair.progress()?;
        pair.until("data", "nobody waits", |shown| {
            shown["waiting"] == Value::Null
        })?;
        let shown = pair.shown("data")?;
        assert_eq!(shown["domain"]["state"], "running", "{shown}");
    }
    assert_eq!(pair.said("handed over")?, 0);
    // Nothing is in the way of one that goes through.
    pair.migrate(&["--live"])?;
    let worst = pair.verify()?;
    assert!(worst < 60 * SECOND, "{worst:?}");
    Ok(())
}

#[test]
fn the_backend_dies_meanwhile() -> TestResult {
    let mut pair = Pair::start()?;
    pair.boot_and_load()?;
    pair.progress()?;
    for round in 0..3 {
        let migration = pair.begin_slowly()?;
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(300 + 400 * round));
            pair.kill_backend()?;
            pair.until("data", "both are back", |shown| {
                shown["waiting"] != Value::Null
            })?;
            pair.progress()?;
        }
        pair.here().virsh(&["migrate-setspeed", "guest", "10000"])?;
        let downtime = pair.end_migration(migration)?;
        println!("with two kills, the guest stood still for {downtime:?}");
        pair.progress()?;
    }
    let worst = pair.verify()?;
    assert!(worst < 60 * SECOND, "{worst:?}");
    Ok(())
}

/// Just when the new QEMU has started its queues, while the old one is still connected: both come back, in any order.
#[test]
fn the_backend_dies_at_the_switch() -> TestResult {
    let mut pair = Pair::start()?;
    pair.boot_and_load()?;
    for _ in 0..4 {
        pair.progress()?;
        let handed_over = pair.said("data: handed over")?;
        let mut migration = pair.begin_migration(&["--live"])?;
        while pair.said("data: handed over")? == handed_over && migration.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        pair.kill_backend()?;
        let downtime = pair.end_migration(migration)?;
        println!("killed at the switch, the guest stood still for {downtime:?}");
    }
    let worst = pair.verify()?;
    assert!(worst < 60 * SECOND, "{worst:?}");
    Ok(())
}

/// The same domain, or another one, that is started beside the guest and not migrated.
#[test]
fn a_start_is_no_migration() -> TestResult {
    let mut pair = Pair::start()?;
    pair.boot_and_load()?;
    let xml = pair.here().virsh(&["dumpxml", "--inactive", "guest"])?;
    for name in ["guest", "thief"] {
        let mut xml = xml.clone();
        if name == "thief" {
            xml = xml.replace("<name>guest", "<name>thief");
            let (before, rest) = xml.split_once("<uuid>").ok_or("no UUID")?;
            let (_, after) = rest.split_once("</uuid>").ok_or("no UUID")?;
            xml = format!("{before}{after}");
        }
        pair.there().define(&xml)?;
        let said = pair.there().virsh_fails(&["start", name])?;
        assert!(said.contains("is in use by"), "{name}: {said}");
        pair.there().virsh(&["undefine", name])?;
    }
    // Nor is one whose hook says nothing, and whose QEMU starts: it gets nothing.
    pair.there().must(&["firn", "hooks", "uninstall"])?;
    pair.there().must(&["pkill", "-HUP", "-x", "libvirtd"])?;
    pair.there().define(&xml)?;
    pair.there().virsh(&["start", "guest"])?;
    pair.until_said("system: the connection is closed: ")?;
    pair.progress()?;
    // Not even while the right one has stopped, as it does when it reboots.
    for _ in 0..3 {
        pair.here().virsh(&["suspend", "guest"])?;
        std::thread::sleep(3 * SECOND);
        pair.here().virsh(&["resume", "guest"])?;
        pair.progress()?;
    }
    assert!(pair.said("to hang up, which has stopped its queues")? > 0);
    assert_eq!(pair.said("handed over")?, 0);
    pair.there().virsh(&["destroy", "guest"])?;
    pair.verify()?;
    Ok(())
}
