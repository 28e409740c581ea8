//! Background work beside guests: half of the time at most, long pieces aside, for as long as these ask for something.

use std::time::{Duration, Instant};

/// Work is not interrupted sooner.
const SLICE: Duration = Duration::from_millis(2);
/// Nor for longer: what lies between two pieces of work may have been a checkpoint, or hours without any.
const REST: Duration = Duration::from_millis(20);

/// Counts the requests that guests have had served.
type Requests = Box<dyn Fn() -> u64 + Send>;

/// Tells background work when to wait.
#[derive(Default)]
pub struct Pace {
    requests: Option<Requests>,
    /// When work went on, and how many requests there had been.
    since: Option<(Instant, u64)>,
}

impl Pace {
    /// Beside guests, whose requests so far `requests` tells. The default is not to wait at all.
    pub fn beside(requests: impl Fn() -> u64 + Send + 'static) -> Self {
        Self {
            requests: Some(Box::new(requests)),
            since: None,
        }
    }

    /// To be called between two pieces of work: sleeps for as long as was worked, within bounds, if guests were served meanwhile.
    pub fn wait(&mut self) {
        let Some(requests) = &self.requests else {
            return;
        };
        let Some((since, before)) = self.since else {
            self.since = Some((Instant::now(), requests()));
            return;
        };
        let worked = since.elapsed();
        if worked >= SLICE {
            if requests() != before {
                std::thread::sleep(worked.min(REST));
            }
            self.since = Some((Instant::now(), requests()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    #[test]
    fn what_has_rested_for_hours_does_not_sleep_for_hours() {
        let served = Arc::new(AtomicU64::new(0));
        let requests = Arc::clone(&served);
        let mut pace = Pace::beside(move || requests.load(Relaxed));
        pace.wait();
        let hours = Duration::from_secs(7 * 3600);
        pace.since = pace.since.map(|(since, before)| (since - hours, before));
        served.store(1, Relaxed);
        let begun = Instant::now();
        pace.wait();
        assert!((REST..hours / 100).contains(&begun.elapsed()));
    }
}
