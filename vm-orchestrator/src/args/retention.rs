//! `firn snapshot prune`: which snapshots stay.

use crate::units::parse_name;
use control_api::types::Keep;

pub(super) const PRUNE: &str = "\
A snapshot stays when at least one rule keeps it, when it is held, or when clones lie over it. Each rule goes from the newest \
snapshot down and keeps the last one of each hour, day, week (from Monday) or month that has one, all in UTC. Snapshots of \
the vDisk's schedules are left to these.";

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
