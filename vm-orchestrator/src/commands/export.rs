//! `firn vdisk export`: a vDisk, or a snapshot of it, becomes a raw, sparse image.
//!
//! # Interruption
//! The image grows as FILE.part, is made durable and then renamed: FILE is whole or it is not there. What is
//! interrupted removes its FILE.part; one that a killed process left is overwritten by the next export.

use crate::args::ExportArgs;
use crate::failure::Failure;
use crate::import::{BLOCK, is_zero};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::units::{bytes, duration};
use control_api::types::{Allocated, ByteRange, VDisk};
use control_api::{Bytes, Client, ClientError, DATA_MAX};
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What was done.
#[derive(Serialize)]
struct Exported {
    vdisk: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    file: PathBuf,
    size: u64,
    /// Bytes that were written; the rest are holes.
    data_bytes: u64,
    seconds: f64,
}

pub(super) async fn run(settings: &Settings, args: &ExportArgs) -> Result<(), Failure> {
    check_destination(args)?;
    let mut client = settings.connect().await?;
    let source = Source::find(&mut client, args).await?;
    let part = Part::create(&args.file, source.size)?;
    let title = format!("export {}", args.name);
    let mut progress = Progress::new(settings.progress, title, source.size);
    let data_bytes = receive(&mut client, &source, &part, &mut progress).await?;
    if args.snapshot.is_none() {
        // Somebody may have attached it meanwhile.
        check_quiet(&client.vdisk(&args.name).await?, args)?;
    }
    part.finish(&args.file, args.force)?;
    let seconds = progress.seconds();
    drop(progress);
    let exported = Exported {
        vdisk: args.name.clone(),
        snapshot: args.snapshot.clone(),
        file: args.file.clone(),
        size: source.size,
        data_bytes,
        seconds,
    };
    settings.show(&exported, text)
}

/// What is exported.
struct Source<'a> {
    vdisk: &'a str,
    snapshot: Option<&'a str>,
    size: u64,
}

impl<'a> Source<'a> {
    /// A snapshot, or else a vDisk that nobody may be changing.
    async fn find(client: &mut Client, args: &'a ExportArgs) -> Result<Source<'a>, Failure> {
        let size = match &args.snapshot {
            Some(name) => client.snapshot(&args.name, name).await?.size,
            None => {
                let vdisk = client.vdisk(&args.name).await?;
                check_quiet(&vdisk, args)?;
                vdisk.size
            }
        };
        Ok(Source {
            vdisk: &args.name,
            snapshot: args.snapshot.as_deref(),
            size,
        })
    }

    async fn allocated(&self, client: &mut Client, offset: u64) -> Result<Allocated, ClientError> {
        match self.snapshot {
            Some(name) => client.snapshot_allocated(self.vdisk, name, offset).await,
            None => client.allocated(self.vdisk, offset).await,
        }
    }

    async fn read(
        &self,
        client: &mut Client,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, ClientError> {
        match self.snapshot {
            Some(name) => client.read_snapshot(self.vdisk, name, offset, length).await,
            None => client.read(self.vdisk, offset, length).await,
        }
    }
}

/// Before anything is read: a rename at the end would be a late moment to refuse.
fn check_destination(args: &ExportArgs) -> Result<(), Failure> {
    let path = args.file.display();
    match std::fs::symlink_metadata(&args.file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::file("can't write", &args.file, error)),
        // Replacing a device node or a link by a file is never what was meant.
        Ok(meta) if !meta.is_file() => Err(Failure::refused(format!(
            "{path} exists and is not a regular file"
        ))
        .hint("export to a new file, and copy it from there")),
        Ok(_) if !args.force => Err(Failure::refused(format!("{path} exists"))
            .hint("replace it with --force, or choose another name")),
        Ok(_) => Ok(()),
    }
}

fn check_quiet(vdisk: &VDisk, args: &ExportArgs) -> Result<(), Failure> {
    match vdisk.attached {
        Some(by) if !args.live => Err(Failure::refused(format!(
            "vDisk {} is attached by process {}: its blocks would be of different moments",
            vdisk.name, by.pid
        ))
        .hint("stop its guest first, export a snapshot of it with --snapshot NAME, or export all the same with --live")),
        _ => Ok(()),
    }
}

async fn receive(
    client: &mut Client,
    source: &Source<'_>,
    part: &Part,
    progress: &mut Progress,
) -> Result<u64, Failure> {
    let mut next = Some(0);
    let mut written = 0;
    while let Some(offset) = next {
        let allocated = source.allocated(client, offset).await?;
        for range in allocated.ranges {
            written += copy(client, source, range, part, progress).await?;
        }
        progress.at(allocated.next.unwrap_or(source.size));
        next = allocated.next;
    }
    Ok(written)
}

async fn copy(
    client: &mut Client,
    source: &Source<'_>,
    range: ByteRange,
    part: &Part,
    progress: &mut Progress,
) -> Result<u64, Failure> {
    let mut written = 0;
    // An attached vDisk may have grown since we made the file.
    let end = (range.offset + range.length).min(source.size);
    let mut at = range.offset;
    while at < end {
        let length = DATA_MAX.min(end - at);
        let data = source.read(client, at, length).await?;
        for (number, block) in data.chunks(BLOCK).enumerate() {
            if !is_zero(block) {
                part.write(at + (number * BLOCK) as u64, block)?;
                written += block.len() as u64;
            }
        }
        at += length;
        progress.at(at);
    }
    Ok(written)
}

/// FILE.part: removed when dropped unfinished.
struct Part {
    path: PathBuf,
    file: File,
    finished: bool,
}

impl Part {
    fn create(target: &Path, size: u64) -> Result<Part, Failure> {
        let mut name = target.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let failed = |error: std::io::Error| Failure::file("can't write", &path, error);
        // Not through a link that somebody else laid there.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(flags)
            .open(&path);
        let file = file.map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Failure::refused(format!(
                "{} exists and is not a regular file",
                path.display()
            )));
        }
        // Locked before it is emptied: it may be another export's that is under way.
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Failure::refused(format!(
                    "another export is writing {}",
                    path.display()
                )));
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        let part = Part {
            path: path.clone(),
            file,
            finished: false,
        };
        part.file
            .set_len(0)
            .and_then(|()| part.file.set_len(size))
            .map_err(|error| {
                failed(error).hint(format!("its filesystem must take files of {}", bytes(size)))
            })?;
        Ok(part)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        self.file
            .write_all_at(data, offset)
            .map_err(|error| Failure::file("can't write", &self.path, error))
    }

    fn finish(mut self, target: &Path, force: bool) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::file("can't write", target, error);
        self.file.sync_all().map_err(failed)?;
        let renamed = match force {
            true => std::fs::rename(&self.path, target),
            false => match rustix::fs::renameat_with(
                CWD,
                &self.path,
                CWD,
                target,
                RenameFlags::NOREPLACE,
            ) {
                // Some network filesystems do not know the flag; we have looked at the start.
                Err(rustix::io::Errno::INVAL) => std::fs::rename(&self.path, target),
                other => other.map_err(Into::into),
            },
        };
        match renamed {
            Ok(()) => self.finished = true,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Failure::refused(format!(
                    "{} has come to exist meanwhile",
                    target.display()
                )));
            }
            Err(error) => return Err(failed(error)),
        }
        // The name, too, shall survive a power cut.
        let dir = target
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn text(exported: &Exported) -> String {
    let snapshot = exported.snapshot.as_ref();
    let of = snapshot.map_or(String::new(), |name| format!("snapshot {name} of "));
    format!(
        "{}: {} of {of}vDisk {}, {} of it data, in {}\n",
        exported.file.display(),
        bytes(exported.size),
        exported.vdisk,
        bytes(exported.data_bytes),
        duration(exported.seconds)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(file: PathBuf, force: bool) -> ExportArgs {
        ExportArgs {
            name: "web".into(),
            file,
            snapshot: None,
            force,
            live: false,
        }
    }

    #[test]
    fn nothing_is_overwritten_unasked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out.raw");
        check_destination(&args(file.clone(), false)).unwrap();
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(
            check_destination(&args(file.clone(), false))
                .unwrap_err()
                .exit as u8,
            4
        );
        check_destination(&args(file.clone(), true)).unwrap();
        assert!(
            check_destination(&args("/dev/null".into(), true))
                .unwrap_err()
                .message
                .contains("not a regular file")
        );
        // Also when it appears between the check and the end.
        let part = Part::create(&file, 4096).unwrap();
        assert!(
            part.finish(&file, false)
                .unwrap_err()
                .message
                .contains("meanwhile")
        );
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
        let left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["out.raw"]);
    }

    #[test]
    fn an_unfinished_export_leaves_nothing_and_two_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out.raw");
        let part = Part::create(&file, 1 << 20).unwrap();
        part.write(4096, &[1; 4096]).unwrap();
        assert!(
            Part::create(&file, 1 << 20)
                .err()
                .unwrap()
                .message
                .contains("another export")
        );
        drop(part);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        // What a killed one left is no obstacle, and nothing of it shines through.
        std::fs::write(dir.path().join("out.raw.part"), vec![9; 1 << 20]).unwrap();
        let part = Part::create(&file, 8192).unwrap();
        part.write(0, &[1; 4096]).unwrap();
        part.finish(&file, false).unwrap();
        let content = std::fs::read(&file).unwrap();
        assert!(
            content.len() == 8192 && content[..4096] == [1; 4096] && content[4096..] == [0; 4096]
        );
    }

    #[test]
    fn an_attached_vdisk_needs_live() {
        let attached = crate::commands::vdisk_list::tests::vdisk("web", 4096, true);
        let mut args = args("x".into(), false);
        assert_eq!(check_quiet(&attached, &args).unwrap_err().exit as u8, 4);
        args.live = true;
        check_quiet(&attached, &args).unwrap();
    }
}
