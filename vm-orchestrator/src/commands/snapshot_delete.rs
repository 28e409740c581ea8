//! `firn snapshot delete`: what can't be deleted is said before anything is.
//!
//! # Interruption
//! Snapshots go one after another, each for good. What is interrupted has deleted some of them; the same command goes on.

use crate::args::DeleteSnapshotsArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use control_api::types::Snapshot;
use serde::Serialize;

#[derive(Serialize)]
struct Deleted {
    vdisk: String,
    deleted: Vec<String>,
    /// Of these, those whose space comes back only with that of the clones over them.
    deferred: Vec<String>,
}

/// One snapshot that is to go.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    name: String,
    defer: bool,
    /// Clones lie over it now.
    waits: bool,
}

pub(super) async fn run(settings: &Settings, args: &DeleteSnapshotsArgs) -> Result<(), Failure> {
    let mut client = settings.connect().await?;
    let snapshots = client.snapshots(Some(&args.vdisk)).await?;
    let choices = choose(&snapshots, args)?;
    let mut deleted = Deleted {
        vdisk: args.vdisk.clone(),
        deleted: Vec::new(),
        deferred: Vec::new(),
    };
    for choice in choices {
        let gone = client.delete_snapshot(&args.vdisk, &choice.name, choice.defer);
        gone.await.map_err(|error| midway(error.into(), &deleted))?;
        if choice.waits {
            deleted.deferred.push(choice.name.clone());
        }
        deleted.deleted.push(choice.name);
    }
    settings.show(&deleted, text)
}

/// What to delete, the youngest first: it is the cheapest order. Nothing, where one of them can't be deleted.
fn choose(snapshots: &[Snapshot], args: &DeleteSnapshotsArgs) -> Result<Vec<Choice>, Failure> {
    let vdisk = &args.vdisk;
    let is = |name: &String| snapshots.iter().any(|snapshot| snapshot.name == *name);
    if let Some(unknown) = args.names.iter().find(|name| !is(name)) {
        return Err(
            Failure::not_found(format!("vDisk {vdisk} has no snapshot named {unknown:?}"))
                .hint(format!("see: firn snapshot list {vdisk}")),
        );
    }
    let chosen = |snapshot: &&Snapshot| args.all || args.names.contains(&snapshot.name);
    let mut choices = Vec::new();
    for snapshot in snapshots.iter().rev().filter(chosen) {
        let name = &snapshot.name;
        if !snapshot.holds.is_empty() {
            let holders = &snapshot.holds;
            return Err(Failure::refused(format!(
                "snapshot {name} of vDisk {vdisk} is held by {}",
                holders.join(", ")
            ))
            .hint(format!(
                "if nobody needs it: firn snapshot release {vdisk} {name} {}",
                holders.join(" ")
            )));
        }
        let branches = !snapshot.clones.is_empty();
        // Branches of the vDisk itself are its own snapshots: web@monday.
        let is_own = |name: &str| name.split_once('@').is_some_and(|(of, _)| of == vdisk);
        let clones = snapshot.clones.iter().filter(|clone| !is_own(clone));
        let clones: Vec<&str> = clones.map(String::as_str).collect();
        if !clones.is_empty() && !args.defer {
            return Err(Failure::refused(format!(
                "clones lie over snapshot {name} of vDisk {vdisk}: {}",
                clones.join(", ")
            ))
            .hint("delete these first, or let the name go now and the space later, with --defer"));
        }
        if branches && !args.all && !args.defer {
            return Err(Failure::refused(format!(
                "vDisk {vdisk} was reverted to snapshot {name}, and what it was before lies over it too"
            ))
            .hint("delete the snapshots that keep that first, or let the name go now and the space later, with --defer"));
        }
        // Branches of the vDisk's own snapshots alone go with these: nothing waits.
        let waits = branches && !(args.all && clones.is_empty());
        choices.push(Choice {
            name: name.clone(),
            defer: args.defer || branches,
            waits,
        });
    }
    Ok(choices)
}

/// A failure after some have gone says so.
fn midway(failure: Failure, deleted: &Deleted) -> Failure {
    match deleted.deleted.is_empty() {
        true => failure,
        false => Failure {
            message: format!(
                "{} (deleted before that: {})",
                failure.message,
                deleted.deleted.join(", ")
            ),
            ..failure
        },
    }
}

fn text(deleted: &Deleted) -> String {
    let vdisk = &deleted.vdisk;
    if deleted.deleted.is_empty() {
        return format!("vDisk {vdisk} has no snapshots\n");
    }
    let lines = deleted.deleted.iter().map(|name| {
        let space = match deleted.deferred.contains(name) {
            true => "; its space comes back with that of the clones over it",
            false => "",
        };
        format!("snapshot {name} of vDisk {vdisk}: deleted{space}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::snapshot_list::tests::snapshot;

    fn args(names: &[&str], defer: bool) -> DeleteSnapshotsArgs {
        DeleteSnapshotsArgs {
            vdisk: "web".into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            all: names.is_empty(),
            defer,
        }
    }

    fn chosen(snapshots: &[Snapshot], args: &DeleteSnapshotsArgs) -> String {
        match choose(snapshots, args) {
            Ok(choices) => {
                let names = choices.iter().map(|c| {
                    let mark = if c.defer { "+" } else { "" };
                    c.name.clone() + mark + if c.waits { "!" } else { "" }
                });
                names.collect::<Vec<_>>().join(" ")
            }
            Err(failure) => failure.to_text(),
        }
    }

    #[test]
    fn all_or_those_that_are_named_youngest_first() {
        let three = ["a", "b", "c"].map(|name| snapshot(name, &[], &[]));
        assert_eq!(chosen(&three, &args(&[], false)), "c b a");
        assert_eq!(chosen(&three, &args(&["a", "c", "a"], false)), "c a");
        assert!(chosen(&three, &args(&["a", "d"], false)).contains("\"d\""));
        assert_eq!(chosen(&[], &args(&[], false)), "");
    }

    #[test]
    fn what_can_not_go_is_said_before_anything_goes() {
        let some = [
            snapshot("a", &[], &["test"]),
            snapshot("b", &[], &["web@d"]),
            snapshot("c", &["dr", "backup"], &[]),
            snapshot("d", &[], &[]),
        ];
        for names in [&["c", "d"][..], &[]] {
            let held = chosen(&some, &args(names, true));
            assert!(held.contains("release web c dr backup"), "{held}");
        }
        let cloned = chosen(&some, &args(&["a", "d"], false));
        assert!(cloned.contains("vDisk web: test\n") && cloned.contains("--defer"));
        assert_eq!(chosen(&some, &args(&["a", "d"], true)), "d+ a+!");
        let reverted = chosen(&some, &args(&["b"], false));
        assert!(
            reverted.contains("was reverted to snapshot b"),
            "{reverted}"
        );
        // What it was before goes too, and nothing waits.
        assert_eq!(chosen(&some[1..2], &args(&[], false)), "b+");
        assert!(chosen(&some[..2], &args(&[], false)).contains("test"));
    }

    #[test]
    fn a_failure_midway_says_what_has_gone() {
        let deleted = Deleted {
            vdisk: "web".into(),
            deleted: vec!["b".into(), "a".into()],
            deferred: vec!["a".into()],
        };
        let failure = midway(Failure::refused("snapshot c is held"), &deleted);
        assert_eq!(
            failure.message,
            "snapshot c is held (deleted before that: b, a)"
        );
        assert_eq!(
            text(&deleted),
            "snapshot b of vDisk web: deleted\n\
             snapshot a of vDisk web: deleted; its space comes back with that of the clones over it\n"
        );
    }
}
