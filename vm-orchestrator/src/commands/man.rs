//! `firn man`: one man page for each command.

use crate::args::Args;
use crate::failure::Failure;
use crate::settings::Settings;
use clap::CommandFactory;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Written {
    pages: Vec<PathBuf>,
}

pub(super) fn run(settings: &Settings, dir: &Path) -> Result<(), Failure> {
    let pages =
        write(dir).map_err(|error| Failure::file("can't write man pages into", dir, error))?;
    settings.show(&Written { pages }, |written| {
        format!(
            "{} man pages are in {}; read one with: man -l {}\n",
            written.pages.len(),
            dir.display(),
            dir.join("firn.1").display()
        )
    })
}

fn write(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Args::command(), dir)?;
    let mut pages: Vec<_> = std::fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "1"))
        .collect();
    pages.sort();
    Ok(pages)
}

#[cfg(test)]
mod tests {
    #[test]
    fn pages_for_every_command() {
        let dir = tempfile::tempdir().unwrap();
        let pages = super::write(&dir.path().join("deep/man1")).unwrap();
        let names: Vec<_> = pages
            .iter()
            .filter_map(|page| page.file_name()?.to_str())
            .collect();
        for name in [
            "firn.1",
            "firn-store-init.1",
            "firn-store-check.1",
            "firn-vdisk-import.1",
            "firn-vdisk-revert.1",
            "firn-snapshot-create.1",
            "firn-snapshot-delete.1",
            "firn-rules-explain.1",
            "firn-doctor.1",
        ] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        let revert = dir.path().join("deep/man1/firn-vdisk-revert.1");
        let revert = std::fs::read_to_string(revert).unwrap();
        assert!(revert.contains("is lost"), "{revert}");
        let text = std::fs::read_to_string(dir.path().join("deep/man1/firn.1")).unwrap();
        assert!(
            text.contains("FIRN_RUN") && text.contains("no backend answers"),
            "{text}"
        );
    }
}
