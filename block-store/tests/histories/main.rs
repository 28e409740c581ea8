//! Simulated histories: random requests, background steps and crashes on a disk that loses, tears and reorders what
//! was not synced; every sector is held against the values that the invariants permit.
//!
//! `FIRN_HISTORIES=N` runs N histories (default 1,000), `FIRN_SEED=S` begins with (and for N = 1 replays) seed S.

mod model;
mod run;
mod sim;

#[test]
fn crash_histories() {
    let _ = env_logger::builder().is_test(true).try_init();
    let number =
        |name: &str, default: u64| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let (first, count) = (number("FIRN_SEED", 1), number("FIRN_HISTORIES", 1000));
    let mut totals = run::Totals::default();
    for seed in first..first + count {
        let outcome = std::panic::catch_unwind(|| run::history(seed));
        match outcome {
            Ok(t) => totals.add(&t),
            Err(cause) => {
                println!("history {seed} failed; replay it with FIRN_HISTORIES=1 FIRN_SEED={seed}");
                std::panic::resume_unwind(cause);
            }
        }
    }
    println!("{count} histories from seed {first}: {totals:?}");
    if count >= 1000 {
        assert!(
            totals.kills > 0 && totals.power_losses > 0 && totals.crashes_in_recovery > 0,
            "{totals:?}"
        );
        assert!(totals.checkpoints > 0 && totals.stalls > 0, "{totals:?}");
    }
}
