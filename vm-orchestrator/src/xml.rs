//! libvirt's elements for a vDisk, from `xml-templates/`.

const DISK: &str = include_str!("../../xml-templates/vhostuser-disk.xml");
const DOMAIN: &str = include_str!("../../xml-templates/domain.xml");
const MEMORY: &str = include_str!("../../xml-templates/memory-backing.xml");

/// A domain's PCI Express ports, each for one device: five are taken from the start (disk, guest agent, random numbers, USB,
/// balloon), the others are there for disks that are attached while it runs. libvirt itself adds no spare one.
const PORTS: usize = 32;

/// What a `<disk>` element says.
pub struct DiskElement<'a> {
    /// Path of its socket.
    pub socket: &'a str,
    /// The guest's device name.
    pub target: &'a str,
    /// Number of queues; without it QEMU takes one per vCPU.
    pub queues: Option<u16>,
    /// Whether firmware looks here first.
    pub boot: bool,
}

/// What a whole domain says besides its disk.
pub struct DomainElement<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its memory, in bytes.
    pub memory: u64,
    /// Its virtual processors.
    pub vcpus: u16,
    /// By UEFI and not by BIOS.
    pub uefi: bool,
    /// Without KVM.
    pub emulated: bool,
}

/// A whole domain with one disk.
pub fn domain(element: &DomainElement<'_>, disk: &str) -> String {
    let arch = std::env::consts::ARCH;
    let machine = if arch == "x86_64" { "q35" } else { "virt" };
    let (kind, cpu) = match element.emulated {
        true => ("qemu", ""),
        false => ("kvm", "  <cpu mode='host-passthrough'/>\n"),
    };
    DOMAIN
        .replace("@TYPE@", kind)
        .replace("@MEMORY@", &element.memory.to_string())
        .replace("@MEMORY_BACKING@", &indented(MEMORY, 2))
        .replace("@VCPUS@", &element.vcpus.to_string())
        .replace(
            "@FIRMWARE@",
            if element.uefi { " firmware='efi'" } else { "" },
        )
        .replace("@ARCH@", arch)
        .replace("@MACHINE@", machine)
        .replace("@CPU@", cpu)
        .replace(
            "@PORTS@",
            &"    <controller type='pci' model='pcie-root-port'/>\n".repeat(PORTS),
        )
        // What stands in a path or a name is not a placeholder: these last, and the name, which stands before the disk, once.
        .replace("@DISK@", &indented(disk, 4))
        .replacen("@NAME@", &escape(element.name), 1)
}

fn indented(text: &str, by: usize) -> String {
    let lines = text.lines().map(|line| format!("{:by$}{line}\n", ""));
    lines.collect()
}

/// The `<disk>` element.
pub fn disk(element: &DiskElement<'_>) -> String {
    let queues = element
        .queues
        .map_or(String::new(), |count| format!(" queues='{count}'"));
    let boot = if element.boot {
        "  <boot order='1'/>\n"
    } else {
        ""
    };
    DISK.replace("@QUEUES@", &queues)
        .replace("@BOOT@", boot)
        .replace("@TARGET@", &escape(element.target))
        // Last: what stands in a path is not a placeholder.
        .replace("@SOCKET@", &escape(element.socket))
}

/// The `<memoryBacking>` element.
pub fn memory_backing() -> String {
    MEMORY.to_owned()
}

/// Text for an attribute's value.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '\'' => out += "&apos;",
            '"' => out += "&quot;",
            // Written out, or a parser would make a blank of it.
            '\t' | '\n' | '\r' => out += &format!("&#{};", u32::from(c)),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let element = DiskElement {
            socket: "/run/firn/web.1.sock",
            target: "vda",
            queues: Some(4),
            boot: true,
        };
        assert_eq!(
            disk(&element),
            "<disk type='vhostuser' device='disk'>\n  \
               <driver name='qemu' type='raw' queues='4'/>\n  \
               <source type='unix' path='/run/firn/web.1.sock'>\n    \
                 <reconnect enabled='yes' timeout='1'/>\n  \
               </source>\n  \
               <target dev='vda' bus='virtio'/>\n  \
               <boot order='1'/>\n\
             </disk>\n"
        );
        let plain = disk(&DiskElement {
            queues: None,
            boot: false,
            ..element
        });
        assert!(
            !plain.contains("queues") && !plain.contains("boot") && !plain.contains('@'),
            "{plain}"
        );
        assert!(memory_backing().contains("memfd") && memory_backing().contains("shared"));
    }

    #[test]
    fn a_whole_domain() {
        let element = DomainElement {
            name: "a<b @DISK@",
            memory: 1 << 30,
            vcpus: 2,
            uefi: true,
            emulated: false,
        };
        let text = domain(&element, "<disk path='@NAME@'/>\n");
        assert!(text.starts_with("<domain type='kvm'>\n  <name>a&lt;b @DISK@</name>\n"));
        for part in [
            "<memory unit='b'>1073741824</memory>\n  <memoryBacking>\n    <source",
            "<os firmware='efi'>",
            "  <cpu mode='host-passthrough'/>\n",
            "\n    <disk path='@NAME@'/>\n    <controller type='pci' model='pcie-root'/>\n    <controller type='pci' model='pcie-root-port'/>\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = domain(
            &DomainElement {
                uefi: false,
                emulated: true,
                name: "a",
                ..element
            },
            "<disk/>\n",
        );
        assert!(!text.contains("efi") && !text.contains("kvm") && !text.contains('@'));
    }

    #[test]
    fn a_path_cannot_leave_its_attribute() {
        let socket = "/run/a'b<c>&\"@TARGET@\n/web.sock";
        let text = disk(&DiskElement {
            socket,
            target: "vda",
            queues: None,
            boot: false,
        });
        assert!(
            text.contains("path='/run/a&apos;b&lt;c&gt;&amp;&quot;@TARGET@&#10;/web.sock'"),
            "{text}"
        );
    }
}
