//! A listening socket and its file.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::SocketOptions;

/// Bytes that the kernel's socket address takes, its terminating zero excepted.
const PATH_MAX: usize = 107;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;
const MODE: u32 = 0o660;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The kernel takes 107 bytes.
    #[error("the path of the socket {} is too long ({} bytes, at most {PATH_MAX}): use a shorter --run DIR or a shorter name for the vDisk", .0.display(), .0.as_os_str().len())]
    PathTooLong(PathBuf),
    /// Somebody else listens there.
    #[error("{} is taken: another process listens on it; stop that one, or use another --run DIR", .0.display())]
    Taken(PathBuf),
    /// Something else is there.
    #[error("{} exists and is not a socket: move it away, or use another --run DIR", .0.display())]
    NotASocket(PathBuf),
    /// It would be the control API's.
    #[error("a vDisk named {0} can't have a socket: that name is the control API's")]
    Reserved(String),
    /// The group couldn't be given the socket.
    #[error("can't give {} to group {group}: {source}", .path.display())]
    Group {
        /// The socket.
        path: PathBuf,
        /// The group's id.
        group: u32,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The operating system refused.
    #[error("can't open the socket {}: {source}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// A listening socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Listens on `RUN/NAME.sock`. A socket that a dead process has left is replaced.
    pub fn open(options: &SocketOptions, name: &str) -> Result<Self, SocketError> {
        let file = format!("{name}.sock");
        if file == control_api::CONTROL_SOCKET {
            return Err(SocketError::Reserved(name.to_owned()));
        }
        let path = options.run.join(file);
        if path.as_os_str().len() > PATH_MAX {
            return Err(SocketError::PathTooLong(path));
        }
        let io = |source: std::io::Error| SocketError::Io {
            path: path.clone(),
            source,
        };
        remove_stale(&path)?;
        let listener = bind(&path).map_err(io)?;
        let made = std::fs::symlink_metadata(&path).map_err(io)?;
        let socket = Self {
            listener,
            path: path.clone(),
            inode: made.ino(),
        };
        if let Some(group) = options.group {
            chown(&path, None, Some(group)).map_err(|source| SocketError::Group {
                path: path.clone(),
                group,
                source,
            })?;
        }
        // The umask may have taken more than we wanted.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(MODE)).map_err(io)?;
        Ok(socket)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a connection, if one waits.
    pub fn accept(&self) -> std::io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                Ok(Some(stream))
            }
            // The peer may have gone again.
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::ConnectionAborted
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Only what is ours: somebody may have replaced it.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let io = |source| SocketError::Io {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io(e)),
        Ok(meta) if !meta.file_type().is_socket() => Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(io)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Err(io(e)),
            // Also a full backlog: somebody is there.
            Ok(_) | Err(_) => Err(SocketError::Taken(path.to_owned())),
        },
    }
}

/// Binds with mode 0660 from the first instant: on Linux the mode of the unbound socket, less the umask, becomes that of
/// the file.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(MODE))?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&fd, BACKLOG)?;
    Ok(UnixListener::from(fd))
}
