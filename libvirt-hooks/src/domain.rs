//! A domain, as far as it is our business.

use roxmltree::{Document, Node, ParsingOptions};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Elements, attributes and texts of a domain, at most. Large ones have some thousands.
const NODES_MAX: u32 = 1 << 20;

/// A domain that libvirt starts or has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its UUID; nil where the XML has none.
    pub uuid: Uuid,
    /// Its virtual processors when it starts: QEMU's own number of queues.
    pub vcpus: u32,
    /// Its vhost-user disks.
    pub disks: Vec<Disk>,
}

/// A vhost-user disk, somebody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The socket that it is served on.
    pub socket: PathBuf,
    /// The guest's name for it.
    pub target: String,
    /// How many queues it asks for; `None`: one per virtual processor.
    pub queues: Option<u32>,
}

impl Domain {
    /// Reads libvirt's XML. What can't be read is no domain.
    pub fn read(xml: &str) -> Result<Domain, roxmltree::Error> {
        let options = ParsingOptions {
            nodes_limit: NODES_MAX,
            ..ParsingOptions::default()
        };
        let document = Document::parse_with_options(xml, options)?;
        let root = document.root_element();
        let text = |name| child(root, name).and_then(|node| node.text());
        let devices = child(root, "devices");
        let disks = devices.iter().flat_map(|devices| devices.children());
        Ok(Domain {
            name: text("name").unwrap_or_default().trim().to_owned(),
            uuid: text("uuid")
                .and_then(|uuid| uuid.trim().parse().ok())
                .unwrap_or_default(),
            vcpus: child(root, "vcpu")
                .and_then(|vcpu| vcpu.attribute("current").or(vcpu.text()))
                .and_then(|count| count.trim().parse().ok())
                .unwrap_or(1),
            disks: disks.filter_map(disk).collect(),
        })
    }
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn disk(node: Node<'_, '_>) -> Option<Disk> {
    if !node.has_tag_name("disk") || node.attribute("type") != Some("vhostuser") {
        return None;
    }
    let socket = child(node, "source")?.attribute("path")?;
    let target = child(node, "target").and_then(|target| target.attribute("dev"));
    let queues = child(node, "driver").and_then(|driver| driver.attribute("queues"));
    Some(Disk {
        socket: socket.into(),
        target: target.unwrap_or_default().to_owned(),
        queues: queues.and_then(|count| count.parse().ok()),
    })
}

/// A socket that may be a vDisk's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VDisk<'a> {
    /// The runtime directory.
    pub run: &'a Path,
    /// The vDisk's name.
    pub name: &'a str,
    /// Whether its place says already that it is ours. Else whoever listens on the control socket beside it must.
    pub surely: bool,
}

impl Disk {
    /// The vDisk that it is, if it may be one: `RUN/NAME.sock`.
    ///
    /// Ours for sure are those where RUN is `/run/firn` or begins with `/run/firn/` or `/run/firn-`, served or not.
    pub fn vdisk(&self) -> Option<VDisk<'_>> {
        let run = self.socket.parent()?;
        let name = self.socket.file_name()?.to_str()?.strip_suffix(".sock")?;
        // /var/run is /run.
        let place = run.to_str()?;
        let place = place.strip_prefix("/var").unwrap_or(place);
        let rest = place.strip_prefix(control_api::DEFAULT_RUN);
        let surely = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '-']));
        let may_be = surely || control_api::control_socket(run).exists();
        (may_be && control_api::check_name(name).is_ok()).then_some(VDisk { run, name, surely })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str =
        "<domain type='kvm' id='1' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>shop</name><uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>
  <vcpu placement='static' current='2'>4</vcpu>
  <devices>
    <disk type='file' device='disk'><source file='/x'/><target dev='vda'/></disk>
    <disk type='vhostuser' device='disk'>
      <driver name='qemu' type='raw' queues='2'/>
      <source type='unix' path='/run/firn/web.sock'><reconnect enabled='yes' timeout='1'/></source>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='vhostuser'><source type='unix' path='/var/tmp/spdk.sock'/></disk>
  </devices>
</domain>";

    #[test]
    fn what_is_in_a_domain() {
        let domain = Domain::read(XML).unwrap();
        assert_eq!((domain.name.as_str(), domain.vcpus), ("shop", 2));
        assert_eq!(domain.disks.len(), 2);
        let web = &domain.disks[0];
        assert_eq!((web.target.as_str(), web.queues), ("vdb", Some(2)));
        let vdisk = web.vdisk().unwrap();
        assert_eq!((vdisk.run, vdisk.name), (Path::new("/run/firn"), "web"));
        assert_eq!(domain.disks[1].vdisk(), None);
    }

    #[test]
    fn what_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        let vdisk = |socket: &str| {
            let disk = Disk {
                socket: socket.into(),
                target: String::new(),
                queues: None,
            };
            disk.vdisk()
                .map(|vdisk| (vdisk.name.to_owned(), vdisk.surely))
        };
        let ours = Some(("a".to_owned(), true));
        for place in [
            "/run/firn",
            "/run/firn-ssd",
            "/run/firn/ssd",
            "/var/run/firn",
        ] {
            assert_eq!(vdisk(&format!("{place}/a.sock")), ours, "{place}");
        }
        for other in [
            "/run/firnx/a.sock",
            "/run/firn/a",
            "/run/firn/control.sock",
            "",
            "/",
        ] {
            assert_eq!(vdisk(other), None, "{other}");
        }
        let elsewhere = dir.path().join("a.sock").to_str().unwrap().to_owned();
        assert_eq!(vdisk(&elsewhere), None);
        std::fs::write(control_api::control_socket(dir.path()), "").unwrap();
        assert_eq!(vdisk(&elsewhere), Some(("a".to_owned(), false)));
    }

    #[test]
    fn hostile_xml_is_an_error() {
        for bad in [
            "",
            "<domain>",
            "not xml",
            "<!DOCTYPE d [<!ENTITY a 'x'><!ENTITY b '&a;&a;'>]><domain>&b;</domain>",
            &"<a>".repeat(1 << 16),
        ] {
            assert!(Domain::read(bad).is_err());
        }
    }
}
