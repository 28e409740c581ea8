//! A guest that writes all the time is migrated between two libvirts, while one backend serves its vDisks.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firn_tests::pair::Pair;

type TestResult = Result<(), Box<dyn Error>>;

const SECOND: Duration = Duration::from_secs(1);

/// One guest at a time: on TCG two would only make both slow, and their timeouts guesses.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn there_and_back_under_load() -> TestResult {
    let _turn = turn();
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
        assert_eq!(shown["waiting"], serde_json::Value::Null, "{shown}");
    }
    println!("{}", std::fs::read_to_string(pair.firn.log())?);
    assert_eq!(pair.said("data: handed over")?, 4);
    let worst = pair.verify()?;
    assert!(worst < 60 * SECOND, "{worst:?}");
    Ok(())
}
