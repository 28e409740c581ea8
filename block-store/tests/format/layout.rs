//! Sizes and offsets: each field is changed from all zeroes to all ones, and exactly the bytes that the document gives it
//! must change (beside the checksum).

use crate::doc::{constants, fields, rows};
use block_store::format::*;
use block_store::io::PAGE;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use uuid::Uuid;

const ONES: Uuid = Uuid::from_u128(u128::MAX);

/// Holds encoders against one table of the document.
struct Table {
    heading: &'static str,
    fields: BTreeMap<String, Range<usize>>,
    base: Vec<u8>,
    seen: BTreeSet<String>,
}

impl Table {
    fn new(heading: &'static str, base: Vec<u8>) -> Self {
        let fields = fields(heading);
        let seen = BTreeSet::new();
        Self {
            heading,
            fields,
            base,
            seen,
        }
    }

    fn range(&mut self, field: &str) -> Range<usize> {
        self.seen.insert(field.into());
        let range = self.fields.get(field);
        range
            .unwrap_or_else(|| panic!("{}: no field {field}", self.heading))
            .clone()
    }

    /// `changed` differs from the base in this field alone, in each of its bytes.
    fn field(&mut self, field: &str, changed: &[u8]) {
        let range = self.range(field);
        let checksum = self.fields.get("checksum").cloned().unwrap_or(0..0);
        let differ: Vec<usize> = (0..self.base.len())
            .filter(|at| self.base[*at] != changed[*at] && !checksum.contains(at))
            .collect();
        assert_eq!(
            differ,
            range.collect::<Vec<_>>(),
            "{}: {field}",
            self.heading
        );
    }

    /// These bytes stand there whatever the values.
    fn fixed(&mut self, field: &str, bytes: &[u8]) {
        let range = self.range(field);
        assert_eq!(&self.base[range], bytes, "{}: {field}", self.heading);
    }

    /// All fields of the document were looked at.
    fn done(self) {
        let all: BTreeSet<_> = self.fields.into_keys().collect();
        assert_eq!(self.seen, all, "{}", self.heading);
    }
}

#[test]
fn constants_are_as_documented() {
    let code: BTreeMap<String, u64> = [
        ("FORMAT_VERSION", u64::from(FORMAT_VERSION)),
        ("BUFFER_LAYOUT_VERSION", u64::from(BUFFER_LAYOUT_VERSION)),
        ("PAGE", PAGE as u64),
        ("BLOCK", BLOCK as u64),
        ("UNIT", UNIT as u64),
        ("SUPERBLOCK_SIZE", SUPERBLOCK_SIZE as u64),
        ("SEGMENT_DATA_START", u64::from(SEGMENT_DATA_START)),
        ("RECORD_HEADER", RECORD_HEADER as u64),
        ("MAX_EXTENT_BLOCKS", MAX_EXTENT_BLOCKS as u64),
        ("MAX_STORED", MAX_STORED as u64),
        ("NODE_SLOTS", NODE_SLOTS as u64),
        ("LEVELS", block_store::map::LEVELS as u64),
        ("BUFFER_HEADER", BUFFER_HEADER as u64),
        ("SLOT_ROW", SLOT_ROW as u64),
        ("MAX_CUT_ROWS", MAX_CUT_ROWS as u64),
        ("MIN_VDISK", block_store::store::MIN_VDISK),
        ("MAX_VDISK", block_store::store::MAX_VDISK),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    assert_eq!(constants(), code);
}

#[test]
fn superblock() {
    let buffer = BufferName {
        boot: Uuid::nil(),
        nonce: Uuid::nil(),
        layout: 0,
        len: 0,
        dir: String::new(),
    };
    let zero = Superblock {
        store: Uuid::nil(),
        generation: 0,
        checkpoint_lsn: 0,
        next_segment_generation: 0,
        segment_size: 0,
        table: Chain::default(),
        catalogue: Chain::default(),
        buffer: Some(buffer.clone()),
        created: 0,
    };
    let bytes = |s: &Superblock| s.encode().unwrap().to_vec();
    let with = |change: &dyn Fn(&mut Superblock)| {
        let mut s = zero.clone();
        change(&mut s);
        bytes(&s)
    };
    let buffer_with = |change: &dyn Fn(&mut BufferName)| {
        let mut b = buffer.clone();
        change(&mut b);
        with(&|s| s.buffer = Some(b.clone()))
    };
    let mut t = Table::new("Superblock", bytes(&zero));
    assert_eq!(t.base.len(), SUPERBLOCK_SIZE);
    t.fixed("magic", b"FIRNSUP1");
    t.fixed("version", &1u32.to_le_bytes());
    for mask in ["compat", "ro_compat", "incompat"] {
        t.fixed(mask, &[0; 8]);
    }
    t.fixed("key", &[0; 16]);
    t.field("segment_size", &with(&|s| s.segment_size = u32::MAX));
    t.field("store", &with(&|s| s.store = ONES));
    t.field("generation", &with(&|s| s.generation = u64::MAX));
    t.field("checkpoint_lsn", &with(&|s| s.checkpoint_lsn = u64::MAX));
    t.field(
        "next_segment_generation",
        &with(&|s| s.next_segment_generation = u64::MAX),
    );
    t.field("table.last", &with(&|s| s.table.last = u64::MAX));
    t.field("table.records", &with(&|s| s.table.records = u32::MAX));
    t.field(
        "catalogue.records",
        &with(&|s| s.catalogue.records = u32::MAX),
    );
    t.field("catalogue.last", &with(&|s| s.catalogue.last = u64::MAX));
    t.field("created", &with(&|s| s.created = u64::MAX));
    t.field("buffer.boot", &buffer_with(&|b| b.boot = ONES));
    t.field("buffer.nonce", &buffer_with(&|b| b.nonce = ONES));
    t.field("buffer.layout", &buffer_with(&|b| b.layout = u32::MAX));
    t.field("buffer.len", &buffer_with(&|b| b.len = u64::MAX));
    let longest = buffer_with(&|b| b.dir = "x".repeat(1024));
    let (len, dir) = (t.range("buffer.dir.len"), t.range("buffer.dir"));
    assert_eq!(longest[len], 1024u32.to_le_bytes());
    assert!(longest[dir.clone()].iter().all(|b| *b == b'x') && longest[dir.end] == 0);
    let too_long = BufferName {
        dir: "x".repeat(1025),
        ..buffer.clone()
    };
    assert!(
        Superblock {
            buffer: Some(too_long),
            ..zero.clone()
        }
        .encode()
        .is_err()
    );
    let sum = crc32c::crc32c(&t.base[..4092]).to_le_bytes();
    t.fixed("checksum", &sum);
    t.done();
}

#[test]
fn segment_header() {
    let zero = SegmentHeader {
        store: Uuid::nil(),
        id: 0,
        generation: 0,
        size: 0,
    };
    let mut t = Table::new("Segment", zero.encode().to_vec());
    assert_eq!(t.base.len(), PAGE);
    t.fixed("magic", b"FIRNSEG1");
    t.fixed("version", &1u32.to_le_bytes());
    t.field(
        "id",
        &SegmentHeader {
            id: u32::MAX,
            ..zero
        }
        .encode(),
    );
    t.field(
        "store",
        &SegmentHeader {
            store: ONES,
            ..zero
        }
        .encode(),
    );
    t.field(
        "generation",
        &SegmentHeader {
            generation: u64::MAX,
            ..zero
        }
        .encode(),
    );
    t.field(
        "size",
        &SegmentHeader {
            size: u32::MAX,
            ..zero
        }
        .encode(),
    );
    let sum = crc32c::crc32c(&t.base[..60]).to_le_bytes();
    t.fixed("checksum", &sum);
    t.done();
    assert_eq!(segment_file_name(0xabc), "seg-00000abc");
}

#[test]
fn record_header() {
    let zero = RecordHeader {
        kind: RecordKind::Extent,
        flags: RecordFlags::default(),
        codec: 0,
        layer: 0,
        first: 0,
        count: 0,
        lsn: 0,
        payload_len: 0,
        raw_len: 0,
        payload_crc: 0,
        link: 0,
    };
    let seed = Seed {
        segment: 3,
        generation: 17,
        offset: 4096,
    };
    let with = |change: &dyn Fn(&mut RecordHeader)| {
        let mut h = zero;
        change(&mut h);
        h.encode(seed).to_vec()
    };
    let mut t = Table::new("Record header", zero.encode(seed).to_vec());
    assert_eq!(t.base.len(), RECORD_HEADER);
    t.fixed("magic", b"FXT1");
    t.fixed("reserved", &[0]);
    t.fixed("reserved2", &[0; 4]);
    t.field("kind", &with(&|h| h.kind = RecordKind::Catalogue));
    t.field("codec", &with(&|h| h.codec = 255));
    t.field("flags", &with(&|h| h.flags.relocated = true));
    t.field("layer", &with(&|h| h.layer = u32::MAX));
    t.field("payload_len", &with(&|h| h.payload_len = u32::MAX));
    t.field("first", &with(&|h| h.first = u64::MAX));
    t.field("lsn", &with(&|h| h.lsn = u64::MAX));
    t.field("raw_len", &with(&|h| h.raw_len = u32::MAX));
    t.field("payload_crc", &with(&|h| h.payload_crc = u32::MAX));
    t.field("count", &with(&|h| h.count = u64::MAX));
    t.field("link", &with(&|h| h.link = u64::MAX));
    let flags = |f: RecordFlags| with(&|h| h.flags = f)[6];
    let (relocated, discard) = (true, true);
    assert_eq!(
        flags(RecordFlags {
            relocated,
            discard: false
        }),
        1
    );
    assert_eq!(
        flags(RecordFlags {
            relocated: false,
            discard
        }),
        2
    );
    let mut place = Vec::new();
    place.extend(17u64.to_le_bytes());
    place.extend(3u32.to_le_bytes());
    place.extend(4096u32.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&place), &t.base[..60]).to_le_bytes();
    t.fixed("checksum", &sum);
    t.done();
    let kinds = [
        (1, RecordKind::Extent, "extent"),
        (2, RecordKind::Range, "range"),
        (3, RecordKind::Commit, "commit"),
        (4, RecordKind::Node, "node"),
        (5, RecordKind::Table, "table"),
        (6, RecordKind::Catalogue, "catalogue"),
        (7, RecordKind::Pad, "pad"),
        (8, RecordKind::Cut, "cut"),
    ];
    let rows = rows("Record header");
    for (byte, kind, name) in kinds {
        assert_eq!(with(&|h| h.kind = kind)[4], byte);
        let documented = |r: &Vec<String>| r[0] == byte.to_string() && r[1] == name;
        assert!(rows.iter().any(documented), "kind {name}");
    }
    assert_eq!(
        (units(0), units(1), units(64), units(65)),
        (64, 128, 128, 192)
    );
}

#[test]
fn commit_rows() {
    let row = |segment, end, generation| {
        let prefixes = vec![Prefix {
            segment,
            generation,
            end,
        }];
        CommitRecord { prefixes }.encode()
    };
    let mut t = Table::new("Commit record", row(0, 0, 0));
    assert_eq!(t.base.len(), 16);
    t.field("segment", &row(u32::MAX, 0, 0));
    t.field("end", &row(0, u32::MAX, 0));
    t.field("generation", &row(0, 0, u64::MAX));
    t.done();
}

#[test]
fn cut_rows() {
    let row = |vdisk, layer, parent, uuid| {
        let rows = vec![CutRow {
            vdisk,
            layer,
            parent,
            uuid,
        }];
        CutRecord { rows }.encode()
    };
    let mut t = Table::new("Cut record", row(0, 0, 0, Uuid::nil()));
    assert_eq!(t.base.len(), 32);
    t.field("vdisk", &row(u32::MAX, 0, 0, Uuid::nil()));
    t.field("layer", &row(0, u32::MAX, 0, Uuid::nil()));
    t.field("parent", &row(0, 0, u32::MAX, Uuid::nil()));
    t.fixed("reserved", &[0; 4]);
    t.field("uuid", &row(0, 0, 0, ONES));
    t.done();
}

#[test]
fn table_rows() {
    let zero = SegmentRow {
        id: 0,
        generation: 0,
        used: 0,
        live: 0,
        total: 0,
        open: false,
        meta: false,
        settled: false,
        temperature: Temperature::Unknown,
    };
    let row = |r: SegmentRow| encode_table(&[r]);
    let mut t = Table::new("Segment table", row(zero));
    assert_eq!(t.base.len(), 32);
    t.field(
        "id",
        &row(SegmentRow {
            id: u32::MAX,
            ..zero
        }),
    );
    t.field(
        "used",
        &row(SegmentRow {
            used: u32::MAX,
            ..zero
        }),
    );
    t.field(
        "generation",
        &row(SegmentRow {
            generation: u64::MAX,
            ..zero
        }),
    );
    t.field(
        "live",
        &row(SegmentRow {
            live: u32::MAX,
            ..zero
        }),
    );
    t.field(
        "total",
        &row(SegmentRow {
            total: u32::MAX,
            ..zero
        }),
    );
    t.field("flags", &row(SegmentRow { open: true, ..zero }));
    let of = |temperature| SegmentRow {
        temperature,
        ..zero
    };
    t.field("temperature", &row(of(Temperature::Cold)));
    t.fixed("reserved", &[0; 6]);
    t.done();
    assert_eq!(row(of(Temperature::Fresh))[25], 1);
    assert_eq!(row(of(Temperature::Streaming))[25], 2);
    assert_eq!(row(of(Temperature::Cold))[25], 3);
    assert_eq!(row(SegmentRow { open: true, ..zero })[24], 1);
    assert_eq!(row(SegmentRow { meta: true, ..zero })[24], 2);
    let settled = SegmentRow {
        settled: true,
        ..zero
    };
    assert_eq!(row(settled)[24], 4);
}

#[test]
fn map_entries() {
    let at = |segment, offset, len| Location {
        segment,
        offset,
        len,
    };
    let pack = |at, index| Entry::Stored { at, index }.pack();
    assert_eq!((Entry::Absent.pack(), Entry::Zero.pack()), (0, 1 << 62));
    let least = pack(at(0, 0, 64), 0);
    assert_eq!(least, 2 << 62 | 1 << 44);
    assert_eq!(pack(at((1 << 24) - 1, 0, 64), 0) ^ least, (1 << 24) - 1);
    let last = ((1 << 20) - 1) * 64;
    assert_eq!(pack(at(0, last, 64), 0) ^ least, ((1 << 20) - 1) << 24);
    assert_eq!(pack(at(0, 0, 4095 * 64), 0), 2 << 62 | 4095 << 44);
    assert_eq!(pack(at(0, 0, 64), 31) ^ least, 31 << 56);
}

#[test]
fn map_nodes() {
    let first = Entry::Stored {
        at: Location {
            segment: 1,
            offset: 4096,
            len: 128,
        },
        index: 0,
    }
    .pack();
    let mut slots = [0; NODE_SLOTS];
    for n in 0..8 {
        slots[5 + n] = first + ((n as u64) << 56);
    }
    let mut packed = Vec::new();
    pack_node(&slots, &mut packed);
    assert_eq!(packed[..2], 1u16.to_le_bytes());
    let t = fields("Map node");
    let run = &packed[2..];
    assert_eq!(run.len(), 12);
    assert_eq!(run[t["start"].clone()], 5u16.to_le_bytes());
    assert_eq!(run[t["count"].clone()], 8u16.to_le_bytes());
    assert_eq!(run[t["entry"].clone()], first.to_le_bytes());
    // Every other block an extent of its own: no two entries make a run.
    for (n, slot) in slots.iter_mut().enumerate() {
        *slot = first + ((n as u64) << 24);
    }
    pack_node(&slots, &mut packed);
    assert_eq!((packed.len(), &packed[..2]), (4098, &[0xff, 0xff][..]));
    assert_eq!(packed[2..10], slots[0].to_le_bytes());
}

#[test]
fn write_buffer() {
    let zero = BufferHeader {
        store: Uuid::nil(),
        nonce: Uuid::nil(),
        slot_size: 0,
        slots: 0,
    };
    let mut t = Table::new("Write buffer", zero.encode().to_vec());
    t.fixed("magic", b"FIRNBUF1");
    t.fixed("layout", &1u32.to_le_bytes());
    t.field(
        "slot_size",
        &BufferHeader {
            slot_size: u32::MAX,
            ..zero
        }
        .encode(),
    );
    t.field(
        "store",
        &BufferHeader {
            store: ONES,
            ..zero
        }
        .encode(),
    );
    t.field(
        "nonce",
        &BufferHeader {
            nonce: ONES,
            ..zero
        }
        .encode(),
    );
    t.field(
        "slots",
        &BufferHeader {
            slots: u32::MAX,
            ..zero
        }
        .encode(),
    );
    let sum = crc32c::crc32c(&t.base[..60]).to_le_bytes();
    t.fixed("checksum", &sum);
    t.done();
    let header = BufferHeader {
        slot_size: 8192,
        slots: 129,
        ..zero
    };
    assert_eq!(header.slots_at(), 4096 + 8192);
    assert_eq!(header.bytes(), 4096 + 8192 + 129 * 8192);

    let zero = SlotRow {
        segment: 0,
        offset: 0,
        generation: 0,
    };
    let mut t = Table::new("Slot row", zero.encode().to_vec());
    assert_eq!(t.base.len(), SLOT_ROW);
    t.field(
        "segment",
        &SlotRow {
            segment: u32::MAX,
            ..zero
        }
        .encode(),
    );
    t.field(
        "offset",
        &SlotRow {
            offset: u32::MAX,
            ..zero
        }
        .encode(),
    );
    t.field(
        "generation",
        &SlotRow {
            generation: u64::MAX,
            ..zero
        }
        .encode(),
    );
    t.fixed("reserved", &[0; 12]);
    let sum = crc32c::crc32c(&t.base[..28]).to_le_bytes();
    t.fixed("checksum", &sum);
    t.done();
}

/// All paths in a JSON value, array elements as `[]`, the layers' numbers as `N`.
fn paths(value: &serde_json::Value, at: &str, out: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let path = match at {
                    "" => key.clone(),
                    "layers" => "layers.N".into(),
                    _ => format!("{at}.{key}"),
                };
                if path != "layers.N" {
                    out.insert(path.clone());
                }
                paths(value, &path, out);
            }
        }
        serde_json::Value::Array(items) => items
            .iter()
            .for_each(|item| paths(item, &format!("{at}[]"), out)),
        _ => {}
    }
}

#[test]
fn catalogue_fields() {
    let layer = LayerRow {
        id: 1,
        uuid: ONES,
        parent: None,
        root: 0,
        since: 0,
    };
    let catalogue = Catalogue {
        next_vdisk: 1,
        next_layer: 3,
        vdisks: vec![VDiskRow {
            id: 0,
            uuid: ONES,
            name: "a".into(),
            size: 4096,
            layer: 2,
            write_cache: true,
            hidden: false,
            created: 0,
            tag: String::new(),
            rules: None,
            flatten: false,
            used: None,
        }],
        layers: BTreeMap::from([(1, layer.clone()), (2, LayerRow { id: 2, ..layer })]),
        snapshots: vec![SnapshotRow {
            uuid: ONES,
            name: "s".into(),
            vdisk: 0,
            layer: 1,
            size: 4096,
            lsn: 1,
            created: 0,
            holds: vec!["replica".into()],
            schedule: Some("hourly".into()),
        }],
        schedules: vec![ScheduleRow {
            name: "hourly".into(),
            vdisks: vec![0],
            every: 3600,
            prefix: "hourly".into(),
            keep: Keep {
                hourly: 24,
                ..Keep::default()
            },
            created: 0,
            slot: 0,
            taken: 0,
            missed: 0,
        }],
        aliases: vec![Alias {
            from: 1,
            to: 2,
            since: 1,
            until: None,
        }]
        .into(),
        dropped: vec![Dropped {
            layer: 1,
            level: 0,
            number: 0,
            at: 0,
        }],
        rules: None,
        scrub: Some(String::new()),
    };
    let mut code = BTreeSet::new();
    paths(&serde_json::to_value(&catalogue).unwrap(), "", &mut code);
    let documented: BTreeSet<String> = rows("Catalogue")
        .into_iter()
        .skip(2)
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(code, documented);
    let bytes = catalogue.encode().unwrap();
    let json = serde_json::to_vec(&catalogue).unwrap();
    assert_eq!(bytes[..8], (json.len() as u64).to_le_bytes());
    assert_eq!(
        zstd::bulk::decompress(&bytes[8..], json.len()).unwrap(),
        json
    );
    assert_eq!(Catalogue::decode(&bytes), Ok(catalogue));
}
