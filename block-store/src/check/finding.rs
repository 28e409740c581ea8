//! Findings: what is wrong, where, for whom, and the way out.

use super::names::Names;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Findings that a report keeps; the others are only counted (and told to the [`Watch`]).
pub const MAX_KEPT: usize = 10_000;

/// Findings that a pass over an open store keeps; the others are only counted.
pub(super) const MAX_SCRUB_KEPT: usize = 256;

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// One of the two superblocks, or both.
    Superblock,
    /// The chain of records of the segment table.
    Table,
    /// The chain of records of the catalogue.
    Catalogue,
    /// A segment's first page.
    SegmentHeader,
    /// A segment's file: missing, too short, another one, or one that nobody names.
    Segment,
    /// A node of a block map.
    Node,
    /// An extent: its header, its payload, or that it is another one than the map says.
    Extent,
    /// Two entries that lay claim to the same bytes.
    Overlap,
    /// Live counts that differ from the maps.
    Accounting,
    /// The log after the checkpoint.
    Log,
    /// Acknowledged writes that wait outside of the store.
    WriteBuffer,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// Whether it counts as damage; a note else.
    pub damage: bool,
    /// Segment number.
    pub segment: Option<u32>,
    /// Offset in the segment, or in the superblock's file, in bytes.
    pub offset: Option<u64>,
    /// Name of the vDisk whose data it concerns.
    pub vdisk: Option<String>,
    /// Name of the snapshot, where it is one's own data.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// Number of the layer.
    pub layer: Option<u32>,
    /// First block (4 KiB) of the vDisk that is affected.
    pub first_block: Option<u64>,
    /// Number of blocks.
    pub blocks: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What can be done about it.
    pub way_out: String,
}

impl Finding {
    /// Damage.
    pub(super) fn new(kind: Kind, what: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self {
            kind,
            damage: true,
            segment: None,
            offset: None,
            vdisk: None,
            snapshot: None,
            layer: None,
            first_block: None,
            blocks: None,
            what: what.into(),
            way_out: way_out.into(),
        }
    }

    /// Worth knowing, but nothing is lost.
    pub(super) fn note(mut self) -> Self {
        self.damage = false;
        self
    }

    pub(super) fn in_segment(mut self, segment: u32) -> Self {
        self.segment = Some(segment);
        self
    }

    pub(super) fn at(mut self, offset: impl Into<u64>) -> Self {
        self.offset = Some(offset.into());
        self
    }

    pub(super) fn of(mut self, names: &Names, layer: u32, first: u64, blocks: u64) -> Self {
        self.vdisk = names.vdisk(layer).map(str::to_owned);
        self.snapshot = names.snapshot(layer).map(str::to_owned);
        self.layer = Some(layer);
        self.first_block = Some(first);
        self.blocks = Some(blocks);
        self
    }

    /// Takes in a finding that goes on where this one ends. `false`: it does not.
    fn absorb(&mut self, next: &Finding) -> bool {
        let end = self.first_block.zip(self.blocks).map(|(f, n)| f + n);
        let same = self.kind == next.kind
            && self.damage == next.damage
            && self.segment == next.segment
            && self.offset.is_none()
            && next.offset.is_none()
            && self.layer == next.layer
            && self.what == next.what;
        if !same || end.is_none() || end != next.first_block {
            return false;
        }
        self.blocks = self.blocks.zip(next.blocks).map(|(a, b)| a + b);
        true
    }
}

impl Finding {
    /// Where and what.
    fn what_where(&self) -> String {
        let mut place = Vec::new();
        match self.segment {
            Some(segment) => place.push(format!("segment {segment:x}")),
            None if self.kind == Kind::Superblock => place.push("superblock".into()),
            None => {}
        }
        if let Some(offset) = self.offset {
            place.push(format!("byte {offset}"));
        }
        match (&self.vdisk, self.layer) {
            (Some(vdisk), _) => place.push(format!("vDisk {vdisk}")),
            (None, Some(layer)) => place.push(format!("layer {layer} (of no vDisk)")),
            (None, None) => {}
        }
        if let Some(snapshot) = &self.snapshot {
            place.push(format!("snapshot {snapshot}"));
        }
        if let (Some(first), Some(blocks)) = (self.first_block, self.blocks) {
            place.push(match blocks {
                1 => format!("block {first}"),
                _ => format!("blocks {first} to {}", first + blocks.saturating_sub(1)),
            });
        }
        let weight = if self.damage { "DAMAGE" } else { "note  " };
        match place.is_empty() {
            true => format!("{weight}  {}", self.what),
            false => format!("{weight}  {}: {}", place.join(", "), self.what),
        }
    }

    /// All of it in one line, for the log.
    pub fn line(&self) -> String {
        format!("{} -> {}", self.what_where(), self.way_out)
    }
}

/// Two lines: where and what; the way out.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n        -> {}", self.what_where(), self.way_out)
    }
}

/// Follows a check while it runs.
pub trait Watch {
    /// `done` of about `total` bytes of segments lie behind us.
    fn progress(&mut self, done: u64, total: u64);
    /// Something was found.
    fn found(&mut self, finding: &Finding);
    /// Whether to go on.
    fn go_on(&mut self) -> bool;
}

/// Nobody watches.
impl Watch for () {
    fn progress(&mut self, _done: u64, _total: u64) {}

    fn found(&mut self, _finding: &Finding) {}

    fn go_on(&mut self) -> bool {
        true
    }
}

/// What a check has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The first [`MAX_KEPT`] findings.
    pub findings: Vec<Finding>,
    /// Findings that are damage.
    pub damage: u64,
    /// Findings that are notes.
    pub notes: u64,
    /// Segments looked at.
    pub segments: u64,
    /// Map nodes verified.
    pub nodes: u64,
    /// Extents verified.
    pub extents: u64,
    /// Blocks that the maps hold in them.
    pub blocks: u64,
    /// Records of the log after the checkpoint.
    pub log_records: u64,
    /// It was stopped before its end.
    pub stopped: bool,
}

/// Where findings and progress go.
pub(super) struct Sink<'a> {
    watch: Option<&'a mut dyn Watch>,
    pub(super) report: Report,
    pending: Option<Finding>,
    done: u64,
    total: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(watch: &'a mut dyn Watch) -> Self {
        Self {
            watch: Some(watch),
            ..Self::quiet()
        }
    }

    /// Nobody watches.
    pub(super) fn quiet() -> Self {
        Self {
            watch: None,
            report: Report::default(),
            pending: None,
            done: 0,
            total: 0,
        }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        if let Some(pending) = &mut self.pending
            && pending.absorb(&finding)
        {
            return;
        }
        self.flush();
        self.pending = Some(finding);
    }

    fn flush(&mut self) {
        let Some(finding) = self.pending.take() else {
            return;
        };
        if let Some(watch) = &mut self.watch {
            watch.found(&finding);
        }
        match finding.damage {
            true => self.report.damage += 1,
            false => self.report.notes += 1,
        }
        if self.report.findings.len() < MAX_KEPT {
            self.report.findings.push(finding);
        }
    }

    pub(super) fn set_total(&mut self, total: u64) {
        self.total = total;
    }

    /// So many bytes more are done.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes).min(self.total);
        if let Some(watch) = &mut self.watch {
            watch.progress(self.done, self.total);
        }
    }

    pub(super) fn done_all(&mut self) {
        self.advance(self.total);
    }

    pub(super) fn stopped(&mut self) -> bool {
        if let Some(watch) = &mut self.watch {
            self.report.stopped |= !watch.go_on();
        }
        self.report.stopped
    }

    pub(super) fn finish(mut self) -> Report {
        self.flush();
        self.report
    }
}
