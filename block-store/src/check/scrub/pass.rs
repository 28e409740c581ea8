//! A pass over a store: how far it is, what it has found. Plain data, kept in the catalogue.

use crate::check::finding::{Finding, MAX_SCRUB_KEPT};
use serde::{Deserialize, Serialize};

/// Where a pass is. In this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Superblocks, segment table, catalogue.
    Roots,
    /// The segments' files, from this number on.
    Segments(u32),
    /// Maps and extents, from this block of this layer on. Layers come in the order of their numbers: merges move entries to
    /// younger ones only, so that none escapes.
    Data {
        /// The layer, or the next one that there is.
        layer: u32,
        /// The block.
        block: u64,
    },
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Bytes of nodes and extents.
    pub verified_bytes: u64,
    /// Segments' files.
    pub segments: u64,
    /// Map nodes.
    pub nodes: u64,
    /// Extents.
    pub extents: u64,
    /// Blocks that the maps hold in them.
    pub blocks: u64,
}

impl Tally {
    /// Both together.
    pub(super) fn add(&mut self, other: &Self) {
        self.verified_bytes = self.verified_bytes.saturating_add(other.verified_bytes);
        self.segments = self.segments.saturating_add(other.segments);
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.extents = self.extents.saturating_add(other.extents);
        self.blocks = self.blocks.saturating_add(other.blocks);
    }
}

/// One pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Seconds since 1970 at which it began.
    pub started: u64,
    /// And at which it came to its end.
    pub ended: Option<u64>,
    /// And at which somebody stopped it, to go on later.
    pub stopped: Option<u64>,
    /// Bytes a second that it reads at most; 0: as many as guests leave it.
    pub rate: u64,
    /// Extents are decompressed too.
    pub decode: bool,
    /// Segments from this generation on were made since it began: what is in them is the next pass's.
    pub generation: u64,
    /// About how many bytes there are to verify.
    pub total_bytes: u64,
    /// Where it goes on.
    pub stage: Stage,
    /// What was looked at before that.
    pub tally: Tally,
    /// What was looked at since: it is done again by the next process.
    #[serde(skip)]
    pub(super) since: Tally,
    /// Findings that are damage.
    pub damage: u64,
    /// Findings that are notes.
    pub notes: u64,
    /// The first findings.
    pub findings: Vec<Finding>,
    /// When this process took it up, and how many bytes were verified by then.
    #[serde(skip)]
    pub(super) taken_up: Option<(u64, u64)>,
}

impl Pass {
    /// A pass that begins now.
    pub(super) fn new(now: u64, generation: u64, total_bytes: u64) -> Self {
        Self {
            started: now,
            ended: None,
            stopped: None,
            rate: 0,
            decode: false,
            generation,
            total_bytes,
            stage: Stage::Roots,
            tally: Tally::default(),
            since: Tally::default(),
            damage: 0,
            notes: 0,
            findings: Vec::new(),
            taken_up: None,
        }
    }

    /// Everything that was looked at.
    pub fn all(&self) -> Tally {
        let mut all = self.tally;
        all.add(&self.since);
        all
    }

    /// Whether it is to go on now.
    pub fn runs(&self) -> bool {
        self.ended.is_none() && self.stopped.is_none()
    }

    /// Takes a finding in. `false`: it is known already.
    pub(super) fn found(&mut self, finding: Finding) -> bool {
        if self.findings.contains(&finding) {
            return false;
        }
        match finding.damage {
            true => self.damage = self.damage.saturating_add(1),
            false => self.notes = self.notes.saturating_add(1),
        }
        if self.findings.len() < MAX_SCRUB_KEPT {
            self.findings.push(finding);
        }
        true
    }

    /// What lies behind it lies behind the next process too.
    pub(super) fn reached(&mut self, stage: Stage) {
        let since = std::mem::take(&mut self.since);
        self.tally.add(&since);
        self.stage = stage;
    }

    /// It has come to its end.
    pub(super) fn end(&mut self, now: u64) {
        let since = std::mem::take(&mut self.since);
        self.tally.add(&since);
        self.ended = Some(now);
    }

    /// Seconds until its end at the speed that it has had in this process.
    pub fn seconds_left(&self, now: u64) -> Option<u64> {
        let done = self.all().verified_bytes;
        let left = self.total_bytes.saturating_sub(done);
        let (since, before) = self.taken_up.filter(|_| self.runs())?;
        let (took, got) = (now.checked_sub(since)?, done.checked_sub(before)?);
        let left = u128::from(left) * u128::from(took);
        u64::try_from(left.checked_div(got.into())?).ok()
    }
}

/// The pass that is under way and the one before it, as the catalogue keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passes {
    /// Running, or stopped.
    #[serde(default)]
    pub pass: Option<Pass>,
    /// The last one that has come to its end.
    #[serde(default)]
    pub last: Option<Pass>,
}

impl Passes {
    /// From what the catalogue has kept.
    pub fn of_json(json: Option<&str>) -> Self {
        let Some(json) = json else {
            return Self::default();
        };
        let mut passes: Self = serde_json::from_str(json).unwrap_or_else(|error| {
            log::warn!("what is known of the last scrub can't be read, it begins anew: {error}");
            Self::default()
        });
        let both = passes.pass.iter_mut().chain(&mut passes.last);
        both.for_each(|pass| pass.findings.truncate(MAX_SCRUB_KEPT));
        passes
    }

    /// For the catalogue.
    pub fn json(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        serde_json::to_string(self).ok()
    }

    /// The moment from which on it is to be counted when the next one is due.
    pub fn last_seen_to(&self) -> Option<u64> {
        let last = self.last.as_ref().map(|pass| pass.started);
        let stopped = self.pass.as_ref().and_then(|pass| pass.stopped);
        last.max(stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Kind;

    #[test]
    fn what_is_found_twice_counts_once_and_little_is_kept() {
        let mut pass = Pass::new(7, 1, 100);
        let finding = |n: usize| Finding::new(Kind::Extent, format!("{n}"), "none");
        for n in 0..2 * MAX_SCRUB_KEPT {
            assert!(pass.found(finding(n)));
        }
        assert!(!pass.found(finding(3)));
        assert_eq!(pass.damage, 2 * MAX_SCRUB_KEPT as u64);
        assert_eq!(pass.findings.len(), MAX_SCRUB_KEPT);
    }

    #[test]
    fn the_catalogue_keeps_what_lies_behind_the_position() {
        let mut passes = Passes::default();
        assert_eq!(passes.json(), None);
        let mut pass = Pass::new(7, 1, 100);
        pass.since.extents = 5;
        pass.reached(Stage::Data { layer: 2, block: 9 });
        pass.since.extents = 3;
        assert_eq!(pass.all().extents, 8);
        passes.pass = Some(pass);
        let kept = Passes::of_json(passes.json().as_deref());
        let pass = kept.pass.unwrap();
        assert_eq!((pass.all().extents, pass.runs()), (5, true));
        assert_eq!(pass.stage, Stage::Data { layer: 2, block: 9 });
        for odd in ["", "[]", "{\"pass\":{\"started\":-1}}", "{\"pass\":3}"] {
            assert_eq!(Passes::of_json(Some(odd)), Passes::default());
        }
    }

    #[test]
    fn the_time_that_is_left_follows_the_speed_of_this_process() {
        let mut pass = Pass::new(7, 1, 1000);
        assert_eq!(pass.seconds_left(100), None);
        (pass.tally.verified_bytes, pass.taken_up) = (500, Some((100, 400)));
        assert_eq!(pass.seconds_left(110), Some(50));
        assert_eq!(pass.seconds_left(99), None);
        pass.tally.verified_bytes = u64::MAX;
        assert_eq!(pass.seconds_left(u64::MAX), Some(0));
        pass.stopped = Some(1);
        assert_eq!(pass.seconds_left(110), None);
    }
}
