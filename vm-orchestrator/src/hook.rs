//! The hook that libvirt calls: a copy of `firn-libvirt-hook` in its directory.
//!
//! A copy, since AppArmor's profile of libvirtd (Debian's, enforced) lets it run what is in that directory and little else: a link to
//! another place would fail, and with it every start of every domain.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What makes libvirt look for hooks again: a daemon that found none when it started calls none.
pub(crate) const RELOAD: &str = "systemctl reload libvirtd (or virtqemud): libvirt looks for hooks when it starts and when it is reloaded";
/// The program's name, and that of its copy.
const PROGRAM: &str = "firn-libvirt-hook";
/// Where packages put it.
const PACKAGED: &str = "/usr/lib/firn";

/// What is in libvirt's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Installed {
    /// Nothing of ours.
    No,
    /// The program.
    Yes,
    /// Another release of it than the one that is beside this program.
    Other,
    /// It can't be run: libvirt passes it over.
    NotExecutable,
}

/// The copy in libvirt's directory of hooks.
pub(crate) fn copy(hooks: &Path) -> PathBuf {
    hooks.join("qemu.d").join(PROGRAM)
}

/// What is there. `program` is what it is compared with, where that is to be had.
pub(crate) fn installed(hooks: &Path, program: Option<&Path>) -> Installed {
    let copy = copy(hooks);
    if !copy.exists() {
        return Installed::No;
    }
    if !is_program(&copy) {
        return Installed::NotExecutable;
    }
    let same = program.is_none_or(|program| match (fs::read(program), fs::read(&copy)) {
        (Ok(program), Ok(copy)) => program == copy,
        _ => true,
    });
    if same {
        Installed::Yes
    } else {
        Installed::Other
    }
}

/// The program that is to be copied: beside this one, or where packages put it.
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

/// Copies the program, in place of what was copied before. libvirt finds one or the other at any moment.
pub(crate) fn install(hooks: &Path, program: &Path) -> io::Result<()> {
    let copy = copy(hooks);
    if let Some(dir) = copy.parent() {
        fs::create_dir_all(dir)?;
    }
    // Not in qemu.d: libvirt would call it.
    let new = hooks.join(format!(".{PROGRAM}.{}", std::process::id()));
    let copied = fs::copy(program, &new)
        .and_then(|_| fs::set_permissions(&new, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, &copy));
    copied.inspect_err(|_| drop(fs::remove_file(&new)))
}

/// Removes the copy.
pub(crate) fn uninstall(hooks: &Path) -> io::Result<()> {
    fs::remove_file(copy(hooks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = dir.path().join("hooks");
        let program = dir.path().join(PROGRAM);
        let state = || installed(&hooks, Some(&program));
        assert_eq!(state(), Installed::No);
        fs::write(&program, "one").unwrap();
        assert!(!is_program(&program));
        fs::create_dir(&hooks).unwrap();
        install(&hooks, &program).unwrap();
        assert_eq!(state(), Installed::Yes);
        fs::write(&program, "two").unwrap();
        assert_eq!(state(), Installed::Other);
        assert_eq!(installed(&hooks, None), Installed::Yes);
        install(&hooks, &program).unwrap();
        assert_eq!(state(), Installed::Yes);
        let mode = fs::Permissions::from_mode(0o644);
        fs::set_permissions(copy(&hooks), mode).unwrap();
        assert_eq!(state(), Installed::NotExecutable);
        uninstall(&hooks).unwrap();
        assert_eq!(state(), Installed::No);
        let left = fs::read_dir(&hooks).unwrap().count();
        assert_eq!(left, 1, "qemu.d alone");
    }
}
