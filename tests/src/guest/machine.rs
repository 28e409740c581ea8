//! One QEMU process, with its disks, consoles and control channels.

use super::{Agent, Answer, BOOT, Qmp, Ticket, accelerator, tail};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// The sockets of its disks. It boots from the first; the guest sees `/dev/vda`, `/dev/vdb`...
    pub disks: Vec<PathBuf>,
    /// Virtual CPUs, and as many queues for each disk.
    pub vcpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u32,
}

/// A running guest. Dropping it ends QEMU the hard way.
#[derive(Debug)]
pub struct Machine {
    spec: MachineSpec,
    dir: PathBuf,
    qemu: Process,
    qmp: Qmp,
    agent: Agent,
}

impl Machine {
    /// Starts QEMU and waits until the guest, booted from its first disk, takes commands. `dir` gets
    /// the sockets, QEMU's messages and the console; it must exist and have a short path.
    pub fn boot(spec: &MachineSpec, dir: &Path) -> io::Result<Self> {
        let mut machine = Self::spawn(spec, dir, false, 0)?;
        machine.await_boot()?;
        Ok(machine)
    }

    /// Saves the guest's state to a file while it runs, ends this QEMU, starts another and lets the
    /// guest go on there. Commands under way in the guest stay under way.
    pub fn save_and_restore(self, timeout: Duration) -> io::Result<Self> {
        let Self {
            spec,
            dir,
            mut qemu,
            mut qmp,
            agent,
        } = self;
        let file = dir.join("saved");
        qmp.save(&file, timeout)?;
        let _ = qmp.execute("quit", &serde_json::json!({}));
        if !qemu.ends(Duration::from_secs(10))? {
            return Err(io::Error::other("QEMU did not quit after the save"));
        }
        let mut machine = Self::spawn(&spec, &dir, true, agent.last_id())?;
        machine.qmp.restore(&file, timeout)?;
        fs::remove_file(&file)?;
        Ok(machine)
    }

    /// Reboots the guest from inside and waits until it is back.
    pub fn reboot(&mut self) -> io::Result<()> {
        let _ = self.agent.begin("reboot")?;
        self.await_boot()
    }

    fn await_boot(&mut self) -> io::Result<()> {
        self.agent
            .await_ready(BOOT)
            .map_err(|error| self.explain(&error))
    }

    /// Runs a shell command in the guest to its end.
    pub fn run(&mut self, command: &str, timeout: Duration) -> io::Result<Answer> {
        let ticket = self.agent.begin(command)?;
        self.finish(&ticket, timeout)
    }

    /// Like [`run`](Self::run), where anything but exit code 0 is an error. Returns what it printed.
    pub fn must(&mut self, command: &str, timeout: Duration) -> io::Result<String> {
        self.agent
            .must(command, timeout)
            .map_err(|error| self.explain(&error))
    }

    /// Starts a command in the guest and returns at once.
    pub fn begin(&mut self, command: &str) -> io::Result<Ticket> {
        self.agent.begin(command)
    }

    /// Waits for a command that [`begin`](Self::begin) started.
    pub fn finish(&mut self, ticket: &Ticket, timeout: Duration) -> io::Result<Answer> {
        self.agent
            .finish(ticket, timeout)
            .map_err(|error| self.explain(&error))
    }

    /// Like [`finish`](Self::finish), where a command that goes on is no error but `None`.
    pub fn poll(&mut self, ticket: &Ticket, timeout: Duration) -> io::Result<Option<Answer>> {
        self.agent
            .poll(ticket, timeout)
            .map_err(|error| self.explain(&error))
    }

    /// Fails if the guest's kernel has seen an I/O error, a file system error or a request that hung.
    pub fn assert_no_io_errors(&mut self) -> io::Result<()> {
        self.agent
            .assert_no_io_errors()
            .map_err(|error| self.explain(&error))
    }

    /// Switches the guest off from inside and waits for QEMU's end.
    pub fn power_off(mut self, timeout: Duration) -> io::Result<()> {
        let _ = self.agent.begin("poweroff")?;
        if !self.qemu.ends(timeout)? {
            return Err(self.explain(&io::Error::other(format!(
                "the guest did not switch off within {timeout:?}"
            ))));
        }
        Ok(())
    }

    /// QEMU's own control channel.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    fn spawn(spec: &MachineSpec, dir: &Path, incoming: bool, last_id: u32) -> io::Result<Self> {
        let (qmp_path, agent_path) = (dir.join("qmp"), dir.join("agent"));
        let _ = fs::remove_file(&qmp_path);
        let _ = fs::remove_file(&agent_path);
        let messages = fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join("qemu.log"))?;
        let child = command(spec, dir, incoming)?
            .stdin(Stdio::null())
            .stdout(messages.try_clone()?)
            .stderr(messages)
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("qemu-system-x86_64: {error}"))
            })?;
        let mut qemu = Process(child);
        match connect(&mut qemu, &qmp_path, &agent_path, last_id) {
            Ok((qmp, agent)) => Ok(Self {
                spec: spec.clone(),
                dir: dir.to_owned(),
                qemu,
                qmp,
                agent,
            }),
            Err(error) => {
                let said = fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
                Err(io::Error::other(format!(
                    "QEMU did not start: {error}\n{said}"
                )))
            }
        }
    }

    /// Adds the ends of the console and of QEMU's messages to an error.
    fn explain(&self, error: &io::Error) -> io::Error {
        let tail = |name: &str| tail(&self.dir.join(name));
        io::Error::other(format!(
            "{error}\nconsole:\n{}QEMU:\n{}",
            tail("console.log"),
            tail("qemu.log")
        ))
    }
}

/// QEMU's process, ended the hard way when dropped.
#[derive(Debug)]
struct Process(Child);

impl Process {
    /// Whether it has ended by itself, or does so within the time.
    fn ends(&mut self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        while self.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(true)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(qemu: &mut Process, qmp: &Path, agent: &Path, last_id: u32) -> io::Result<(Qmp, Agent)> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !(qmp.exists() && agent.exists()) {
        if let Some(status) = qemu.0.try_wait()? {
            return Err(io::Error::other(format!("it ended with {status}")));
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("no control sockets after 30 s"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // The agent first: what the guest says while nobody listens is lost.
    let agent = Agent::connect(agent, last_id)?;
    Ok((Qmp::connect(qmp)?, agent))
}

fn command(spec: &MachineSpec, dir: &Path, incoming: bool) -> io::Result<Command> {
    let accelerator = accelerator()?;
    let mut command = Command::new("qemu-system-x86_64");
    if accelerator == "kvm" {
        command.args(["-accel", "kvm", "-cpu", "host"]);
    } else {
        command.args(["-accel", "tcg,thread=multi"]);
    }
    command.args([
        "-machine",
        "q35,memory-backend=memory",
        "-display",
        "none",
        "-nodefaults",
        "-no-user-config",
    ]);
    command.arg("-object").arg(format!(
        "memory-backend-memfd,id=memory,size={}M,share=on",
        spec.memory_mib
    ));
    command.arg("-m").arg(format!("{}M", spec.memory_mib));
    command.arg("-smp").arg(spec.vcpus.to_string());
    for (index, socket) in spec.disks.iter().enumerate() {
        command.arg("-chardev").arg(format!(
            "socket,id=disk{index},path={},reconnect-ms=100",
            socket.display()
        ));
        command.arg("-device").arg(format!(
            "vhost-user-blk-pci,chardev=disk{index},num-queues={},bootindex={index}",
            spec.vcpus
        ));
    }
    // The console is appended to, so that a restored guest's follows the saved one's.
    let console = dir.join("console.log");
    command.arg("-chardev").arg(format!(
        "file,id=console,path={},append=on",
        console.display()
    ));
    command.args(["-serial", "chardev:console"]);
    command.arg("-chardev").arg(format!(
        "socket,id=agent,path={},server=on,wait=off",
        dir.join("agent").display()
    ));
    command.args(["-serial", "chardev:agent"]);
    command.arg("-qmp").arg(format!(
        "unix:{},server=on,wait=off",
        dir.join("qmp").display()
    ));
    if incoming {
        command.args(["-incoming", "defer"]);
    }
    Ok(command)
}
