//! libvirt's elements for a vDisk, from `xml-templates/`.

const DISK: &str = include_str!("../../xml-templates/vhostuser-disk.xml");
const MEMORY: &str = include_str!("../../xml-templates/memory-backing.xml");

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
fn escape(text: &str) -> String {
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
