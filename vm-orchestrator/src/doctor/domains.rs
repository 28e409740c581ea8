//! libvirt's domains, as its files describe them: whether their guests survive a restart of the backend.

use super::{Finding, Verdict};
use roxmltree::{Document, Node};
use std::io;
use std::path::Path;

const CHECK: &str = "libvirt's domains";

/// Looks at the domains that are defined in `dir`, libvirt's own directory of them. That their memory is shared libvirt sees to.
pub(super) fn check(dir: &Path, run: &Path) -> Finding {
    match look(dir, run) {
        Ok((0, _)) => Finding::ok(CHECK, "none has a vDisk of this runtime directory"),
        Ok((count, bad)) if bad.is_empty() => Finding::ok(
            CHECK,
            format!("all {count} with vDisks reconnect to the backend"),
        ),
        Ok((_, bad)) => Finding::bad(
            Verdict::Warning,
            CHECK,
            format!(
                "{}: without <reconnect> a guest loses its disk for good when the backend is restarted",
                bad.join(", ")
            ),
            "virsh edit: <reconnect enabled='yes' timeout='1'/> inside of <source>, as firn vdisk xml writes it; then stop and start the domain",
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::ok(CHECK, "none are defined")
        }
        Err(error) => Finding::bad(
            Verdict::Note,
            CHECK,
            format!("not looked at: {}: {error}", dir.display()),
            "run as root",
        ),
    }
}

/// How many domains have vDisks, and which disks of which of these don't reconnect.
fn look(dir: &Path, run: &Path) -> io::Result<(usize, Vec<String>)> {
    let (mut count, mut bad) = (0, Vec::new());
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "xml") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        // What libvirt itself can't read is no domain.
        let Ok(document) = Document::parse(&text) else {
            continue;
        };
        let disks: Vec<_> = document
            .descendants()
            .filter_map(|node| vdisk(node, run))
            .collect();
        count += usize::from(!disks.is_empty());
        let domain = path.file_stem().unwrap_or_default().to_string_lossy();
        let lost = disks.iter().filter(|(_, reconnects)| !reconnects);
        bad.extend(lost.map(|(vdisk, _)| format!("domain {domain}, vDisk {vdisk}")));
    }
    bad.sort();
    Ok((count, bad))
}

/// The vDisk that a `<disk>` is, and whether it reconnects.
fn vdisk(disk: Node<'_, '_>, run: &Path) -> Option<(String, bool)> {
    if !disk.has_tag_name("disk") || disk.attribute("type") != Some("vhostuser") {
        return None;
    }
    let source = disk.children().find(|node| node.has_tag_name("source"))?;
    let socket = Path::new(source.attribute("path")?);
    if socket.parent() != Some(run) {
        return None;
    }
    let reconnects = source
        .children()
        .any(|node| node.has_tag_name("reconnect") && node.attribute("enabled") == Some("yes"));
    Some((
        socket.file_stem()?.to_string_lossy().into_owned(),
        reconnects,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_that_do_not_reconnect_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let run = Path::new("/run/firn");
        let define = |domain: &str, disks: &[(&str, &str)]| {
            let disks = disks.iter().map(|(socket, reconnect)| {
                format!("<disk type='vhostuser'><source type='unix' path='{socket}'>{reconnect}</source></disk>")
            });
            let disks = disks.collect::<String>();
            let xml = format!(
                "<!-- by libvirt -->\n<domain><devices><disk type='file'/>{disks}</devices></domain>"
            );
            std::fs::write(dir.path().join(format!("{domain}.xml")), xml).unwrap();
        };
        let checked = || check(dir.path(), run);
        let yes = "<reconnect enabled='yes' timeout='1'/>";
        assert_eq!(check(Path::new("/nowhere"), run).verdict, Verdict::Ok);
        std::fs::write(dir.path().join("broken.xml"), "<domain").unwrap();
        std::fs::create_dir(dir.path().join("networks")).unwrap();
        define("plain", &[("/run/others/x.sock", "")]);
        assert!(checked().found.contains("none has"), "{:?}", checked());
        define("fine", &[("/run/firn/web.sock", yes)]);
        assert!(checked().found.contains("all 1"), "{:?}", checked());
        let no = "<reconnect enabled='no'/>";
        define(
            "shop",
            &[
                ("/run/firn/db.sock", no),
                ("/run/firn/log.sock", ""),
                ("/run/firn/a.sock", yes),
            ],
        );
        let found = checked();
        assert_eq!(found.verdict, Verdict::Warning);
        let told = "domain shop, vDisk db, domain shop, vDisk log: ";
        assert!(found.found.starts_with(told), "{found:?}");
    }
}
