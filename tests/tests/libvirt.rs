//! A real libvirtd and its hook: what a domain with vDisks waits for, what it is refused, and what is remembered of it.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firn_tests::guest;
use firn_tests::libvirt::LibvirtHost;
use firn_tests::server::Binaries;

type TestResult = Result<(), Box<dyn Error>>;

/// Longer than a call that has nothing to wait for may take, on a busy machine.
const PROMPT: Duration = Duration::from_secs(8);

/// A host with the hook, a store, and at times a backend.
struct Host {
    libvirt: LibvirtHost,
    backend: Option<Child>,
}

impl Host {
    fn start() -> Result<Host, Box<dyn Error>> {
        let host = Host {
            libvirt: LibvirtHost::start(Binaries::find()?)?,
            backend: None,
        };
        let store = host.store();
        host.libvirt
            .must(&["firn", "store", "init", &store.display().to_string()])?;
        let said = host.libvirt.install_hook()?;
        assert!(said.contains("reload"), "{said}");
        let said = host.libvirt.must(&["firn", "hooks", "status"])?;
        assert!(
            said.contains("installed\n") && !said.contains("next"),
            "{said}"
        );
        Ok(host)
    }

    fn store(&self) -> PathBuf {
        self.libvirt.dir().join("store")
    }

    fn serve(&mut self) -> TestResult {
        self.libvirt.must(&["mkdir", "-p", "/run/firn"])?;
        let log = std::fs::File::create(self.libvirt.dir().join("backend.log"))?;
        let mut command = self.libvirt.command("firn-vhost-backend");
        command.arg("--store").arg(self.store()).stderr(log);
        self.backend = Some(command.spawn()?);
        let began = Instant::now();
        while self.libvirt.must(&["firn", "store", "status"]).is_err() {
            assert!(began.elapsed() < PROMPT, "the backend does not come up");
        }
        Ok(())
    }

    fn stop(&mut self) -> TestResult {
        self.libvirt.must(&["pkill", "firn-vhost"])?;
        if let Some(mut backend) = self.backend.take() {
            backend.wait()?;
        }
        Ok(())
    }

    fn define(&self, name: &str, vdisks: &[&str]) -> TestResult {
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
        self.libvirt.define(&xml)?;
        Ok(())
    }

    /// What a domain's start says, which must fail, and at once.
    fn refused(&self, name: &str) -> Result<String, Box<dyn Error>> {
        let began = Instant::now();
        let said = self.libvirt.virsh_fails(&["start", name])?;
        assert!(began.elapsed() < PROMPT, "{:?}: {said}", began.elapsed());
        Ok(said)
    }

    /// The id of its QEMU.
    fn process_of(&self, name: &str) -> Result<String, Box<dyn Error>> {
        let file = format!("/run/libvirt/qemu/{name}.pid");
        Ok(self.libvirt.must(&["cat", &file])?.trim().to_owned())
    }

    /// What is known of the domain of a vDisk, when it says so at last.
    fn domain_of(&self, vdisk: &str, state: &str) -> Result<serde_json::Value, Box<dyn Error>> {
        let began = Instant::now();
        loop {
            let shown = self
                .libvirt
                .must(&["firn", "vdisk", "show", vdisk, "--json"])?;
            let shown: serde_json::Value = serde_json::from_str(&shown)?;
            let domain = shown["domain"].clone();
            if domain["state"] == state {
                return Ok(domain);
            }
            assert!(began.elapsed() < PROMPT, "{state}: {domain}");
        }
    }
}

#[test]
fn domains_wait_for_their_vdisks_and_leave_a_trace() -> TestResult {
    let mut host = Host::start()?;
    host.serve()?;
    host.libvirt
        .must(&["firn", "vdisk", "create", "web", "1G"])?;
    host.define("shop", &["web"])?;
    host.stop()?;
    // One that is started before the backend is up.
    let mut start: Command = host.libvirt.command("virsh");
    start.args(["--connect", "qemu:///system", "start", "shop"]);
    let mut start = start.stdout(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(start.try_wait()?, None, "it does not wait");
    assert!(host.process_of("shop").is_err(), "there is a QEMU already");
    host.serve()?;
    assert!(start.wait()?.success());
    let running = host.domain_of("web", "running")?;
    assert_eq!(running["name"], "shop");

    // A new libvirtd finds it again, and kills nothing.
    let process = host.process_of("shop")?;
    host.libvirt.stop_libvirtd()?;
    host.libvirt.start_libvirtd()?;
    assert_eq!(host.libvirt.virsh(&["domstate", "shop"])?.trim(), "running");
    assert_eq!(host.process_of("shop")?, process);
    assert_eq!(host.domain_of("web", "running")?, running);

    host.libvirt.virsh(&["destroy", "shop"])?;
    assert_eq!(host.domain_of("web", "stopped")?["reason"], "destroyed");
    host.libvirt.virsh(&["start", "shop"])?;
    host.domain_of("web", "running")?;
    host.libvirt
        .must(&["kill", "-9", &host.process_of("shop")?])?;
    assert_eq!(host.domain_of("web", "stopped")?["reason"], "crashed");
    Ok(())
}

/// The domain that `firn vdisk xml` writes is one to libvirt, and Debian boots in it.
#[test]
fn the_template_of_a_domain_boots() -> TestResult {
    let mut host = Host::start()?;
    host.serve()?;
    let image = guest::image()?;
    let import = ["vdisk", "import", &image.display().to_string(), "system"];
    host.libvirt.must(&[&["firn"], &import[..]].concat())?;
    let file = host.libvirt.dir().join("template.xml");
    let template = |options: &[&str]| -> TestResult {
        let xml = ["firn", "vdisk", "xml", "system", "--domain", "guest"];
        let xml = host.libvirt.must(&[&xml[..], options].concat())?;
        std::fs::write(&file, xml)?;
        let file = file.display().to_string();
        host.libvirt.must(&["virt-xml-validate", &file, "domain"])?;
        Ok(())
    };
    for options in [
        &[][..],
        &["--uefi"],
        &["--uefi", "--emulated", "--vcpus", "64"],
    ] {
        template(options)?;
    }
    template(&["--emulated", "--memory", "512M", "--vcpus", "2"])?;
    host.libvirt
        .virsh(&["define", &file.display().to_string()])?;
    host.libvirt.virsh(&["start", "guest"])?;
    let console = host.libvirt.virsh(&["ttyconsole", "guest"])?;
    let up = format!("grep -m 1 -a 'guest is up' < {}", console.trim());
    let said = host.libvirt.must(&["bash", "-c", &up])?;
    assert!(said.contains("root on /dev/vda1"), "{said}");
    Ok(())
}

#[test]
fn what_can_not_be_started_says_why() -> TestResult {
    let mut host = Host::start()?;
    host.serve()?;
    host.libvirt
        .must(&["firn", "vdisk", "create", "web", "1G"])?;
    host.define("shop", &["web"])?;
    host.libvirt.virsh(&["start", "shop"])?;
    let running = host.domain_of("web", "running")?;

    host.define("thief", &["web"])?;
    let said = host.refused("thief")?;
    assert!(
        said.contains("vDisk web is in use by domain shop (process "),
        "{said}"
    );
    // Its end is not shop's.
    assert_eq!(host.domain_of("web", "running")?, running);

    host.define("lost", &["db"])?;
    let said = host.refused("lost")?;
    assert!(said.contains("there is no vDisk db in /run/firn"), "{said}");

    host.define("greedy", &["web", "web"])?;
    let said = host.refused("greedy")?;
    assert!(said.contains("twice"), "{said}");

    // Others are none of its business, whether there is a backend or not.
    host.stop()?;
    host.define("plain", &[])?;
    let began = Instant::now();
    host.libvirt.virsh(&["start", "plain"])?;
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    Ok(())
}
