//! `firn snapshot prune` and `schedule`: which snapshots stay, and which are taken by themselves.

use crate::units::{parse_interval, parse_name, parse_snapshot_name};
use control_api::types::Keep;

pub(super) const PRUNE: &str = "\
A snapshot stays when at least one rule keeps it, when it is held, or when clones lie over it. Each rule goes from the newest \
snapshot down and keeps the last one of each hour, day, week (from Monday) or month that has one, all in UTC. Snapshots of \
the vDisk's schedules are left to these.";

pub(super) const SCHEDULE: &str = "\
Snapshots are taken at multiples of the interval, in UTC: an hourly one at full hours, a daily one at midnight, a weekly one on \
Mondays. They are called PREFIX-20260131T065903Z. What could not be taken (downtime, a full store) is counted and not made up \
for. The rules are about the schedule's own snapshots: see firn snapshot prune --help. Others are never deleted by it.";

/// Which snapshots stay.
#[derive(Debug, Clone, Copy, clap::Args)]
#[group(required = true, multiple = true)]
pub struct KeepArgs {
    /// Keep the last N
    #[arg(long, value_name = "N")]
    pub keep_last: Option<u32>,
    /// Keep the last one of each of N hours
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<u32>,
    /// Keep the last one of each of N days
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<u32>,
    /// Keep the last one of each of N weeks
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<u32>,
    /// Keep the last one of each of N months
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<u32>,
}

impl From<&KeepArgs> for Keep {
    fn from(args: &KeepArgs) -> Self {
        Keep {
            last: args.keep_last.unwrap_or(0),
            hourly: args.keep_hourly.unwrap_or(0),
            daily: args.keep_daily.unwrap_or(0),
            weekly: args.keep_weekly.unwrap_or(0),
            monthly: args.keep_monthly.unwrap_or(0),
        }
    }
}

/// `firn snapshot prune`.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    /// The vDisk
    #[arg(value_name = "VDISK", value_parser = parse_name)]
    pub vdisk: String,
    /// What stays.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Delete nothing, only tell what would go
    #[arg(long)]
    pub dry_run: bool,
}

/// `firn snapshot schedule`.
#[derive(Debug, clap::Args)]
pub struct ScheduleArgs {
    /// Its name
    #[arg(value_parser = parse_snapshot_name)]
    pub name: String,
    /// The vDisks: all get each snapshot, of the same instant
    #[arg(value_name = "VDISK", required = true, value_parser = parse_name)]
    pub vdisks: Vec<String>,
    /// How often, like 1s, 5m, 1h, 1d, 1w: 1s to 366d
    #[arg(long, value_name = "INTERVAL", value_parser = parse_interval)]
    pub every: u64,
    /// What the names of its snapshots begin with, 40 characters at most [default: the schedule's name]
    #[arg(long, value_parser = parse_snapshot_name)]
    pub prefix: Option<String>,
    /// What stays.
    #[command(flatten)]
    pub keep: KeepArgs,
}

/// `firn snapshot unschedule`.
#[derive(Debug, clap::Args)]
pub struct UnscheduleArgs {
    /// The schedule
    #[arg(value_parser = parse_snapshot_name)]
    pub name: String,
}
