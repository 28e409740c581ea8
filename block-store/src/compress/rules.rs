//! Compression rules: data that says what becomes of a write.

use super::classify::Class;
use super::coalesce::{self, CoalesceRule};
use super::codec::Codec;
use serde::{Deserialize, Serialize};

/// Most rules of one set: each write looks at them one by one.
pub(super) const MAX_RULES: usize = 64;

/// Longest name or tag, in bytes.
const MAX_NAME: usize = 64;

/// Seconds without a touch after which the shipped rules take data for cold: a day.
const COLD: u64 = 24 * 3600;

/// KiB in a block.
const BLOCK_KIB: u32 = 4;

/// An ordered set of rules: the first that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// First match first. When none matches, lz4 in extents of 16 KiB.
    pub rules: Vec<Rule>,
    /// Which commands have what they touch put together; left out: the shipped ones.
    #[serde(default = "coalesce::shipped")]
    pub coalesce: Vec<CoalesceRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What people call it; unique in its set, at most 64 bytes.
    pub name: String,
    /// When it applies.
    #[serde(default)]
    pub when: Match,
    /// What it does.
    #[serde(rename = "use")]
    pub action: Action,
}

/// Conditions that all must hold; those left out always do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// The command writes at least this many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_bytes: Option<u64>,
    /// The command writes at most this many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// It goes on where an earlier one ended (or doesn't).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequential: Option<bool>,
    /// It starts and ends at multiples of 4 KiB (or doesn't).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aligned: Option<bool>,
    /// The vDisk has this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Nobody has written or read the data's segment for at least this many seconds (or since the store was opened): it is being
    /// relocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_age_secs: Option<u64>,
    /// What the data looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// At least this share of the host's CPU time is idle, in per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_cpu_headroom: Option<u8>,
    /// At most this share of the host's CPU time is idle, in per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cpu_headroom: Option<u8>,
}

/// What a rule does with the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// `none`, `lz4` or `zstd:LEVEL`.
    pub codec: Codec,
    /// Largest extent to form, in KiB of content: 4, 8, 16, 32, 64 or 128.
    pub extent_kib: u32,
    /// Store it as it is now, and compress it so when it is relocated.
    #[serde(default)]
    pub defer: bool,
}

/// What is known of a write when its rule is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteTraits<'a> {
    /// Length of the command, in bytes.
    pub bytes: u64,
    /// Whether it goes on where an earlier one ended.
    pub sequential: bool,
    /// Whether it starts and ends at multiples of 4 KiB.
    pub aligned: bool,
    /// The vDisk's tag.
    pub tag: Option<&'a str>,
    /// Seconds for which the data was neither written nor read; 0 for a guest's write.
    pub age_secs: u64,
    /// What the data looks like.
    pub class: Class,
    /// Idle share of the host's CPU time, in per cent.
    pub cpu_headroom: u8,
}

/// What the rules decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Index of the rule; `None`: no rule matched.
    pub rule: Option<usize>,
    /// How to encode.
    pub codec: Codec,
    /// Largest extent, in blocks of 4 KiB: 1..=32.
    pub extent_blocks: u32,
    /// Whether to store the data as it is now and to encode it when it is relocated.
    pub defer: bool,
}

/// A rule that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// More than a write could look at.
    #[error("{0} rules are too many: at most {MAX_RULES}")]
    TooMany(usize),
    /// A field of a rule is wrong.
    #[error("rule {index} ({name:?}): {field}: {why}")]
    Field {
        /// Its place in the set, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// The field, as written in JSON.
        field: &'static str,
        /// What is wrong and what would be right.
        why: String,
    },
    /// A field of a coalescing rule is wrong.
    #[error("coalescing rule {index} ({name:?}): {field}: {why}")]
    Coalesce {
        /// Its place in the list, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// The field, as written in JSON.
        field: &'static str,
        /// What is wrong and what would be right.
        why: String,
    },
}

impl Rules {
    /// Decides about a write. Total: without a matching rule, the built-in last resort holds.
    pub fn choose(&self, write: &WriteTraits<'_>) -> Choice {
        let matching = self
            .rules
            .iter()
            .enumerate()
            .find(|(_, rule)| rule.when.matches(write));
        match matching {
            Some((index, rule)) => rule.action.choice(Some(index)),
            None => Self::last_resort().choice(None),
        }
    }

    /// What is done when no rule matches.
    pub(super) fn last_resort() -> Action {
        Action {
            codec: Codec::Lz4,
            extent_kib: 16,
            defer: false,
        }
    }

    /// Whether some rule may have small writes put together at so much idle CPU time.
    pub fn join_writes(&self, cpu_headroom: u8) -> bool {
        self.coalesce.iter().any(|r| r.may_join(cpu_headroom))
    }

    /// Checks what the types can't: names, ranges, sizes. The error names the rule and the field.
    pub fn validate(&self) -> Result<(), RulesError> {
        if self.rules.len() > MAX_RULES {
            return Err(RulesError::TooMany(self.rules.len()));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let earlier = self.rules.iter().take(index);
            let checked = rule
                .check()
                .and_then(|()| check_unique(&rule.name, earlier));
            checked.map_err(|(field, why)| RulesError::Field {
                index,
                name: rule.name.clone(),
                field,
                why,
            })?;
        }
        coalesce::check(&self.coalesce).map_err(|(index, name, field, why)| RulesError::Coalesce {
            index,
            name,
            field,
            why,
        })
    }
}

impl Default for Rules {
    /// The shipped rules. Throughput comes first, on hosts of few cores: the fast codec, in extents that are as quick to
    /// read at random as a plain block (one of 8 KiB, half of that when compressed, is one short read). Large and
    /// streaming writes get zstd:1 in long extents, which saves a fifth to a third more (see the figures in
    /// [`crate::compress`]), where the thread that serves them sleeps four fifths of its time: a source slower than that
    /// does not notice. What looks incompressible is stored as it is. What nobody has written or read for a day is packed
    /// as tightly as pays, once, when the host is idle.
    fn default() -> Rules {
        let rule = |name: &str, when, codec, extent_kib| Rule {
            name: name.to_owned(),
            when,
            action: Action {
                codec,
                extent_kib,
                defer: false,
            },
        };
        let large = Match {
            min_bytes: Some(64 * 1024),
            ..Match::default()
        };
        let stream = Match {
            min_bytes: Some(16 * 1024),
            sequential: Some(true),
            ..Match::default()
        };
        let idle = Some(80);
        Rules {
            rules: vec![
                rule(
                    "incompressible",
                    Match {
                        class: Some(Class::Incompressible),
                        ..Match::default()
                    },
                    Codec::None,
                    8,
                ),
                rule(
                    "cold",
                    Match {
                        min_age_secs: Some(COLD),
                        ..Match::default()
                    },
                    Codec::Zstd(3),
                    64,
                ),
                rule(
                    "large",
                    Match {
                        min_cpu_headroom: idle,
                        ..large
                    },
                    Codec::Zstd(1),
                    64,
                ),
                rule(
                    "stream",
                    Match {
                        min_cpu_headroom: idle,
                        ..stream
                    },
                    Codec::Zstd(1),
                    64,
                ),
                rule("fast", Match::default(), Codec::Lz4, 8),
            ],
            coalesce: coalesce::shipped(),
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), (&'static str, String)> {
        check_name("name", &self.name)?;
        self.when.check()?;
        let kib = self.action.extent_kib;
        if !(4..=128).contains(&kib) || !kib.is_power_of_two() {
            return Err((
                "use.extent_kib",
                format!("{kib}: must be 4, 8, 16, 32, 64 or 128"),
            ));
        }
        if self.action.defer && self.action.codec == Codec::None {
            return Err((
                "use.defer",
                "there is nothing to do later with codec none".to_owned(),
            ));
        }
        Ok(())
    }
}

impl Match {
    pub(super) fn matches(&self, write: &WriteTraits<'_>) -> bool {
        fn holds<T>(wanted: Option<T>, test: impl FnOnce(T) -> bool) -> bool {
            wanted.is_none_or(test)
        }
        holds(self.min_bytes, |min| write.bytes >= min)
            && holds(self.max_bytes, |max| write.bytes <= max)
            && holds(self.sequential, |wanted| write.sequential == wanted)
            && holds(self.aligned, |wanted| write.aligned == wanted)
            && holds(self.tag.as_deref(), |tag| write.tag == Some(tag))
            && holds(self.min_age_secs, |min| write.age_secs >= min)
            && holds(self.class, |class| write.class == class)
            && holds(self.min_cpu_headroom, |min| write.cpu_headroom >= min)
            && holds(self.max_cpu_headroom, |max| write.cpu_headroom <= max)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if let (Some(min), Some(max)) = (self.min_bytes, self.max_bytes)
            && min > max
        {
            return Err((
                "when.max_bytes",
                format!("{max}: less than min_bytes, which is {min}"),
            ));
        }
        for (field, percent) in [
            ("when.min_cpu_headroom", self.min_cpu_headroom),
            ("when.max_cpu_headroom", self.max_cpu_headroom),
        ] {
            if let Some(percent) = percent.filter(|percent| *percent > 100) {
                return Err((field, format!("{percent}: must be 0 to 100 per cent")));
            }
        }
        if let (Some(min), Some(max)) = (self.min_cpu_headroom, self.max_cpu_headroom)
            && min > max
        {
            return Err((
                "when.max_cpu_headroom",
                format!("{max}: less than min_cpu_headroom, which is {min}"),
            ));
        }
        if self.class == Some(Class::Zero) {
            return Err((
                "when.class",
                "zero blocks are never stored: write incompressible or compressible".to_owned(),
            ));
        }
        self.tag
            .as_deref()
            .map_or(Ok(()), |tag| check_name("when.tag", tag))
    }
}

impl Action {
    /// Holds also for an action that was never validated.
    fn choice(&self, rule: Option<usize>) -> Choice {
        let extent_blocks = (self.extent_kib / BLOCK_KIB).clamp(1, 32);
        Choice {
            rule,
            codec: self.codec,
            extent_blocks,
            defer: self.defer,
        }
    }
}

pub(super) fn check_name(field: &'static str, name: &str) -> Result<(), (&'static str, String)> {
    let why = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME {
        "is longer than 64 bytes"
    } else if name.chars().any(char::is_control) {
        "has control characters in it"
    } else {
        return Ok(());
    };
    Err((field, why.to_owned()))
}

fn check_unique<'a>(
    name: &str,
    mut earlier: impl Iterator<Item = &'a Rule>,
) -> Result<(), (&'static str, String)> {
    if earlier.any(|rule| rule.name == name) {
        return Err(("name", "is another rule's name already".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
