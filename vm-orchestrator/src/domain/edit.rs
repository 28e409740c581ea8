//! Changes of a domain's XML: what is changed is replaced where it stands, and everything else stays as it is, byte by byte.

use super::read::{child, disks, is_shareable};
use crate::xml;
use roxmltree::{Document, Node};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use uuid::Uuid;

/// Why it can't be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    /// It can't be read.
    #[error("its XML can't be read: {0}")]
    Xml(String),
    /// It has something that two domains can't have.
    #[error("{0}")]
    Cloned(String),
}

/// What is written where.
type Edits = Vec<(Range<usize>, String)>;

/// The same domain with memory that backends can map.
pub(crate) fn with_shared_memory(text: &str) -> Result<String, EditError> {
    let document = parse(text)?;
    let root = document.root_element();
    let mut edits = Edits::new();
    match child(root, "memoryBacking") {
        Some(backing) => {
            // What it says of huge pages and locking stays.
            let mut missing = String::new();
            for (name, element) in [
                ("source", "<source type='memfd'/>"),
                ("access", "<access mode='shared'/>"),
            ] {
                match child(backing, name) {
                    // Files that are shared will do.
                    Some(source)
                        if name == "source"
                            && source.attribute("type").is_some_and(|t| t != "anonymous") => {}
                    Some(old) => edits.push((old.range(), element.to_owned())),
                    None => missing += element,
                }
            }
            if !missing.is_empty() {
                edits.push(inside(text, backing, &missing));
            }
        }
        None => {
            let after = ["currentMemory", "memory", "uuid", "name"];
            let after = after.iter().find_map(|name| child(root, name));
            let at = after
                .ok_or_else(|| EditError::Xml("it has no name".into()))?
                .range()
                .end;
            let element = xml::memory_backing();
            edits.push((
                at..at,
                format!("\n  {}", element.trim_end().replace('\n', "\n  ")),
            ));
        }
    }
    Ok(apply(text, edits))
}

/// The same domain, where a device that comes may boot first: those that do so by their number are one later.
pub(crate) fn boots_later(text: &str) -> Result<String, EditError> {
    let document = parse(text)?;
    let root = document.root_element();
    let mut edits = Edits::new();
    let os = child(root, "os").into_iter().flat_map(|os| os.children());
    // libvirt takes either this or numbers.
    edits.extend(
        os.filter(|node| node.has_tag_name("boot"))
            .map(|node| (node.range(), String::new())),
    );
    let devices = child(root, "devices");
    for device in devices.into_iter().flat_map(|node| node.children()) {
        let order = child(device, "boot").and_then(|boot| boot.attribute_node("order"));
        if let Some(order) = order
            && let Ok(number) = order.value().parse::<u32>()
        {
            edits.push((order.range_value(), number.saturating_add(1).to_string()));
        }
    }
    Ok(apply(text, edits))
}

/// The same domain with one more device.
pub(crate) fn with_device(text: &str, element: &str) -> Result<String, EditError> {
    let document = parse(text)?;
    let devices = child(document.root_element(), "devices");
    let devices = devices.ok_or_else(|| EditError::Xml("it has no devices".into()))?;
    Ok(apply(text, vec![inside(text, devices, element)]))
}

/// Another domain that is the same but for its identity and its vDisks. `vdisks`: from the sockets of the old ones to those of the new.
pub(crate) fn cloned(
    text: &str,
    name: &str,
    uuid: Uuid,
    sockets: &BTreeMap<&Path, &Path>,
) -> Result<String, EditError> {
    let document = parse(text)?;
    let root = document.root_element();
    let mut edits = Edits::new();
    let mut replace = |node: Option<Node<'_, '_>>, with: String| {
        edits.extend(node.map(|node| (node.range(), with)));
    };
    replace(
        child(root, "name"),
        format!("<name>{}</name>", xml::escape(name)),
    );
    replace(child(root, "uuid"), format!("<uuid>{uuid}</uuid>"));
    // Made anew for each domain: variables of the firmware, the generation of the VM.
    replace(child(root, "genid"), "<genid/>".into());
    replace(
        child(root, "os").and_then(|os| child(os, "nvram")),
        String::new(),
    );
    // What was asked of, and told about, the other one.
    if let Some(metadata) = child(root, "metadata") {
        for ours in metadata.children().filter(|node| {
            let namespace = node.tag_name().namespace();
            namespace.is_some_and(|uri| uri.starts_with("urn:firn:"))
        }) {
            replace(Some(ours), String::new());
        }
    }
    let devices = child(root, "devices");
    for device in devices.into_iter().flat_map(|node| node.children()) {
        if device.has_tag_name("interface") {
            replace(child(device, "mac"), String::new());
        }
    }
    for disk in disks(&document) {
        let source = child(disk, "source");
        let path = source.and_then(|source| source.attribute_node("path"));
        match path.and_then(|path| sockets.get_key_value(Path::new(path.value()))) {
            Some((_, to)) => {
                let range = path.map(|path| path.range_value());
                edits.extend(range.map(|range| (range, xml::escape(&to.display().to_string()))));
            }
            None if is_shareable(disk) => {}
            None => {
                let target = child(disk, "target").and_then(|target| target.attribute("dev"));
                return Err(EditError::Cloned(format!(
                    "its disk {} is no vDisk, and two domains would write to it",
                    target.unwrap_or("without a name")
                )));
            }
        }
    }
    Ok(apply(text, edits))
}

/// The end of what an element has inside, and what is put there.
fn inside(text: &str, node: Node<'_, '_>, element: &str) -> (Range<usize>, String) {
    let range = node.range();
    let own = text.get(range.clone()).unwrap_or_default();
    match own.strip_suffix("/>") {
        // Nothing yet.
        Some(open) => {
            let name = node.tag_name().name();
            let tag = format!("{open}>{element}</{name}>");
            (range, tag)
        }
        None => {
            let at = range.start + own.rfind("</").unwrap_or(own.len());
            (at..at, element.to_owned())
        }
    }
}

fn parse(text: &str) -> Result<Document<'_>, EditError> {
    Document::parse(text).map_err(|error| EditError::Xml(error.to_string()))
}

/// Makes the edits, which do not overlap.
fn apply(text: &str, mut edits: Edits) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len() + 256);
    let mut at = 0;
    for (range, with) in edits {
        out += text.get(at..range.start).unwrap_or_default();
        out += &with;
        at = at.max(range.end);
    }
    out + text.get(at..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::read::memory_is_shared;
    use super::*;

    #[test]
    fn memory_becomes_shared() {
        for (before, after) in [
            (
                "<domain><name>a</name><memory>1</memory><x/></domain>",
                "<domain><name>a</name><memory>1</memory>\n  <memoryBacking>\n    <source type='memfd'/>\n    <access mode='shared'/>\n  </memoryBacking><x/></domain>",
            ),
            (
                "<domain><name>a</name><memoryBacking/></domain>",
                "<domain><name>a</name><memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking></domain>",
            ),
            (
                "<domain><name>a</name><memoryBacking><hugepages/><access mode='private'/></memoryBacking></domain>",
                "<domain><name>a</name><memoryBacking><hugepages/><access mode='shared'/><source type='memfd'/></memoryBacking></domain>",
            ),
            (
                "<domain><name>a</name><memoryBacking><source type='file'/></memoryBacking></domain>",
                "<domain><name>a</name><memoryBacking><source type='file'/><access mode='shared'/></memoryBacking></domain>",
            ),
        ] {
            let edited = with_shared_memory(before).unwrap();
            assert!(memory_is_shared(&edited), "{edited}");
            assert_eq!(edited, after);
        }
        assert!(with_shared_memory("<domain/>").is_err());
    }

    #[test]
    fn another_one_boots_first() {
        let text = "<domain><os><type>hvm</type><boot dev='hd'/></os><devices><disk><boot order='1'/></disk><interface/></devices></domain>";
        assert_eq!(
            boots_later(text).unwrap(),
            "<domain><os><type>hvm</type></os><devices><disk><boot order='2'/></disk><interface/></devices></domain>"
        );
    }

    #[test]
    fn one_more_device() {
        for (before, after) in [
            (
                "<domain><devices/></domain>",
                "<domain><devices><disk/></devices></domain>",
            ),
            (
                "<domain><devices><x/></devices></domain>",
                "<domain><devices><x/><disk/></devices></domain>",
            ),
        ] {
            assert_eq!(with_device(before, "<disk/>").unwrap(), after);
        }
    }

    const WEB: &str = "<domain type='kvm'><name>web</name><uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid><genid>1</genid>\
        <metadata><f:policy xmlns:f='urn:firn:policy'/><o:x xmlns:o='urn:o'/></metadata><os><nvram template='t'>/n</nvram></os>\
        <devices><disk type='vhostuser'><source type='unix' path='/run/firn/web.sock'><reconnect enabled='yes'/></source></disk>\
        <disk type='file' device='cdrom'><source file='/iso'/></disk>\
        <interface><mac address='52:54:00:00:00:01'/><source network='n'/></interface></devices></domain>";

    #[test]
    fn a_clone_is_another_domain() {
        let sockets = [(
            Path::new("/run/firn/web.sock"),
            Path::new("/run/firn/a&b.sock"),
        )];
        let cloned = cloned(WEB, "a<b", Uuid::from_u128(1), &sockets.into()).unwrap();
        assert_eq!(
            cloned,
            "<domain type='kvm'><name>a&lt;b</name><uuid>00000000-0000-0000-0000-000000000001</uuid><genid/>\
            <metadata><o:x xmlns:o='urn:o'/></metadata><os></os>\
            <devices><disk type='vhostuser'><source type='unix' path='/run/firn/a&amp;b.sock'><reconnect enabled='yes'/></source></disk>\
            <disk type='file' device='cdrom'><source file='/iso'/></disk>\
            <interface><source network='n'/></interface></devices></domain>"
        );
    }

    #[test]
    fn what_two_can_not_share_is_not_cloned() {
        let refused = cloned(WEB, "b", Uuid::nil(), &BTreeMap::new()).unwrap_err();
        assert!(refused.to_string().contains("no vDisk"), "{refused}");
    }
}
