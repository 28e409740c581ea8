//! A real libvirtd and its hook: what a domain with vDisks waits for, what it is refused, and what is remembered of it.

use std::error::Error;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firn_tests::guest;
use firn_tests::libvirt::{FirnHost as Host, PROMPT};

type TestResult = Result<(), Box<dyn Error>>;

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
