//! A whole damaged store: a small one, made once on the simulated disk, is damaged as the input says, looked over, opened,
//! read, and used. Nothing panics or hangs; what is read is right, or an error; the check has named what can't be read.
//! Where the input has put checksums right, data may be anything, and everything else must still hold.
#![no_main]

#[path = "../../block-store/tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "not all of it is used here")]
mod support;

use block_store::check::{CheckOptions, check};
use block_store::format::{Catalogue, RECORD_HEADER, RecordKind, SegmentHeader, units};
use firn_fuzz::{Input, seal, seal_record};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use support::{BLOCK, Client, Files, Machine, content, vdisk};

const BLOCKS: u64 = 96;
/// The newest group of writes, which nobody vouches for, is behind these.
const CERTAIN: u64 = BLOCKS - 4;

struct Piece {
    file: String,
    at: usize,
    len: usize,
    /// Of a record: its kind, and segment and generation that seed it.
    record: Option<(RecordKind, u32, u64)>,
}

struct Image {
    files: Files,
    pieces: Vec<Piece>,
    want: Vec<u64>,
}

static IMAGE: LazyLock<Image> = LazyLock::new(|| {
    let mut m = Machine::new(1, 64 << 20);
    log::set_max_level(log::LevelFilter::Off);
    let store = m.open();
    let disk = vdisk(&store, "a", 1 << 30);
    let mut client = Client::new(&store);
    let mut want = vec![0; BLOCKS as usize];
    for version in 1..25u64 {
        let first = version * 37 % (CERTAIN - 9);
        let blocks = [1, 9, 3][version as usize % 3];
        let (offset, range) = (
            first * BLOCK as u64,
            first as usize..(first + blocks) as usize,
        );
        if version % 7 == 0 {
            client
                .discard(&disk, offset, blocks * BLOCK as u64)
                .expect("discard");
            want[range].fill(0);
        } else {
            client
                .write(&disk, offset, &content(version, first, blocks))
                .expect("write");
            want[range].fill(version);
        }
        match version {
            10 => store.checkpoint().expect("checkpoint"),
            _ if version % 4 == 0 => client.flush(&disk).expect("flush"),
            _ => {}
        }
    }
    for block in CERTAIN..BLOCKS {
        client.flush(&disk).expect("flush");
        client
            .write(&disk, block * BLOCK as u64, &content(30, block, 1))
            .expect("write");
    }
    client.flush(&disk).expect("flush");
    drop((client, store, disk));
    m.power_loss();
    let files = m.files();
    let pieces = pieces(&m, &files);
    Image {
        files,
        pieces,
        want,
    }
});

fn pieces(m: &Machine, files: &Files) -> Vec<Piece> {
    let piece = |file: &str, at, len| Piece {
        file: file.into(),
        at,
        len,
        record: None,
    };
    let mut all = vec![
        piece("superblock", 0, BLOCK),
        piece("superblock", BLOCK, BLOCK),
    ];
    for name in m.segments() {
        all.push(piece(&name, 0, 64));
        let header = SegmentHeader::decode(&files[&name]).expect("a header");
        for record in m.records(&name) {
            let (at, len) = (record.offset as usize, record.header.payload_len as usize);
            let record = Some((record.header.kind, header.id, header.generation));
            all.push(Piece {
                record,
                ..piece(&name, at, RECORD_HEADER + len)
            });
        }
    }
    all
}

#[derive(Default)]
struct Done {
    edits: u32,
    /// Checksums were put right.
    forged: bool,
    /// A file ends early or is gone, perhaps with all that vouches for others.
    cut: bool,
}

fn damage(input: &mut Input<'_>, image: &Image, files: &mut Files) -> Done {
    let mut done = Done::default();
    while !input.is_empty() && done.edits < 12 {
        let op = input.u8() % 12;
        let piece = &image.pieces[usize::from(input.u16()) % image.pieces.len()];
        let other = &image.pieces[usize::from(input.u16()) % image.pieces.len()];
        let (Some(bytes), Some(theirs)) = (files.get(&piece.file), files.get(&other.file)) else {
            continue;
        };
        let (mut bytes, mut theirs) = (bytes.clone(), theirs.clone());
        let len = piece.len.min(other.len);
        if bytes.len() < piece.at + piece.len || theirs.len() < other.at + other.len {
            continue;
        }
        let inside = usize::from(input.u16()) % piece.len;
        match op {
            0 | 6..=9 => {
                let new = input.u8();
                let new = input.bytes(1 + usize::from(new % 16));
                let end = (inside + new.len()).min(piece.len);
                bytes[piece.at..][inside..end].copy_from_slice(&new[..end - inside]);
            }
            1 => bytes[piece.at..][..piece.len].fill(0),
            2 => bytes[piece.at..][..len].copy_from_slice(&theirs[other.at..][..len]),
            3 => {
                let mine = bytes[piece.at..][..len].to_vec();
                bytes[piece.at..][..len].copy_from_slice(&theirs[other.at..][..len]);
                if piece.file != other.file {
                    theirs[other.at..][..len].copy_from_slice(&mine);
                    files.insert(other.file.clone(), theirs);
                }
            }
            4 => {
                bytes.truncate((piece.at + inside) / BLOCK * BLOCK);
                done.cut = true;
            }
            5 => {
                files.remove(&piece.file);
                done = Done {
                    cut: true,
                    edits: done.edits + 1,
                    ..done
                };
                continue;
            }
            10 => {
                // Two whole files change places.
                files.insert(other.file.clone(), bytes);
                bytes = theirs;
                done.cut = true;
            }
            _ => {
                done.forged |= forge_catalogue(piece, &mut bytes, input);
            }
        }
        if op >= 6 && op <= 9 {
            reseal(piece, &mut bytes, op >= 8);
            done.forged = true;
        }
        files.insert(piece.file.clone(), bytes);
        done.edits += 1;
    }
    done
}

/// Puts the checksums of a piece right; of a payload too where asked for.
fn reseal(piece: &Piece, bytes: &mut [u8], payload: bool) {
    let all = &mut bytes[piece.at..][..piece.len];
    match piece.record {
        None => seal(all, piece.len - 4),
        Some((_, segment, generation)) => {
            if payload {
                let crc = crc32c::crc32c(&all[RECORD_HEADER..]);
                all[36..40].copy_from_slice(&crc.to_le_bytes());
            }
            seal_record(all, segment, generation, piece.at as u32);
        }
    }
}

/// Changes the catalogue's JSON, if it fits where the old one was.
fn forge_catalogue(piece: &Piece, bytes: &mut [u8], input: &mut Input<'_>) -> bool {
    let Some((RecordKind::Catalogue, ..)) = piece.record else {
        return false;
    };
    let payload = &bytes[piece.at..][RECORD_HEADER..piece.len];
    let Ok(json) = Catalogue::decode(payload).map(|c| serde_json::to_vec(&c).expect("JSON")) else {
        return false;
    };
    let mut json = json;
    let (at, len) = (usize::from(input.u16()) % json.len(), input.u8() % 12);
    let new = input.bytes(usize::from(len) + 1).to_vec();
    let end = (at + usize::from(input.u8() % 12)).min(json.len());
    json.splice(at..end, new);
    let packed = zstd::bulk::compress(&json, 19).expect("zstd");
    let payload = [&(json.len() as u64).to_le_bytes(), &packed[..]].concat();
    if units(payload.len()) > units(piece.len - RECORD_HEADER) {
        return false;
    }
    let all = &mut bytes[piece.at..];
    all[RECORD_HEADER..][..payload.len()].copy_from_slice(&payload);
    let len = payload.len() as u32;
    all[12..16].copy_from_slice(&len.to_le_bytes());
    all[32..36].copy_from_slice(&len.to_le_bytes());
    let now = Piece {
        file: piece.file.clone(),
        len: RECORD_HEADER + payload.len(),
        ..*piece
    };
    reseal(&now, bytes, true);
    true
}

fuzz_target!(|data: &[u8]| {
    let image = &*IMAGE;
    let mut files = image.files.clone();
    let mut input = Input::new(data);
    let lives_on = input.u8() & 1 == 1;
    let done = damage(&mut input, image, &mut files);
    let m = Machine::holding(&files);
    let options = CheckOptions {
        decode: true,
        records: 16,
    };
    let report = check(&m.disk, &options, &mut ());
    assert!(m.files() == files, "the check has written");
    let said = |why: &str| {
        let said = report.as_ref().is_ok_and(|r| r.damage > 0) || report.is_err();
        assert!(
            said || done.forged,
            "{why}, and the check has found nothing: {report:?}"
        );
    };
    let opened = m.try_open(|config| config.write_buffer = 0);
    let store = match opened {
        Ok(store) => store,
        Err(error) => return said(&format!("refused: {error}")),
    };
    let mut client = Client::new(&store);
    for name in store.vdisks().iter().map(|v| v.name().to_owned()) {
        let disk = store.vdisk(&name).expect("it was listed");
        for block in 0..CERTAIN {
            match client.read(&disk, block * BLOCK as u64, BLOCK) {
                Err(error) => said(&format!("block {block}: {error}")),
                Ok(data) if !done.forged => {
                    let is = |version| match version {
                        0 => data.iter().all(|b| *b == 0),
                        v => data == content(v, block, 1),
                    };
                    // Several edits may also destroy what vouches for a write: then an older one of this block.
                    let older = done.cut || done.edits > 1;
                    let right = is(image.want[block as usize]) || older && (0..25).any(is);
                    assert!(
                        right,
                        "block {block} is not version {}",
                        image.want[block as usize]
                    );
                }
                Ok(_) => {}
            }
        }
        if lives_on {
            for block in (0..BLOCKS).step_by(10) {
                let bytes = content(40, block, 2);
                if client.write(&disk, block * BLOCK as u64, &bytes).is_ok() {
                    let back = client.read(&disk, block * BLOCK as u64, 2 * BLOCK);
                    assert!(back.is_ok_and(|back| back == bytes) || done.forged);
                }
            }
            let _ = client.flush(&disk);
        }
    }
    if lives_on {
        let _ = store.upkeep();
        let _ = store.checkpoint();
    }
});
