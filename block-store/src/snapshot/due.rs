//! When a schedule's next snapshot is due. A pure decision.
//!
//! Time is cut into slots of the schedule's interval, which begin where clocks do: an hour's at full hours. Each slot gets one
//! snapshot, at its begin, or later where that was not possible. Slots that have passed without one are counted and not made
//! up for: after an hour's downtime a schedule of one a second owes one snapshot and not 3,600.

use super::calendar::begin_of_slot;

/// How long after a failure the next attempt is made, at most, in seconds.
pub const RETRY: u64 = 60;

/// What is to be done about a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A snapshot, now.
    Now {
        /// The slot that it is for, by its first second.
        slot: u64,
        /// Slots before that which have passed without one.
        missed: u64,
    },
    /// Nothing before this moment, as far as can be said now.
    Later(u64),
}

/// What is to be done at `now` about a schedule of this interval, where `served` is the last slot that needs no snapshot any
/// more and nothing is to be tried before `pause`. All in seconds since 1970, the interval in seconds.
///
/// The clock may be set in between, by years. Forward: that is one snapshot and many missed slots. Back: by no more than an
/// interval, and slots that were served are not served again; by more, and the schedule goes on from the slot that it finds
/// itself in. Nothing that lies further ahead than the clock can have run is believed.
pub fn due(every: u64, served: u64, pause: u64, now: u64) -> Due {
    if pause > now && pause - now <= every.max(RETRY) {
        return Due::Later(pause);
    }
    let slot = begin_of_slot(every, now);
    if slot > served {
        let missed = ((slot - served) / every.max(1)).saturating_sub(1);
        return Due::Now { slot, missed };
    }
    if served.saturating_sub(now) <= every {
        return Due::Later(served.saturating_add(every));
    }
    Due::Now { slot, missed: 0 }
}

/// Until when nothing is to be tried after a snapshot for `slot` was durable at `now`: slots that have begun meanwhile are
/// let pass, so that who can't keep up leaves room for others.
pub fn pause_after(every: u64, slot: u64, now: u64) -> u64 {
    let begun = begin_of_slot(every, now);
    match begun > slot {
        true => begun.saturating_add(every),
        false => 0,
    }
}

/// Until when nothing is to be tried after a failure.
pub fn pause_after_failure(every: u64, now: u64) -> u64 {
    now.saturating_add(every.min(RETRY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 3600;
    const NOON: u64 = 1_795_694_400;

    fn at(served: u64, now: u64) -> Due {
        due(HOUR, served, 0, now)
    }

    #[test]
    fn one_for_each_hour() {
        assert_eq!(at(NOON, NOON), Due::Later(NOON + HOUR));
        assert_eq!(at(NOON, NOON + HOUR - 1), Due::Later(NOON + HOUR));
        let (slot, missed) = (NOON + HOUR, 0);
        assert_eq!(at(NOON, NOON + HOUR), Due::Now { slot, missed });
        assert_eq!(at(NOON, NOON + 2 * HOUR - 1), Due::Now { slot, missed });
        let (slot, missed) = (NOON + 30 * HOUR, 29);
        assert_eq!(at(NOON, NOON + 30 * HOUR + 7), Due::Now { slot, missed });
    }

    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        // A second before noon, again.
        assert_eq!(at(NOON, NOON - 1), Due::Later(NOON + HOUR));
        assert_eq!(at(NOON, NOON - HOUR), Due::Later(NOON + HOUR));
        let (slot, missed) = (NOON - 2 * HOUR, 0);
        assert_eq!(at(NOON, NOON - HOUR - 1), Due::Now { slot, missed });
        // What was decided before that is not waited for.
        let waits = due(HOUR, NOON, NOON + HOUR, NOON - 10 * HOUR);
        assert!(matches!(waits, Due::Now { .. }), "{waits:?}");
    }

    #[test]
    fn who_fails_or_comes_late_pauses() {
        let later = due(1, NOON, pause_after(1, NOON + 1, NOON + 3), NOON + 3);
        assert_eq!(later, Due::Later(NOON + 4));
        assert_eq!(pause_after(HOUR, NOON, NOON + 3), 0);
        let pause = pause_after_failure(HOUR, NOON + HOUR);
        assert_eq!(
            due(HOUR, NOON, pause, NOON + HOUR),
            Due::Later(NOON + HOUR + 60)
        );
        let (slot, missed) = (NOON + HOUR, 0);
        assert_eq!(
            due(HOUR, NOON, pause, NOON + HOUR + 60),
            Due::Now { slot, missed }
        );
        assert_eq!(pause_after_failure(1, NOON), NOON + 1);
    }

    /// Runs a clock through `steps` (seconds, either way), asking `due` each time; the slots that were taken, with the moments.
    fn run(every: u64, steps: &[i64]) -> Vec<(u64, u64)> {
        let (mut now, mut served, mut taken) = (NOON, begin_of_slot(every, NOON), Vec::new());
        for step in steps {
            now = now.saturating_add_signed(*step);
            if let Due::Now { slot, .. } = due(every, served, 0, now) {
                taken.push((now, slot));
                served = slot;
            }
        }
        taken
    }

    proptest! {
        #[test]
        fn a_clock_that_runs_brings_each_slot_once(
            every in 1..200_000_u64, steps in prop::collection::vec(0..100_000_i64, 1..200)
        ) {
            let taken = run(every, &steps);
            for pair in taken.windows(2) {
                prop_assert!(pair[0].1 < pair[1].1);
            }
            for (now, slot) in &taken {
                prop_assert_eq!(*slot, begin_of_slot(every, *now));
            }
            // None that was begun while somebody looked is left out.
            let mut now = NOON;
            for step in &steps {
                now += *step as u64;
                let slot = begin_of_slot(every, now);
                prop_assert!(slot == begin_of_slot(every, NOON) || taken.iter().any(|t| t.1 == slot));
            }
        }

        #[test]
        fn whatever_the_clock_does_it_goes_on_and_never_in_bursts(
            every in 1..200_000_u64,
            jumps in prop::collection::vec(-100_000_000..100_000_000_i64, 1..20)
        ) {
            // Each jump, and then three intervals in small steps.
            let mut steps = Vec::new();
            let small = (every / 7).max(1) as i64;
            for jump in &jumps {
                steps.push(*jump);
                steps.extend(vec![small; 3 * (every as i64 / small + 1) as usize]);
            }
            let taken = run(every, &steps);
            // One at the jump itself at most, and then one per interval: four slots begin in three intervals and a bit.
            prop_assert!(taken.len() <= jumps.len() * 6, "{} of {} jumps", taken.len(), jumps.len());
            prop_assert!(taken.len() >= jumps.len(), "{} of {} jumps", taken.len(), jumps.len());
        }

        #[test]
        fn what_is_told_to_wait_for_is_never_far_off(
            every in 1..200_000_u64, served in 0..1_u64 << 40, pause in 0..1_u64 << 40, now in 0..1_u64 << 40
        ) {
            if let Due::Later(then) = due(every, served, pause, now) {
                prop_assert!(then > now && then - now <= 2 * every.max(RETRY));
            }
        }
    }
}
