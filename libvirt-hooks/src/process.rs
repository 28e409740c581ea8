//! Who a front end's process is, from its command line.

use uuid::Uuid;

/// A QEMU, or what else has connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontEnd {
    /// The domain's name.
    pub name: Option<String>,
    /// The domain's UUID.
    pub uuid: Option<Uuid>,
}

impl FrontEnd {
    /// In a sentence.
    pub fn what(&self) -> String {
        match &self.name {
            Some(name) => format!("domain {name}"),
            None => "another front end".into(),
        }
    }

    /// `-name guest=NAME,...` and `-uuid UUID`, as libvirt starts QEMU.
    fn of(command_line: &[u8]) -> FrontEnd {
        let args = String::from_utf8_lossy(command_line);
        let args: Vec<&str> = args.split('\0').collect();
        let after = |option: &str| {
            let pair = args.windows(2).find(|pair| pair.first() == Some(&option));
            pair.and_then(|pair| pair.get(1)).copied()
        };
        let name = after("-name").and_then(|name| name.strip_prefix("guest="));
        let name = name.and_then(|name| name.split(',').next());
        FrontEnd {
            name: name.map(str::to_owned),
            uuid: after("-uuid").and_then(|uuid| uuid.parse().ok()),
        }
    }
}

/// Who this is; `None`: it has gone, or is nobody of this host.
pub fn front_end(pid: u32) -> Option<FrontEnd> {
    let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(FrontEnd::of(&command_line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let qemu = b"/usr/bin/qemu-system-x86_64\0-name\0guest=web shop,debug-threads=on\0-uuid\0c7a5fdbd-edaf-9455-926a-d65c16db1809\0-S\0";
        let it = FrontEnd::of(qemu);
        assert_eq!(it.what(), "domain web shop");
        assert_eq!(it.uuid, "c7a5fdbd-edaf-9455-926a-d65c16db1809".parse().ok());
        for other in [&b""[..], b"-name", b"sh\0-uuid\0x\0", b"\xff\0-name\0x"] {
            let it = FrontEnd::of(other);
            assert_eq!((it.name, it.uuid), (None, None));
        }
        assert_eq!(front_end(u32::MAX), None);
    }
}
