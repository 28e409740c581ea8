//! `firn hooks`.

use crate::args::{HooksCommand, InstallHook};
use crate::failure::Failure;
use crate::hook::{self, Installed};
use crate::output::facts;
use crate::settings::Settings;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// How it stands.
#[derive(Serialize)]
struct State {
    /// The link, whether it is there or not.
    link: PathBuf,
    /// `installed`, `broken`, `foreign` or `none`.
    state: &'static str,
    /// What it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<PathBuf>,
    /// libvirt's daemon that was started before there was a hook, and may not call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    unaware: Option<String>,
}

impl State {
    fn of(hooks: &Path) -> State {
        let (state, program) = match hook::installed(hooks) {
            Installed::No => ("none", None),
            Installed::Yes(program) => ("installed", Some(program)),
            Installed::Broken(program) => ("broken", Some(program)),
            Installed::Foreign => ("foreign", None),
        };
        State {
            link: hook::link(hooks),
            state,
            unaware: program.as_ref().and_then(|_| hook::unaware(hooks)),
            program,
        }
    }
}

pub(super) fn run(settings: &Settings, command: &HooksCommand) -> Result<(), Failure> {
    match command {
        HooksCommand::Install(args) => install(settings, args),
        HooksCommand::Uninstall(place) => uninstall(settings, &place.hooks),
        HooksCommand::Status(place) => settings.show(&State::of(&place.hooks), text),
    }
}

fn install(settings: &Settings, args: &InstallHook) -> Result<(), Failure> {
    let hooks = &args.place.hooks;
    free_of_others(hooks)?;
    let program = match &args.program {
        Some(program) => std::path::absolute(program).unwrap_or_else(|_| program.clone()),
        None => hook::program().ok_or_else(|| {
            Failure::not_found(
                "firn-libvirt-hook is neither beside this program nor in /usr/lib/firn",
            )
            .hint("tell where it is: firn hooks install --program FILE")
        })?,
    };
    if !hook::is_program(&program) {
        let message = format!("{} is not a program that can be run", program.display());
        return Err(Failure::not_found(message));
    }
    if program
        .file_name()
        .is_none_or(|name| name != "firn-libvirt-hook")
    {
        let message = format!("{} is not called firn-libvirt-hook", program.display());
        return Err(Failure::usage(message));
    }
    hook::install(hooks, &program).map_err(|error| failed(hooks, &error))?;
    settings.show(&State::of(hooks), text)
}

fn uninstall(settings: &Settings, hooks: &Path) -> Result<(), Failure> {
    free_of_others(hooks)?;
    if hook::installed(hooks) != Installed::No {
        hook::uninstall(hooks).map_err(|error| failed(hooks, &error))?;
    }
    settings.show(&State::of(hooks), text)
}

fn free_of_others(hooks: &Path) -> Result<(), Failure> {
    match hook::installed(hooks) {
        Installed::Foreign => Err(Failure::refused(format!(
            "{} is there and not ours",
            hook::link(hooks).display()
        ))
        .hint("look at it, and move it away")),
        _ => Ok(()),
    }
}

fn failed(hooks: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::failed(format!("{}: {error}", hook::link(hooks).display()));
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => failure.hint("run as root"),
        _ => failure,
    }
}

fn text(state: &State) -> String {
    let program = state.program.as_ref().map(|program| program.display());
    let says = match (state.state, program) {
        ("installed", Some(program)) => format!("installed: {program}"),
        ("broken", Some(program)) => format!(
            "BROKEN: {program} is not there, or is no program, and no domain can be started; firn hooks install"
        ),
        ("foreign", _) => "not installed; somebody else's hook has its name".into(),
        _ => "not installed; firn hooks install".into(),
    };
    let mut lines = vec![("hook", says), ("link", state.link.display().to_string())];
    if let Some(daemon) = &state.unaware {
        let says = format!(
            "{daemon} was started before the hook was there: {}",
            hook::RESTART
        );
        lines.push(("next", says));
    }
    facts(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let state = State {
            link: "/etc/libvirt/hooks/qemu.d/firn".into(),
            state: "installed",
            program: Some("/usr/lib/firn/firn-libvirt-hook".into()),
            unaware: Some("libvirtd".into()),
        };
        assert_eq!(
            text(&state),
            "hook  installed: /usr/lib/firn/firn-libvirt-hook\n\
             link  /etc/libvirt/hooks/qemu.d/firn\n\
             next  libvirtd was started before the hook was there: systemctl restart libvirtd (running guests go on)\n"
        );
    }
}
