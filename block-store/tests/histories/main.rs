//! Simulated histories: random requests, background steps and crashes on a disk that loses, tears and reorders what
//! was not synced; every sector is held against the values that the invariants permit.
//!
//! One thread runs all of it, and yet checkpoints and compaction don't happen at once: before their reads and writes others
//! may have their turn, as the store's own threads would (`between.rs`). The same seed is the same history.
//!
//! `FIRN_HISTORIES=N` runs N histories (default 300), `FIRN_SEED=S` begins with (and for N = 1 replays) seed S.
//! `FIRN_TRACE=1` tells every step.

mod between;
#[path = "../support/hook.rs"]
#[allow(dead_code, reason = "only some of it is used here")]
mod hook;
mod model;
mod run;
mod sim;

#[test]
fn crash_histories() {
    let _ = env_logger::builder().is_test(true).try_init();
    let number =
        |name: &str, default: u64| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let (first, count) = (number("FIRN_SEED", 1), number("FIRN_HISTORIES", 300));
    let (mut totals, mut failed) = (run::Totals::default(), Vec::new());
    for seed in first..first + count {
        let outcome = std::panic::catch_unwind(|| run::history(seed));
        match outcome {
            Ok(t) => totals.add(&t),
            Err(_) => {
                failed.push(seed);
                println!(
                    "history {seed} failed; replay it with FIRN_TRACE=1 FIRN_HISTORIES=1 FIRN_SEED={seed} cargo test -p \
                     block-store --test histories crash_histories -- --nocapture"
                );
            }
        }
    }
    println!("{count} histories from seed {first}: {totals:?}");
    assert!(
        failed.is_empty(),
        "{} of {count} histories failed: seeds {failed:?}",
        failed.len()
    );
    if count >= 300 {
        assert!(
            totals.kills > 0 && totals.power_losses > 0 && totals.crashes_in_recovery > 0,
            "{totals:?}"
        );
        assert!(totals.checkpoints > 0 && totals.stalls > 0, "{totals:?}");
        assert!(totals.between > 0 && totals.faults > 0, "{totals:?}");
        assert!(totals.deletions > 0 && totals.clones > 0, "{totals:?}");
        assert!(totals.flattened > 0 && totals.reverts > 0, "{totals:?}");
        assert!(totals.snapshots > 0 && totals.forgotten > 0, "{totals:?}");
        assert!(totals.scheduled > 0 && totals.retired > 0, "{totals:?}");
        assert!(totals.pruned > 0, "{totals:?}");
        assert!(
            totals.coalesced > 0 && totals.relocated > 0 && totals.settled > 0,
            "{totals:?}"
        );
        assert!(totals.scrubbed > 0 && totals.passes > 0, "{totals:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 1..20 {
        let (a, b) = (run::history(seed), run::history(seed));
        assert_eq!(format!("{a:?}"), format!("{b:?}"), "seed {seed}");
    }
}
