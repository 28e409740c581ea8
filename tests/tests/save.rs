//! A guest that writes all the time is saved and restored by libvirt, on one host and on another one.

use std::error::Error;
use std::time::{Duration, Instant};

use firn_tests::pair::Pair;
use serde_json::Value;

type TestResult = Result<(), Box<dyn Error>>;

const SECOND: Duration = Duration::from_secs(1);

/// What becomes of the backend while the guest is a file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Backend {
    Stays,
    Killed,
    Restarted,
}

#[test]
fn saved_and_restored_under_load() -> TestResult {
    let mut pair = Pair::start()?;
    pair.boot_and_load()?;
    let file = pair.here().dir().join("saved").display().to_string();
    let rounds = [
        (Backend::Stays, false),
        (Backend::Killed, false),
        (Backend::Restarted, true),
        (Backend::Killed, true),
    ];
    for (backend, moves) in rounds {
        let files = pair.progress()?;
        let began = Instant::now();
        pair.here().virsh(&["save", "guest", &file])?;
        let saved = began.elapsed();
        is_at_rest(&pair)?;
        let began = Instant::now();
        match backend {
            Backend::Stays => {}
            Backend::Killed => pair.kill_backend()?,
            Backend::Restarted => {
                pair.server.terminate(30 * SECOND)?;
                pair.server = pair.firn.serve()?;
            }
        }
        if moves {
            pair.at = 1 - pair.at;
        }
        pair.here().virsh(&["restore", &file])?;
        println!(
            "{files} files; saved in {saved:?}, the backend {backend:?}, moved {moves}, restored in {:?}",
            began.elapsed()
        );
        pair.connect()?;
        runs(&pair)?;
    }
    let worst = pair.verify()?;
    assert!(worst < 120 * SECOND, "{worst:?}");
    Ok(())
}

#[test]
fn managed_saves_go_on_with_the_next_start() -> TestResult {
    let mut pair = Pair::start()?;
    pair.boot_and_load()?;
    for kill in [false, true] {
        pair.progress()?;
        pair.here().virsh(&["managedsave", "guest"])?;
        is_at_rest(&pair)?;
        if kill {
            pair.kill_backend()?;
        }
        pair.here().virsh(&["start", "guest"])?;
        pair.connect()?;
        runs(&pair)?;
    }
    let worst = pair.verify()?;
    assert!(worst < 120 * SECOND, "{worst:?}");
    Ok(())
}

/// Nobody has its vDisks, and they tell why.
fn is_at_rest(pair: &Pair) -> TestResult {
    for vdisk in ["system", "data"] {
        pair.until(vdisk, "it is saved", |shown| {
            let domain = &shown["domain"];
            shown["attached"] == Value::Null
                && domain["state"] == "stopped"
                && domain["reason"] == "saved"
        })?;
    }
    Ok(())
}

fn runs(pair: &Pair) -> TestResult {
    for vdisk in ["system", "data"] {
        pair.until(vdisk, "it runs", |shown| {
            shown["attached"] != Value::Null && shown["domain"]["state"] == "running"
        })?;
    }
    Ok(())
}
