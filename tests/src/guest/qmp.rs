//! A small client of QEMU's machine protocol: JSON lines over a Unix socket.

use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for an answer. QEMU answers within milliseconds, save where it waits for a
/// vhost-user backend to answer it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// One connection to a QEMU, past its greeting.
#[derive(Debug)]
pub struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects and negotiates. The socket must exist.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut qmp = Self {
            lines: BufReader::new(stream),
        };
        // An event that comes in the very moment of the connection may be ahead of it.
        let mut greeting = qmp.message()?;
        while greeting.get("event").is_some() {
            greeting = qmp.message()?;
        }
        if greeting.get("QMP").is_none() {
            return Err(io::Error::other(format!("not a QMP greeting: {greeting}")));
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns its result. Events that arrive meanwhile are dropped.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> io::Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.lines.get_mut(), "{request}")?;
        loop {
            let mut message = self.message()?;
            if let Some(result) = message.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = message.get("error") {
                let text = error
                    .get("desc")
                    .and_then(Value::as_str)
                    .unwrap_or("no description");
                return Err(io::Error::other(format!("QEMU refused {command}: {text}")));
            }
        }
    }

    /// Saves the running guest to a file and leaves it stopped, as `virsh save` does: memory is
    /// copied while the guest goes on, and what it dirties meanwhile again.
    pub fn save(&mut self, file: &Path, timeout: Duration) -> io::Result<()> {
        self.execute(
            "migrate",
            &json!({ "uri": format!("file:{}", file.display()) }),
        )?;
        self.await_migration(timeout)
    }

    /// Loads what [`save`](Self::save) wrote, into a QEMU started for it, and lets the guest go on.
    pub fn restore(&mut self, file: &Path, timeout: Duration) -> io::Result<()> {
        self.execute(
            "migrate-incoming",
            &json!({ "uri": format!("file:{}", file.display()) }),
        )?;
        self.await_migration(timeout)?;
        self.execute("cont", &json!({})).map(drop)
    }

    fn await_migration(&mut self, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let state = self.execute("query-migrate", &json!({}))?;
            match state.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    return Err(io::Error::other(format!("migration failed: {state}")));
                }
                _ if Instant::now() > deadline => {
                    return Err(io::Error::other(format!(
                        "migration still going after {timeout:?}: {state}"
                    )));
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn message(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Err(io::Error::other("QEMU closed its control socket"));
        }
        serde_json::from_str(&line).map_err(io::Error::other)
    }
}
