//! A raw disk image: a file, a block device, or a pipe.

use crate::failure::Failure;
use crate::units::{bytes, exact};
use control_api::limits::{SECTOR, check_size};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::SeekFrom;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Formats that are not raw, by their first bytes, with qemu-img's names for them.
const FORMATS: [(&[u8], &str); 5] = [
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
    (b"QED\0", "qed"),
];

/// Something to import.
#[derive(Debug)]
pub struct Source {
    /// What to call it in messages.
    pub path: PathBuf,
    input: Input,
    /// Bytes that it brings.
    pub len: u64,
    /// Size of the vDisk to make.
    pub size: u64,
}

#[derive(Debug)]
enum Input {
    /// Can be read anywhere, and knows its holes.
    File(File),
    /// Can only be read on.
    Pipe(File),
}

impl Source {
    /// Opens what the user named and works out the vDisk's size; `size` is what they asked for.
    pub fn open(path: &Path, size: Option<u64>) -> Result<Source, Failure> {
        let failed = |error: io::Error| Failure::file("can't open", path, error);
        let file = match path == Path::new("-") {
            true => File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?),
            // Not to hang on a FIFO without a writer before anybody can tell why.
            false => OpenOptions::new()
                .read(true)
                .custom_flags(nonblock())
                .open(path)
                .map_err(failed)?,
        };
        let kind = file.metadata().map_err(failed)?.file_type();
        if kind.is_dir() || kind.is_char_device() {
            let what = if kind.is_dir() {
                "a directory"
            } else {
                "a character device"
            };
            return Err(Failure::usage(format!(
                "{} is {what}, not a disk image",
                path.display()
            )));
        }
        if kind.is_file() || kind.is_block_device() {
            Source::of_file(path, file, size)
        } else {
            Source::of_pipe(path, file, size)
        }
    }

    fn of_file(path: &Path, file: File, size: Option<u64>) -> Result<Source, Failure> {
        let failed = |error: io::Error| Failure::file("can't read", path, error);
        // Also right for block devices, whose metadata say 0. Reads are positional: the offset does not matter.
        let len =
            rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|error| failed(error.into()))?;
        let mut magic = [0; 8];
        let known = read_some(&mut |buf, at| file.read_at(buf, at), &mut magic).map_err(failed)?;
        refuse_format(path, magic.get(..known).unwrap_or(&[]))?;
        let padded = len.div_ceil(SECTOR).saturating_mul(SECTOR);
        check_size(padded).map_err(|error| {
            Failure::usage(format!("{} can't become a vDisk: {error}", path.display()))
        })?;
        let size = size.unwrap_or(padded);
        if size < padded {
            let text = format!(
                "{} has {}, more than --size {}",
                path.display(),
                bytes(len),
                exact(size)
            );
            return Err(Failure::usage(text)
                .hint("leave --size out, or make it at least as large as the image"));
        }
        Ok(Source {
            path: path.into(),
            input: Input::File(file),
            len,
            size,
        })
    }

    fn of_pipe(path: &Path, file: File, size: Option<u64>) -> Result<Source, Failure> {
        let Some(size) = size else {
            let text = format!(
                "{} is a pipe and does not say how many bytes it will bring",
                path.display()
            );
            return Err(Failure::usage(text).hint("say it with --size, like --size 10G"));
        };
        let flags = rustix::fs::fcntl_getfl(&file)
            .map_err(|error| Failure::file("can't read", path, error))?;
        let blocking = rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::NONBLOCK);
        blocking.map_err(|error| Failure::file("can't read", path, error))?;
        Ok(Source {
            path: path.into(),
            input: Input::Pipe(file),
            len: size,
            size,
        })
    }

    /// Data bytes and ranges, where the source knows its holes.
    pub fn data_ranges(&self) -> Vec<(u64, u64)> {
        match &self.input {
            Input::File(file) => {
                let mut ranges = Vec::new();
                let mut at = 0;
                while let Some((from, to)) = next_data(file, at, self.len) {
                    ranges.push((from, to));
                    at = to;
                }
                ranges
            }
            Input::Pipe(_) => vec![(0, self.len)],
        }
    }

    /// The next piece of data at or after `offset`: from where to where. `None`: only holes follow.
    pub fn next_data(&self, offset: u64) -> Option<(u64, u64)> {
        match &self.input {
            Input::File(file) => next_data(file, offset, self.len),
            Input::Pipe(_) => (offset < self.len).then_some((offset, self.len)),
        }
    }

    /// Reads at `offset` if the source can be read anywhere; tells how much.
    pub fn sample(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.input {
            Input::File(file) => read_some(&mut |buf, at| file.read_at(buf, offset + at), buf),
            Input::Pipe(_) => Ok(0),
        }
    }

    /// Whether [`Source::sample`] works.
    pub fn can_be_sampled(&self) -> bool {
        matches!(self.input, Input::File(_))
    }

    /// Fills `buf`, whose place is `offset`; a pipe is read on.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure> {
        let failed = |error| Failure::file("can't read", &self.path, error);
        let wanted = buf.len();
        let got = match &self.input {
            Input::File(file) => read_some(&mut |buf, at| file.read_at(buf, offset + at), buf),
            Input::Pipe(pipe) => {
                if offset == 0 {
                    wait_for_writer(pipe).map_err(failed)?;
                }
                read_some(&mut |buf, _| (&mut &*pipe).read(buf), buf)
            }
        }
        .map_err(failed)?;
        if offset == 0 {
            refuse_format(&self.path, buf.get(..got.min(8)).unwrap_or(&[]))?;
        }
        if got == wanted {
            return Ok(());
        }
        let text = format!(
            "{} ended after {} bytes; {} were announced",
            self.path.display(),
            offset + got as u64,
            self.len
        );
        Err(Failure::failed(text)
            .hint("a truncated image would be a broken disk, so nothing was imported"))
    }

    /// Makes sure that a pipe has ended where it should.
    pub fn at_end(&self) -> Result<(), Failure> {
        let Input::Pipe(pipe) = &self.input else {
            return Ok(());
        };
        let more = read_some(&mut |buf, _| (&mut &*pipe).read(buf), &mut [0]);
        match more.map_err(|error| Failure::file("can't read", &self.path, error))? {
            0 => Ok(()),
            _ => Err(Failure::failed(format!(
                "{} brings more than the {} bytes of --size",
                self.path.display(),
                self.len
            ))
            .hint("say its true size with --size; nothing was imported")),
        }
    }
}

/// A named pipe that nobody has opened for writing yet reads as ended.
fn wait_for_writer(pipe: &File) -> io::Result<()> {
    let mut fds = [PollFd::new(pipe, PollFlags::IN)];
    match rustix::event::poll(&mut fds, None) {
        Err(errno) if errno != rustix::io::Errno::INTR => Err(errno.into()),
        _ => Ok(()),
    }
}

fn nonblock() -> i32 {
    rustix::fs::OFlags::NONBLOCK.bits() as i32
}

/// Where SEEK_DATA is not known (block devices, old filesystems), all is data.
fn next_data(file: &File, offset: u64, len: u64) -> Option<(u64, u64)> {
    if offset >= len {
        return None;
    }
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(from) if from >= len => None,
        Ok(from) => {
            let to = rustix::fs::seek(file, SeekFrom::Hole(from)).unwrap_or(len);
            // A file that is written to meanwhile must not make us stand still.
            Some((from, to.clamp(from + 1, len)))
        }
        Err(rustix::io::Errno::NXIO) => None,
        Err(_) => Some((offset, len)),
    }
}

/// Reads until `buf` is full or nothing more comes.
fn read_some(
    read: &mut dyn FnMut(&mut [u8], u64) -> io::Result<usize>,
    buf: &mut [u8],
) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read(rest, filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn refuse_format(path: &Path, start: &[u8]) -> Result<(), Failure> {
    let Some((_, format)) = FORMATS.iter().find(|(magic, _)| start.starts_with(magic)) else {
        return Ok(());
    };
    let hint = match path == Path::new("-") {
        true => format!("convert it first: qemu-img convert -p -f {format} -O raw IMAGE IMAGE.raw"),
        false => {
            let path = path.display();
            format!(
                "convert it first: qemu-img convert -p -f {format} -O raw {path} {path}.raw, then import {path}.raw"
            )
        }
    };
    Err(Failure::usage(format!(
        "{} is a {format} image; only raw ones can be imported",
        path.display()
    ))
    .hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(content: &[u8], len: u64) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file.as_file().set_len(len).unwrap();
        file
    }

    #[test]
    fn a_file_knows_its_size_and_holes() {
        let sparse = file(&[1; 8192], 64 << 20);
        let source = Source::open(sparse.path(), None).unwrap();
        assert_eq!((source.len, source.size), (64 << 20, 64 << 20));
        let data: u64 = source
            .data_ranges()
            .iter()
            .map(|(from, to)| to - from)
            .sum();
        assert!((8192..=64 << 10).contains(&data), "{data}");
        let empty = Source::open(file(&[], 1 << 20).path(), None).unwrap();
        assert_eq!(empty.data_ranges(), []);
    }

    #[test]
    fn an_odd_length_is_padded() {
        let source = Source::open(file(&[1; 5000], 5000).path(), None).unwrap();
        assert_eq!((source.len, source.size), (5000, 5120));
    }

    #[test]
    fn what_is_not_raw_is_refused_with_the_way_out() {
        let qcow2 = file(b"QFI\xfb\0\0\0\x03", 1 << 20);
        let failure = Source::open(qcow2.path(), None).unwrap_err();
        assert!(failure.message.contains("qcow2"), "{failure}");
        assert!(
            failure
                .hint
                .unwrap()
                .contains("qemu-img convert -p -f qcow2 -O raw")
        );
    }

    #[test]
    fn sizes_that_cannot_be() {
        let failure = |len, size| Source::open(file(&[], len).path(), size).unwrap_err();
        assert!(failure(0, None).message.contains("can't be zero"));
        assert!(failure(512, None).message.contains("too small"));
        assert!(
            failure(1 << 20, Some(4096))
                .message
                .contains("more than --size 4K")
        );
        let huge = tempfile::NamedTempFile::new().unwrap();
        // Filesystems end earlier than vDisks do: ext4 files have 16 TiB.
        if huge.as_file().set_len((64 << 40) + 512).is_ok() {
            assert!(
                Source::open(huge.path(), None)
                    .unwrap_err()
                    .message
                    .contains("largest is 64T")
            );
        }
    }

    #[test]
    fn what_is_no_image() {
        let none = Source::open(Path::new("/nowhere/at/all"), None).unwrap_err();
        assert_eq!(none.exit as u8, 3);
        assert!(none.message.contains("/nowhere/at/all"));
        assert!(
            Source::open(Path::new("/"), None)
                .unwrap_err()
                .message
                .contains("a directory")
        );
        assert!(
            Source::open(Path::new("/dev/zero"), None)
                .unwrap_err()
                .message
                .contains("character device")
        );
    }

    #[test]
    fn a_pipe_must_bring_exactly_what_was_announced() {
        let (reader, mut writer) = io::pipe().unwrap();
        let pipe = |size| {
            Source::of_pipe(
                Path::new("-"),
                File::from(std::os::fd::OwnedFd::from(reader.try_clone().unwrap())),
                size,
            )
        };
        assert!(pipe(None).unwrap_err().hint.unwrap().contains("--size"));
        let source = pipe(Some(8192)).unwrap();
        writer.write_all(&[1; 8193]).unwrap();
        drop(writer);
        let mut buf = [0; 4096];
        source.read(&mut buf, 0).unwrap();
        source.read(&mut buf, 4096).unwrap();
        assert!(source.at_end().unwrap_err().message.contains("brings more"));
        let short = source.read(&mut buf, 8192).unwrap_err();
        assert!(short.message.contains("ended after 8192 bytes"), "{short}");
    }
}
