//! Two hosts with libvirt, one backend that both reach, and a guest on one of them that writes all the time.
//!
//! The guest boots from the vDisk `system` and writes to `data`, in two ways: files that are synced one by one, with their checksums noted
//! (`firn-writer`), and `fio`, which verifies what it has written. [`Pair::verify`] ends both and looks at every byte.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::guest::{self, Agent};
use crate::libvirt::LibvirtHost;
use crate::rig::PATIENCE;
use crate::server::{Binaries, Firn, Server};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SECOND: Duration = Duration::from_secs(1);
/// Through firmware and boot loader, emulated, on a busy machine.
const BOOT: Duration = Duration::from_secs(180);
const DATA_BYTES: u64 = 8 << 30;
/// Goes on until /run/stop is there, or something is wrong.
const FIO: &str = "while [ ! -e /run/stop ]; do fio --name=load --filename=/mnt/load --rw=randwrite --bsrange=4k-64k --ioengine=libaio --direct=1 \
     --iodepth=16 --size=24M --verify=crc32c --verify_fatal=1 --randrepeat=0 --eta=never --output=/run/fio.log || { touch /run/fio-failed; break; }; \
     echo round >> /run/fio-rounds; done; touch /run/fio-over";
/// What was written, as it is on the disk.
const VERIFY: &str = "echo 3 > /proc/sys/vm/drop_caches && cd /mnt/files && sha256sum -c --quiet sums && cd / && umount /mnt && e2fsck -fn /dev/vdb";

/// Two hosts and what they share.
pub struct Pair {
    // Dropped in this order: guests first, and nobody serves from a directory that is gone.
    agent: Option<Agent>,
    /// The hosts.
    pub hosts: [LibvirtHost; 2],
    /// On which of them the guest is.
    pub at: usize,
    /// The backend.
    pub server: Server,
    /// The store.
    pub firn: Firn,
    _dir: TempDir,
    /// One guest at a time: on TCG two would only make both slow, and their timeouts guesses.
    _turn: MutexGuard<'static, ()>,
}

impl Pair {
    /// Starts everything but the guest.
    pub fn start() -> Outcome<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let image = guest::image()?;
        let dir = TempDir::with_prefix("firn-pair-")?;
        let firn = Firn::create(Binaries::find()?, dir.path())?;
        let server = firn.serve()?;
        firn.cli(&["vdisk", "import", &image.display().to_string(), "system"])?;
        firn.create_vdisk("data", DATA_BYTES)?;
        let host = |name| LibvirtHost::start_as(name, Some(firn.run()), Binaries::find()?);
        let hosts = [host("left")?, host("right")?];
        for host in &hosts {
            host.install_hook()?;
        }
        Ok(Self {
            agent: None,
            hosts,
            at: 0,
            server,
            firn,
            _dir: dir,
            _turn: turn,
        })
    }

    /// The host that the guest is on.
    pub fn here(&self) -> &LibvirtHost {
        &self.hosts[self.at]
    }

    /// The other one.
    pub fn there(&self) -> &LibvirtHost {
        &self.hosts[1 - self.at]
    }

    /// Starts the guest, and has it write.
    pub fn boot_and_load(&mut self) -> Outcome<()> {
        self.here().define(&domain())?;
        self.here().virsh(&["start", "guest"])?;
        self.connect()?;
        self.agent().await_ready(BOOT)?;
        for line in [
            "mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt && mkdir /mnt/files && touch /mnt/files/sums",
            "dd if=/dev/urandom of=/run/source bs=64k count=1008 status=none",
            "firn-writer /mnt/files /run/source > /run/writer.log 2>&1 &",
            &format!("{{ {FIO}; }} > /run/fio-loop.log 2>&1 &"),
        ] {
            self.must(line, 60 * SECOND)?;
        }
        Ok(())
    }

    /// Talks to the guest where it is now.
    pub fn connect(&mut self) -> Outcome<()> {
        let last = self.agent.as_ref().map_or(0, Agent::last_id);
        let socket = self.here().sockets().join("agent");
        let until = Instant::now() + PATIENCE;
        loop {
            match Agent::connect(&socket, last) {
                Ok(agent) => {
                    self.agent = Some(agent);
                    return Ok(());
                }
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    #[expect(clippy::expect_used, reason = "a test that has not booted its guest")]
    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("the guest was booted")
    }

    /// Runs a command in the guest.
    pub fn must(&mut self, line: &str, within: Duration) -> Outcome<String> {
        self.agent().must(line, within).map_err(|error| {
            let logs = [
                self.firn.log().to_owned(),
                self.here().sockets().join("console"),
            ];
            let tails = logs.map(|log| format!("\n{}:\n{}", log.display(), tail(&log)));
            format!("{error}{}", tails.concat()).into()
        })
    }

    /// Waits until the guest has written some files more; how many there are.
    pub fn progress(&mut self) -> Outcome<u64> {
        const LOOK: &str = "ls /run/fio-failed /run/written 2>/dev/null; wc -l < /mnt/files/sums";
        const MORE: u64 = 4;
        let until = Instant::now() + 60 * SECOND;
        let mut before = None;
        loop {
            let now = self.must(LOOK, 60 * SECOND)?;
            let count: u64 = now
                .parse()
                .map_err(|_| format!("the load has ended: {now}"))?;
            if count >= *before.get_or_insert(count) + MORE {
                return Ok(count);
            }
            if Instant::now() > until {
                let log = tail(self.firn.log());
                return Err(format!("the guest writes nothing: {count} files\n{log}").into());
            }
        }
    }

    /// Begins to migrate the guest to the other host.
    pub fn begin_migration(&self, options: &[&str]) -> Outcome<Child> {
        let socket = self.there().sockets().join("migration");
        let mut virsh = self.here().command("timeout");
        virsh.args([
            "180",
            "virsh",
            "--quiet",
            "--connect",
            "qemu:///system",
            "migrate",
            "guest",
        ]);
        virsh.args(["--desturi", &self.there().uri()]);
        virsh.args(["--migrateuri", &format!("unix://{}", socket.display())]);
        virsh
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(virsh.spawn()?)
    }

    /// The same, so slowly that it does not end by itself; when this returns, the other host's QEMU waits.
    pub fn begin_slowly(&self) -> Outcome<Child> {
        let migration = self.begin_migration(&["--live", "--bandwidth", "8"])?;
        self.until("data", "somebody waits", |shown| {
            shown["waiting"] != Value::Null
        })?;
        Ok(migration)
    }

    /// Migrates the guest to the other host; how long it stood still there, as QEMU says.
    pub fn migrate(&mut self, options: &[&str]) -> Outcome<Duration> {
        let migration = self.begin_migration(options)?;
        self.end_migration(migration)
    }

    /// Waits for the end of a migration that must succeed.
    pub fn end_migration(&mut self, migration: Child) -> Outcome<Duration> {
        let output = migration.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("migration: {said}\n{}", tail(self.firn.log())).into());
        }
        self.at = 1 - self.at;
        self.connect()?;
        let info = self
            .here()
            .virsh(&["domjobinfo", "guest", "--completed", "--rawstats"])?;
        let downtime = info
            .lines()
            .find_map(|line| line.trim().strip_prefix("downtime: "));
        let downtime = downtime.ok_or_else(|| format!("no downtime in: {info}"))?;
        Ok(Duration::from_millis(downtime.trim().parse()?))
    }

    /// What `firn vdisk show` tells of a vDisk.
    pub fn shown(&self, vdisk: &str) -> Outcome<Value> {
        let shown = self.firn.cli(&["vdisk", "show", vdisk, "--json"])?;
        Ok(serde_json::from_slice(&shown.stdout)?)
    }

    /// Waits until it tells something else.
    pub fn until(&self, vdisk: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Outcome<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let shown = self.shown(vdisk)?;
            if holds(&shown) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!(
                    "not before long: {what}: {shown}\n{}",
                    tail(self.firn.log())
                )
                .into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a backend has said something.
    pub fn until_said(&self, words: &str) -> Outcome<()> {
        let until = Instant::now() + PATIENCE;
        while self.said(words)? == 0 {
            if Instant::now() > until {
                return Err(format!("nobody says {words}\n{}", tail(self.firn.log())).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// How often the backends have said something.
    pub fn said(&self, words: &str) -> Outcome<usize> {
        let log = fs::read_to_string(self.firn.log())?;
        Ok(log.lines().filter(|line| line.contains(words)).count())
    }

    /// Kills the backend, and starts another one.
    pub fn kill_backend(&mut self) -> Outcome<()> {
        self.server.kill()?;
        self.server = self.firn.serve()?;
        Ok(())
    }

    /// Ends the load and looks whether all is there that was written; the longest time that writing a file has taken.
    pub fn verify(&mut self) -> Outcome<Duration> {
        self.progress()?;
        self.must("touch /run/stop", 30 * SECOND)?;
        let over =
            "while [ ! -e /run/written -o ! -e /run/fio-over ]; do sleep 1; done; cat /run/written";
        let written = self.must(over, 240 * SECOND)?;
        self.must(
            "! ls /run/fio-failed 2>/dev/null || { cat /run/fio.log; false; }",
            30 * SECOND,
        )?;
        let rounds = self.must("wc -l < /run/fio-rounds", 30 * SECOND)?;
        assert_ne!(rounds, "0", "fio has verified nothing");
        self.must(&format!("sync && {VERIFY}"), 240 * SECOND)?;
        self.agent().assert_no_io_errors()?;
        let [files, worst] = written.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("the writer said {written:?}").into());
        };
        println!(
            "{files} files, {rounds} rounds of fio, the longest write of a file took {worst} ms"
        );
        Ok(Duration::from_millis(worst.parse()?))
    }
}

/// The domain, the same on both hosts.
fn domain() -> String {
    let disk = |(name, target, boot): (&str, &str, &str)| {
        format!(
            "<disk type='vhostuser' device='disk'><driver name='qemu' type='raw' queues='2'/>\
             <source type='unix' path='/run/firn/{name}.sock'><reconnect enabled='yes' timeout='1'/></source>\
             <target dev='{target}' bus='virtio'/>{boot}</disk>"
        )
    };
    let disks = [("system", "vda", "<boot order='1'/>"), ("data", "vdb", "")].map(disk);
    format!(
        "<domain type='qemu'><name>guest</name><memory unit='MiB'>512</memory><vcpu>2</vcpu>\
         <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>\
         <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>{}\
         <serial type='file'><source path='/run/libvirt/console' append='on'/><target port='0'/></serial>\
         <serial type='unix'><source mode='bind' path='/run/libvirt/agent'/><target port='1'/></serial>\
         <memballoon model='none'/></devices></domain>",
        disks.concat()
    )
}

fn tail(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let skip = text.lines().count().saturating_sub(40);
    let lines: Vec<_> = text.lines().skip(skip).collect();
    lines.join("\n")
}
