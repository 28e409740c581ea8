//! Schedules: snapshots that the store takes and deletes by itself.

use super::Keep;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Makes a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSchedule {
    /// As a snapshot's name; not yet a schedule's.
    pub name: String,
    /// The vDisks, 1 to 4096, each once: a consistency group.
    pub vdisks: Vec<String>,
    /// Seconds between two snapshots: 1 to 31,622,400 (366 days). They are taken at multiples of it, as clocks have them: an hourly
    /// one at full hours, a weekly one on Mondays, UTC.
    pub every_seconds: u64,
    /// What the names of its snapshots begin with, 40 characters at most: `PREFIX-20260131T065903Z`. Without it, the schedule's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Which of its snapshots stay; others than its own are not its business.
    pub keep: Keep,
}

/// A schedule, and how it is doing. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// The vDisks.
    pub vdisks: Vec<String>,
    /// Seconds between two snapshots.
    pub every_seconds: u64,
    /// What the names of its snapshots begin with.
    pub prefix: String,
    /// Which of its snapshots stay.
    pub keep: Keep,
    /// When it was made.
    pub created: u64,
    /// When the next snapshot is due; in the past or now: it is being taken, or about to be.
    pub next: u64,
    /// When the last one was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Instants that it keeps snapshots of at the moment; of each there is one per vDisk.
    pub kept: u64,
    /// Moments at which one was due and none could be taken, since it was made: downtime, failures, or no time.
    pub missed: u64,
    /// How long the last one took until it was durable, in milliseconds; absent before the first one since the backend's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_milliseconds: Option<u64>,
    /// It can't keep up: the last one took longer than the interval, or moments were missed while the backend ran.
    pub behind: bool,
    /// Why the last attempt failed, if it did. Another one is made at the next moment, or after a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<u64>,
}

/// Schedules, in order of creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleList {
    /// The schedules.
    pub schedules: Vec<Schedule>,
}
