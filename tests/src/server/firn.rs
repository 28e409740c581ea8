//! `firn-vhost-backend` and the `firn` command, as a user runs them.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::{Server, under};

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `firn-vhost-backend`.
    pub backend: PathBuf,
    /// `firn`.
    pub cli: PathBuf,
    /// `firn-orchestrator`.
    pub orchestrator: PathBuf,
}

impl Binaries {
    /// From `FIRN_BACKEND`, `FIRN_CLI` and `FIRN_ORCHESTRATOR`, else beside the running program: `target/<profile>/`.
    pub fn find() -> io::Result<Self> {
        let mut dir = env::current_exe()?;
        dir.pop();
        // Test programs live in deps/.
        if dir.ends_with("deps") {
            dir.pop();
        }
        let program = |variable: &str, name: &str| {
            let path = env::var_os(variable).map_or_else(|| dir.join(name), PathBuf::from);
            if path.is_file() {
                return Ok(path);
            }
            let what = format!(
                "{} is missing: build it (cargo build --workspace) or name it in {variable}",
                path.display()
            );
            Err(io::Error::new(io::ErrorKind::NotFound, what))
        };
        Ok(Self {
            backend: program("FIRN_BACKEND", "firn-vhost-backend")?,
            cli: program("FIRN_CLI", "firn")?,
            orchestrator: program("FIRN_ORCHESTRATOR", "firn-orchestrator")?,
        })
    }
}

/// A store, its runtime directory, and the means to serve it.
#[derive(Debug, Clone)]
pub struct Firn {
    binaries: Binaries,
    store: PathBuf,
    run: PathBuf,
    log: PathBuf,
    boot_id: Option<PathBuf>,
    under: Vec<String>,
    args: Vec<String>,
}

impl Firn {
    /// Makes a new store in `dir/store`, with the runtime directory `dir/run`.
    pub fn create(binaries: Binaries, dir: &Path) -> io::Result<Self> {
        Self::create_with(binaries, dir, &[])
    }

    /// [`Firn::create`] with further arguments to `firn store init`.
    pub fn create_with(binaries: Binaries, dir: &Path, init: &[&str]) -> io::Result<Self> {
        let firn = Self {
            binaries,
            store: dir.join("store"),
            run: dir.join("run"),
            log: dir.join("backend.log"),
            boot_id: None,
            under: Vec::new(),
            args: Vec::new(),
        };
        std::fs::create_dir_all(&firn.run)?;
        let store = firn.store.display().to_string();
        firn.cli(&[&["store", "init", &store], init].concat())?;
        Ok(firn)
    }

    /// The same store with another runtime directory.
    pub fn with_run(&self, run: &Path) -> Self {
        Self {
            run: run.to_owned(),
            ..self.clone()
        }
    }

    /// The same store, served with further arguments to `firn-vhost-backend`.
    pub fn with_args(&self, args: &[&str]) -> Self {
        Self {
            args: args.iter().map(ToString::to_string).collect(),
            ..self.clone()
        }
    }

    /// The same store, served by a backend that another program runs, as `strace` would.
    pub fn with_tracer(&self, under: &[String]) -> Self {
        Self {
            under: under.to_vec(),
            ..self.clone()
        }
    }

    /// The same store after a reboot, as far as a backend can tell: `boot_id` is a file with another
    /// boot's id. Needs the right to make a mount namespace.
    pub fn with_boot_id(&self, boot_id: &Path) -> Self {
        Self {
            boot_id: Some(boot_id.to_owned()),
            ..self.clone()
        }
    }

    /// The store's directory.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The runtime directory.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// What the backends have said so far.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// A vDisk's vhost-user socket.
    pub fn socket(&self, vdisk: &str) -> PathBuf {
        self.run.join(format!("{vdisk}.sock"))
    }

    /// Starts a backend and returns at once.
    pub fn start(&self) -> io::Result<Server> {
        let mut command = match &self.boot_id {
            None => under(&self.under, Command::new(&self.binaries.backend)),
            Some(boot_id) => {
                const SCRIPT: &str =
                    "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT]);
                command.arg(boot_id).arg(&self.binaries.backend);
                command
            }
        };
        command
            .arg("--store")
            .arg(&self.store)
            .arg("--run")
            .arg(&self.run)
            .args(&self.args);
        Server::start(&mut command, &self.log)
    }

    /// Starts a backend and waits until its control socket listens.
    pub fn serve(&self) -> io::Result<Server> {
        let mut server = self.start()?;
        server.listening(&self.control(), Duration::from_secs(30))?;
        Ok(server)
    }

    /// The control socket.
    pub fn control(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// Creates a vDisk of `bytes` on the running backend.
    pub fn create_vdisk(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.cli(&["vdisk", "create", name, &bytes.to_string()])
            .map(drop)
    }

    /// The store's part of what `firn store status` tells.
    pub fn status(&self) -> io::Result<serde_json::Value> {
        let output = self.cli(&["store", "status", "--json"])?;
        let mut all: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(all["store"].take())
    }

    /// Runs `firn`; an error unless it succeeds.
    pub fn cli(&self, args: &[&str]) -> io::Result<Output> {
        let output = self.try_cli(args)?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let what = format!("firn {}: {}: {said}", args.join(" "), output.status);
        Err(io::Error::other(what))
    }

    /// Runs `firn`, which may fail.
    pub fn try_cli(&self, args: &[&str]) -> io::Result<Output> {
        let mut command = Command::new(&self.binaries.cli);
        command.args(args).env("FIRN_RUN", &self.run).output()
    }
}
