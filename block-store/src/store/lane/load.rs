//! How much of its thread's time a lane has to spare: what the compression rules call CPU headroom.
//!
//! A thread that serves queues without a pause is what its guests wait for: there the fast codec is worth more than the
//! better ratio. One that sleeps between requests compresses better at nobody's cost.

use crate::host::thread_cpu_time;
use std::time::{Duration, Instant};

/// How long is measured before the answer changes: some hundred requests of a busy queue, and short for a person.
const SPAN: Duration = Duration::from_millis(20);

/// The thread's load.
#[derive(Debug)]
pub(crate) struct Load {
    wall: Instant,
    busy: Duration,
    /// CPU time that other threads have spent for it since then.
    elsewhere: Duration,
    headroom: u8,
}

impl Load {
    /// Nothing is known yet.
    pub(crate) fn new() -> Self {
        Self {
            wall: Instant::now(),
            busy: thread_cpu_time(),
            elsewhere: Duration::ZERO,
            headroom: 100,
        }
    }

    /// Another thread has worked for the lane: its time counts as if this one had.
    pub(super) fn add(&mut self, took: Duration) {
        self.elsewhere += took;
    }

    /// Idle share of the calling thread's time in per cent, as last measured; always the same thread calls.
    pub(super) fn headroom(&mut self) -> u8 {
        let wall = Instant::now();
        let passed = wall.duration_since(self.wall);
        if passed >= SPAN {
            let busy = thread_cpu_time();
            let spent = busy.saturating_sub(self.busy) + self.elsewhere;
            self.headroom = idle_percent(passed, spent);
            (self.wall, self.busy, self.elsewhere) = (wall, busy, Duration::ZERO);
        }
        self.headroom
    }
}

fn idle_percent(passed: Duration, busy: Duration) -> u8 {
    let percent = busy.as_micros() * 100 / passed.as_micros().max(1);
    100 - percent.min(100) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_share_is_what_is_left() {
        let ms = Duration::from_millis;
        assert_eq!(idle_percent(ms(20), ms(0)), 100);
        assert_eq!(idle_percent(ms(20), ms(15)), 25);
        assert_eq!(idle_percent(ms(20), ms(21)), 0, "clocks differ a little");
        assert_eq!(idle_percent(ms(0), ms(0)), 100);
    }

    #[test]
    fn a_thread_that_sleeps_has_headroom_and_one_that_spins_has_none() {
        let mut load = Load::new();
        std::thread::sleep(2 * SPAN);
        assert!(load.headroom() > 50, "{load:?}");
        // On a loaded machine the thread may not get the time it asks for: until it is seen to.
        let seen = (0..200).any(|_| {
            let from = Instant::now();
            while from.elapsed() < 2 * SPAN {
                std::hint::spin_loop();
            }
            load.headroom() < 50
        });
        assert!(seen, "{load:?}");
    }
}
