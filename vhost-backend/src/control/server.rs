//! The socket, the thread behind it and its end.

use super::target::ControlTarget;
use super::{peer, routes};
use crate::systemd;
use axum::Router;
use control_api::{CONTROL_SOCKET, control_socket};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustix::fs::{FlockOperation, Mode};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

/// Connections served at once; others wait. Bounds the memory that peers can make us hold, together with
/// the limit on bodies.
const CONNECTIONS_MAX: usize = 32;
/// Bytes that the kernel's socket address takes, its terminating zero excepted.
const SOCKET_PATH_MAX: usize = 107;
/// How long a stop waits for requests that are inside the store.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Why the control API could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another backend serves in this runtime directory.
    #[error("another backend holds {}: stop it, or give this one a runtime directory of its own (--run DIR)", .0.display())]
    Taken(PathBuf),
    /// The kernel takes 107 bytes.
    #[error("the path of the socket {} is too long ({} bytes, at most {SOCKET_PATH_MAX}): use a shorter --run DIR", .0.display(), .0.as_os_str().len())]
    PathTooLong(PathBuf),
    /// Something that is not a socket is there.
    #[error("{} exists and is not a socket: move it away, or use another --run DIR", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("can't open the control socket {}: {source}", .path.display())]
    Io {
        /// The socket or its lock file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A running control API. Dropping it stops it: the socket goes, requests under way finish or are cut off
/// after five seconds, unfinished imports are discarded.
#[derive(Debug)]
pub struct ControlServer {
    socket: PathBuf,
    /// What goes with us; none where systemd keeps it for the next one.
    inode: Option<u64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Held as long as we serve, so that a second backend can tell a stale socket from ours.
    _lock: File,
}

impl ControlServer {
    /// [`RunDir::claim`] and [`RunDir::serve`] in one, where nothing has to happen in between.
    pub fn start(run: &Path, target: Arc<dyn ControlTarget>) -> Result<ControlServer, StartError> {
        RunDir::claim(run, Vec::new())?.serve(target)
    }

    /// Path of the socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// A runtime directory that is ours: no other backend's sockets are in it. Claimed before sockets are opened,
/// served when they are.
#[derive(Debug)]
pub struct RunDir {
    socket: PathBuf,
    kept: Option<StdListener>,
    lock: File,
}

impl RunDir {
    /// Keeps other backends out of `run`. Its control socket may be among those that were `inherited`; the others are closed.
    pub fn claim(run: &Path, inherited: Vec<StdListener>) -> Result<RunDir, StartError> {
        let socket = control_socket(run);
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(StartError::PathTooLong(socket));
        }
        let lock = lock(run)?;
        let kept = inherited.into_iter().find(|l| listens_at(l, &socket));
        if kept.is_none() {
            remove_stale(&socket)?;
        }
        Ok(RunDir { socket, kept, lock })
    }

    /// Opens `RUN/control.sock` (mode 0600), unless it was inherited, and serves `target` on it from a thread of its own.
    pub fn serve(self, target: Arc<dyn ControlTarget>) -> Result<ControlServer, StartError> {
        let RunDir { socket, kept, lock } = self;
        let failed = |source| StartError::Io {
            path: socket.clone(),
            source,
        };
        let (listener, inode) = match kept {
            Some(listener) => {
                adopt(&listener, &socket).map_err(failed)?;
                log::info!("{} is the one that systemd has kept", socket.display());
                (listener, None)
            }
            None => {
                let listener = bind(&socket).map_err(failed)?;
                let inode = std::fs::symlink_metadata(&socket).map_err(failed)?.ino();
                let keeps = systemd::keep(&listener);
                (listener, (!keeps).then_some(inode))
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(8)
            .thread_name("firn-control-io")
            .build()
            .map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            let entered = runtime.enter();
            match UnixListener::from_std(listener) {
                Ok(listener) => {
                    runtime.block_on(accept_loop(listener, routes::router(target), stopped))
                }
                Err(error) => log::error!("control API: can't listen: {error}; it is not served"),
            }
            drop(entered);
            runtime.shutdown_timeout(STOP_PATIENCE);
        };
        let thread = std::thread::Builder::new()
            .name("firn-control".into())
            .spawn(serve)
            .map_err(failed)?;
        log::info!("control API on {}", socket.display());
        Ok(ControlServer {
            socket,
            inode,
            stop: Some(stop),
            thread: Some(thread),
            _lock: lock,
        })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        // Only what is ours: somebody may have moved the directory under us.
        if let Some(inode) = self.inode
            && std::fs::symlink_metadata(&self.socket).is_ok_and(|meta| meta.ino() == inode)
        {
            let _ = std::fs::remove_file(&self.socket);
        }
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("control API: its thread panicked");
        }
    }
}

/// The lock that makes finding a stale socket free of races.
fn lock(run: &Path) -> Result<File, StartError> {
    let path = run.join(format!("{CONTROL_SOCKET}.lock"));
    let failed = |source| StartError::Io {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Taken(control_socket(run))),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Removes what a killed backend left; the lock says that nobody serves it.
fn remove_stale(socket: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(socket) {
        Ok(meta) if meta.file_type().is_socket() => {
            std::fs::remove_file(socket).map_err(|source| StartError::Io {
                path: socket.into(),
                source,
            })
        }
        Ok(_) => Err(StartError::NotASocket(socket.into())),
        Err(_) => Ok(()),
    }
}

/// Whether an inherited socket is the one at this path, and clients would find it there.
fn listens_at(listener: &StdListener, socket: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let address = listener.local_addr().ok();
    let path = address.as_ref().and_then(|a| a.as_pathname());
    path == Some(socket)
        && rustix::net::sockopt::socket_acceptconn(listener).unwrap_or(false)
        && std::fs::symlink_metadata(socket).is_ok_and(|meta| meta.file_type().is_socket())
}

/// Makes of an inherited socket what [`bind`] makes.
fn adopt(listener: &StdListener, socket: &Path) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let private = Permissions::from_mode(0o600);
    match std::fs::symlink_metadata(socket)?.permissions().mode() & 0o7777 {
        0o600 => Ok(()),
        _ => std::fs::set_permissions(socket, private),
    }
}

/// Binds with mode 0600 from the first instant: on Linux the mode of the unbound socket, less the umask,
/// becomes that of the file.
fn bind(socket: &Path) -> io::Result<StdListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(socket)?)?;
    rustix::net::listen(&fd, 128)?;
    Ok(StdListener::from(fd))
}

async fn accept_loop(listener: UnixListener, router: Router, mut stopped: oneshot::Receiver<()>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let permit = room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            _ = &mut stopped => break,
            (permit, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        serve(stream, router).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: that passes, and a busy loop would not help.
                    log::warn!("control API: can't accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
        while connections.try_join_next().is_some() {}
    }
    connections.shutdown().await;
}

async fn serve(stream: UnixStream, router: Router) {
    let router = match peer::is_admitted(&stream) {
        true => routes::for_connection(router),
        false => routes::stranger(),
    };
    let connection = http1::Builder::new()
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        log::debug!("control API: connection ended: {error}");
    }
}
