//! Every kind of damage to every kind of piece. Reads give the right data or an error; `check` names what is wrong,
//! and writes nothing; what it calls sound reads right.

use crate::pieces::{HARMS, Harm, Piece, RecordName, What, harm, pieces, twin};
use crate::support::{BLOCK, Machine};
use crate::{BLOCKS, busy, read_all};
use block_store::check::{CheckOptions, Finding, Kind, Report, Watch, check as look_over};
use block_store::format::{RecordHeader, Seed, SegmentHeader, decode_table, encode_table};
use std::collections::{BTreeMap, BTreeSet};

fn report(m: &Machine) -> Report {
    let before = m.files();
    let options = CheckOptions {
        decode: true,
        // Several passes.
        records: 40,
    };
    let report = look_over(&m.disk, &options, &mut ()).unwrap();
    assert!(m.files() == before, "a check has written");
    report
}

/// Damage of which the check says nothing may do no harm; what it says must name the place.
fn judge(
    piece: &Piece,
    twin: Option<u32>,
    report: &Report,
    (outcome, failed): (&str, &[u64]),
    case: &str,
) {
    let damage: Vec<_> = report.findings.iter().filter(|f| f.damage).collect();
    if outcome != "right" {
        assert!(
            !damage.is_empty(),
            "{case}: {outcome}, but nothing was found"
        );
    }
    for finding in &damage {
        let (text, way_out) = (finding.to_string(), &finding.way_out);
        assert!(
            !finding.what.is_empty() && !way_out.is_empty(),
            "{case}: {text}"
        );
        // Missing counts follow from a file that does not count any more.
        let elsewhere = [
            Kind::Accounting,
            Kind::Table,
            Kind::Catalogue,
            Kind::Log,
            Kind::Node,
        ];
        let here = finding.segment == piece.segment() || finding.segment == twin;
        assert!(here || elsewhere.contains(&finding.kind), "{case}: {text}");
        if finding.kind == Kind::Extent {
            let known = finding.vdisk.as_deref() == Some("a") && finding.blocks > Some(0);
            assert!(
                known && finding.first_block < Some(BLOCKS),
                "{case}: {text}"
            );
        }
    }
    for block in failed {
        let named = damage.iter().any(|f| {
            let first = f.first_block.unwrap_or(u64::MAX);
            f.vdisk.as_deref() == Some("a")
                && (first..first.saturating_add(f.blocks.unwrap_or(0))).contains(block)
        });
        assert!(named, "{case}: block {block} can't be read: {damage:?}");
    }
    if piece.what == What::Superblock {
        assert!(
            damage.iter().any(|f| f.kind == Kind::Superblock),
            "{case}: {damage:?}"
        );
    }
}

#[test]
fn a_sound_store_is_called_sound() {
    for seed in 0..4 {
        let (m, _) = busy(seed);
        let report = report(&m);
        assert_eq!(report.damage, 0, "{:#?}", report.findings);
        assert!(report.nodes > 3 && report.extents > 10 && report.log_records > 3);
        let whole = CheckOptions::default();
        let in_one = look_over(&m.disk, &whole, &mut ()).unwrap();
        assert_eq!(
            (in_one.nodes, in_one.extents, in_one.blocks),
            (report.nodes, report.extents, report.blocks)
        );
    }
}

#[test]
fn every_damage_to_every_piece() {
    let seed = 3;
    let (m, want) = busy(seed);
    let (all, files) = (pieces(&m), m.files());
    let mut table: BTreeMap<(What, Harm), BTreeMap<&str, u32>> = BTreeMap::new();
    let mut cases = 0;
    for (n, piece) in all.iter().enumerate() {
        // There are many extents, ranges and commits: all of the others, some of these.
        let many = matches!(
            piece.what,
            What::Header(RecordName::Extent | RecordName::Range | RecordName::Commit)
                | What::Payload(RecordName::Extent | RecordName::Commit)
        );
        for (k, kind) in HARMS.into_iter().enumerate() {
            if many && (n + k) % 9 != 0 {
                continue;
            }
            let mut files = files.clone();
            if !harm(&mut files, &all, n, kind) {
                continue;
            }
            let m = Machine::holding(&files);
            let case = format!(
                "{kind:?} of {:?} at byte {} of {}",
                piece.what, piece.at, piece.file
            );
            let found = report(&m);
            let gone = kind == Harm::Remove || piece.what == What::File;
            // With all that vouches for it, a block may be gone without a trace.
            let (outcome, failed) = read_all(&m, &want, &case, gone);
            let twin = match kind {
                Harm::Swap | Harm::Duplicate => twin(&all, n).and_then(Piece::segment),
                _ => None,
            };
            judge(piece, twin, &found, (outcome, &failed), &case);
            *table
                .entry((piece.what, kind))
                .or_default()
                .entry(outcome)
                .or_default() += 1;
            cases += 1;
        }
    }
    println!("{cases} cases");
    for (case, outcomes) in &table {
        println!("{case:?}: {outcomes:?}");
    }
    // Nothing is left out, and the matrix can tell: each outcome occurs.
    let pieces: BTreeSet<What> = table.keys().map(|(what, _)| *what).collect();
    assert!(pieces.len() == 16, "{pieces:?}");
    let outcomes: BTreeSet<&str> = table.values().flat_map(BTreeMap::keys).copied().collect();
    assert_eq!(outcomes, BTreeSet::from(["I/O error", "refused", "right"]));
}

/// Stops at once when told to.
struct Impatient;

impl Watch for Impatient {
    fn progress(&mut self, _done: u64, _total: u64) {}

    fn found(&mut self, _finding: &Finding) {}

    fn go_on(&mut self) -> bool {
        false
    }
}

#[test]
fn a_check_can_be_stopped() {
    let (m, _) = busy(0);
    let report = look_over(&m.disk, &CheckOptions::default(), &mut Impatient).unwrap();
    assert!(report.stopped && report.nodes + report.extents == 0);
}

/// A walk in many passes counts and finds what one does, and a wrong count is named.
#[test]
fn wrong_live_counts_are_found() {
    let (m, _) = busy(1);
    let all = pieces(&m);
    let mut files = m.files();
    let table = all
        .iter()
        .filter(|p| p.what == What::Payload(RecordName::Table));
    for piece in table {
        let bytes = files.get_mut(&piece.file).unwrap();
        let header = SegmentHeader::decode(&bytes[..BLOCK]).unwrap();
        let mut rows = decode_table(&bytes[piece.at..][..piece.len]).unwrap();
        for row in rows.iter_mut().filter(|r| r.live > 0) {
            row.live -= 1;
        }
        let payload = encode_table(&rows);
        bytes[piece.at..][..piece.len].copy_from_slice(&payload);
        let seed = Seed {
            segment: header.id,
            generation: header.generation,
            offset: piece.record as u32,
        };
        let record = &mut bytes[piece.record..];
        let old = RecordHeader::decode(record, seed).unwrap();
        let new = RecordHeader {
            payload_crc: crc32c::crc32c(&payload),
            ..old
        };
        record[..64].copy_from_slice(&new.encode(seed));
    }
    let report = report(&Machine::holding(&files));
    assert!(report.damage > 0);
    for finding in report.findings.iter().filter(|f| f.damage) {
        assert!(
            finding.kind == Kind::Accounting && finding.segment.is_some(),
            "{finding}"
        );
    }
}
