//! How long a group commit waits for others to join it.
//!
//! Whoever writes, flushes and waits, does so again moments after it was told: of several, the first to come would get a
//! commit of its own, and all others would wait for that one and then for theirs. Waiting a little for as many as took
//! part the last time halves that. The idea is PostgreSQL's `commit_delay`; how long and for how many is measured here.

use std::time::Duration;

/// The longest wait: about what a wake-up, a completion, the guest's next requests and another wake-up take.
const MOST: Duration = Duration::from_micros(60);
/// What of a commit's own time waiting for it may add.
const SHARE: u32 = 4;

/// What the last commit was like.
#[derive(Debug, Default)]
pub struct Gathering {
    expected: usize,
    took: Duration,
}

impl Gathering {
    /// How many flushes are likely to come.
    pub fn expected(&self) -> usize {
        self.expected
    }

    /// How long to wait for these at most, with so many there already.
    pub fn patience(&self, waiting: usize) -> Duration {
        if waiting >= self.expected {
            Duration::ZERO
        } else {
            (self.took / SHARE).min(MOST)
        }
    }

    /// A commit has told `told` flushes and left `left` that came too late for it.
    pub fn committed(&mut self, told: usize, left: usize, took: Duration) {
        (self.expected, self.took) = (told + left, took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_as_many_as_came_the_last_time() {
        let us = Duration::from_micros;
        let mut gathering = Gathering::default();
        assert_eq!(gathering.patience(1), us(0), "nobody is known");
        gathering.committed(1, 0, us(200));
        assert_eq!(gathering.patience(1), us(0), "a single one never waits");
        gathering.committed(1, 3, us(200));
        assert_eq!(gathering.patience(3), us(50));
        assert_eq!(gathering.patience(4), us(0));
        gathering.committed(4, 0, Duration::from_secs(1));
        assert_eq!(gathering.patience(1), MOST);
    }
}
