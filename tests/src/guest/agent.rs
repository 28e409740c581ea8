//! Runs commands in the guest, over its second serial port.
//!
//! The guest's half is a shell script on its disk (`guest/rootfs/usr/local/sbin/firn-agent`), which
//! states the protocol. A command may outlive this connection: after a save and restore its end
//! arrives at the new QEMU's serial port.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A command that was started and whose end has not been waited for.
#[derive(Debug, Clone)]
#[must_use = "wait for its end with Agent::finish"]
pub struct Ticket {
    id: u32,
    command: String,
}

/// How a command in the guest ended.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its exit code.
    pub code: i32,
    /// What it printed, both streams.
    pub output: String,
}

/// The host's end of the serial port.
#[derive(Debug)]
pub struct Agent {
    stream: UnixStream,
    /// Received and not yet looked at.
    pending: Vec<u8>,
    /// What the command under way has printed.
    output: String,
    last_id: u32,
}

impl Agent {
    /// Connects to the serial port's socket. `last_id`: the newest ticket that an earlier
    /// connection to the same guest gave out, else 0.
    pub fn connect(socket: &Path, last_id: u32) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(Self {
            stream,
            pending: Vec::new(),
            output: String::new(),
            last_id,
        })
    }

    /// The newest ticket that was given out.
    pub fn last_id(&self) -> u32 {
        self.last_id
    }

    /// Waits until a guest that is booting takes commands.
    pub fn await_ready(&mut self, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.line(deadline)? {
                Some(line) if line.starts_with("@ready ") => return Ok(()),
                Some(_) => {}
                None => {
                    return Err(io::Error::other(format!(
                        "the guest did not come up within {timeout:?}"
                    )));
                }
            }
        }
    }

    /// Starts a shell command (one line). The guest runs one at a time, in order.
    pub fn begin(&mut self, command: &str) -> io::Result<Ticket> {
        if command.contains('\n') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a guest command is one line",
            ));
        }
        self.last_id += 1;
        writeln!(self.stream, "{} {command}", self.last_id)?;
        Ok(Ticket {
            id: self.last_id,
            command: command.to_owned(),
        })
    }

    /// Waits for the end of a command; an error when it takes longer.
    pub fn finish(&mut self, ticket: &Ticket, timeout: Duration) -> io::Result<Answer> {
        self.poll(ticket, timeout)?.ok_or_else(|| {
            io::Error::other(format!(
                "in the guest, still running after {timeout:?}: {}\nit printed: {}",
                ticket.command, self.output
            ))
        })
    }

    /// Like [`finish`](Self::finish), where a command that goes on is no error but `None`.
    pub fn poll(&mut self, ticket: &Ticket, timeout: Duration) -> io::Result<Option<Answer>> {
        let deadline = Instant::now() + timeout;
        let begin = format!("@begin {}", ticket.id);
        let end = format!("@end {} ", ticket.id);
        while let Some(line) = self.line(deadline)? {
            if let Some(code) = line.strip_prefix(&end) {
                let code = code.trim().parse().map_err(io::Error::other)?;
                let output = std::mem::take(&mut self.output).trim().to_owned();
                return Ok(Some(Answer { code, output }));
            }
            if line.starts_with("@ready ") {
                let what = format!("the guest rebooted during: {}", ticket.command);
                return Err(io::Error::other(what));
            }
            if line == begin {
                self.output.clear();
            } else {
                self.output.push_str(&line);
                self.output.push('\n');
            }
        }
        Ok(None)
    }

    /// Runs a command to its end; anything but exit code 0 is an error. Returns what it printed.
    pub fn must(&mut self, command: &str, timeout: Duration) -> io::Result<String> {
        let ticket = self.begin(command)?;
        let answer = self.finish(&ticket, timeout)?;
        if answer.code != 0 {
            let (code, output) = (answer.code, answer.output);
            let what = format!("in the guest, exit code {code} of: {command}\n{output}");
            return Err(io::Error::other(what));
        }
        Ok(answer.output)
    }

    /// Fails if the guest's kernel has seen an I/O error, a file system error or a request that hung.
    pub fn assert_no_io_errors(&mut self) -> io::Result<()> {
        const WORRIES: &str = "I/O error|EXT4-fs error|EXT4-fs warning|Buffer I/O|blocked for more than|JBD2:.*rror|rcu.*stall";
        self.must(
            &format!("! dmesg | grep -E '{WORRIES}'"),
            Duration::from_secs(30),
        )
        .map(drop)
    }

    /// The next whole line, or `None` once the deadline has passed.
    fn line(&mut self, deadline: Instant) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                let line = std::mem::replace(&mut self.pending, rest);
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("QEMU has ended")),
                Ok(count) => self.pending.extend(buffer.iter().take(count)),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
