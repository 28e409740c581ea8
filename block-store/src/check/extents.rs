//! Every extent that a map names, segment by segment and in the order in which they lie there.

use super::claims::{Batch, Claim, Owner, reaches_into};
use super::finding::{Finding, Kind, Sink};
use super::names::Names;
use super::roots::Roots;
use super::segments::{Place, Segments};
use crate::format::{Location, MAX_STORED};
use crate::io::{AlignedBuf, DiskFile, PAGE};
use crate::read::{Decoder, Run, Source, verify as verify_extent};
use crate::recover::Window;

/// Verifies a batch's extents.
pub(super) fn verify(
    batch: &Batch,
    roots: &Roots,
    segments: &mut Segments<'_>,
    decode: bool,
    sink: &mut Sink<'_>,
) {
    let mut decoder = decode.then(|| Decoder::new().ok()).flatten();
    for (segment, claims) in batch.segments() {
        if sink.stopped() {
            return;
        }
        let used = roots
            .rows
            .as_ref()
            .and_then(|rows| rows.get(&segment))
            .map_or(u32::MAX, |row| row.used);
        let opened = segments.get(segment);
        let mut window = opened
            .as_ref()
            .ok()
            .and_then(|(_, file)| Window::new(&**file).ok());
        let (mut behind, mut last) = (0, 0);
        for (offset, claim) in claims {
            let at = Location {
                segment,
                offset,
                len: claim.len,
            };
            if reaches_into(behind, offset) {
                let what = format!("what lies at byte {last} reaches into this");
                sink.add(concerning(overlap(what), at, claim, &roots.names));
            }
            (behind, last) = (at.end(), offset);
            let Owner::Extent { .. } = claim.owner else {
                continue;
            };
            let checked = match (&opened, &mut window) {
                (Ok((place, file)), Some(window)) if at.end() <= used => {
                    one(window, &**file, *place, at, claim, roots, decoder.as_mut())
                }
                (Ok(_), Some(_)) => Err(format!(
                    "ends behind byte {used}, where the segment table says that the segment ends"
                )),
                (Err(why), _) => {
                    // One finding for many blocks: where in the segment they were does not matter.
                    let finding = concerning(unreadable(why.clone()), at, claim, &roots.names);
                    sink.add(Finding {
                        offset: None,
                        ..finding
                    });
                    continue;
                }
                (Ok(_), None) => Err("the segment's length can't be read".into()),
            };
            match checked {
                Ok(()) => sink.report.extents += 1,
                Err(why) => sink.add(concerning(unreadable(why), at, claim, &roots.names)),
            }
        }
        sink.advance(opened.map_or(0, |(place, _)| {
            u64::from(place.log.unwrap_or(u32::MAX)).min(place.len)
        }));
    }
}

/// One extent: as a read of all its named blocks would see it.
fn one(
    window: &mut Window<'_>,
    file: &dyn DiskFile,
    place: Place,
    at: Location,
    claim: &Claim,
    roots: &Roots,
    decoder: Option<&mut Decoder>,
) -> Result<(), String> {
    if at.len as usize > MAX_STORED {
        return Err(too_long(at));
    }
    let mut is_heir = |origin, layer| roots.is_heir(origin, layer);
    let alone;
    let stored = match window.get(at.offset, at.len as usize) {
        Ok(stored) => stored,
        // Something in the window can't be read: perhaps not this.
        Err(_) => {
            alone = read_alone(file, at).map_err(|e| format!("can't be read: {e}"))?;
            alone.get(at.offset as usize % PAGE..).unwrap_or_default()
        }
    };
    let stored = stored
        .get(..at.len as usize)
        .ok_or("the file ends before it does")?;
    sound(stored, place.generation, at, claim, &mut is_heir, decoder)
}

/// Why an extent can't be what a map says.
fn too_long(at: Location) -> String {
    format!("the map says {} bytes, more than an extent has", at.len)
}

/// Whether these bytes are what the claim says, as a read of all its named blocks would see it.
pub(super) fn sound(
    stored: &[u8],
    generation: u64,
    at: Location,
    claim: &Claim,
    is_heir: &mut dyn FnMut(u32, u32) -> bool,
    decoder: Option<&mut Decoder>,
) -> Result<(), String> {
    let Owner::Extent { layer, first } = claim.owner else {
        return Ok(());
    };
    if at.len as usize > MAX_STORED {
        return Err(too_long(at));
    }
    let wanted = 32 - claim.blocks.leading_zeros();
    let run = Run {
        first,
        blocks: wanted.into(),
        layer,
        at,
        index: 0,
        generation,
        source: Source::Zero,
    };
    verify_extent(&run, stored, wanted as usize, is_heir)?;
    if let Some(decoder) = decoder {
        decoder
            .decode(&run, stored, is_heir)
            .map_err(|fault| fault.why)?;
    }
    Ok(())
}

pub(super) fn read_alone(file: &dyn DiskFile, at: Location) -> std::io::Result<AlignedBuf> {
    let page = PAGE as u32;
    let from = at.offset / page * page;
    let mut pages = AlignedBuf::zeroed((at.end().next_multiple_of(page) - from) as usize)?;
    file.read_at(&mut pages, from.into())?;
    Ok(pages)
}

pub(super) fn unreadable(why: String) -> Finding {
    let way_out = "these blocks read as I/O errors: write them anew from within the guest, or restore them; check the disk";
    Finding::new(Kind::Extent, why, way_out)
}

fn overlap(what: String) -> Finding {
    let way_out = "copy the vDisks to a new store (firn vdisk export): blocks that read without an error are right";
    Finding::new(Kind::Overlap, what, way_out)
}

/// Names place, vDisk and blocks.
pub(super) fn concerning(finding: Finding, at: Location, claim: &Claim, names: &Names) -> Finding {
    let finding = finding.in_segment(at.segment).at(at.offset);
    match claim.owner {
        Owner::Extent { layer, first } => {
            let skip = claim.blocks.trailing_zeros();
            let blocks = 32 - claim.blocks.leading_zeros() - skip;
            finding.of(names, layer, first + u64::from(skip), blocks.into())
        }
        _ => finding,
    }
}
