//! `firn hooks`.

use clap::{Subcommand, ValueHint};
use std::path::PathBuf;

pub(super) const HOOKS: &str = "\
With the hook a domain starts as soon as the backend serves its vDisks, and not before; one that can't start says why instead of \
hanging; and vDisks remember who used them last (firn vdisk show). Domains without vDisks, and other people's hooks, are left alone. After an upgrade of Firn: once more.";

/// `firn hooks`.
#[derive(Debug, Subcommand)]
pub enum HooksCommand {
    /// Have libvirt call Firn when it starts and stops domains
    #[command(after_help = HOOKS)]
    Install(InstallHook),
    /// Have libvirt not do that any more
    Uninstall(WhereHooks),
    /// Tell whether libvirt does
    Status(WhereHooks),
}

/// Where libvirt looks for hooks.
#[derive(Debug, clap::Args)]
pub struct WhereHooks {
    /// libvirt's directory of hooks
    #[arg(long, value_name = "DIR", default_value = "/etc/libvirt/hooks", value_hint = ValueHint::DirPath)]
    pub hooks: PathBuf,
}

/// `firn hooks install`.
#[derive(Debug, clap::Args)]
pub struct InstallHook {
    /// Where.
    #[command(flatten)]
    pub place: WhereHooks,
    /// The hook's program [default: firn-libvirt-hook beside this one, or in /usr/lib/firn]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub program: Option<PathBuf>,
}
