//! Notes from one call to the next: that a domain is being migrated here.
//!
//! libvirt says `migrate` first and then `prepare`, which looks like any other start's. A note is an empty file, named by the domain's UUID, that
//! the first call leaves and the second one takes away. Where it can't be left the migration is refused, as the start of a domain that runs is.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// Where they are. Not in a backend's directory: two hosts' libvirts may share that one.
pub const DIR: &str = "/run/firn-libvirt-hook";
/// How long a note counts. libvirt prepares at once, or, if the migration has failed before that, never.
const FRESH: Duration = Duration::from_secs(60);

/// Leaves a note.
pub fn leave(dir: &Path, domain: Uuid) {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    let left = made.and_then(|()| fs::write(file(dir, domain), ""));
    if let Err(error) = left {
        eprintln!("firn: a note can't be left in {}: {error}", dir.display());
    }
}

/// Whether there is one; it is gone then.
pub fn take(dir: &Path, domain: Uuid) -> bool {
    let file = file(dir, domain);
    let Ok(found) = fs::symlink_metadata(&file) else {
        return false;
    };
    // A clock that was set back meanwhile is no reason to refuse.
    let age = found
        .modified()
        .map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
    let counts = found.is_file() && age.is_ok_and(|age| age < FRESH);
    fs::remove_file(&file).is_ok() && counts
}

fn file(dir: &Path, domain: Uuid) -> PathBuf {
    dir.join(domain.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_once_and_not_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("notes");
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!(!take(&dir, one));
        leave(&dir, one);
        assert!(!take(&dir, other));
        assert!(take(&dir, one));
        assert!(!take(&dir, one));
        leave(&dir, one);
        let old = SystemTime::now() - FRESH;
        let note = fs::File::options().append(true).open(file(&dir, one));
        note.unwrap().set_modified(old).unwrap();
        assert!(!take(&dir, one));
        assert!(!file(&dir, one).exists());
    }
}
