//! A store of its own for one test, with the backend that serves it.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::{Client, ClientError, ClientOptions};
use crate::server::{Binaries, Firn, Server};

/// Longest wait for anything that should happen at once, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running backend on a new store.
///
/// The store lies in a temporary directory below `FIRN_TEST_DIR` (default: the system's) and goes with the
/// rig, unless `FIRN_KEEP` is set.
#[derive(Debug)]
pub struct Rig {
    // Before the directory: the backend must be gone when that is removed.
    /// The backend.
    pub server: Server,
    /// Its store.
    pub firn: Firn,
    dir: PathBuf,
    _guard: Option<TempDir>,
}

impl Rig {
    /// Makes a store and serves it.
    pub fn new() -> io::Result<Self> {
        let base = env::var_os("FIRN_TEST_DIR").map_or_else(env::temp_dir, PathBuf::from);
        let dir = TempDir::with_prefix_in("firn-test-", base)?;
        let (dir, guard) = match env::var_os("FIRN_KEEP") {
            Some(_) => (dir.keep(), None),
            None => (dir.path().to_owned(), Some(dir)),
        };
        let firn = Firn::create(Binaries::find()?, &dir)?;
        let server = firn.serve()?;
        Ok(Self {
            server,
            firn,
            dir,
            _guard: guard,
        })
    }

    /// The directory that holds the store, the runtime directory and the backend's log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates a vDisk and waits until its socket listens.
    pub fn create(&mut self, name: &str, bytes: u64) -> io::Result<PathBuf> {
        self.firn.create_vdisk(name, bytes)?;
        let socket = self.firn.socket(name);
        self.server.listening(&socket, PATIENCE)?;
        Ok(socket)
    }

    /// Creates a vDisk and attaches to it. The in-flight region is insisted on.
    pub fn attach(
        &mut self,
        name: &str,
        bytes: u64,
        options: ClientOptions,
    ) -> Result<Client, ClientError> {
        let socket = self.create(name, bytes).map_err(|source| ClientError::Io {
            what: format!("create vDisk {name}"),
            source,
        })?;
        Client::connect(
            &socket,
            ClientOptions {
                inflight: true,
                ..options
            },
        )
    }

    /// Attaches to a vDisk once a former front end has been noticed to be gone.
    pub fn connect(&self, name: &str, options: ClientOptions) -> Result<Client, ClientError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match Client::connect(&self.firn.socket(name), options.clone()) {
                Err(ClientError::Closed | ClientError::Io { .. }) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                result => return result,
            }
        }
    }

    /// SIGKILL, and another backend; clients are to reconnect.
    pub fn kill(&mut self) -> io::Result<()> {
        self.server.kill()?;
        self.server = self.firn.start()?;
        Ok(())
    }

    /// The last lines that the backends have written.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.firn.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}
