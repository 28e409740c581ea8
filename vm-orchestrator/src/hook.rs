//! The hook that libvirt calls: where it is, and whether libvirt knows of it.
//!
//! It is a link in `qemu.d`, beside other people's. libvirt looks for hooks when it starts: one that had none then calls none that are added later.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The link's name in `qemu.d`.
const LINK: &str = "firn";
/// The program's name.
const PROGRAM: &str = "firn-libvirt-hook";
/// Where packages put it.
const PACKAGED: &str = "/usr/lib/firn";
/// libvirt's daemons that call hooks of domains.
const DAEMONS: [&str; 2] = ["libvirtd", "virtqemud"];

/// What makes libvirt look for hooks again.
pub(crate) const RESTART: &str = "systemctl restart libvirtd (running guests go on)";

/// What is in libvirt's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Installed {
    /// Nothing of ours.
    No,
    /// A link to a program that can be run.
    Yes(PathBuf),
    /// A link to something that can't be.
    Broken(PathBuf),
    /// Something else has the link's name.
    Foreign,
}

/// The link in libvirt's directory of hooks.
pub(crate) fn link(hooks: &Path) -> PathBuf {
    hooks.join("qemu.d").join(LINK)
}

/// What is there.
pub(crate) fn installed(hooks: &Path) -> Installed {
    let link = link(hooks);
    if fs::symlink_metadata(&link).is_err() {
        return Installed::No;
    }
    match fs::read_link(&link) {
        Ok(program) if program.file_name().is_some_and(|name| name == PROGRAM) => {
            match is_program(&program) {
                true => Installed::Yes(program),
                false => Installed::Broken(program),
            }
        }
        _ => Installed::Foreign,
    }
}

/// The program that is to be linked: beside this one, or where packages put it.
pub(crate) fn program() -> Option<PathBuf> {
    let here = std::env::current_exe().ok();
    let here = here.as_deref().and_then(Path::parent);
    let places = here.into_iter().chain([Path::new(PACKAGED)]);
    let mut programs = places.map(|dir| dir.join(PROGRAM));
    programs.find(|program| is_program(program))
}

/// Whether this is a program that can be run.
pub(crate) fn is_program(path: &Path) -> bool {
    let meta = fs::metadata(path);
    meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Links the program, in place of what was linked before.
pub(crate) fn install(hooks: &Path, program: &Path) -> io::Result<()> {
    let link = link(hooks);
    if let Some(dir) = link.parent() {
        fs::create_dir_all(dir)?;
    }
    // libvirt never finds it missing. Names with a dot in front are skipped by it.
    let new = link.with_file_name(format!(".{LINK}.{}", std::process::id()));
    symlink(program, &new)?;
    fs::rename(&new, &link).inspect_err(|_| drop(fs::remove_file(&new)))
}

/// Removes the link.
pub(crate) fn uninstall(hooks: &Path) -> io::Result<()> {
    fs::remove_file(link(hooks))
}

/// A daemon of libvirt's that runs and was started before there was a hook.
pub(crate) fn unaware(hooks: &Path) -> Option<String> {
    let link = fs::symlink_metadata(link(hooks)).ok()?;
    let linked = u64::try_from(link.ctime()).ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
    let boot: u64 = boot.trim().parse().ok()?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let name = DAEMONS.into_iter().find(|daemon| name.trim() == *daemon)?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let started = boot + started(&stat)? / rustix::param::clock_ticks_per_second();
        (started < linked).then(|| name.to_owned())
    })
}

/// When a process was started, in ticks after boot: field 22 of /proc/PID/stat, the 20th behind the name in parentheses.
fn started(stat: &str) -> Option<u64> {
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = dir.path().join("hooks");
        assert_eq!(installed(&hooks), Installed::No);
        let program = dir.path().join(PROGRAM);
        fs::write(&program, "").unwrap();
        install(&hooks, &program).unwrap();
        assert_eq!(installed(&hooks), Installed::Broken(program.clone()));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        install(&hooks, &program).unwrap();
        assert_eq!(installed(&hooks), Installed::Yes(program));
        assert_eq!(fs::read_dir(hooks.join("qemu.d")).unwrap().count(), 1);
        uninstall(&hooks).unwrap();
        assert_eq!(installed(&hooks), Installed::No);
        fs::write(link(&hooks), "#!/bin/sh").unwrap();
        assert_eq!(installed(&hooks), Installed::Foreign);
    }

    #[test]
    fn when_a_process_began() {
        let stat = "812 (a) b) S 1 812 812 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10";
        assert_eq!(started(stat), Some(4711));
        assert_eq!(started("812 (x) S 1"), None);
    }
}
