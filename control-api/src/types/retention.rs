//! Which snapshots stay, and why.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// How many snapshots stay, by rule. What one rule keeps is kept; at least one of them must keep something. Each rule goes from the
/// newest snapshot down, and keeps the last one of each period until it has kept as many as it may; periods without a snapshot
/// don't count. Periods are those of UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// The last ones.
    pub last: u32,
    /// The last one of each of so many hours.
    pub hourly: u32,
    /// The last one of each of so many days.
    pub daily: u32,
    /// The last one of each of so many weeks, which begin on Mondays.
    pub weekly: u32,
    /// The last one of each of so many months.
    pub monthly: u32,
}

/// Deletes the snapshots of a vDisk that no rule keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneSnapshots {
    /// The rules.
    pub keep: Keep,
    /// Only tell what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// What has become of a vDisk's snapshots, or would have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pruned {
    /// All snapshots that the rules are about, oldest first.
    pub snapshots: Vec<SnapshotFate>,
    /// Further ones of schedules that there are: these have rules of their own, and are not touched.
    pub scheduled: u64,
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotFate {
    /// Its identity.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// When it was taken, in seconds since 1970.
    pub created: u64,
    /// Why it stays; empty: it goes.
    pub kept_by: Vec<KeptBy>,
    /// Who needs it.
    pub holds: Vec<String>,
    /// What lies over it by branches of its own, as in `Snapshot`.
    pub clones: Vec<String>,
}

/// Why a snapshot stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeptBy {
    /// It is one of the last.
    Last,
    /// It is the last one of its hour.
    Hourly,
    /// It is the last one of its day.
    Daily,
    /// It is the last one of its week.
    Weekly,
    /// It is the last one of its month.
    Monthly,
    /// Somebody holds it.
    Held,
    /// Clones lie over it, or branches of its own vDisk.
    Cloned,
}
