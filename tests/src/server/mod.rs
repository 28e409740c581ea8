//! The backends under test as child processes: `qemu-storage-daemon` and `firn-vhost-backend`.

mod firn;
mod qsd;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use firn::{Binaries, Firn};
pub use qsd::{Format, Qemu, convert_to_zstd, create_overlay, create_qcow2};

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a command whose output goes to the end of the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|e| {
                io::Error::new(
                    e.kind(),
                    format!("{}: {e}", command.get_program().display()),
                )
            })?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        self.child.wait()
    }

    /// SIGTERM; it may take its time.
    pub fn ask_to_end(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            let pid = Pid::from_raw(self.child.id() as i32).ok_or(io::ErrorKind::InvalidInput)?;
            kill_process(pid, Signal::TERM)?;
        }
        Ok(())
    }

    /// SIGTERM, and waits at most `within` for its end.
    pub fn terminate(&mut self, within: Duration) -> io::Result<ExitStatus> {
        self.ask_to_end()?;
        self.wait(within)
    }

    /// [`Server::terminate`] for one that a tracer runs, which reports only when its child has ended by itself.
    pub fn end_traced(&mut self, within: Duration) -> io::Result<ExitStatus> {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        // Some tracers become the program that they trace.
        let traced = children
            .split_whitespace()
            .next()
            .map_or(Ok(id as i32), str::parse);
        let traced = traced.ok().and_then(Pid::from_raw);
        kill_process(traced.ok_or(io::ErrorKind::InvalidData)?, Signal::TERM)?;
        self.wait(within)
    }

    /// Waits at most `within` for its end.
    pub fn wait(&mut self, within: Duration) -> io::Result<ExitStatus> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                let what = format!("{} still runs after {within:?}", self.child.id());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until something listens at `socket`; an error when the server ends before, or `within` passes.
    pub fn listening(&mut self, socket: &Path, within: Duration) -> io::Result<()> {
        let until = Instant::now() + within;
        // The file appears at bind(); only after listen() does connect() stop being refused. A
        // connection of our own just to find out would count as a front end, so look at the table.
        while !listens(socket)? {
            if let Some(status) = self.child.try_wait()? {
                let what = format!(
                    "ended with {status} before it listened; see {}",
                    self.log.display()
                );
                return Err(io::Error::other(what));
            }
            if Instant::now() > until {
                let what = format!("nobody listens at {} after {within:?}", socket.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The command that runs `command` under another program.
fn under(tracer: &[String], command: Command) -> Command {
    let Some((program, args)) = tracer.split_first() else {
        return command;
    };
    let mut traced = Command::new(program);
    traced.args(args).arg(command.get_program());
    traced.args(command.get_args());
    traced
}

/// Whether a Unix socket at `path` is in the listening state.
fn listens(path: &Path) -> io::Result<bool> {
    const ACCEPTS: &str = "00010000";
    let table = std::fs::read_to_string("/proc/net/unix")?;
    let path = path.display().to_string();
    // Num RefCount Protocol Flags Type St Inode Path
    Ok(table
        .lines()
        .any(|line| line.split_whitespace().nth(3) == Some(ACCEPTS) && line.ends_with(&path)))
}
