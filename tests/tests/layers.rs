//! The layer rules of docs/architecture.md, read off `cargo metadata` and the `use` lines.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What a crate may know of the others in this workspace.
const CRATES: [(&str, &[&str]); 6] = [
    ("block-store", &[]),
    ("control-api", &[]),
    ("vhost-backend", &["block-store", "control-api"]),
    (
        "vm-orchestrator",
        &["block-store", "control-api", "libvirt-hooks"],
    ),
    ("libvirt-hooks", &["control-api"]),
    (
        "firn-tests",
        &[
            "block-store",
            "control-api",
            "vhost-backend",
            "vm-orchestrator",
        ],
    ),
];

/// Foreign crates that only these of ours may know.
const RESERVED: [(&str, &[&str]); 12] = [
    ("vhost", &["vhost-backend"]),
    ("vhost-user-backend", &["vhost-backend"]),
    ("virtio-queue", &["vhost-backend"]),
    ("virtio-bindings", &["vhost-backend"]),
    ("vm-memory", &["vhost-backend"]),
    ("vmm-sys-util", &["vhost-backend"]),
    ("virt", &["vm-orchestrator"]),
    ("virt-sys", &["vm-orchestrator"]),
    (
        "tokio",
        &[
            "control-api",
            "vhost-backend",
            "vm-orchestrator",
            "libvirt-hooks",
            "firn-tests",
        ],
    ),
    ("axum", &["control-api", "vhost-backend", "vm-orchestrator"]),
    (
        "hyper",
        &[
            "control-api",
            "vhost-backend",
            "vm-orchestrator",
            "libvirt-hooks",
            "firn-tests",
        ],
    ),
    ("io-uring", &["block-store"]),
];

/// Inside block-store, from the bottom up. A module may use those of lower ranks, and those of its own rank
/// only where the table says so.
const RANKS: [Rank; 4] = [
    Rank {
        modules: &["format", "io"],
        among_themselves: false,
    },
    Rank {
        modules: &["alloc", "map", "log"],
        among_themselves: false,
    },
    Rank {
        modules: &["write", "read", "recover", "snapshot", "defrag", "check"],
        among_themselves: true,
    },
    Rank {
        modules: &["store"],
        among_themselves: true,
    },
];

struct Rank {
    modules: &'static [&'static str],
    among_themselves: bool,
}

/// Files and directories that may hold unsafe code.
const UNSAFE: [&str; 4] = [
    "block-store/src/io",
    "vhost-backend/src/memory",
    "vm-orchestrator/src/hypervisor/libvirt/raw.rs",
    "tests/src/client/shm.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Each workspace member with its normal and build dependencies.
fn members() -> BTreeMap<String, (PathBuf, BTreeSet<String>)> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let dependencies = dependencies
                .iter()
                .filter(|d| d["kind"] != "dev")
                .map(|d| text(&d["name"]));
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            let dir = manifest.parent().unwrap().to_owned();
            (text(&package["name"]), (dir, dependencies.collect()))
        })
        .collect()
}

#[test]
fn crates_know_only_what_is_below_them() {
    let members = members();
    let mut broken = Vec::new();
    for (name, (_, dependencies)) in &members {
        let Some((_, allowed)) = CRATES.iter().find(|(of, _)| of == name) else {
            broken.push(format!(
                "{name} has no layer: give it one here and in docs/architecture.md"
            ));
            continue;
        };
        for dependency in dependencies {
            if members.contains_key(dependency) && !allowed.contains(&dependency.as_str()) {
                broken.push(format!("{name} must not know {dependency}"));
            }
            let reserved = RESERVED.iter().find(|(of, _)| of == dependency);
            if reserved.is_some_and(|(_, to)| !to.contains(&name.as_str())) {
                broken.push(format!("{name} must not know {dependency}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn modules_of_the_block_store_know_only_what_is_below_them() {
    let source = root().join("block-store/src");
    let mut broken = Vec::new();
    for file in rust_files(&source) {
        let inside = file.strip_prefix(&source).unwrap();
        let module = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_string_lossy();
        let module = module.trim_end_matches(".rs");
        let Some(mine) = rank(module) else { continue };
        for (line, used) in modules_used(&code(&file)) {
            let Some(theirs) = rank(&used) else { continue };
            let fine =
                used == module || theirs < mine || (theirs == mine && RANKS[mine].among_themselves);
            if !fine {
                broken.push(format!(
                    "{}:{line}: {module} must not know {used}",
                    inside.display()
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// libvirt is known in one place, so that everything else can be tried with another one.
#[test]
fn libvirt_stays_behind_its_trait() {
    let crates = root().join("vm-orchestrator/src");
    for file in rust_files(&crates) {
        let name = file.strip_prefix(&crates).unwrap();
        let text = code(&file);
        let knows = ["virt::", "virt_sys"].iter().any(|word| {
            text.match_indices(word).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            })
        });
        let within = name.starts_with("hypervisor/libvirt");
        assert!(!knows || within, "{} knows libvirt", name.display());
    }
}

#[test]
fn unsafe_code_stays_at_the_edges() {
    let mut broken = Vec::new();
    for (dir, _) in members().values() {
        for file in rust_files(dir) {
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            if UNSAFE.iter().any(|edge| name.starts_with(edge)) || name.ends_with("tests/layers.rs")
            {
                continue;
            }
            for (at, line) in code(&file).lines().enumerate() {
                if line
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .any(|word| word == "unsafe")
                {
                    broken.push(format!("{name}:{}: {}", at + 1, line.trim()));
                }
            }
        }
    }
    assert!(
        broken.is_empty(),
        "unsafe code outside of {UNSAFE:?}:\n{}",
        broken.join("\n")
    );
}

#[test]
fn the_reader_of_use_lines_finds_them() {
    let code =
        "use crate::{format::extent, io};\nuse super::read;\nlet x = crate::map::Map::new();\n";
    let used: Vec<String> = modules_used(code)
        .into_iter()
        .map(|(_, module)| module)
        .collect();
    assert_eq!(used, ["format", "io", "map"]);
    let split = "use crate::{\n    format::{Extent, Header},\n    log,\n};\n";
    let used: Vec<(usize, String)> = modules_used(split);
    assert_eq!(used, [(1, "format".into()), (1, "log".into())]);
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|rank| rank.modules.contains(&module))
}

/// The modules of its own crate that a file names by `crate::`, with the lines where it does.
fn modules_used(code: &str) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            Some(group) => first_names(group),
            None => vec![rest],
        };
        for name in names {
            let name: String = name
                .trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            used.push((line, name));
        }
    }
    used
}

/// The beginnings of the items of a `{...}` group, up to its end.
fn first_names(group: &str) -> Vec<&str> {
    let mut names = vec![group];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(&group[at + 1..]),
            _ => {}
        }
    }
    names.retain(|name| !name.trim_start().starts_with('}'));
    names
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// A file without its comments. (Strings with `//` in them lose their ends; that does no harm here.)
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    lines.join("\n")
}
