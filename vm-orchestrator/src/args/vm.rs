//! `firn vm`, `firn attach`, `firn detach`: libvirt's domains.

use super::{parse_domain, parse_target};
use crate::units::{parse_name, parse_snapshot_name};
use clap::Subcommand;

pub(super) const REVERT: &str = "\
The domain is switched off, as by its plug, and all its vDisks go back to the snapshot. What they are now is kept with --keep, or lost with \
--discard; without either nothing is done. With --memory it goes on where it was when virsh snapshot-create-as --memspec saved it; without it, \
it is started anew if it runs now. The work goes on when this command is interrupted, and after a restart of the orchestrator.";

pub(super) const CLONE: &str = "\
The new domain has vDisks of its own that begin as the snapshot and share its data, a UUID and MAC addresses of its own, and is the same else. \
Its vDisks are called as the domain, with the disk's target where there are several. A disk that is no vDisk is refused, unless it is read-only.";

pub(super) const ATTACH: &str = "\
In the running domain, and at its next start. A domain whose memory is not shared gets that first, which takes a restart of it.";

/// `firn vm`.
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// How libvirt, the backend, and all domains with vDisks are doing
    Status,
    /// Make a domain what it was at a snapshot
    #[command(after_help = REVERT)]
    Revert(VmRevertArgs),
    /// Make a new domain of a snapshot
    #[command(after_help = CLONE)]
    Clone(VmCloneArgs),
}

/// `firn vm revert`.
#[derive(Debug, clap::Args)]
pub struct VmRevertArgs {
    /// The domain: its name, or its UUID
    #[arg(value_parser = parse_domain)]
    pub domain: String,
    /// The snapshot to go back to, which all of its vDisks must have
    #[arg(value_parser = parse_snapshot_name)]
    pub snapshot: String,
    /// Go on with the memory of that instant
    #[arg(long)]
    pub memory: bool,
    /// Keep what the vDisks are now as a snapshot of this name
    #[arg(long, value_name = "NAME", value_parser = parse_snapshot_name)]
    pub keep: Option<String>,
    /// Keep nothing: what was written since the last snapshot is lost
    #[arg(long, conflicts_with = "keep")]
    pub discard: bool,
}

/// `firn vm clone`.
#[derive(Debug, clap::Args)]
pub struct VmCloneArgs {
    /// The domain and its snapshot, like shop@monday
    #[arg(value_name = "DOMAIN@SNAPSHOT", value_parser = parse_domain_snapshot)]
    pub from: (String, String),
    /// The new domain's name
    #[arg(value_parser = parse_domain)]
    pub new: String,
    /// Start it
    #[arg(long)]
    pub start: bool,
}

/// `firn attach`.
#[derive(Debug, clap::Args)]
pub struct AttachArgs {
    /// The vDisk
    #[arg(value_parser = parse_name)]
    pub vdisk: String,
    /// The domain: its name, or its UUID
    #[arg(value_parser = parse_domain)]
    pub domain: String,
    /// The guest's device name [default: the first that is free]
    #[arg(long, value_name = "DEV", value_parser = parse_target)]
    pub target: Option<String>,
    /// Number of queues [default: one per vCPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queues: Option<u16>,
    /// Boot from it first, from the next start on
    #[arg(long)]
    pub boot: bool,
}

/// `firn detach`.
#[derive(Debug, clap::Args)]
pub struct DetachArgs {
    /// The vDisk
    #[arg(value_parser = parse_name)]
    pub vdisk: String,
    /// The domain: its name, or its UUID
    #[arg(value_parser = parse_domain)]
    pub domain: String,
}

/// A domain's name may have an `@` too: the last one counts.
fn parse_domain_snapshot(text: &str) -> Result<(String, String), String> {
    let (domain, snapshot) = text
        .rsplit_once('@')
        .ok_or("write DOMAIN@SNAPSHOT, like shop@monday")?;
    Ok((parse_domain(domain)?, parse_snapshot_name(snapshot)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_snapshots() {
        let parsed = parse_domain_snapshot("a@b@monday").unwrap();
        assert_eq!(parsed, ("a@b".to_owned(), "monday".to_owned()));
        for bad in ["web", "@monday", "web@", "web@a b"] {
            assert!(parse_domain_snapshot(bad).is_err(), "{bad}");
        }
    }
}
