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
    /// The hook, whether it is there or not.
    hook: PathBuf,
    /// `installed`, `other-release`, `not-executable` or `none`.
    state: &'static str,
    /// What to do next, where there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'static str>,
}

impl State {
    fn of(hooks: &Path, next: Option<&'static str>) -> State {
        const INSTALL: Option<&str> = Some("firn hooks install");
        let (state, next) = match hook::installed(hooks, hook::program().as_deref()) {
            Installed::No => ("none", next),
            Installed::Yes => ("installed", next),
            Installed::Other => ("other-release", next.or(INSTALL)),
            Installed::NotExecutable => ("not-executable", INSTALL),
        };
        State {
            hook: hook::copy(hooks),
            state,
            next,
        }
    }
}

pub(super) fn run(settings: &Settings, command: &HooksCommand) -> Result<(), Failure> {
    match command {
        HooksCommand::Install(args) => install(settings, args),
        HooksCommand::Uninstall(place) => uninstall(settings, &place.hooks),
        HooksCommand::Status(place) => settings.show(&State::of(&place.hooks, None), text),
    }
}

fn install(settings: &Settings, args: &InstallHook) -> Result<(), Failure> {
    let hooks = &args.place.hooks;
    let program = match &args.program {
        Some(program) => program.clone(),
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
    hook::install(hooks, &program).map_err(|error| failed(hooks, &error))?;
    settings.show(&State::of(hooks, Some(hook::RELOAD)), text)
}

fn uninstall(settings: &Settings, hooks: &Path) -> Result<(), Failure> {
    match hook::uninstall(hooks) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(hooks, &error)),
        _ => settings.show(&State::of(hooks, None), text),
    }
}

fn failed(hooks: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::failed(format!("{}: {error}", hook::copy(hooks).display()));
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => failure.hint("run as root"),
        _ => failure,
    }
}

fn text(state: &State) -> String {
    let says = match state.state {
        "installed" => "installed",
        "other-release" => "installed, of another release than this firn",
        "not-executable" => "can't be run: libvirt passes it over",
        _ => "not installed",
    };
    let mut lines = vec![
        ("hook", says.into()),
        ("file", state.hook.display().to_string()),
    ];
    if let Some(next) = state.next {
        lines.push(("next", next.into()));
    }
    facts(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let state = State {
            hook: "/etc/libvirt/hooks/qemu.d/firn-libvirt-hook".into(),
            state: "other-release",
            next: Some("firn hooks install"),
        };
        assert_eq!(
            text(&state),
            "hook  installed, of another release than this firn\n\
             file  /etc/libvirt/hooks/qemu.d/firn-libvirt-hook\n\
             next  firn hooks install\n"
        );
    }
}
