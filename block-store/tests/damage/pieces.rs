//! What a store on disk consists of, found by parsing it, and ways to damage a piece.

use crate::support::{BLOCK, Files, Machine};
use block_store::format::{RECORD_HEADER, RecordKind, segment_id_of};

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Superblock,
    SegmentHeader,
    /// A record's first 64 bytes.
    Header(RecordName),
    Payload(RecordName),
    File,
}

/// [`RecordKind`], in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordName {
    Extent,
    Range,
    Commit,
    Node,
    Table,
    Catalogue,
    Cut,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub what: What,
    pub file: String,
    pub at: usize,
    pub len: usize,
    /// Offset of the record that it belongs to.
    pub record: usize,
    /// First block and number of blocks of an extent.
    pub blocks: Option<(u64, u64)>,
}

impl Piece {
    pub fn segment(&self) -> Option<u32> {
        segment_id_of(&self.file)
    }
}

/// Every piece of the store.
pub fn pieces(m: &Machine) -> Vec<Piece> {
    let files = m.files();
    let piece = |what, file: &str, at, len| Piece {
        what,
        file: file.into(),
        at,
        len,
        record: at,
        blocks: None,
    };
    let mut all = vec![
        piece(What::Superblock, "superblock", 0, BLOCK),
        piece(What::Superblock, "superblock", BLOCK, BLOCK),
    ];
    for name in m.segments() {
        all.push(piece(What::SegmentHeader, &name, 0, 64));
        all.push(piece(What::File, &name, 0, files[&name].len()));
        for record in m.records(&name) {
            let h = &record.header;
            let kind = match h.kind {
                RecordKind::Extent => RecordName::Extent,
                RecordKind::Range => RecordName::Range,
                RecordKind::Commit => RecordName::Commit,
                RecordKind::Node => RecordName::Node,
                RecordKind::Table => RecordName::Table,
                RecordKind::Catalogue => RecordName::Catalogue,
                RecordKind::Cut => RecordName::Cut,
                RecordKind::Pad => continue,
            };
            let at = record.offset as usize;
            let blocks = (h.kind == RecordKind::Extent).then_some((h.first, h.count));
            let header = piece(What::Header(kind), &name, at, RECORD_HEADER);
            all.push(Piece { blocks, ..header });
            if h.payload_len > 0 {
                let (from, len) = (at + RECORD_HEADER, h.payload_len as usize);
                let payload = piece(What::Payload(kind), &name, from, len);
                all.push(Piece {
                    blocks,
                    record: at,
                    ..payload
                });
            }
        }
    }
    all
}

/// What happens to a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    FlipFirst,
    FlipMiddle,
    FlipLast,
    Zero,
    /// Another of its kind is written over it: a misdirected write.
    Duplicate,
    /// It and another of its kind change places.
    Swap,
    /// The file ends where it begins.
    Cut,
    /// The file ends in its middle.
    CutMiddle,
    /// Only for files.
    Remove,
}

pub const HARMS: [Harm; 9] = [
    Harm::FlipFirst,
    Harm::FlipMiddle,
    Harm::FlipLast,
    Harm::Zero,
    Harm::Duplicate,
    Harm::Swap,
    Harm::Cut,
    Harm::CutMiddle,
    Harm::Remove,
];

/// Does it. `false`: it makes no sense here, or would change nothing.
pub fn harm(files: &mut Files, all: &[Piece], n: usize, harm: Harm) -> bool {
    let piece = &all[n];
    let whole = piece.what == What::File;
    let range = piece.at..piece.at + piece.len;
    let mut bytes = files[&piece.file].clone();
    match harm {
        Harm::FlipFirst if !whole => bytes[range.start] ^= 0x40,
        Harm::FlipMiddle if !whole => bytes[range.start + piece.len / 2] ^= 1,
        Harm::FlipLast if !whole => bytes[range.end - 1] ^= 0x80,
        Harm::Zero => bytes[range].fill(0),
        Harm::Cut => bytes.truncate(piece.at / BLOCK * BLOCK),
        Harm::CutMiddle => bytes.truncate((piece.at + piece.len / 2) / BLOCK * BLOCK),
        Harm::Remove if whole => return files.remove(&piece.file).is_some(),
        Harm::Duplicate | Harm::Swap => {
            let Some(twin) = twin(all, n) else {
                return false;
            };
            let len = piece.len.min(twin.len);
            let mine = bytes[piece.at..][..len].to_vec();
            let theirs = files[&twin.file][twin.at..][..len].to_vec();
            bytes[piece.at..][..len].copy_from_slice(&theirs);
            if harm == Harm::Swap && twin.file == piece.file {
                bytes[twin.at..][..len].copy_from_slice(&mine);
            } else if harm == Harm::Swap {
                files.get_mut(&twin.file).unwrap()[twin.at..][..len].copy_from_slice(&mine);
            }
        }
        _ => return false,
    }
    let before = files.insert(piece.file.clone(), bytes);
    before.as_ref() != files.get(&piece.file)
}

/// The next one of its kind, around the end.
pub fn twin(all: &[Piece], n: usize) -> Option<&Piece> {
    let mut others = all[n + 1..].iter().chain(&all[..n]);
    others.find(|p| p.what == all[n].what)
}
