//! A host that has Firn: libvirt with the hook, a store, and at times a backend.

use std::error::Error;
use std::fs::File;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use super::{GuestSpec, LibvirtGuest, LibvirtHost};
use crate::guest;
use crate::guest::BOOT;
use crate::server::Binaries;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Longer than a call that has nothing to wait for may take, on a busy machine.
pub const PROMPT: Duration = Duration::from_secs(8);

/// A host with libvirt and Firn.
#[derive(Debug)]
pub struct FirnHost {
    /// The host without Firn.
    pub libvirt: LibvirtHost,
    backend: Option<Child>,
    orchestrator: Option<Child>,
}

impl FirnHost {
    /// Starts libvirt, makes a store, and installs the hook.
    pub fn start() -> Result<Self> {
        let host = Self {
            libvirt: LibvirtHost::start(Binaries::find()?)?,
            backend: None,
            orchestrator: None,
        };
        let store = host.store().display().to_string();
        host.firn(&["store", "init", &store])?;
        let said = host.libvirt.install_hook()?;
        assert!(said.contains("reload"), "{said}");
        let said = host.firn(&["hooks", "status"])?;
        assert!(
            said.contains("installed\n") && !said.contains("next"),
            "{said}"
        );
        Ok(host)
    }

    /// Its store.
    pub fn store(&self) -> PathBuf {
        self.libvirt.dir().join("store")
    }

    /// `firn` that must succeed; what it prints.
    pub fn firn(&self, args: &[&str]) -> Result<String> {
        Ok(self.libvirt.must(&[&["firn"], args].concat())?)
    }

    /// Starts the backend, and waits until it answers.
    pub fn serve(&mut self) -> Result<()> {
        self.libvirt.must(&["mkdir", "-p", "/run/firn"])?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.libvirt.dir().join("backend.log"))?;
        let mut command = self.libvirt.command("firn-vhost-backend");
        command.arg("--store").arg(self.store()).stderr(log);
        self.backend = Some(command.spawn()?);
        let began = Instant::now();
        while self.firn(&["store", "status"]).is_err() {
            if began.elapsed() > PROMPT {
                return Err("the backend does not come up".into());
            }
        }
        Ok(())
    }

    /// Ends the backend, in order.
    pub fn stop(&mut self) -> Result<()> {
        self.libvirt.must(&["pkill", "firn-vhost"])?;
        if let Some(mut backend) = self.backend.take() {
            backend.wait()?;
        }
        Ok(())
    }

    /// Makes vDisks (the first one bootable, the others of so many MiB), and a guest on them that is up.
    pub fn boot_guest(&self, vdisks: &[&str], mib: u64) -> Result<LibvirtGuest> {
        let (system, others) = vdisks.split_first().ok_or("a guest needs a vDisk")?;
        let image = guest::image()?.display().to_string();
        self.firn(&["vdisk", "import", &image, system])?;
        for vdisk in others {
            self.firn(&["vdisk", "create", vdisk, &format!("{mib}M")])?;
        }
        let spec = GuestSpec {
            name: "guest",
            vdisks,
            vcpus: 2,
            uefi: false,
        };
        let mut guest = LibvirtGuest::define(&self.libvirt, &spec)?;
        guest.start(&self.libvirt)?;
        Ok(guest)
    }

    /// Kills the backend.
    pub fn kill_backend(&mut self) -> Result<()> {
        self.libvirt.must(&["pkill", "-KILL", "firn-vhost"])?;
        if let Some(mut backend) = self.backend.take() {
            backend.wait()?;
        }
        Ok(())
    }

    /// Starts the orchestrator, and waits until it answers.
    pub fn orchestrate(&mut self) -> Result<()> {
        self.orchestrate_with(&[])
    }

    /// The same, with more options.
    pub fn orchestrate_with(&mut self, options: &[&str]) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.orchestrator_log())?;
        let mut command = self.libvirt.command("firn-orchestrator");
        command
            .env("RUST_LOG", "debug")
            .arg("--state")
            .arg(self.libvirt.dir().join("orchestrator"))
            .args(options);
        self.orchestrator = Some(command.stderr(log).spawn()?);
        let began = Instant::now();
        while self.firn(&["vm", "status"]).is_err() {
            if began.elapsed() > PROMPT {
                return Err("the orchestrator does not come up".into());
            }
        }
        Ok(())
    }

    /// Kills the orchestrator.
    pub fn kill_orchestrator(&mut self) -> Result<()> {
        self.libvirt.must(&["pkill", "-KILL", "firn-orch"])?;
        if let Some(mut orchestrator) = self.orchestrator.take() {
            orchestrator.wait()?;
        }
        Ok(())
    }

    /// What the orchestrator has logged.
    pub fn orchestrator_log(&self) -> PathBuf {
        self.libvirt.dir().join("orchestrator.log")
    }

    /// Defines a domain that has vDisks and no system.
    pub fn define(&self, name: &str, vdisks: &[&str]) -> Result<()> {
        let disks = vdisks.iter().zip('a'..).map(|(vdisk, letter)| {
            format!(
                "<disk type='vhostuser' device='disk'><driver name='qemu' type='raw' queues='1'/>\
                 <source type='unix' path='/run/firn/{vdisk}.sock'><reconnect enabled='yes' timeout='1'/></source>\
                 <target dev='vd{letter}' bus='virtio'/></disk>"
            )
        });
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
             <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>\
             <os><type arch='x86_64'>hvm</type></os><devices>{}</devices></domain>",
            disks.collect::<String>()
        );
        Ok(self.libvirt.define(&xml)?)
    }

    /// What a domain's start says, which must fail, and at once.
    pub fn refused(&self, name: &str) -> Result<String> {
        let began = Instant::now();
        let said = self.libvirt.virsh_fails(&["start", name])?;
        assert!(began.elapsed() < PROMPT, "{:?}: {said}", began.elapsed());
        Ok(said)
    }

    /// The id of a domain's QEMU.
    pub fn process_of(&self, name: &str) -> Result<String> {
        let file = format!("/run/libvirt/qemu/{name}.pid");
        Ok(self.libvirt.must(&["cat", &file])?.trim().to_owned())
    }

    /// What is known of the domain of a vDisk, when it says so at last.
    pub fn domain_of(&self, vdisk: &str, state: &str) -> Result<serde_json::Value> {
        let began = Instant::now();
        loop {
            let shown = self.firn(&["vdisk", "show", vdisk, "--json"])?;
            let shown: serde_json::Value = serde_json::from_str(&shown)?;
            let domain = shown["domain"].clone();
            if domain["state"] == state {
                return Ok(domain);
            }
            assert!(began.elapsed() < PROMPT, "{state}: {domain}");
        }
    }
    /// Waits until the console of a domain with a [`guest::image`](crate::guest::image) says that it is up, and returns that line.
    pub fn comes_up(&self, domain: &str) -> Result<String> {
        let console = self.libvirt.virsh(&["ttyconsole", domain])?;
        let up = format!("grep -m 1 -a 'guest is up' < {}", console.trim());
        Ok(self.libvirt.must_within(BOOT, &["bash", "-c", &up])?)
    }
}
