//! Coalescing rules: data that says which commands have the blocks that they touch put together elsewhere.

use super::rules::{MAX_RULES, check_name};
use serde::{Deserialize, Serialize};

/// One rule; the first that matches decides. When none does, blocks stay where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoalesceRule {
    /// What people call it; unique in its list, at most 64 bytes.
    pub name: String,
    /// When it applies.
    #[serde(default)]
    pub when: Touched,
    /// What it does.
    #[serde(rename = "use")]
    pub action: Coalesce,
}

/// What becomes of the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coalesce {
    /// They are put together.
    Together,
    /// They stay where they are.
    Leave,
}

/// A command that touches blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Touching {
    /// A read.
    Read,
    /// Small writes that went on where the one before ended, taken together: 64 KiB at most.
    Write,
}

/// Conditions that all must hold; those left out always do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Touched {
    /// It is such a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Touching>,
    /// It touches at least this many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_bytes: Option<u64>,
    /// It touches at most this many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// The vDisk has this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Where they lie, the blocks take at least this many single reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_reads: Option<u64>,
    /// They take more than so many times the reads that they would take side by side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more_than_times: Option<u64>,
    /// At least this share of the host's CPU time is idle, in per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_cpu_headroom: Option<u8>,
}

/// What is known of a command when its rule is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch<'a> {
    /// What it is.
    pub command: Touching,
    /// Bytes that it touches.
    pub bytes: u64,
    /// The vDisk's tag.
    pub tag: Option<&'a str>,
    /// Single reads that the blocks take where they lie.
    pub reads: u64,
    /// Single reads that they would take side by side.
    pub together: u64,
    /// Idle share of the host's CPU time, in per cent.
    pub cpu_headroom: u8,
}

impl CoalesceRule {
    /// Whether it may have small writes put together at so much idle CPU time: else they need not be remembered.
    pub(super) fn may_join(&self, cpu_headroom: u8) -> bool {
        self.action == Coalesce::Together
            && self.when.command != Some(Touching::Read)
            && self
                .when
                .min_cpu_headroom
                .is_none_or(|min| cpu_headroom >= min)
    }
}

/// Decides about a command.
pub fn coalesces(rules: &[CoalesceRule], touch: &Touch<'_>) -> bool {
    let matching = rules.iter().find(|rule| rule.when.matches(touch));
    matching.is_some_and(|rule| rule.action == Coalesce::Together)
}

/// The shipped rules. Who reads much at a time gains by having it in few pieces; who reads single blocks at random gains
/// nothing, and pays nothing. What small writes leave in pieces would be written twice for a read that may never come: only where
/// the host has nothing else to do.
pub(super) fn shipped() -> Vec<CoalesceRule> {
    let scattered = Touched {
        min_bytes: Some(64 << 10),
        min_reads: Some(4),
        more_than_times: Some(2),
        ..Touched::default()
    };
    let rule = |name: &str, when| CoalesceRule {
        name: name.to_owned(),
        when,
        action: Coalesce::Together,
    };
    vec![
        rule(
            "scattered",
            Touched {
                command: Some(Touching::Read),
                ..scattered.clone()
            },
        ),
        rule(
            "interleaved",
            Touched {
                command: Some(Touching::Write),
                min_cpu_headroom: Some(80),
                ..scattered
            },
        ),
    ]
}

/// Checks what the types can't: the place of a rule that can't be, its name, the field and why.
pub(super) fn check(rules: &[CoalesceRule]) -> Result<(), (usize, String, &'static str, String)> {
    for (index, rule) in rules.iter().enumerate() {
        let fail = |(field, why)| Err((index, rule.name.clone(), field, why));
        if index >= MAX_RULES {
            return fail(("coalesce", format!("more than {MAX_RULES} rules")));
        }
        if let Err(error) = check_name("name", &rule.name) {
            return fail(error);
        }
        if rules.iter().take(index).any(|r| r.name == rule.name) {
            return fail(("name", "is another rule's name already".to_owned()));
        }
        if let Err(error) = rule.when.check() {
            return fail(error);
        }
    }
    Ok(())
}

impl Touched {
    fn matches(&self, touch: &Touch<'_>) -> bool {
        fn holds<T>(wanted: Option<T>, test: impl FnOnce(T) -> bool) -> bool {
            wanted.is_none_or(test)
        }
        holds(self.command, |wanted| touch.command == wanted)
            && holds(self.min_bytes, |min| touch.bytes >= min)
            && holds(self.max_bytes, |max| touch.bytes <= max)
            && holds(self.tag.as_deref(), |tag| touch.tag == Some(tag))
            && holds(self.min_reads, |min| touch.reads >= min)
            && holds(self.more_than_times, |times| {
                touch.reads > touch.together.saturating_mul(times)
            })
            && holds(self.min_cpu_headroom, |min| touch.cpu_headroom >= min)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if let (Some(min), Some(max)) = (self.min_bytes, self.max_bytes)
            && min > max
        {
            let why = format!("{max}: less than min_bytes, which is {min}");
            return Err(("when.max_bytes", why));
        }
        if let Some(percent) = self.min_cpu_headroom.filter(|percent| *percent > 100) {
            let why = format!("{percent}: must be 0 to 100 per cent");
            return Err(("when.min_cpu_headroom", why));
        }
        let tag = self.tag.as_deref();
        tag.map_or(Ok(()), |tag| check_name("when.tag", tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: u64, reads: u64, together: u64) -> Touch<'static> {
        Touch {
            command: Touching::Read,
            bytes,
            tag: None,
            reads,
            together,
            cpu_headroom: 0,
        }
    }

    #[test]
    fn only_large_reads_that_would_take_fewer_are_worth_it() {
        let shipped = shipped();
        let decide = |bytes, reads, together| coalesces(&shipped, &read(bytes, reads, together));
        // 1 MiB as random overwrites have left it, and as it was written.
        assert!(decide(1 << 20, 256, 6));
        assert!(!decide(1 << 20, 6, 6));
        assert!(decide(64 << 10, 12, 2));
        // Single blocks, or nothing that would get much better.
        assert!(!decide(4096, 1, 1));
        assert!(!decide(60 << 10, 15, 2));
        assert!(!decide(64 << 10, 4, 2));
    }

    #[test]
    fn small_writes_join_on_idle_hosts_only() {
        let write = |cpu_headroom| Touch {
            command: Touching::Write,
            cpu_headroom,
            ..read(64 << 10, 16, 2)
        };
        assert!(coalesces(&shipped(), &write(80)));
        assert!(!coalesces(&shipped(), &write(79)));
    }

    #[test]
    fn the_first_that_matches_decides_and_none_leaves_all_alone() {
        let leave = CoalesceRule {
            name: "databases".into(),
            when: Touched {
                tag: Some("db".into()),
                ..Touched::default()
            },
            action: Coalesce::Leave,
        };
        let mut rules = shipped();
        rules.insert(0, leave);
        let tagged = Touch {
            tag: Some("db"),
            ..read(1 << 20, 256, 6)
        };
        assert!(!coalesces(&rules, &tagged));
        assert!(coalesces(&rules, &read(1 << 20, 256, 6)));
        assert!(!coalesces(&[], &read(1 << 20, 256, 6)));
    }

    #[test]
    fn a_rule_that_cannot_be_is_named() {
        assert_eq!(check(&shipped()), Ok(()));
        let mut twice = shipped();
        twice[1].name = "scattered".into();
        assert_eq!(check(&twice).unwrap_err().0, 1);
        let mut odd = shipped();
        odd[1].when.min_cpu_headroom = Some(101);
        assert_eq!(check(&odd).unwrap_err().2, "when.min_cpu_headroom");
    }
}
