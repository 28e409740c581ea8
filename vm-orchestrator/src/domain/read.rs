//! What is ours in a domain's XML.

use control_api::types::DomainDisk;
use libvirt_hooks::Domain;
use roxmltree::{Document, Node};
use std::collections::HashSet;
use std::path::Path;

/// Its disks that are vDisks of the backend with this runtime directory.
pub(crate) fn vdisks(xml: &str, run: &Path) -> Vec<DomainDisk> {
    let Ok(domain) = Domain::read(xml) else {
        return Vec::new();
    };
    let ours = domain.disks.iter().filter_map(|disk| {
        let vdisk = disk.vdisk()?;
        let vdisk = (same(vdisk.run, run)).then(|| vdisk.name.to_owned())?;
        Some(DomainDisk {
            target: disk.target.clone(),
            vdisk,
        })
    });
    ours.collect()
}

/// Whether it has disks that may be vDisks of another backend.
pub(crate) fn has_other_vdisks(xml: &str, run: &Path) -> bool {
    let Ok(domain) = Domain::read(xml) else {
        return false;
    };
    let mut vdisks = domain.disks.iter().filter_map(|disk| disk.vdisk());
    vdisks.any(|vdisk| !same(vdisk.run, run))
}

/// /var/run is /run.
fn same(a: &Path, b: &Path) -> bool {
    let plain = |path: &Path| match path.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => path.to_owned(),
    };
    plain(a) == plain(b)
}

/// The guest's names for all its disks.
pub(crate) fn targets(xml: &str) -> HashSet<String> {
    let Ok(document) = Document::parse(xml) else {
        return HashSet::new();
    };
    let targets = disks(&document).filter_map(|disk| child(disk, "target")?.attribute("dev"));
    targets.map(str::to_owned).collect()
}

/// Its disks, by target, that are no vDisks of this backend's and that it writes to.
pub(crate) fn others_written(xml: &str, run: &Path) -> Vec<String> {
    let Ok(document) = Document::parse(xml) else {
        return Vec::new();
    };
    let ours: HashSet<String> = vdisks(xml, run).into_iter().map(|d| d.target).collect();
    let targets = disks(&document)
        .filter(|disk| !is_shareable(*disk))
        .filter_map(|disk| child(disk, "target")?.attribute("dev"));
    targets
        .filter(|target| !ours.contains(*target))
        .map(str::to_owned)
        .collect()
}

/// Whether two domains can have a disk: nobody writes to it, or all who do know of each other.
pub(super) fn is_shareable(disk: Node<'_, '_>) -> bool {
    let read_only = matches!(disk.attribute("device"), Some("cdrom" | "floppy"));
    let empty = child(disk, "source").is_none();
    read_only || empty || child(disk, "readonly").is_some() || child(disk, "shareable").is_some()
}

/// How many virtual processors it has when it starts.
pub(crate) fn vcpus(xml: &str) -> u32 {
    Domain::read(xml).map_or(1, |domain| domain.vcpus)
}

/// Whether another process can map its memory, as backends must.
pub(crate) fn memory_is_shared(xml: &str) -> bool {
    let Ok(document) = Document::parse(xml) else {
        return false;
    };
    let root = document.root_element();
    let backing = child(root, "memoryBacking");
    let access = backing.and_then(|node| child(node, "access"));
    let shared = access.and_then(|node| node.attribute("mode")) == Some("shared");
    // Or each of its NUMA cells says so.
    let cells = child(root, "cpu").and_then(|node| child(node, "numa"));
    let mut cells = cells.into_iter().flat_map(|node| node.children());
    let mut cells = cells
        .by_ref()
        .filter(|node| node.has_tag_name("cell"))
        .peekable();
    let by_cells =
        cells.peek().is_some() && cells.all(|cell| cell.attribute("memAccess") == Some("shared"));
    shared || by_cells
}

/// The first of `vda`, `vdb`, ... that is not taken.
pub(crate) fn free_target(taken: &HashSet<String>) -> String {
    let names = (0..).map(|n| format!("vd{}", letters(n)));
    names
        .take(taken.len() + 1)
        .find(|name| !taken.contains(name))
        .unwrap_or_default()
}

/// `a` to `z`, `aa`, ...
fn letters(n: usize) -> String {
    let last = char::from(b'a' + (n % 26) as u8);
    match n / 26 {
        0 => last.to_string(),
        rest => format!("{}{last}", letters(rest - 1)),
    }
}

/// Its `<disk>` elements.
pub(super) fn disks<'a, 'i>(document: &'a Document<'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    let devices = child(document.root_element(), "devices");
    let devices = devices.into_iter().flat_map(|node| node.children());
    devices.filter(|node| node.has_tag_name("disk"))
}

/// A child of this name, of no namespace.
pub(super) fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours() {
        let disk = |path: &str, target: &str| {
            format!(
                "<disk type='vhostuser'><source type='unix' path='{path}'/><target dev='{target}'/></disk>"
            )
        };
        let xml = format!(
            "<domain><devices>{}{}{}<disk type='file'><target dev='sda'/></disk></devices></domain>",
            disk("/run/firn/web.sock", "vda"),
            disk("/var/run/firn/db.sock", "vdb"),
            disk("/run/firn-ssd/x.sock", "vdc")
        );
        let ours = vdisks(&xml, Path::new("/run/firn"));
        let ours: Vec<_> = ours
            .iter()
            .map(|disk| (disk.target.as_str(), disk.vdisk.as_str()))
            .collect();
        assert_eq!(ours, [("vda", "web"), ("vdb", "db")]);
        let targets = targets(&xml);
        assert_eq!(targets.len(), 4);
        assert_eq!(free_target(&targets), "vdd");
        assert!(has_other_vdisks(&xml, Path::new("/run/firn")));
        assert_eq!(vdisks("no xml", Path::new("/run/firn")), []);
    }

    #[test]
    fn names_of_targets() {
        let taken = (0..30).map(|n| format!("vd{}", letters(n))).collect();
        assert_eq!(free_target(&taken), "vdae");
        assert_eq!(letters(701), "zz");
        assert_eq!(letters(702), "aaa");
    }

    #[test]
    fn whose_memory_is_shared() {
        let memory = |inner: &str| memory_is_shared(&format!("<domain>{inner}</domain>"));
        assert!(memory(
            "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
        ));
        assert!(memory(
            "<cpu><numa><cell memAccess='shared'/><cell memAccess='shared'/></numa></cpu>"
        ));
        for not in [
            "",
            "<memoryBacking><access mode='private'/></memoryBacking>",
            "<memoryBacking/>",
            "<cpu><numa/></cpu>",
            "<cpu><numa><cell memAccess='shared'/><cell/></numa></cpu>",
        ] {
            assert!(!memory(not), "{not}");
        }
    }
}
