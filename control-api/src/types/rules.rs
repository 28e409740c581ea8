//! Compression rules: an ordered list, the first that matches wins.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The rules of the store, or a vDisk's own ones in front of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Tried in this order.
    pub rules: Vec<Rule>,
}

/// What to do with data of a kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What it is called in answers and logs.
    pub name: String,
    /// When it applies: every condition that is given must hold.
    #[serde(default)]
    pub when: Condition,
    /// What it says.
    pub then: Treatment,
}

/// Conditions; one that is absent always holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The request has at least this many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_bytes: Option<u64>,
    /// The request has at most this many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// The request continues (true) or does not continue (false) a stream of neighbours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequential: Option<bool>,
    /// Offset and length are (true) or are not (false) whole 4 KiB blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aligned: Option<bool>,
    /// The vDisk's tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The data is at least this many seconds old (data that is being relocated; fresh data is 0 s old).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_age_seconds: Option<u64>,
    /// The probe expects it to compress by at least this factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ratio: Option<f64>,
    /// The probe expects it to compress by at most this factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ratio: Option<f64>,
    /// At least this share of the processors' time is idle, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_idle_percent: Option<u8>,
}

/// How data is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Treatment {
    /// `none`, `lz4`, or `zstd` with a level.
    pub codec: Codec,
    /// Bytes that are compressed together: 4096 to 131072, a multiple of 4096.
    pub extent_bytes: u32,
    /// Within the command, or later, when the data is relocated.
    #[serde(default)]
    pub when: When,
}

/// A codec and its parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// Stored as it is.
    None,
    /// LZ4's block format.
    Lz4,
    /// Zstandard at a level from 1 to 19.
    Zstd(i32),
}

/// When data is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Before the command completes.
    #[default]
    Now,
    /// Stored as it is now, compressed when it is relocated.
    Later,
}

/// Describes a request, to learn what the rules make of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The vDisk that it goes to; without one, the store's rules alone count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vdisk: Option<String>,
    /// Length of the write, in bytes.
    pub bytes: u64,
    /// Whether it continues a stream of neighbours.
    #[serde(default)]
    pub sequential: bool,
    /// Whether it starts or ends inside a 4 KiB block.
    #[serde(default)]
    pub unaligned: bool,
    /// The vDisk's tag, where no vDisk is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Age of the data in seconds: 0 is a fresh write.
    #[serde(default)]
    pub age_seconds: u64,
    /// Factor that the probe expects from compression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Idle share of the processors, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_percent: Option<u8>,
}

/// What the rules make of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The rules in the order they were tried, up to and including the one that won.
    pub tried: Vec<Tried>,
    /// Name of the rule that won; absent where none matched and the built-in default applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What follows from it.
    pub treatment: Treatment,
}

/// One rule that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tried {
    /// The rule.
    pub rule: String,
    /// The first condition that did not hold, in words; absent for the rule that won.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}
