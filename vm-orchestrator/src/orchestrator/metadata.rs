//! What people write into a domain's metadata, and what is written back: `virsh metadata DOMAIN URI --key KEY --set ELEMENT`.
//!
//! | namespace | written by | holds |
//! |---|---|---|
//! | [`REQUEST`] | people | what is to be done once: `<snapshot name='before' quiesce='yes'/>` |
//! | [`RESULT`] | us | what has become of it, or of a checkpoint |
//! | [`POLICY`] | people | schedules, and what becomes of snapshots that libvirt deletes |

use super::{Orchestrator, Outcome, now};
use crate::units::{moment, parse_interval};
use crate::xml::escape;
use control_api::ApiError;
use control_api::types::Keep;
use roxmltree::{Document, Node};
use uuid::Uuid;

/// Requests.
pub(super) const REQUEST: &str = "urn:firn:request";
/// Results.
pub(super) const RESULT: &str = "urn:firn:result";
/// Policies.
pub(super) const POLICY: &str = "urn:firn:policy";
/// The prefix of results: libvirt wants one for each namespace.
pub(super) const RESULT_KEY: &str = "firn-result";
/// Characters of a result's texts.
const SAID_MAX: usize = 1000;
/// Characters of a schedule's name: it is a part of another one.
const SCHEDULE_NAME_MAX: usize = 23;

/// What is asked for once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// A snapshot of all vDisks.
    Snapshot { name: String, quiesce: bool },
}

/// What a domain's vDisks are to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Policy {
    /// Snapshots that are taken, and deleted, by themselves.
    pub schedules: Vec<Scheduled>,
    /// Snapshots whose counterparts libvirt has deleted stay.
    pub keep_deleted: bool,
}

/// One schedule of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scheduled {
    pub name: String,
    pub every_seconds: u64,
    pub keep: Keep,
}

impl Request {
    /// Reads one. The error is for people.
    pub fn read(element: &str) -> Result<Request, String> {
        let document = parse(element)?;
        let node = document.root_element();
        if node.tag_name().name() != "snapshot" {
            return Err(format!(
                "<{}> can't be asked for: <snapshot name='...' quiesce='yes'/> can",
                node.tag_name().name()
            ));
        }
        only(node, &["name", "quiesce"], &[])?;
        let name = needed(node, "name")?;
        control_api::check_snapshot_name(name).map_err(|error| error.to_string())?;
        Ok(Request::Snapshot {
            name: name.to_owned(),
            quiesce: flag(node, "quiesce")?,
        })
    }
}

impl Policy {
    /// Reads one. The error is for people.
    pub fn read(element: &str) -> Result<Policy, String> {
        let document = parse(element)?;
        let root = document.root_element();
        if root.tag_name().name() != "policy" {
            return Err(format!(
                "<{}> where <policy> should be",
                root.tag_name().name()
            ));
        }
        only(root, &["keep-deleted"], &["schedule"])?;
        let mut policy = Policy {
            keep_deleted: flag(root, "keep-deleted")?,
            ..Policy::default()
        };
        for node in root.children().filter(Node::is_element) {
            let schedule = schedule(node)?;
            if policy.schedules.iter().any(|s| s.name == schedule.name) {
                return Err(format!("schedule {} is there twice", schedule.name));
            }
            policy.schedules.push(schedule);
        }
        Ok(policy)
    }
}

fn schedule(node: Node<'_, '_>) -> Result<Scheduled, String> {
    const KEEPS: [&str; 5] = [
        "keep-last",
        "keep-hourly",
        "keep-daily",
        "keep-weekly",
        "keep-monthly",
    ];
    only(node, &[&["name", "every"], &KEEPS[..]].concat(), &[])?;
    let name = needed(node, "name")?;
    control_api::check_snapshot_name(name).map_err(|error| error.to_string())?;
    if name.len() > SCHEDULE_NAME_MAX {
        return Err(format!(
            "schedule {name}: its name has more than {SCHEDULE_NAME_MAX} characters"
        ));
    }
    let count = |key: &str| match node.attribute(key) {
        None => Ok(0),
        Some(text) => text
            .parse()
            .map_err(|_| format!("schedule {name}: {key}='{text}' is no number")),
    };
    let [last, hourly, daily, weekly, monthly] = KEEPS.map(count);
    let keep = Keep {
        last: last?,
        hourly: hourly?,
        daily: daily?,
        weekly: weekly?,
        monthly: monthly?,
    };
    if keep == Keep::default() {
        return Err(format!(
            "schedule {name} keeps nothing: give it keep-last='24', say"
        ));
    }
    Ok(Scheduled {
        name: name.to_owned(),
        every_seconds: parse_interval(needed(node, "every")?)?,
        keep,
    })
}

fn parse(element: &str) -> Result<Document<'_>, String> {
    Document::parse(element).map_err(|error| format!("it can't be read: {error}"))
}

/// What is misspelt must not be silently without effect.
fn only(node: Node<'_, '_>, attributes: &[&str], children: &[&str]) -> Result<(), String> {
    let of = node.tag_name().name();
    for attribute in node.attributes().filter(|a| a.namespace().is_none()) {
        if !attributes.contains(&attribute.name()) {
            return Err(format!(
                "<{of}> has no attribute {}: {} it may have",
                attribute.name(),
                attributes.join(", ")
            ));
        }
    }
    for child in node.children().filter(Node::is_element) {
        if !children.contains(&child.tag_name().name()) {
            return Err(format!("<{of}> has no <{}>", child.tag_name().name()));
        }
    }
    Ok(())
}

fn needed<'a>(node: Node<'a, '_>, key: &str) -> Result<&'a str, String> {
    let of = node.tag_name().name();
    node.attribute(key)
        .ok_or_else(|| format!("<{of}> needs {key}='...'"))
}

fn flag(node: Node<'_, '_>, key: &str) -> Result<bool, String> {
    match node.attribute(key) {
        None | Some("no") => Ok(false),
        Some("yes") => Ok(true),
        Some(other) => Err(format!("{key}='{other}' is neither yes nor no")),
    }
}

/// What is written back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    what: &'static str,
    name: String,
    failed: Option<String>,
}

impl Said {
    pub fn done(what: &'static str, name: &str) -> Said {
        Said {
            what,
            name: name.to_owned(),
            failed: None,
        }
    }

    pub fn failed(what: &'static str, name: &str, error: &ApiError) -> Said {
        Said::why(what, name, &Said::reason(error))
    }

    /// The same, where only the reason is left.
    pub fn why(what: &'static str, name: &str, why: &str) -> Said {
        Said {
            what,
            name: plain(name),
            failed: Some(plain(why)),
        }
    }

    /// What an error says to people.
    pub fn reason(error: &ApiError) -> String {
        let hint = error.hint.as_deref().map(|hint| format!(" ({hint})"));
        format!("{}{}", error.message, hint.unwrap_or_default())
    }

    fn element(&self, at: u64) -> String {
        let (state, why) = match &self.failed {
            None => ("done", String::new()),
            Some(why) => ("failed", format!(" error='{}'", escape(why))),
        };
        format!(
            "<{} name='{}' state='{state}' at='{}'{why}/>",
            self.what,
            escape(&self.name),
            moment(at)
        )
    }
}

/// What libvirt takes as a text: it may quote what a guest, or whoever asks, has said.
fn plain(text: &str) -> String {
    let plain = text.chars().map(|c| match c.is_control() {
        true => ' ',
        false => c,
    });
    plain.take(SAID_MAX).collect()
}

impl Orchestrator {
    /// Writes back what has become of something.
    pub(super) async fn say(&self, uuid: Uuid, said: &Said) -> Outcome<()> {
        let element = said.element(now());
        self.ask(move |h| h.set_metadata(uuid, RESULT, RESULT_KEY, Some(&element)))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::ErrorKind;

    #[test]
    fn requests() {
        assert_eq!(
            Request::read("<snapshot name='a' quiesce='yes'/>"),
            Ok(Request::Snapshot {
                name: "a".into(),
                quiesce: true
            })
        );
        // As libvirt gives it back.
        assert!(Request::read("<snapshot xmlns:firn=\"urn:firn:request\" name=\"a\"/>").is_ok());
        for (bad, why) in [
            ("<snapshot/>", "needs name"),
            ("<snapshot name='a b'/>", "a b"),
            ("<snapshot name='a' quiesc='yes'/>", "no attribute quiesc"),
            ("<snapshot name='a' quiesce='1'/>", "neither yes nor no"),
            ("<snapshot name='a'><x/></snapshot>", "has no <x>"),
            ("<revert name='a'/>", "can't be asked for"),
            ("<", "can't be read"),
        ] {
            let error = Request::read(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn policies() {
        let policy = Policy::read(
            "<policy keep-deleted='yes'><schedule name='hourly' every='1h' keep-hourly='24' keep-daily='7'/></policy>",
        )
        .unwrap();
        assert!(policy.keep_deleted);
        let schedule = &policy.schedules[0];
        assert_eq!(
            (schedule.name.as_str(), schedule.every_seconds),
            ("hourly", 3600)
        );
        assert_eq!((schedule.keep.hourly, schedule.keep.daily), (24, 7));
        for (bad, why) in [
            (
                "<policy><schedule name='a' every='1h'/></policy>",
                "keeps nothing",
            ),
            (
                "<policy><schedule name='a' keep-last='1'/></policy>",
                "needs every",
            ),
            (
                "<policy><schedule name='a' every='x' keep-last='1'/></policy>",
                "x",
            ),
            (
                "<policy><schedule name='a' every='1h' keep-last='x'/></policy>",
                "no number",
            ),
            (
                "<policy><schedule name='aaaaaaaaaaaaaaaaaaaaaaaaa' every='1h' keep-last='1'/></policy>",
                "more than",
            ),
            (
                "<policy><schedule name='a' every='1h' keep-last='1'/><schedule name='a' every='1h' keep-last='1'/></policy>",
                "twice",
            ),
            ("<policy><snapshots/></policy>", "no <snapshots>"),
            ("<x/>", "where <policy>"),
        ] {
            let error = Policy::read(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn what_is_written_back() {
        let said = Said::done("snapshot", "a");
        assert_eq!(
            said.element(0),
            "<snapshot name='a' state='done' at='1970-01-01 00:00:00 UTC'/>"
        );
        let error = ApiError::new(ErrorKind::NoSpace, "it's full").hint("make room");
        assert_eq!(
            Said::failed("checkpoint", "a<b", &error).element(0),
            "<checkpoint name='a&lt;b' state='failed' at='1970-01-01 00:00:00 UTC' error='it&apos;s full (make room)'/>"
        );
        let long = Said::why("snapshot", "a", &"\0x".repeat(1 << 20)).element(0);
        assert!(long.len() < 2000 && !long.contains('\0'), "{}", long.len());
    }
}
