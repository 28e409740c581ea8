//! What segments there are and how much of them is alive, by what they were opened for.

use super::{Content, Phase, Segment, Segments};
use crate::format::{SEGMENT_DATA_START, Temperature};
use serde::Serialize;

/// Steps of the share that is alive: nothing, up to 10 %, up to 20 %, and so on up to all.
const SHARES: usize = 11;

/// What a segment is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Small writes.
    Fresh,
    /// Streams.
    Streaming,
    /// Relocated data.
    Cold,
    /// Data, but of what kind is not known: the table did not say when the store was opened.
    Unknown,
    /// Block maps, tables, catalogues.
    Metadata,
    /// Ready for use, and empty.
    Spare,
}

/// All kinds.
const KINDS: [Kind; 6] = [
    Kind::Fresh,
    Kind::Streaming,
    Kind::Cold,
    Kind::Unknown,
    Kind::Metadata,
    Kind::Spare,
];

/// The segments of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Census {
    /// The kind.
    pub temperature: Kind,
    /// How many.
    pub segments: u64,
    /// Bytes of their files, at full length.
    pub file_bytes: u64,
    /// Bytes appended to them, headers included.
    pub used_bytes: u64,
    /// Of these alive, reckoned by the share of what was appended that a map names still.
    pub live_bytes: u64,
    /// How many have which share alive: nothing, up to 10 %, up to 20 %, and so on. Spare ones are not among them.
    pub by_live_share: [u64; SHARES],
}

/// Counts all segments; one row for each kind.
pub fn census(segments: &Segments, segment_size: u32) -> [Census; KINDS.len()] {
    let mut rows = KINDS.map(|temperature| Census {
        temperature,
        segments: 0,
        file_bytes: 0,
        used_bytes: 0,
        live_bytes: 0,
        by_live_share: [0; SHARES],
    });
    for (_, segment) in segments.iter() {
        let kind = kind_of(segment);
        let Some(row) = rows.get_mut(kind as usize) else {
            continue;
        };
        row.segments += 1;
        row.file_bytes += u64::from(segment_size);
        row.used_bytes += u64::from(segment.used);
        row.live_bytes += live_bytes(segment);
        if kind != Kind::Spare
            && let Some(count) = row
                .by_live_share
                .get_mut(share(segment.live, segment.total))
        {
            *count += 1;
        }
    }
    rows
}

fn kind_of(segment: &Segment) -> Kind {
    match (segment.phase, segment.content, segment.temperature) {
        (Phase::Spare, ..) => Kind::Spare,
        (_, Content::Meta, _) => Kind::Metadata,
        (_, _, Temperature::Fresh) => Kind::Fresh,
        (_, _, Temperature::Streaming) => Kind::Streaming,
        (_, _, Temperature::Cold) => Kind::Cold,
        (_, _, Temperature::Unknown) => Kind::Unknown,
    }
}

/// Pieces of the table and the catalogue are alive without ever having been counted as appended: all is the most.
fn live_bytes(segment: &Segment) -> u64 {
    let data = u64::from(segment.used.saturating_sub(SEGMENT_DATA_START));
    let total = u64::from(segment.total.max(1));
    data * u64::from(segment.live).min(total) / total
}

/// The step of the share: 0 for nothing, 10 for more than 90 %.
fn share(live: u32, total: u32) -> usize {
    let (live, total) = (u64::from(live), u64::from(total.max(1)));
    (live * 10).div_ceil(total).min(SHARES as u64 - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Disk;
    use crate::io::sim::SimDisk;
    use proptest::prelude::*;

    const SIZE: u32 = 1 << 20;

    fn segment() -> impl Strategy<Value = (Phase, Content, Temperature, u32, u32, u32)> {
        let phase = prop_oneof![Just(Phase::Spare), Just(Phase::Open), Just(Phase::Sealed)];
        let content = prop_oneof![Just(Content::Data), Just(Content::Meta)];
        let temperature = prop_oneof![
            Just(Temperature::Unknown),
            Just(Temperature::Fresh),
            Just(Temperature::Streaming),
            Just(Temperature::Cold)
        ];
        let used = SEGMENT_DATA_START..=SIZE;
        (phase, content, temperature, used, 0..300u32, 0..300u32)
    }

    proptest! {
        /// Every segment is counted once and as a whole, and none has more alive than it has.
        #[test]
        fn the_rows_add_up(all in proptest::collection::vec(segment(), 0..40)) {
            let disk = SimDisk::new(1, 1 << 30);
            let file = disk.create("f", 4096).unwrap();
            let mut segments = Segments::default();
            for (id, (phase, content, temperature, used, live, total)) in (0..).zip(&all) {
                segments.insert(id, Segment {
                    generation: 1,
                    file: file.clone(),
                    phase: *phase,
                    content: *content,
                    temperature: *temperature,
                    used: *used,
                    live: *live,
                    total: *total,
                    prewritten: false,
                    settled: false,
                    left: 0,
                    touched: 0,
                });
            }
            let rows = census(&segments, SIZE);
            prop_assert!(rows.iter().map(|r| r.temperature).eq(KINDS));
            let sum = |of: fn(&Census) -> u64| rows.iter().map(of).sum::<u64>();
            let count = all.len() as u64;
            prop_assert_eq!(sum(|r| r.segments), count);
            prop_assert_eq!(sum(|r| r.file_bytes), count * u64::from(SIZE));
            let used: u64 = all.iter().map(|s| u64::from(s.3)).sum();
            prop_assert_eq!(sum(|r| r.used_bytes), used);
            let spare = all.iter().filter(|s| s.0 == Phase::Spare).count() as u64;
            prop_assert_eq!(sum(|r| r.by_live_share.iter().sum()), count - spare);
            for row in &rows {
                prop_assert!(row.live_bytes <= row.used_bytes);
            }
        }
    }

    #[test]
    fn shares_are_tenths_rounded_up() {
        for (live, step) in [
            (0, 0),
            (1, 1),
            (10, 1),
            (11, 2),
            (90, 9),
            (91, 10),
            (100, 10),
        ] {
            assert_eq!(share(live, 100), step, "{live} %");
        }
        assert_eq!(share(7, 0), 10, "pieces of the table alone");
    }
}
