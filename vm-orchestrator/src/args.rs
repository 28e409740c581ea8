//! What can be typed. Names and sizes are checked here, so that a wrong one is a usage error (exit code 2).

mod hooks;
mod retention;
mod vm;

pub use hooks::{HooksCommand, InstallHook, WhereHooks};
pub use retention::{KeepArgs, PruneArgs, ScheduleArgs, UnscheduleArgs};
pub use vm::{AttachArgs, DetachArgs, VmCloneArgs, VmCommand, VmRevertArgs};

use crate::units::{parse_bytes, parse_name, parse_snapshot_name, parse_vdisk_size};
use clap::{Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use control_api::limits::check_domain;
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Sizes are bytes or numbers with K, M, G or T; units are binary (1K = 1024 bytes).

Exit codes:
  0    done
  1    failed
  2    wrong usage: an option, a name, a size
  3    not found: a vDisk, a snapshot, a file
  4    refused: attached, already there, or it needs an explicit option
  5    no backend answers on the control socket, or its store has stopped taking writes
  6    no space
  130  interrupted";

const CHECK_CODES: &str = "\
A store that is being served is checked by its backend, as fast as guests leave it time; when this command is interrupted, \
the check goes on there (firn store scrub status, firn store scrub stop). Without a backend the directory is read here, \
log and live counts too.

Exit codes:
  0    no damage
  1    damage was found
  2    it could not be checked: it is no store, it can't be read, another backend has it open
  130  interrupted";

const PROMOTE: &str = "\
The vDisk that it was cloned from becomes a clone of it, and can be deleted without these snapshots. No data is copied, \
and guests go on.";
const FLATTEN: &str = "\
What the clone shares with others is copied to it, beside guests; it goes on after a restart of the backend, and when \
this command is interrupted. Afterwards the snapshot that it was cloned from can be deleted.";
const SCRUB: &str = "\
A scrub reads and verifies everything that vDisks and snapshots hold while guests go on. It finds what rots where nobody reads, \
and repairs nothing. By itself the backend does it every 30 days (firn-vhost-backend --scrub-every).";

const REVERT: &str = "\
Nobody may be attached. Snapshots that are younger than the one gone back to stay. What the vDisk is now is \
kept with --keep, or lost with --discard; without either nothing is done.";

/// Firn: virtual disks on a compressing, log-structured store.
#[derive(Debug, Parser)]
#[command(name = "firn", version, propagate_version = true, after_help = EXIT_CODES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// For all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// The backend's runtime directory, where its control socket is; FIRN_RUN in the environment says the same
    #[arg(long, value_name = "DIR", env = "FIRN_RUN", default_value = control_api::DEFAULT_RUN)]
    #[arg(global = true, value_hint = ValueHint::DirPath)]
    pub run: PathBuf,
    /// Write results as JSON to standard output, and failures as JSON to standard error; a wrong command line is told as text
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The store: make one, look at it, check it for damage
    #[command(subcommand)]
    Store(StoreCommand),
    /// vDisks: create, look at, resize, delete, import, export, revert, clone, promote, flatten
    #[command(subcommand)]
    Vdisk(VdiskCommand),
    /// Snapshots of vDisks: take, look at, compare, hold, delete, by rules and by schedule too
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Compression rules: look at, change, try out
    #[command(subcommand)]
    Rules(RulesCommand),
    /// libvirt's domains: look at, revert, clone (needs firn-orchestrator)
    #[command(subcommand)]
    Vm(VmCommand),
    /// Attach a vDisk to a domain, running or not (needs firn-orchestrator)
    #[command(after_help = vm::ATTACH)]
    Attach(AttachArgs),
    /// Detach a vDisk from a domain, running or not (needs firn-orchestrator)
    Detach(DetachArgs),
    /// Have libvirt call Firn when it starts and stops domains
    #[command(subcommand)]
    Hooks(HooksCommand),
    /// Check this host, and say what to do about what is wrong
    Doctor(DoctorArgs),
    /// Write a completion script for a shell to standard output
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Write man pages into a directory
    Man {
        /// The directory; it is created if it does not exist
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
}

/// `firn store`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Make an empty store (needs no backend)
    Init(InitArgs),
    /// Space, compression, write buffer and warnings of the store that the backend serves
    Status,
    /// How data lies and what keeping it costs: fragmentation, space by layer and temperature, write amplification
    Stats(StoreStatsArgs),
    /// Look a store over for damage, served or not, and wait for the result; nothing is repaired
    #[command(after_help = CHECK_CODES)]
    Check(CheckArgs),
    /// Check what is stored in the background
    #[command(subcommand, after_help = SCRUB)]
    Scrub(ScrubCommand),
}

/// `firn store scrub`.
#[derive(Debug, Subcommand)]
pub enum ScrubCommand {
    /// Begin a scrub, or go on with one that was stopped
    Start(ScrubStartArgs),
    /// How far it is, and what was found
    Status,
    /// Stop a scrub; `start` goes on from there
    Stop,
}

/// `firn store scrub start`.
#[derive(Debug, clap::Args)]
pub struct ScrubStartArgs {
    /// Bytes a second that it reads at most, like 64M; 0: as many as guests leave [default: the backend's --scrub-rate]
    #[arg(long, value_parser = parse_bytes)]
    pub rate: Option<u64>,
    /// Decompress every extent too, and don't only verify its checksums
    #[arg(long)]
    pub decode: bool,
    /// Begin anew, also if there is a scrub that could go on
    #[arg(long)]
    pub again: bool,
}

/// `firn store init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The store's directory; it is created if it does not exist, and must be empty
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Size of a segment, the unit that space is reclaimed in: 256K to 64M [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub segment_size: Option<u64>,
}

/// `firn store stats`.
#[derive(Debug, clap::Args)]
pub struct StoreStatsArgs {
    /// Look at the block maps of these vDisks and their snapshots only; of all without any
    #[arg(value_name = "VDISK", value_parser = parse_name)]
    pub vdisks: Vec<String>,
    /// Show each layer too
    #[arg(long)]
    pub layers: bool,
}

/// `firn store check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The store's directory [default: the store of the backend that answers on the control socket]
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
    /// Decompress every extent too, and don't only verify its checksums
    #[arg(long)]
    pub decode: bool,
    /// Where a scrub is under way: begin anew, instead of waiting for its end
    #[arg(long)]
    pub again: bool,
}

/// `firn vdisk`.
#[derive(Debug, Subcommand)]
pub enum VdiskCommand {
    /// Create an empty vDisk
    Create(CreateArgs),
    /// List all vDisks
    #[command(visible_alias = "ls")]
    List,
    /// Show one vDisk
    Show(NameArg),
    /// Change a vDisk's size
    Resize(ResizeArgs),
    /// Delete a vDisk and everything in it; its snapshots have to be deleted first
    Delete(NameArg),
    /// Make a vDisk from a raw disk image
    Import(ImportArgs),
    /// Write a vDisk, or a snapshot of it, to a raw, sparse disk image
    Export(ExportArgs),
    /// Make a vDisk what it was at a snapshot, size and all
    #[command(after_help = REVERT)]
    Revert(RevertArgs),
    /// Make a new vDisk that begins as a snapshot of another one, and shares its data
    Clone(CloneArgs),
    /// Let a clone take over the snapshots that it has in common with the vDisk that it was cloned from
    #[command(after_help = PROMOTE)]
    Promote(NameArg),
    /// Make a clone independent of what it was cloned from, in the background
    #[command(after_help = FLATTEN)]
    Flatten(FlattenArgs),
    /// Print what libvirt's domain XML needs for a vDisk
    Xml(XmlArgs),
    /// Show a vDisk's counters, or those of all vDisks
    Stats(StatsArgs),
}

/// A vDisk's name, for commands that need nothing else.
#[derive(Debug, clap::Args)]
pub struct NameArg {
    /// The vDisk
    #[arg(value_parser = parse_name)]
    pub name: String,
}

/// `firn vdisk create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Its name: 1 to 64 letters, digits, '.', '_' or '-', not starting with '.' or '-'
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// Its size, like 10G: a multiple of 512 bytes from 4K to 64T
    #[arg(value_parser = parse_vdisk_size, allow_negative_numbers = true)]
    pub size: u64,
}

/// `firn vdisk resize`.
#[derive(Debug, clap::Args)]
pub struct ResizeArgs {
    /// The vDisk
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// Its new size, like 20G: a multiple of 512 bytes from 4K to 64T
    #[arg(value_parser = parse_vdisk_size, allow_negative_numbers = true)]
    pub size: u64,
    /// Allow the new size to be smaller: everything behind it is lost
    #[arg(long)]
    pub shrink: bool,
}

/// `firn vdisk import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// A raw disk image or a block device; '-' reads standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Name of the vDisk to make
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// Size of the vDisk. A file may be smaller, the rest reads as zeroes; a pipe must bring exactly so much,
    /// and needs this option, because it does not say how long it is [default: the file's size]
    #[arg(long, value_parser = parse_vdisk_size, allow_negative_numbers = true)]
    pub size: Option<u64>,
}

/// `firn vdisk export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The vDisk
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// The file to write; until it is complete it is called FILE.part
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Export this snapshot of the vDisk; a guest may be attached
    #[arg(long, value_name = "SNAPSHOT", value_parser = parse_snapshot_name)]
    pub snapshot: Option<String>,
    /// Replace FILE if it exists
    #[arg(long)]
    pub force: bool,
    /// Export although a guest is attached: blocks are read at different moments, as after a power cut or worse
    #[arg(long, conflicts_with = "snapshot")]
    pub live: bool,
}

/// `firn vdisk revert`.
#[derive(Debug, clap::Args)]
pub struct RevertArgs {
    /// The vDisk
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// The snapshot to go back to
    #[arg(value_parser = parse_snapshot_name)]
    pub snapshot: String,
    /// Keep what the vDisk is now as a snapshot of this name
    #[arg(long, value_name = "NAME", value_parser = parse_snapshot_name)]
    pub keep: Option<String>,
    /// Keep nothing: what was written since the vDisk's last snapshot is lost
    #[arg(long, conflicts_with = "keep")]
    pub discard: bool,
}

/// `firn vdisk flatten`.
#[derive(Debug, clap::Args)]
pub struct FlattenArgs {
    /// The clone
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// Don't wait for the end
    #[arg(long)]
    pub no_wait: bool,
}

/// `firn vdisk clone`.
#[derive(Debug, clap::Args)]
pub struct CloneArgs {
    /// The vDisk that the snapshot was taken of
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// The snapshot
    #[arg(value_parser = parse_snapshot_name)]
    pub snapshot: String,
    /// Name of the vDisk to make
    #[arg(value_parser = parse_name)]
    pub new: String,
}

/// `firn vdisk xml`.
#[derive(Debug, clap::Args)]
pub struct XmlArgs {
    /// The vDisk
    #[arg(value_parser = parse_name)]
    pub name: String,
    /// The guest's device name
    #[arg(long, value_name = "DEV", default_value = "vda", value_parser = parse_target)]
    pub target: String,
    /// Number of queues [default: QEMU's own choice, one per vCPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queues: Option<u16>,
    /// Boot from it first
    #[arg(long)]
    pub boot: bool,
    /// Print one element only, as `virsh attach-device` wants it
    #[arg(long, value_enum, conflicts_with = "domain")]
    pub only: Option<XmlPart>,
    /// For a whole domain.
    #[command(flatten)]
    pub whole: DomainArgs,
}

/// A whole domain that boots from the vDisk.
#[derive(Debug, clap::Args)]
pub struct DomainArgs {
    /// Print a whole domain of this name that boots from the vDisk, as `virsh define` takes it
    #[arg(long, value_name = "NAME", value_parser = parse_domain)]
    pub domain: Option<String>,
    /// Its memory
    #[arg(long, value_name = "SIZE", default_value = "2G", requires = "domain", value_parser = parse_bytes)]
    pub memory: u64,
    /// Its virtual processors; the vDisk has a queue for each, if --queues does not say otherwise
    #[arg(long, value_name = "N", default_value_t = 2, requires = "domain", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub vcpus: u16,
    /// Boot by UEFI and not by BIOS
    #[arg(long, requires = "domain")]
    pub uefi: bool,
    /// Run it without KVM
    #[arg(long, requires = "domain")]
    pub emulated: bool,
}

/// One of the elements that a domain needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum XmlPart {
    /// The `<disk>` element
    Disk,
    /// The `<memoryBacking>` element
    Memory,
}

/// `firn vdisk stats`.
#[derive(Debug, clap::Args)]
pub struct StatsArgs {
    /// The vDisk; all of them without it
    #[arg(value_parser = parse_name)]
    pub name: Option<String>,
}

/// `firn snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Take a snapshot of a vDisk, or of several at one instant; guests go on
    Create(CreateSnapshotArgs),
    /// List all snapshots, or those of a vDisk
    #[command(visible_alias = "ls")]
    List(ListSnapshotsArgs),
    /// Show one snapshot: what it is, what it costs, what deleting it would give back
    Show(ShowSnapshotArgs),
    /// Tell which ranges of a vDisk have changed between two snapshots of it, or since one
    Diff(DiffArgs),
    /// Delete snapshots of a vDisk, all that are named or none; their space is given back in the background
    Delete(DeleteSnapshotsArgs),
    /// Delete the snapshots of a vDisk that no rule keeps
    #[command(after_help = retention::PRUNE)]
    Prune(PruneArgs),
    /// Have snapshots taken, and deleted again, by a schedule
    #[command(after_help = retention::SCHEDULE)]
    Schedule(ScheduleArgs),
    /// List all schedules, and how they are doing
    Schedules,
    /// End a schedule; its snapshots stay
    Unschedule(UnscheduleArgs),
    /// Give a snapshot another name
    Rename(RenameSnapshotArgs),
    /// Keep a snapshot from being deleted until its holder releases it
    Hold(HoldArgs),
    /// End holds on a snapshot
    Release(ReleaseArgs),
}

/// `firn snapshot create`.
#[derive(Debug, clap::Args)]
pub struct CreateSnapshotArgs {
    /// Its name, which all of the vDisks give it: 1 to 64 letters, digits, '.', '_' or '-', not starting with '.' or '-'
    #[arg(value_parser = parse_snapshot_name)]
    pub name: String,
    /// The vDisks: all get the snapshot, of the same instant, or none does
    #[arg(value_name = "VDISK", required_unless_present = "domain", value_parser = parse_name)]
    pub vdisks: Vec<String>,
    /// Take it of all vDisks of this domain (needs firn-orchestrator)
    #[arg(long, value_name = "DOMAIN", conflicts_with = "vdisks", value_parser = parse_domain)]
    pub domain: Option<String>,
    /// Have the guest's agent freeze its filesystems for the instant: they need no repair then
    #[arg(long, requires = "domain")]
    pub quiesce: bool,
}

/// `firn snapshot list`.
#[derive(Debug, clap::Args)]
pub struct ListSnapshotsArgs {
    /// The vDisk; all of them without it
    #[arg(value_name = "VDISK", value_parser = parse_name)]
    pub vdisk: Option<String>,
}

/// A vDisk and one of its snapshots.
#[derive(Debug, clap::Args)]
pub struct SnapshotArg {
    /// The vDisk
    #[arg(value_name = "VDISK", value_parser = parse_name)]
    pub vdisk: String,
    /// The snapshot
    #[arg(value_parser = parse_snapshot_name)]
    pub name: String,
}

/// `firn snapshot show`.
#[derive(Debug, clap::Args)]
pub struct ShowSnapshotArgs {
    /// Which one.
    #[command(flatten)]
    pub which: SnapshotArg,
    /// Tell also of the presence map of its layer
    #[arg(long)]
    pub maps: bool,
}

/// `firn snapshot diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// Which one.
    #[command(flatten)]
    pub which: SnapshotArg,
    /// Another snapshot of the vDisk, older or younger; the present without it
    #[arg(value_parser = parse_snapshot_name)]
    pub other: Option<String>,
}

/// `firn snapshot delete`.
#[derive(Debug, clap::Args)]
pub struct DeleteSnapshotsArgs {
    /// The vDisk
    #[arg(value_name = "VDISK", value_parser = parse_name)]
    pub vdisk: String,
    /// The snapshots
    #[arg(value_name = "NAME", required_unless_present = "all", value_parser = parse_snapshot_name)]
    pub names: Vec<String>,
    /// Delete all snapshots of the vDisk, also those that schedules have taken
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    /// Delete also what clones or reverts branch off: the names go now, the space when one branch is left
    #[arg(long)]
    pub defer: bool,
}

/// `firn snapshot rename`.
#[derive(Debug, clap::Args)]
pub struct RenameSnapshotArgs {
    /// Which one.
    #[command(flatten)]
    pub which: SnapshotArg,
    /// Its new name
    #[arg(value_parser = parse_snapshot_name)]
    pub new: String,
}

/// `firn snapshot hold`.
#[derive(Debug, clap::Args)]
pub struct HoldArgs {
    /// Which one.
    #[command(flatten)]
    pub which: SnapshotArg,
    /// Who needs it: a name like a snapshot's
    #[arg(value_parser = parse_snapshot_name)]
    pub holder: String,
}

/// `firn snapshot release`.
#[derive(Debug, clap::Args)]
pub struct ReleaseArgs {
    /// Which one.
    #[command(flatten)]
    pub which: SnapshotArg,
    /// Who needs it no longer
    #[arg(value_name = "HOLDER", required = true, value_parser = parse_snapshot_name)]
    pub holders: Vec<String>,
}

/// `firn rules`.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Print the store's rules, or those that hold for a vDisk; with --json as `firn rules set` takes them
    Show(WhoseRules),
    /// Replace the store's rules, or give a vDisk rules of its own: the store's do not reach it from then on
    Set(SetRulesArgs),
    /// Tell what the rules make of a write
    Explain(ExplainArgs),
}

/// Whose rules.
#[derive(Debug, clap::Args)]
pub struct WhoseRules {
    /// A vDisk's rules: its own, which it has instead of the store's
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub vdisk: Option<String>,
}

/// `firn rules set`.
#[derive(Debug, clap::Args)]
pub struct SetRulesArgs {
    /// A JSON file; '-' reads standard input. `firn rules show --json` prints one to start from
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Whose rules.
    #[command(flatten)]
    pub whose: WhoseRules,
}

/// `firn rules explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// Size of the write, like 4K
    #[arg(long, value_parser = parse_bytes)]
    pub size: u64,
    /// It goes on where an earlier write ended
    #[arg(long)]
    pub sequential: bool,
    /// It does not start and end at multiples of 4K
    #[arg(long)]
    pub unaligned: bool,
    /// The vDisk that it goes to
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub vdisk: Option<String>,
    /// The vDisk's tag, instead of the one it has
    #[arg(long)]
    pub tag: Option<String>,
    /// Seconds for which the data was neither written nor read: more than 0 when it is being relocated
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub age: u64,
    /// The data looks incompressible
    #[arg(long)]
    pub incompressible: bool,
    /// Idle share of the host's CPU time, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub idle: u8,
}

/// `firn doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// The store's directory [default: the one that the backend serves]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub store: Option<PathBuf>,
    /// The user that QEMU runs as
    #[arg(long, value_name = "USER", default_value = "libvirt-qemu")]
    pub qemu_user: String,
}

/// A domain's name: libvirt makes file names of it.
fn parse_domain(text: &str) -> Result<String, String> {
    check_domain(text, None).map_err(|error| error.to_string())?;
    match text.contains('/') {
        true => Err("a domain's name has no slash".into()),
        false => Ok(text.to_owned()),
    }
}

/// A guest's device name: it goes into XML, and libvirt takes no other ones for virtio.
fn parse_target(text: &str) -> Result<String, String> {
    let letters = text.strip_prefix("vd").unwrap_or("");
    match !letters.is_empty()
        && letters.len() <= 3
        && letters.chars().all(|c| c.is_ascii_lowercase())
    {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is not a virtio disk's name: use vda, vdb, ..."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn good_lines() {
        for line in [
            "firn store init /srv/firn",
            "firn store init /srv/firn --segment-size 1M",
            "firn store status --json",
            "firn store check /srv/firn --decode",
            "firn --run /tmp/r vdisk create web 10G",
            "firn vdisk list --run /tmp/r",
            "firn vdisk ls",
            "firn vdisk resize web 20G --shrink",
            "firn vdisk import - web --size 1T",
            "firn vdisk export web out.raw --force --live",
            "firn vdisk export web out.raw --snapshot monday",
            "firn vdisk revert web monday --keep broken",
            "firn vdisk clone web monday test",
            "firn snapshot create control web db",
            "firn snapshot ls",
            "firn snapshot list web",
            "firn snapshot show web monday",
            "firn snapshot show web monday --maps",
            "firn snapshot diff web monday",
            "firn snapshot diff web monday tuesday --json",
            "firn snapshot delete web monday tuesday --defer",
            "firn snapshot delete web --all",
            "firn snapshot prune web --keep-last 7 --keep-daily 30 --dry-run",
            "firn snapshot schedule hourly web db --every 1h --keep-hourly 24 --keep-daily 7",
            "firn snapshot schedule s web --every 1s --prefix auto --keep-last 60",
            "firn snapshot schedules --json",
            "firn snapshot unschedule hourly",
            "firn snapshot rename web monday first",
            "firn snapshot hold web monday backup",
            "firn snapshot release web monday backup dr",
            "firn vdisk xml web --target vdb --queues 4 --boot --only disk",
            "firn vdisk stats",
            "firn rules show --vdisk web",
            "firn rules set rules.json",
            "firn rules explain --size 4k --sequential",
            "firn doctor --store /srv/firn",
            "firn completion bash",
            "firn man /tmp/man",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        for (line, says) in [
            ("firn vdisk create a/b 10G", "slash"),
            ("firn vdisk create .a 10G", "starts with"),
            ("firn vdisk create web 0", "can't be zero"),
            ("firn vdisk create web 1000", "too small"),
            ("firn vdisk create web 10001", "multiple of 512"),
            ("firn vdisk create web 65T", "largest is 64T"),
            ("firn vdisk create web -5G", "unexpected argument"),
            ("firn vdisk create web -5", "positive"),
            ("firn vdisk create web ten", "not a size"),
            ("firn vdisk create web", "<SIZE>"),
            ("firn vdisk create control 10G", "taken by the backend"),
            ("firn vdisk export web o --live --snapshot s", "--live"),
            ("firn vdisk revert web s --keep k --discard", "--discard"),
            ("firn vdisk clone web s control", "taken by the backend"),
            ("firn snapshot create monday", "<VDISK>"),
            ("firn snapshot create a/b web", "slash"),
            ("firn snapshot diff web", "<NAME>"),
            ("firn snapshot diff web a .b", "starts with"),
            ("firn snapshot delete web", "<NAME>"),
            ("firn snapshot delete web s --all", "--all"),
            ("firn snapshot prune web", "--keep-last"),
            ("firn snapshot prune web --keep-last -1", "unexpected"),
            ("firn snapshot prune web --keep-last=-1", "-1"),
            ("firn snapshot prune --keep-last 1", "<VDISK>"),
            ("firn snapshot schedule s web --every 1h", "--keep-last"),
            ("firn snapshot schedule s web --keep-last 1", "--every"),
            (
                "firn snapshot schedule s --every 1h --keep-last 1",
                "<VDISK>",
            ),
            (
                "firn snapshot schedule s web --every 0s --keep-last 1",
                "1s to 366d",
            ),
            ("firn snapshot unschedule", "<NAME>"),
            ("firn snapshot hold web s", "<HOLDER>"),
            ("firn vdisk xml web --queues 0", "1..=64"),
            ("firn vdisk xml web --queues 65", "1..=64"),
            ("firn vdisk xml web --target sda", "virtio disk"),
            ("firn rules explain", "--size"),
            ("firn vdisk frobnicate", "frobnicate"),
        ] {
            let error = parse(line)
                .err()
                .unwrap_or_else(|| panic!("{line} is taken"));
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(says), "{line}: {error}");
        }
    }
}
