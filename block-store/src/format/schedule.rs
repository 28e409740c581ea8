//! Schedules: snapshots that the store takes and deletes by itself. Rows of the catalogue; `docs/disk-format.md`, section
//! "Catalogue", lists the fields.

use serde::{Deserialize, Serialize};

/// Shortest interval of a schedule, in seconds.
pub const MIN_EVERY: u64 = 1;
/// Longest one: 366 days.
pub const MAX_EVERY: u64 = 366 * 86_400;

/// How many snapshots stay, by rule: what one rule keeps is kept. 0: the rule keeps nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Keep {
    /// The last ones.
    pub last: u32,
    /// The last one of each of so many hours.
    pub hourly: u32,
    /// Of so many days.
    pub daily: u32,
    /// Of so many weeks; a week begins on Monday.
    pub weekly: u32,
    /// Of so many months.
    pub monthly: u32,
}

impl Keep {
    /// As many as all rules together can keep.
    pub fn most(&self) -> u64 {
        let all = [
            self.last,
            self.hourly,
            self.daily,
            self.weekly,
            self.monthly,
        ];
        all.into_iter().map(u64::from).sum()
    }
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleRow {
    /// Its name, unique in the store; snapshots that it has taken carry it.
    pub name: String,
    /// Numbers of the vDisks: a consistency group.
    pub vdisks: Vec<u32>,
    /// Interval in seconds.
    pub every: u64,
    /// What the names of its snapshots begin with.
    pub prefix: String,
    /// Which of its snapshots stay.
    pub keep: Keep,
    /// Seconds since 1970 at which it was made.
    pub created: u64,
    /// The slot, by its first second, that needs no snapshot any more: that of the last one taken, or of its own making.
    pub slot: u64,
    /// Seconds since 1970 at which the last one was taken; 0: none yet.
    pub taken: u64,
    /// Slots that have passed without a snapshot.
    pub missed: u64,
}
