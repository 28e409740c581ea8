//! Bytes of a disk: the first one picks the decoder, the second whether checksums are put right first, so that what lies
//! behind them is reached. What decodes and is encoded again decodes to the same.
#![no_main]

use block_store::compress::Decompressor;
use block_store::format::{
    BLOCK, BUFFER_HEADER, BufferHeader, Catalogue, CommitRecord, Entry, MAX_STORED, PAGE,
    RECORD_HEADER, RecordHeader, SLOT_ROW, Seed, SegmentHeader, SlotRow, Superblock, decode_table,
    encode_table, newest, pack_node, segment_id_of, unpack_node,
};
use firn_fuzz::{Input, seal, seal_record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (which, sealed) = (input.u8() % 11, input.u8() & 1 == 1);
    match which {
        0 => superblocks(input.rest(), sealed),
        1 => record(&mut input, sealed),
        2 => node(input.rest()),
        3 => table(input.rest()),
        4 => drop(Catalogue::decode(input.rest())),
        5 => catalogue(input.rest()),
        6 => commit(input.rest()),
        7 => write_buffer(input.rest(), sealed),
        8 => segment(input.rest(), sealed),
        9 => payload(&mut input),
        _ => {
            let bits = input.u64();
            if let Ok(entry) = Entry::unpack(bits) {
                assert_eq!(entry.pack(), bits);
            }
            let _ = segment_id_of(&String::from_utf8_lossy(input.rest()));
        }
    }
});

/// At least so many bytes.
fn padded(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(len.max(bytes.len()), 0);
    out
}

fn superblocks(bytes: &[u8], sealed: bool) {
    let mut bytes = bytes.to_vec();
    if sealed {
        bytes = padded(&bytes, PAGE);
        for page in bytes.chunks_exact_mut(PAGE) {
            seal(page, PAGE - 4);
        }
    }
    if let Ok(superblock) = Superblock::decode(&bytes) {
        let again = superblock.encode().map(|page| Superblock::decode(&page));
        assert_eq!(again, Ok(Ok(superblock)));
    }
    let _ = newest(&bytes);
}

fn record(input: &mut Input<'_>, sealed: bool) {
    let seed = Seed {
        segment: input.u32(),
        generation: input.u64(),
        offset: input.u32(),
    };
    let mut bytes = input.rest().to_vec();
    if sealed {
        bytes = padded(&bytes, RECORD_HEADER);
        seal_record(
            &mut bytes[..RECORD_HEADER],
            seed.segment,
            seed.generation,
            seed.offset,
        );
    }
    if let Ok(header) = RecordHeader::decode(&bytes, seed) {
        assert!((RECORD_HEADER..=MAX_STORED).contains(&header.stored_len()));
        assert_eq!(RecordHeader::decode(&header.encode(seed), seed), Ok(header));
    }
}

fn node(bytes: &[u8]) {
    if let Ok(slots) = unpack_node(bytes) {
        let mut packed = Vec::new();
        pack_node(&slots, &mut packed);
        assert_eq!(unpack_node(&packed), Ok(slots));
    }
}

fn table(bytes: &[u8]) {
    if let Ok(rows) = decode_table(bytes) {
        assert_eq!(decode_table(&encode_table(&rows)), Ok(rows));
    }
}

/// JSON, packed as it is on disk.
fn catalogue(json: &[u8]) {
    let packed = zstd::bulk::compress(json, 1).expect("zstd");
    let bytes = [&(json.len() as u64).to_le_bytes(), &packed[..]].concat();
    if let Ok(catalogue) = Catalogue::decode(&bytes) {
        let again = catalogue.encode().map(|bytes| Catalogue::decode(&bytes));
        assert_eq!(again, Ok(Ok(catalogue)));
    }
}

fn commit(bytes: &[u8]) {
    if let Ok(record) = CommitRecord::decode(bytes) {
        assert_eq!(record.encode(), bytes);
    }
}

fn write_buffer(bytes: &[u8], sealed: bool) {
    let mut bytes = padded(bytes, 4 * BUFFER_HEADER);
    if sealed {
        seal(&mut bytes, 60);
        for row in bytes[BUFFER_HEADER..2 * BUFFER_HEADER].chunks_exact_mut(SLOT_ROW) {
            seal(row, 28);
        }
    }
    if let Ok(header) = BufferHeader::decode(&bytes) {
        assert!(header.bytes() <= bytes.len() as u64);
        assert!(header.slots_at() <= bytes.len());
    }
    for row in bytes[BUFFER_HEADER..].chunks_exact(SLOT_ROW) {
        let _ = SlotRow::decode(row);
    }
}

fn segment(bytes: &[u8], sealed: bool) {
    let mut bytes = bytes.to_vec();
    if sealed {
        bytes = padded(&bytes, 64);
        seal(&mut bytes, 60);
    }
    if let Ok(header) = SegmentHeader::decode(&bytes) {
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }
}

/// A payload of any codec, decoded in part and as a whole.
fn payload(input: &mut Input<'_>) {
    let (codec, blocks, wanted) = (input.u8(), usize::from(input.u8() % 40), input.u8());
    let mut decompressor = Decompressor::new().expect("memory");
    let content = blocks * BLOCK;
    let bytes = input.rest();
    let mut whole = vec![0; content];
    let all = decompressor.decompress(codec, bytes, content, &mut whole);
    let mut part = vec![0; (usize::from(wanted) * BLOCK).min(content)];
    if decompressor
        .decompress(codec, bytes, content, &mut part)
        .is_ok()
        && all.is_ok()
    {
        assert_eq!(part, whole[..part.len()]);
    }
}
