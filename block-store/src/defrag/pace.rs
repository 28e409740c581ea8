//! Background work beside guests: half of the time at most, for as long as these ask for something.

use std::time::{Duration, Instant};

/// Work is not interrupted sooner.
const SLICE: Duration = Duration::from_millis(2);

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

    /// To be called between two pieces of work: sleeps for as long as was worked, if guests were served meanwhile.
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
                std::thread::sleep(worked);
            }
            self.since = Some((Instant::now(), requests()));
        }
    }

    /// Work ends, or begins after a while: what was in between does not count.
    pub fn rest(&mut self) {
        self.since = None;
    }
}
