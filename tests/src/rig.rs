//! A store of its own for one test, with the backend that serves it.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::{Client, ClientError, ClientOptions};
use crate::server::{Binaries, Firn, Server};

/// Longest wait for anything that should happen at once, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What is special about a rig.
#[derive(Debug, Clone, Default)]
pub struct Setup<'a> {
    /// The store has an ext4 of its own, of so many bytes. Takes root and loop devices.
    pub filesystem: Option<u64>,
    /// That filesystem's disk has less space than it says: writes beyond so many bytes fail with EIO, until
    /// [`Rig::mend_disk`].
    pub thin: Option<u64>,
    /// Where its directory is made; default: `FIRN_TEST_DIR`, else the system's place for temporary files.
    pub base: Option<&'a Path>,
    /// Further arguments to `firn store init`.
    pub init: &'a [&'a str],
    /// Further arguments to `firn-vhost-backend`.
    pub serve: &'a [&'a str],
}

/// A filesystem in a file, mounted until this is dropped.
#[derive(Debug)]
struct Mount {
    at: PathBuf,
    /// A tmpfs below, which holds the image.
    below: Option<PathBuf>,
}

impl Mount {
    fn new(dir: &Path, at: &Path, bytes: u64, thin: Option<u64>) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        let mut mount = Self {
            at: at.to_owned(),
            below: None,
        };
        let image = match thin {
            None => dir.join("image"),
            Some(bytes) => {
                let below = dir.join("below");
                fs::create_dir_all(&below)?;
                run(Command::new("mount")
                    .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
                    .arg(&below))?;
                mount.below = Some(below.clone());
                below.join("image")
            }
        };
        File::create(&image)?.set_len(bytes)?;
        // Few inodes and no reserve: the space is for data. A journal that fails would make it read-only.
        let journal: &[&str] = match thin {
            Some(_) => &["-O", "^has_journal"],
            None => &[],
        };
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-N", "1024"])
            .args(journal)
            .arg(&image))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(at))?;
        if thin.is_some() {
            // The loop driver takes a write of which its file has stored a part for one that has gone well. No request
            // is longer than a page here, and a page is stored whole or not at all.
            let device = fs::metadata(at)?.dev();
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            let most = format!("/sys/dev/block/{major}:{minor}/queue/max_sectors_kb");
            fs::write(most, "4")?;
        }
        Ok(mount)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a backend that is being killed may still hold it for a moment.
        for at in [Some(&self.at), self.below.as_ref()].into_iter().flatten() {
            let _ = run(Command::new("umount").arg("--lazy").arg(at));
        }
    }
}

/// A filesystem on which writes stand still.
#[derive(Debug)]
pub struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = run(Command::new("fsfreeze").arg("-u").arg(&self.0));
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}", said.trim())))
}

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
    // Likewise.
    filesystem: Option<Mount>,
    dir: PathBuf,
    _guard: Option<TempDir>,
}

impl Rig {
    /// Makes a store and serves it.
    pub fn new() -> io::Result<Self> {
        Self::with(&Setup::default())
    }

    /// Makes a store with more to say about it, and serves it.
    pub fn with(setup: &Setup<'_>) -> io::Result<Self> {
        let base = match setup.base {
            Some(base) => {
                fs::create_dir_all(base)?;
                base.to_owned()
            }
            None => env::var_os("FIRN_TEST_DIR").map_or_else(env::temp_dir, PathBuf::from),
        };
        let dir = TempDir::with_prefix_in("firn-test-", base)?;
        let (dir, guard) = match env::var_os("FIRN_KEEP") {
            Some(_) => (dir.keep(), None),
            None => (dir.path().to_owned(), Some(dir)),
        };
        let filesystem = match setup.filesystem {
            Some(bytes) => Some(Mount::new(&dir, &dir.join("store"), bytes, setup.thin)?),
            None => None,
        };
        let firn = Firn::create_with(Binaries::find()?, &dir, setup.init)?.with_args(setup.serve);
        let server = firn.serve()?;
        Ok(Self {
            server,
            firn,
            filesystem,
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

    /// The store's disk has all the space that it says, from here on.
    pub fn mend_disk(&self) -> io::Result<()> {
        let below = self.filesystem.as_ref().and_then(|f| f.below.as_ref());
        let below = below.ok_or(io::ErrorKind::NotFound)?;
        run(Command::new("mount")
            .args(["-o", "remount,size=90%"])
            .arg(below))
    }

    /// Stops all writing to the store's filesystem until what is returned is dropped.
    pub fn freeze_disk(&self) -> io::Result<Frozen> {
        let at = self.firn.store().to_owned();
        run(Command::new("fsfreeze").arg("-f").arg(&at))?;
        Ok(Frozen(at))
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
