//! The peer: QEMU's own vhost-user-blk server.

use std::io;
use std::path::Path;
use std::process::Command;

use super::Server;

/// Serves a raw image with O_DIRECT (`direct`) or through the page cache, by io_uring either way.
/// Paths must not contain commas.
pub fn qemu_storage_daemon(
    image: &Path,
    socket: &Path,
    queues: u16,
    direct: bool,
    log: &Path,
) -> io::Result<Server> {
    let direct = if direct { "on" } else { "off" };
    let mut command = Command::new("qemu-storage-daemon");
    command.arg("--blockdev").arg(format!(
        "driver=file,node-name=file,filename={},cache.direct={direct},aio=io_uring,discard=unmap",
        image.display()
    ));
    command.args(["--blockdev", "driver=raw,node-name=disk,file=file"]);
    command.arg("--export").arg(format!(
        "type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path={},writable=on,num-queues={queues}",
        socket.display()
    ));
    Server::start(&mut command, log)
}
