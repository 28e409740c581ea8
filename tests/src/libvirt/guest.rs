//! A real guest under libvirt: Debian on vDisks, with the serial agent of [`guest`](crate::guest) and QEMU's guest agent.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::LibvirtHost;
use crate::guest::{self, Agent, Answer, BOOT, Ticket};

/// Base64 in one argument of `virsh`; the kernel takes 128 KiB. A multiple of 4.
const CHUNK: usize = 96 << 10;

/// What a guest is made of.
#[derive(Debug, Clone)]
pub struct GuestSpec<'a> {
    /// The domain's name.
    pub name: &'a str,
    /// Its vDisks. It boots from the first, a copy of [`guest::image`]; the guest sees `/dev/vda`, `/dev/vdb`...
    pub vdisks: &'a [&'a str],
    /// Virtual processors, and as many queues for each disk.
    pub vcpus: u32,
    /// By UEFI and not by BIOS.
    pub uefi: bool,
}

/// A domain with a guest that takes commands. What it is asked for needs its host, which goes on without it.
#[derive(Debug)]
pub struct LibvirtGuest {
    name: String,
    /// [`LibvirtHost::dir`].
    dir: PathBuf,
    agent: Option<Agent>,
    /// The newest ticket that was given out to it, whatever QEMU it has.
    last_id: u32,
}

impl LibvirtGuest {
    /// Defines its domain: what `firn vdisk xml` writes, with more vDisks and the serial agent's port.
    pub fn define(host: &LibvirtHost, spec: &GuestSpec<'_>) -> io::Result<Self> {
        let guest = Self {
            name: spec.name.to_owned(),
            dir: host.dir().to_owned(),
            agent: None,
            last_id: 0,
        };
        let vcpus = spec.vcpus.to_string();
        let (system, others) = spec
            .vdisks
            .split_first()
            .ok_or_else(|| io::Error::other("a guest needs a vDisk"))?;
        // Little memory: tests save it, again and again.
        let mut line = vec!["firn", "vdisk", "xml", system, "--domain", spec.name];
        line.extend(["--memory", "320M", "--vcpus", &vcpus]);
        if spec.uefi {
            line.push("--uefi");
        }
        if guest::accelerator()? != "kvm" {
            line.push("--emulated");
        }
        let template = host.must(&line)?;
        let mut devices = String::new();
        for (vdisk, letter) in others.iter().zip('b'..) {
            let target = format!("vd{letter}");
            let line = ["firn", "vdisk", "xml", vdisk, "--only", "disk"];
            let options = ["--target", &target, "--queues", &vcpus];
            devices += &host.must(&[&line[..], &options].concat())?;
        }
        devices += &format!(
            "<serial type='file'><source path='{}' append='on'/></serial>\n\
             <serial type='unix'><source mode='bind' path='{}'/></serial>",
            guest.file("console").display(),
            guest.file("agent").display()
        );
        let console = "<serial type='pty'/>";
        if !template.contains(console) {
            return Err(io::Error::other(format!("no {console}: {template}")));
        }
        host.define(&template.replacen(console, &devices, 1))?;
        Ok(guest)
    }

    /// The domain's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn file(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.name))
    }

    /// Starts it, and waits until it takes commands.
    pub fn start(&mut self, host: &LibvirtHost) -> io::Result<()> {
        // What the guest says while nobody listens is lost.
        self.agent = None;
        host.virsh(&["start", "--paused", &self.name])?;
        self.connect()?;
        host.virsh(&["resume", &self.name])?;
        let ready = self.agent()?.await_ready(BOOT);
        ready.map_err(|error| self.explain(&error))
    }

    /// Has it go on where `virsh save` has left it, or a memory image was taken.
    pub fn restore(&mut self, host: &LibvirtHost, memory: &Path) -> io::Result<()> {
        self.agent = None;
        host.virsh(&["restore", "--paused", &memory.display().to_string()])?;
        self.connect()?;
        host.virsh(&["resume", &self.name]).map(drop)
    }

    /// Connects to the guest agent anew, after somebody else has restored the guest. What the guest has said since it runs again
    /// is lost, so nothing should have been under way in it.
    pub fn connect(&mut self) -> io::Result<()> {
        // QEMU has one client at a time.
        self.disconnect();
        let agent = Agent::connect(&self.file("agent"), self.last_id);
        self.agent = Some(agent.map_err(|error| self.explain(&error))?);
        Ok(())
    }

    /// Leaves it to others for a while.
    pub fn disconnect(&mut self) {
        if let Some(agent) = self.agent.take() {
            self.last_id = agent.last_id();
        }
    }

    /// Ends it the hard way.
    pub fn destroy(&mut self, host: &LibvirtHost) -> io::Result<()> {
        self.disconnect();
        host.virsh(&["destroy", &self.name]).map(drop)
    }

    fn agent(&mut self) -> io::Result<&mut Agent> {
        self.agent
            .as_mut()
            .ok_or_else(|| io::Error::other("the guest is not connected to"))
    }

    /// Starts a shell command in the guest and returns at once.
    pub fn begin(&mut self, command: &str) -> io::Result<Ticket> {
        let ticket = self.agent()?.begin(command)?;
        self.last_id = self.agent()?.last_id();
        Ok(ticket)
    }

    /// Waits for a command that [`begin`](Self::begin) started.
    pub fn finish(&mut self, ticket: &Ticket, timeout: Duration) -> io::Result<Answer> {
        let answer = self.agent()?.finish(ticket, timeout);
        answer.map_err(|error| self.explain(&error))
    }

    /// Runs a shell command in the guest to its end.
    pub fn run(&mut self, command: &str, timeout: Duration) -> io::Result<Answer> {
        let ticket = self.begin(command)?;
        self.finish(&ticket, timeout)
    }

    /// Like [`run`](Self::run), where anything but exit code 0 is an error. Returns what it printed.
    pub fn must(&mut self, command: &str, timeout: Duration) -> io::Result<String> {
        let answer = self.run(command, timeout)?;
        if answer.code != 0 {
            let (code, output) = (answer.code, answer.output);
            let text = format!("in the guest, exit code {code} of: {command}\n{output}");
            return Err(self.explain(&io::Error::other(text)));
        }
        Ok(answer.output)
    }

    /// A command to QEMU's guest agent, which the guest has when it has come up.
    pub fn guest_agent(
        &self,
        host: &LibvirtHost,
        command: &str,
        arguments: &Value,
    ) -> io::Result<Value> {
        let text = json!({ "execute": command, "arguments": arguments }).to_string();
        let answer = host.virsh(&["qemu-agent-command", "--timeout", "20", &self.name, &text])?;
        let mut answer: Value = serde_json::from_str(&answer)?;
        Ok(answer["return"].take())
    }

    /// Waits until QEMU's guest agent answers.
    pub fn await_guest_agent(&self, host: &LibvirtHost) -> io::Result<()> {
        let began = Instant::now();
        loop {
            match self.guest_agent(host, "guest-ping", &json!({})) {
                Ok(_) => return Ok(()),
                Err(error) if began.elapsed() > Duration::from_secs(30) => {
                    return Err(self.explain(&error));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Copies a program of this build into the guest, to `/run` (its memory), and returns its path there. The guest is the same
    /// Debian as the host, so it has the libraries.
    pub fn install(&mut self, host: &LibvirtHost, program: &Path) -> io::Result<String> {
        const PACK: &str = "strip -o \"$1\" \"$0\" && gzip <\"$1\" | base64 -w 0";
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let there = format!("/run/{name}");
        let packed = Command::new("sh")
            .args(["-c", PACK])
            .args([program, &self.file("program")])
            .output()?;
        if !packed.status.success() || packed.stdout.is_empty() {
            let said = String::from_utf8_lossy(&packed.stderr);
            return Err(io::Error::other(format!("{}: {said}", program.display())));
        }
        self.await_guest_agent(host)?;
        let open = json!({ "path": format!("{there}.gz"), "mode": "w" });
        let handle = self.guest_agent(host, "guest-file-open", &open)?;
        for part in packed.stdout.chunks(CHUNK) {
            let part = json!({ "handle": handle, "buf-b64": String::from_utf8_lossy(part) });
            self.guest_agent(host, "guest-file-write", &part)?;
        }
        self.guest_agent(host, "guest-file-close", &json!({ "handle": handle }))?;
        let unpack = format!("busybox gunzip -f {there}.gz && chmod +x {there}");
        self.must(&unpack, Duration::from_secs(60))?;
        Ok(there)
    }

    /// Fails if the guest's kernel has seen an I/O error, a file system error or a request that hung.
    pub fn assert_no_io_errors(&mut self) -> io::Result<()> {
        let worries = self.agent()?.assert_no_io_errors();
        self.last_id = self.agent()?.last_id();
        worries.map_err(|error| self.explain(&error))
    }

    /// Adds the ends of the console and of QEMU's messages to an error.
    fn explain(&self, error: &io::Error) -> io::Error {
        let qemu = self.dir.join(format!("log/qemu/{}.log", self.name));
        let (console, qemu) = (guest::tail(&self.file("console")), guest::tail(&qemu));
        io::Error::other(format!("{error}\nconsole:\n{console}QEMU:\n{qemu}"))
    }
}
