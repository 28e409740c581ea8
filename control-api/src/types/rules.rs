//! Compression rules: an ordered list, the first that matches wins.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The rules of the store, or those that a vDisk has instead.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Tried in this order, 64 at most. When none matches: lz4 in extents of 16 KiB.
    pub rules: Vec<Rule>,
    /// Which commands have what they touch put together elsewhere, tried in this order, 64 at most; when none matches, all stays where it
    /// is. Left out: the shipped ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coalesce: Option<Vec<CoalesceRule>>,
}

/// What to do with data of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What people call it; unique in its list, at most 64 bytes.
    pub name: String,
    /// When it applies.
    #[serde(default)]
    pub when: Condition,
    /// What it does.
    #[serde(rename = "use")]
    pub treatment: Treatment,
}

/// Conditions that all must hold; those left out always do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Condition {
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

/// What becomes of the blocks that a command touches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Coalesce {
    /// They are put together.
    Together,
    /// They stay where they are.
    Leave,
}

/// A command that touches blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Touching {
    /// A read.
    Read,
    /// Small writes that went on where the one before ended, taken together: 64 KiB at most.
    Write,
}

/// Conditions that all must hold; those left out always do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

/// What data looks like, by a cheap probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Compressing it would be in vain.
    Incompressible,
    /// Worth trying.
    Compressible,
}

/// How data is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Treatment {
    /// `none`, `lz4` or `zstd:LEVEL` (-7 to 19).
    pub codec: String,
    /// Largest extent to form, in KiB of content: 4, 8, 16, 32, 64 or 128.
    pub extent_kib: u32,
    /// Store it as it is now, and compress it so when it is relocated.
    #[serde(default)]
    pub defer: bool,
}

/// Describes a write, to learn what the rules make of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The vDisk that it goes to; without one, the store's rules alone count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vdisk: Option<String>,
    /// Length of the command, in bytes.
    pub bytes: u64,
    /// Whether it goes on where an earlier one ended.
    pub sequential: bool,
    /// Whether it starts and ends at multiples of 4 KiB.
    pub aligned: bool,
    /// The vDisk's tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Seconds since the guest wrote the data; 0 for a guest's write.
    pub age_secs: u64,
    /// What the data looks like.
    pub class: Class,
    /// Idle share of the host's CPU time, in per cent.
    pub cpu_headroom: u8,
}

/// What the rules make of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// All rules in the order they are tried; the last stands for "no rule matched".
    pub rules: Vec<ExplainedRule>,
    /// What follows.
    pub treatment: Treatment,
}

/// What one rule has to do with a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedRule {
    /// The rule's name.
    pub rule: String,
    /// Whether all its conditions hold.
    pub matched: bool,
    /// Whether it is the one that decides: the first that matched.
    pub chosen: bool,
    /// Its codec.
    pub codec: String,
    /// One line for each condition: whether it holds and why.
    pub reasons: Vec<String>,
}
