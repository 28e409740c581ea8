//! The peer: QEMU's own vhost-user-blk server.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Server, under};

/// What an image is, and what lies before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The bytes themselves.
    Raw,
    /// qcow2.
    Qcow2,
    /// qcow2 behind QEMU's `compress` filter, which can write every cluster once only.
    Qcow2Compress,
}

/// A `qemu-storage-daemon` that serves images by io_uring.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// What the images are.
    pub format: Format,
    /// O_DIRECT instead of the page cache.
    pub direct: bool,
    /// Virtqueues of each.
    pub queues: u16,
    /// A program that runs it, as `strace` would; none if empty.
    pub tracer: Vec<String>,
    /// Images and the sockets to serve them at. Paths must not contain commas.
    pub disks: Vec<(PathBuf, PathBuf)>,
}

impl Qemu {
    /// Starts it.
    pub fn start(&self, log: &Path) -> io::Result<Server> {
        Server::start(&mut under(&self.tracer, self.command()), log)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("qemu-storage-daemon");
        let direct = if self.direct { "on" } else { "off" };
        let queues = self.queues;
        for (at, (image, socket)) in self.disks.iter().enumerate() {
            let (image, socket) = (image.display(), socket.display());
            command.args(["--blockdev", &format!(
                "driver=file,node-name=file{at},filename={image},cache.direct={direct},aio=io_uring,discard=unmap"
            )]);
            let format = match self.format {
                Format::Raw => "raw",
                Format::Qcow2 | Format::Qcow2Compress => "qcow2",
            };
            command.args([
                "--blockdev",
                &format!("driver={format},node-name=image{at},file=file{at}"),
            ]);
            let mut node = format!("image{at}");
            if self.format == Format::Qcow2Compress {
                let filter = format!("driver=compress,node-name=filter{at},file={node}");
                command.args(["--blockdev", &filter]);
                node = format!("filter{at}");
            }
            command.args(["--export", &format!(
                "type=vhost-user-blk,id=disk{at},node-name={node},addr.type=unix,addr.path={socket},writable=on,num-queues={queues}"
            )]);
        }
        command
    }
}

/// Makes an empty qcow2 image whose compressed clusters, where it gets any, are zstd's.
pub fn create_qcow2(image: &Path, bytes: u64) -> io::Result<()> {
    let mut command = Command::new("qemu-img");
    command
        .args(["create", "-q", "-f", "qcow2", "-o", "compression_type=zstd"])
        .arg(image)
        .arg(bytes.to_string());
    succeed(&mut command)
}

/// Makes a qcow2 image over another one.
pub fn create_overlay(image: &Path, backing: &Path) -> io::Result<()> {
    let mut command = Command::new("qemu-img");
    command
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(std::path::absolute(backing)?)
        .arg(image);
    succeed(&mut command)
}

/// Makes a qcow2 image of zstd-compressed clusters from a raw one.
pub fn convert_to_zstd(raw: &Path, image: &Path) -> io::Result<()> {
    let mut command = Command::new("qemu-img");
    command
        .args(["convert", "-q", "-c", "-f", "raw", "-O", "qcow2"])
        .args(["-o", "compression_type=zstd"])
        .arg(raw)
        .arg(image);
    succeed(&mut command)?;
    std::fs::File::open(image)?.sync_all()
}

fn succeed(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}", said.trim())))
}
