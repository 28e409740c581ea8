//! How fast a pass goes. Pure: times are durations since its start.

use std::time::Duration;

/// How much a pass may be behind its rate and catch up.
const SLACK: Duration = Duration::from_millis(100);
/// Beside guests it rests so many times as long as its last step took.
const REST: u32 = 3;

/// Keeps to a rate.
#[derive(Debug, Default)]
pub struct Pace {
    /// When what was read until now is paid for.
    due: Duration,
    rate: u64,
}

impl Pace {
    /// A step has read so many bytes and ended `now`, having taken `took`: how long to rest. `rate`: bytes a second, 0 for any.
    /// `guests`: somebody else had requests meanwhile.
    pub fn rest(
        &mut self,
        now: Duration,
        took: Duration,
        bytes: u64,
        rate: u64,
        guests: bool,
    ) -> Duration {
        if std::mem::replace(&mut self.rate, rate) != rate {
            // What was read at another rate is not paid for at this one.
            self.due = Duration::ZERO;
        }
        let costs = match rate {
            0 => Duration::ZERO,
            _ => {
                let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
                Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
            }
        };
        let from = self.due.max(now.saturating_sub(took.max(SLACK)));
        self.due = from.saturating_add(costs);
        let for_rate = self.due.saturating_sub(now);
        match guests {
            true => for_rate.max(took * REST),
            false => for_rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Over any time the rate is kept, but for the slack; and it is nearly reached where the disk is fast enough.
        #[test]
        fn the_rate_is_kept(
            steps in proptest::collection::vec((0u64..1 << 20, 0u64..30_000, any::<bool>()), 1..200),
            rate in 1u64 << 16..1 << 28,
        ) {
            let (mut pace, mut now, mut bytes, mut could) = (Pace::default(), Duration::ZERO, 0, 0.0);
            for (read, took, guests) in steps {
                let took = Duration::from_micros(took);
                now += took;
                bytes += read;
                let rest = pace.rest(now, took, read, rate, guests);
                prop_assert!(!guests || rest >= took * REST);
                now += rest;
                let all = bytes as f64 / rate as f64;
                prop_assert!(all <= now.as_secs_f64() + SLACK.as_secs_f64() + 1e-3);
                could += (read as f64 / rate as f64).max(took.as_secs_f64() * if guests { 4.0 } else { 1.0 });
            }
            prop_assert!(now.as_secs_f64() <= could + 1e-3, "{now:?} instead of {could}");
        }

        #[test]
        fn another_rate_holds_at_once(bytes in 1u64 << 16..1 << 20, slow in 1u64..1000, fast in 1u64 << 24..1 << 30) {
            let (mut pace, second) = (Pace::default(), Duration::from_secs(1));
            prop_assert!(pace.rest(second, SLACK, bytes, slow, false) > 60 * second);
            prop_assert!(pace.rest(2 * second, SLACK, bytes, fast, false) < second);
            prop_assert_eq!(pace.rest(3 * second, SLACK, bytes, 0, false), Duration::ZERO);
        }

        #[test]
        fn without_a_rate_only_guests_hold_it_up(took in 0u64..1_000_000, bytes in any::<u64>()) {
            let took = Duration::from_micros(took);
            let mut pace = Pace::default();
            prop_assert_eq!(pace.rest(took, took, bytes, 0, false), Duration::ZERO);
            prop_assert_eq!(pace.rest(took * 9, took, bytes, 0, true), took * 3);
            let long = pace.rest(took * 9, took, bytes, 1, false);
            prop_assert!(long >= Duration::from_secs(bytes.min(1 << 30)).saturating_sub(took * 9 + SLACK));
        }
    }
}
