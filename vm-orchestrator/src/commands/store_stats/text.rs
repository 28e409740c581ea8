//! The figures for people: a table each, and facts.

use super::{OfLayer, OfVDisk, Shown};
use crate::output::{Align, facts, table};
use crate::units::bytes;
use control_api::types::{LayerKind, SnapshotUsage, SpaceOf, StoreStats, Temperature};

/// Bytes of a block.
const BLOCK: u64 = 4096;

pub(super) fn text(shown: &Shown) -> String {
    let mut parts = Vec::new();
    if !shown.vdisks.is_empty() {
        parts.push(vdisks(&shown.vdisks));
    }
    if shown.by_layer {
        parts.push(layers(&shown.layers));
    }
    parts.extend([
        space(&shown.stats),
        shares(&shown.stats.space),
        writes(&shown.stats),
        done(shown),
    ]);
    parts.join("\n")
}

fn vdisks(vdisks: &[OfVDisk]) -> String {
    let heading = [
        ("VDISK", Align::Left),
        ("SIZE", Align::Right),
        ("IN SEGMENTS", Align::Right),
        ("LIVE LAYER", Align::Right),
        ("SNAPSHOTS", Align::Right),
        ("THEIR LAYERS", Align::Right),
        ("FRAGMENTATION", Align::Right),
    ];
    let rows: Vec<_> = vdisks
        .iter()
        .map(|vdisk| {
            [
                vdisk.name.clone(),
                bytes(vdisk.size),
                bytes(vdisk.fragmentation.blocks.saturating_mul(BLOCK)),
                bytes(vdisk.live.stored_bytes),
                vdisk.snapshots.to_string(),
                bytes(vdisk.in_snapshots.stored_bytes),
                format!("{:.2}", vdisk.fragmentation_index),
            ]
        })
        .collect();
    table(heading, &rows)
}

fn layers(layers: &[OfLayer]) -> String {
    let heading = [
        ("LAYER", Align::Right),
        ("OF", Align::Left),
        ("CONTENT", Align::Right),
        ("ZEROES", Align::Right),
        ("STORED", Align::Right),
        ("ALONE", Align::Right),
    ];
    let row = |OfLayer { layer, usage }: &OfLayer| {
        let SnapshotUsage {
            data_blocks,
            zero_blocks,
            stored_bytes,
            exclusive_bytes,
            ..
        } = *usage;
        let vdisk = layer.vdisk.clone().unwrap_or_default();
        let of = match (layer.kind, &layer.snapshot) {
            (LayerKind::Live, _) => vdisk,
            (LayerKind::Snapshot, Some(snapshot)) => format!("{vdisk}@{snapshot}"),
            (LayerKind::Import, _) => "(an import)".into(),
            _ => "(none)".into(),
        };
        let content = |blocks: u64| bytes(blocks.saturating_mul(BLOCK));
        [
            layer.id.to_string(),
            of,
            content(data_blocks),
            content(zero_blocks),
            bytes(stored_bytes),
            bytes(exclusive_bytes),
        ]
    };
    let rows: Vec<_> = layers.iter().map(row).collect();
    table(heading, &rows)
}

fn name(temperature: Temperature) -> &'static str {
    match temperature {
        Temperature::Fresh => "fresh",
        Temperature::Streaming => "streaming",
        Temperature::Cold => "cold",
        Temperature::Unknown => "unknown",
        Temperature::Metadata => "metadata",
        Temperature::Spare => "spare",
    }
}

fn space(stats: &StoreStats) -> String {
    let heading = [
        ("TEMPERATURE", Align::Left),
        ("SEGMENTS", Align::Right),
        ("FILES", Align::Right),
        ("USED", Align::Right),
        ("LIVE", Align::Right),
        ("LIVE SHARE", Align::Right),
    ];
    let line = |name: &str, rows: &[SpaceOf]| {
        let sum = |of: fn(&SpaceOf) -> u64| rows.iter().map(of).fold(0, u64::saturating_add);
        let (used, live) = (sum(|r| r.used_bytes), sum(|r| r.live_bytes));
        [
            name.to_owned(),
            sum(|r| r.segments).to_string(),
            bytes(sum(|r| r.file_bytes)),
            bytes(used),
            bytes(live),
            percent(live, used),
        ]
    };
    let each = stats.space.iter().filter(|row| is_shown(row));
    let mut rows: Vec<_> = each
        .map(|row| line(name(row.temperature), std::slice::from_ref(row)))
        .collect();
    rows.push(line("together", &stats.space));
    table(heading, &rows)
}

/// What is not known is nothing, most of the time.
fn is_shown(row: &SpaceOf) -> bool {
    row.temperature != Temperature::Unknown || row.segments > 0
}

fn shares(space: &[SpaceOf]) -> String {
    let mut heading = [("", Align::Right); 12];
    let titles = [
        "SEGMENTS BY LIVE SHARE",
        "0%",
        "..10%",
        "..20%",
        "..30%",
        "..40%",
        "..50%",
        "..60%",
        "..70%",
        "..80%",
        "..90%",
        "..100%",
    ];
    for (to, title) in heading.iter_mut().zip(titles) {
        *to = (title, Align::Right);
    }
    heading[0].1 = Align::Left;
    let row = |row: &SpaceOf| {
        let mut cells = [const { String::new() }; 12];
        cells[0] = name(row.temperature).to_owned();
        for (cell, count) in cells.iter_mut().skip(1).zip(&row.by_live_share) {
            *cell = match count {
                0 => "-".into(),
                count => count.to_string(),
            };
        }
        cells
    };
    let segments = space
        .iter()
        .filter(|r| is_shown(r) && r.temperature != Temperature::Spare);
    let rows: Vec<_> = segments.map(row).collect();
    table(heading, &rows)
}

fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".into(),
        whole => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

fn writes(stats: &StoreStats) -> String {
    let writes = &stats.writes;
    let heading = [
        ("WRITTEN SINCE START", Align::Left),
        ("BYTES", Align::Right),
        ("SHARE", Align::Right),
    ];
    let causes = [
        ("guests' data, as stored", writes.guest_bytes),
        ("moved by compaction", writes.compaction_bytes),
        ("put together", writes.coalescing_bytes),
        ("packed harder", writes.packing_bytes),
        ("copied for clones", writes.cloning_bytes),
        ("maps and tables", writes.checkpoint_bytes),
        ("records of the log", writes.log_bytes),
        ("padding", writes.padding_bytes),
        ("segment headers", writes.header_bytes),
        ("zeroes written ahead", writes.ahead_bytes),
        ("superblocks", writes.superblock_bytes),
        ("together", writes.total_bytes),
    ];
    let rows = causes.map(|(cause, count)| {
        [
            cause.to_owned(),
            bytes(count),
            percent(count, writes.total_bytes),
        ]
    });
    table(heading, &rows)
}

fn done(shown: &Shown) -> String {
    let StoreStats {
        writes,
        coalescing: put,
        compaction,
        ..
    } = &shown.stats;
    let times = |factor: Option<f64>| factor.map_or("-".into(), |f| format!("{f:.2}x"));
    let amplification = &shown.write_amplification;
    facts(&[
        ("guests wrote", bytes(writes.requested_bytes)),
        (
            "write amplification",
            format!(
                "{} of what guests wrote, {} of what is stored of it",
                times(amplification.of_requested),
                times(amplification.of_stored)
            ),
        ),
        (
            "in the write buffer",
            format!("{} of what counts as written", bytes(writes.waiting_bytes)),
        ),
        (
            "reads",
            format!(
                "{} of {} found their data scattered: {} gathered, {} put off, {} dropped; {} read again",
                put.scattered,
                put.looked_at,
                put.gathered,
                put.put_off,
                put.dropped,
                put.read_again
            ),
        ),
        (
            "put together",
            format!(
                "{}; {} had changed meanwhile",
                bytes(put.switched_bytes),
                bytes(put.skipped_bytes)
            ),
        ),
        (
            "compaction",
            format!(
                "{} moved out of {} segments; {} empty ones removed",
                bytes(compaction.moved_bytes),
                compaction.segments,
                compaction.removed_segments
            ),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use control_api::types::{CoalescingStats, CompactionStats, WriteStats};

    fn shown() -> Shown {
        let row = |temperature, segments: u64, live: u64| SpaceOf {
            temperature,
            segments,
            file_bytes: segments << 26,
            used_bytes: segments << 26,
            live_bytes: live << 20,
            by_live_share: (0..11).map(|n| if n == 7 { segments } else { 0 }).collect(),
        };
        let space = vec![
            row(Temperature::Fresh, 10, 420),
            row(Temperature::Streaming, 32, 2000),
            row(Temperature::Cold, 0, 0),
            row(Temperature::Unknown, 0, 0),
            row(Temperature::Metadata, 1, 9),
            row(Temperature::Spare, 5, 0),
        ];
        let stats = StoreStats {
            segment_bytes: 64 << 20,
            space,
            writes: WriteStats {
                requested_bytes: 1000 << 20,
                guest_bytes: 500 << 20,
                log_bytes: 1 << 20,
                compaction_bytes: 100 << 20,
                coalescing_bytes: 50 << 20,
                packing_bytes: 0,
                cloning_bytes: 0,
                checkpoint_bytes: 20 << 20,
                padding_bytes: 4 << 20,
                header_bytes: 64 << 10,
                ahead_bytes: 64 << 20,
                superblock_bytes: 1 << 20,
                total_bytes: 750 << 20,
                waiting_bytes: 12 << 10,
            },
            coalescing: CoalescingStats {
                looked_at: 1000,
                scattered: 90,
                gathered: 60,
                put_off: 20,
                dropped: 10,
                read_again: 20,
                switched_bytes: 60 << 20,
                skipped_bytes: 4096,
            },
            compaction: CompactionStats {
                segments: 3,
                moved_bytes: 100 << 20,
                removed_segments: 7,
            },
        };
        let usage = |blocks, stored_bytes| SnapshotUsage {
            data_blocks: blocks,
            stored_bytes,
            exclusive_bytes: stored_bytes / 2,
            ..SnapshotUsage::default()
        };
        let layer = |id, kind, snapshot: Option<&str>| OfLayer {
            layer: Layer {
                id,
                uuid: uuid::Uuid::nil(),
                parent: None,
                kind,
                vdisk: (kind != LayerKind::Unnamed).then(|| "web".into()),
                snapshot: snapshot.map(str::to_owned),
            },
            usage: usage(512, 1 << 20),
        };
        let layers = vec![
            layer(1, LayerKind::Snapshot, Some("monday")),
            layer(2, LayerKind::Unnamed, None),
            layer(3, LayerKind::Live, None),
        ];
        let vdisk = crate::commands::vdisk_list::tests::vdisk("web", 10 << 30, false);
        let fragmentation = Fragmentation {
            spans: 4,
            blocks: 1024,
            stored_bytes: 2 << 20,
            reads: 30,
            side_by_side: 24,
            next: None,
        };
        Shown {
            write_amplification: amplification(&stats),
            stats,
            vdisks: vec![of_vdisk(&vdisk, fragmentation, &layers)],
            layers,
            by_layer: false,
        }
    }

    #[test]
    fn golden() {
        let mut shown = shown();
        assert_eq!(
            text(&shown),
            "VDISK      SIZE  IN SEGMENTS  LIVE LAYER  SNAPSHOTS  THEIR LAYERS  FRAGMENTATION\n\
             web    10.0 GiB     4.00 MiB    1.00 MiB          1      1.00 MiB           1.25\n\
             \n\
             TEMPERATURE  SEGMENTS     FILES      USED      LIVE  LIVE SHARE\n\
             fresh              10   640 MiB   640 MiB   420 MiB      65.6 %\n\
             streaming          32  2.00 GiB  2.00 GiB  1.95 GiB      97.7 %\n\
             cold                0       0 B       0 B       0 B           -\n\
             metadata            1  64.0 MiB  64.0 MiB  9.00 MiB      14.1 %\n\
             spare               5   320 MiB   320 MiB       0 B       0.0 %\n\
             together           48  3.00 GiB  3.00 GiB  2.37 GiB      79.1 %\n\
             \n\
             SEGMENTS BY LIVE SHARE  0%  ..10%  ..20%  ..30%  ..40%  ..50%  ..60%  ..70%  ..80%  ..90%  ..100%\n\
             fresh                    -      -      -      -      -      -      -     10      -      -       -\n\
             streaming                -      -      -      -      -      -      -     32      -      -       -\n\
             cold                     -      -      -      -      -      -      -      -      -      -       -\n\
             metadata                 -      -      -      -      -      -      -      1      -      -       -\n\
             \n\
             WRITTEN SINCE START         BYTES    SHARE\n\
             guests' data, as stored   500 MiB   66.7 %\n\
             moved by compaction       100 MiB   13.3 %\n\
             put together             50.0 MiB    6.7 %\n\
             packed harder                 0 B    0.0 %\n\
             copied for clones             0 B    0.0 %\n\
             maps and tables          20.0 MiB    2.7 %\n\
             records of the log       1.00 MiB    0.1 %\n\
             padding                  4.00 MiB    0.5 %\n\
             segment headers          64.0 KiB    0.0 %\n\
             zeroes written ahead     64.0 MiB    8.5 %\n\
             superblocks              1.00 MiB    0.1 %\n\
             together                  750 MiB  100.0 %\n\
             \n\
             guests wrote         1000 MiB\n\
             write amplification  0.75x of what guests wrote, 1.50x of what is stored of it\n\
             in the write buffer  12.0 KiB of what counts as written\n\
             reads                90 of 1000 found their data scattered: 60 gathered, 20 put off, 10 dropped; 20 read again\n\
             put together         60.0 MiB; 4.00 KiB had changed meanwhile\n\
             compaction           100 MiB moved out of 3 segments; 7 empty ones removed\n"
        );
        shown.by_layer = true;
        assert!(text(&shown).contains(
            "LAYER  OF           CONTENT  ZEROES    STORED    ALONE\n    \
             1  web@monday  2.00 MiB     0 B  1.00 MiB  512 KiB\n    \
             2  (none)      2.00 MiB     0 B  1.00 MiB  512 KiB\n    \
             3  web         2.00 MiB     0 B  1.00 MiB  512 KiB\n"
        ));
    }

    #[test]
    fn nothing_yet() {
        let mut shown = shown();
        shown.vdisks.clear();
        shown.stats.writes.requested_bytes = 0;
        shown.write_amplification = amplification(&shown.stats);
        let text = text(&shown);
        assert!(text.starts_with("TEMPERATURE"), "{text}");
        assert!(text.contains("write amplification  - of what guests wrote, 1.50x"));
    }
}
