//! One file for each command, and the table of them.

mod attach;
mod completion;
mod doctor;
mod export;
mod hooks;
mod import;
mod man;
mod rules_explain;
mod rules_set;
mod rules_show;
mod scrub_start;
mod scrub_status;
mod scrub_stop;
mod snapshot_create;
mod snapshot_delete;
mod snapshot_diff;
mod snapshot_domain;
mod snapshot_hold;
mod snapshot_list;
mod snapshot_prune;
mod snapshot_release;
mod snapshot_rename;
mod snapshot_schedule;
mod snapshot_schedules;
mod snapshot_show;
mod snapshot_unschedule;
mod store_check;
mod store_check_served;
mod store_init;
mod store_stats;
mod store_status;
mod vdisk_clone;
mod vdisk_create;
mod vdisk_delete;
mod vdisk_flatten;
mod vdisk_list;
mod vdisk_promote;
mod vdisk_resize;
mod vdisk_revert;
mod vdisk_show;
mod vdisk_stats;
mod vdisk_xml;
mod vm_clone;
mod vm_revert;
mod vm_status;

use crate::args::{
    Command, RulesCommand, ScrubCommand, SnapshotCommand, StoreCommand, VdiskCommand, VmCommand,
};
use crate::failure::Failure;
use crate::settings::Settings;

/// Runs a command.
pub async fn run(settings: &Settings, command: Command) -> Result<(), Failure> {
    match command {
        Command::Store(StoreCommand::Init(args)) => store_init::run(settings, &args),
        Command::Store(StoreCommand::Check(args)) => store_check::run(settings, &args).await,
        Command::Store(StoreCommand::Scrub(command)) => scrub(settings, command).await,
        Command::Store(StoreCommand::Status) => store_status::run(settings).await,
        Command::Store(StoreCommand::Stats(args)) => store_stats::run(settings, args).await,
        Command::Vdisk(VdiskCommand::Create(args)) => vdisk_create::run(settings, args).await,
        Command::Vdisk(VdiskCommand::List) => vdisk_list::run(settings).await,
        Command::Vdisk(VdiskCommand::Show(args)) => vdisk_show::run(settings, &args.name).await,
        Command::Vdisk(VdiskCommand::Resize(args)) => vdisk_resize::run(settings, &args).await,
        Command::Vdisk(VdiskCommand::Delete(args)) => vdisk_delete::run(settings, &args.name).await,
        Command::Vdisk(VdiskCommand::Import(args)) => import::run(settings, &args).await,
        Command::Vdisk(VdiskCommand::Export(args)) => export::run(settings, &args).await,
        Command::Vdisk(VdiskCommand::Xml(args)) => vdisk_xml::run(settings, &args).await,
        Command::Vdisk(VdiskCommand::Stats(args)) => vdisk_stats::run(settings, args.name).await,
        Command::Vdisk(VdiskCommand::Revert(args)) => vdisk_revert::run(settings, args).await,
        Command::Vdisk(VdiskCommand::Clone(args)) => vdisk_clone::run(settings, args).await,
        Command::Vdisk(VdiskCommand::Promote(args)) => {
            vdisk_promote::run(settings, &args.name).await
        }
        Command::Vdisk(VdiskCommand::Flatten(args)) => vdisk_flatten::run(settings, &args).await,
        Command::Snapshot(command) => snapshot(settings, command).await,
        Command::Rules(RulesCommand::Show(args)) => rules_show::run(settings, &args).await,
        Command::Rules(RulesCommand::Set(args)) => rules_set::run(settings, &args).await,
        Command::Rules(RulesCommand::Explain(args)) => rules_explain::run(settings, args).await,
        Command::Vm(VmCommand::Status) => vm_status::run(settings).await,
        Command::Vm(VmCommand::Revert(args)) => vm_revert::run(settings, args).await,
        Command::Vm(VmCommand::Clone(args)) => vm_clone::run(settings, args).await,
        Command::Attach(args) => attach::attach(settings, args).await,
        Command::Detach(args) => attach::detach(settings, args).await,
        Command::Hooks(command) => hooks::run(settings, &command),
        Command::Doctor(args) => doctor::run(settings, &args).await,
        Command::Completion { shell } => completion::run(shell),
        Command::Man { dir } => man::run(settings, &dir),
    }
}

async fn scrub(settings: &Settings, command: ScrubCommand) -> Result<(), Failure> {
    match command {
        ScrubCommand::Start(args) => scrub_start::run(settings, &args).await,
        ScrubCommand::Status => scrub_status::run(settings).await,
        ScrubCommand::Stop => scrub_stop::run(settings).await,
    }
}

async fn snapshot(settings: &Settings, command: SnapshotCommand) -> Result<(), Failure> {
    match command {
        SnapshotCommand::Create(args) => snapshot_create::run(settings, args).await,
        SnapshotCommand::List(args) => snapshot_list::run(settings, args.vdisk.as_deref()).await,
        SnapshotCommand::Show(args) => snapshot_show::run(settings, &args).await,
        SnapshotCommand::Diff(args) => snapshot_diff::run(settings, args).await,
        SnapshotCommand::Delete(args) => snapshot_delete::run(settings, &args).await,
        SnapshotCommand::Prune(args) => snapshot_prune::run(settings, &args).await,
        SnapshotCommand::Schedule(args) => snapshot_schedule::run(settings, args).await,
        SnapshotCommand::Schedules => snapshot_schedules::run(settings).await,
        SnapshotCommand::Unschedule(args) => snapshot_unschedule::run(settings, &args.name).await,
        SnapshotCommand::Rename(args) => snapshot_rename::run(settings, args).await,
        SnapshotCommand::Hold(args) => snapshot_hold::run(settings, &args).await,
        SnapshotCommand::Release(args) => snapshot_release::run(settings, &args).await,
    }
}
