//! Descriptors, indirect tables and ring indices that lead nowhere, in circles, or where they must not.

use firn_tests::client::raw::{INDIRECT, NEXT, Raw, WRITE};
use firn_tests::client::{STATUS_IOERR, STATUS_OK};
use firn_tests::rig::PATIENCE;

use crate::scene::{Scene, good};

const HEADER: usize = Raw::DATA;
const STATUS: usize = Raw::DATA + 0x100;
const TABLE: usize = Raw::DATA + 0x1000;
const DATA: usize = Raw::DATA + 0x10_0000;

/// What becomes of head 0.
enum End {
    /// It is given back, and the log calls it malformed for this reason.
    Malformed(&'static str),
    /// It is answered with an I/O error.
    IoError,
    /// It is answered somehow: hostile, yet nothing that the device has to refuse.
    Answered,
    /// The queue takes no more, for this reason.
    Broken(&'static str),
}
use End::{Answered, Broken, IoError, Malformed};

type Set = fn(&mut Raw);

const LOOP: &str = "more than 256 descriptors in one chain, or a loop";
const OUTSIDE: &str = "a buffer is not in the guest's memory";
const PLACE: &str = "an indirect descriptor where none may be";
const TABLE_OUTSIDE: &str = "a descriptor table is not in the guest's memory";
const NO_STATUS: &str = "a request without room for its status";

const CASES: &[(&str, Set, End)] = &[
    (
        "a descriptor that follows itself",
        |r| r.put(0, 0, (r.guest(HEADER), 16, NEXT, 0)),
        Malformed(LOOP),
    ),
    (
        "two that follow each other",
        |r| {
            r.put(0, 0, (r.guest(HEADER), 16, NEXT, 1));
            r.put(0, 1, (r.guest(DATA), 512, NEXT, 0));
        },
        Malformed(LOOP),
    ),
    (
        "a loop of nothing",
        |r| {
            r.put(0, 0, (0, 0, NEXT, 1));
            r.put(0, 1, (0, 0, NEXT, 0));
        },
        Malformed(LOOP),
    ),
    (
        "a successor outside of the table",
        |r| r.put(0, 0, (r.guest(HEADER), 16, NEXT, 256)),
        Malformed("descriptor index 256 is outside its table"),
    ),
    (
        "a loop in an indirect table",
        |r| {
            r.put(0, 0, (r.guest(TABLE), 32, INDIRECT, 0));
            r.put_at(TABLE, 0, (r.guest(HEADER), 16, NEXT, 1));
            r.put_at(TABLE, 1, (r.guest(DATA), 512, NEXT, 0));
        },
        Malformed(LOOP),
    ),
    (
        "an indirect table in an indirect table",
        |r| {
            r.put(0, 0, (r.guest(TABLE), 32, INDIRECT, 0));
            r.put_at(TABLE, 0, (r.guest(HEADER), 16, NEXT, 1));
            r.put_at(TABLE, 1, (r.guest(TABLE), 32, INDIRECT, 0));
        },
        Malformed(PLACE),
    ),
    (
        "an indirect table that has a successor",
        |r| r.put(0, 0, (r.guest(TABLE), 32, INDIRECT | NEXT, 1)),
        Malformed(PLACE),
    ),
    (
        "an indirect table that ends in the middle of a descriptor",
        |r| r.put(0, 0, (r.guest(TABLE), 33, INDIRECT, 0)),
        Malformed("an indirect table of 33 bytes"),
    ),
    (
        "an empty indirect table",
        |r| r.put(0, 0, (r.guest(TABLE), 0, INDIRECT, 0)),
        Malformed("an indirect table of 0 bytes"),
    ),
    (
        "an indirect table of 4 GiB",
        |r| r.put(0, 0, (r.guest(TABLE), 0xffff_fff0, INDIRECT, 0)),
        Malformed("an indirect table of 4294967280 bytes"),
    ),
    (
        "an indirect table at address 0",
        |r| r.put(0, 0, (0, 32, INDIRECT, 0)),
        Malformed(TABLE_OUTSIDE),
    ),
    (
        "an indirect table behind all addresses",
        |r| r.put(0, 0, (u64::MAX - 8, 32, INDIRECT, 0)),
        Malformed(TABLE_OUTSIDE),
    ),
    (
        "an indirect table that crosses the end of memory",
        |r| {
            r.put(0, 0, (r.guest(Raw::LEN - 16), 32, INDIRECT, 0));
            r.put_at(Raw::LEN - 16, 0, (r.guest(HEADER), 16, NEXT, 1));
        },
        Malformed(TABLE_OUTSIDE),
    ),
    (
        "an indirect table that is the ring's own",
        |r| {
            let table = r.guest(0);
            r.put(0, 0, (table, 32, INDIRECT, 0));
        },
        Malformed(PLACE),
    ),
    (
        "no status",
        |r| r.put(0, 0, (r.guest(HEADER), 16, 0, 0)),
        Malformed(NO_STATUS),
    ),
    (
        "a status at address 0",
        |r| chain(r, 0, DATA, 512, 0),
        Malformed(NO_STATUS),
    ),
    (
        "a status behind all addresses",
        |r| chain(r, 0, DATA, 512, u64::MAX),
        Malformed(NO_STATUS),
    ),
    (
        "a status one byte behind memory",
        |r| chain(r, 0, DATA, 512, r.guest(Raw::LEN)),
        Malformed(NO_STATUS),
    ),
    (
        "a header that the device would have to write",
        |r| {
            r.put(0, 0, (r.guest(HEADER), 16, NEXT | WRITE, 1));
            r.put(0, 1, (r.guest(STATUS), 1, WRITE, 0));
        },
        IoError,
    ),
    (
        "data to read behind data to write",
        |r| {
            r.put(0, 0, (r.guest(STATUS), 1, NEXT | WRITE, 1));
            r.put(0, 1, (r.guest(HEADER), 16, 0, 0));
        },
        Malformed("a readable buffer behind a writable one"),
    ),
    (
        "half a header",
        |r| {
            r.put(0, 0, (r.guest(HEADER), 15, NEXT, 1));
            r.put(0, 1, (r.guest(STATUS), 1, WRITE, 0));
        },
        IoError,
    ),
    (
        "a header outside of memory",
        |r| {
            r.put(0, 0, (0, 16, NEXT, 1));
            r.put(0, 1, (r.guest(STATUS), 1, WRITE, 0));
        },
        IoError,
    ),
    ("data at address 0", |r| read(r, 0, 512), Malformed(OUTSIDE)),
    (
        "data behind all addresses",
        |r| read(r, u64::MAX - 3, 512),
        Malformed(OUTSIDE),
    ),
    (
        "data that crosses the end of memory",
        |r| read(r, r.guest(Raw::LEN - 511), 512),
        Malformed(OUTSIDE),
    ),
    (
        "data that crosses the start of memory",
        |r| read(r, Raw::GUEST - 1, 512),
        Malformed(OUTSIDE),
    ),
    (
        "4 GiB of data",
        |r| read(r, r.guest(DATA), u32::MAX),
        IoError,
    ),
    (
        "more data than memory",
        |r| read(r, r.guest(DATA), 64 << 20),
        Malformed(OUTSIDE),
    ),
    (
        "254 times 4 GiB of data",
        |r| {
            r.put(0, 0, (r.guest(HEADER), 16, NEXT, 1));
            for i in 1..255 {
                r.put(0, i, (r.guest(DATA), u32::MAX, NEXT | WRITE, i + 1));
            }
            r.put(0, 255, (r.guest(STATUS), 1, WRITE, 0));
            r.header(HEADER, 0, 0);
        },
        IoError,
    ),
    (
        "data over its own header, status and descriptors",
        |r| {
            r.put(0, 0, (r.guest(TABLE), 48, INDIRECT, 0));
            r.put_at(TABLE, 0, (r.guest(HEADER), 16, NEXT, 1));
            r.put_at(TABLE, 1, (r.guest(HEADER), 0x2000, NEXT | WRITE, 2));
            r.put_at(TABLE, 2, (r.guest(HEADER + 8), 1, WRITE, 0));
            r.header(HEADER, 0, 0);
        },
        Answered,
    ),
    (
        "data over the rings",
        |r| read(r, r.guest(0), 0x8000),
        Answered,
    ),
    (
        "a sector past all disks",
        |r| {
            read(r, r.guest(DATA), 512);
            r.header(HEADER, 0, u64::MAX / 512 + 1);
        },
        IoError,
    ),
    (
        "a range past all disks",
        |r| {
            r.header(HEADER, 11, 0);
            r.memory.write(DATA, &[0xff; 16]);
            r.put(0, 0, (r.guest(HEADER), 16, NEXT, 1));
            r.put(0, 1, (r.guest(DATA), 16, NEXT, 2));
            r.put(0, 2, (r.guest(STATUS), 1, WRITE, 0));
        },
        Answered,
    ),
    (
        "a head outside of the table",
        |r| {
            r.offer(0, 256);
            r.offer(0, 0xffff);
        },
        Broken("head 256 is outside the descriptor table"),
    ),
    (
        "an index far ahead",
        |r| r.set_avail(0, 0x8000),
        Broken("the avail index 32768 is 32768 ahead of 0"),
    ),
    (
        "an index that goes back",
        |r| r.set_avail(0, 0xffff),
        Broken("the avail index 65535 is 65535 ahead of 0"),
    ),
];

fn chain(r: &mut Raw, kind: u32, data: usize, len: u32, status: u64) {
    r.header(HEADER, kind, 0);
    r.put(0, 0, (r.guest(HEADER), 16, NEXT, 1));
    r.put(0, 1, (r.guest(data), len, NEXT | WRITE, 2));
    r.put(0, 2, (status, 1, WRITE, 0));
}

/// A read into `len` bytes at a guest address.
fn read(r: &mut Raw, data: u64, len: u32) {
    r.header(HEADER, 0, 0);
    r.put(0, 0, (r.guest(HEADER), 16, NEXT, 1));
    r.put(0, 1, (data, len, NEXT | WRITE, 2));
    r.put(0, 2, (r.guest(STATUS), 1, WRITE, 0));
}

#[test]
fn each_is_refused_by_name_and_the_other_queue_goes_on() {
    let mut scene = Scene::new();
    for (case, set, end) in CASES {
        let mut raw = scene.running(2);
        raw.memory.fill(STATUS, 1, 9);
        set(&mut raw);
        if !matches!(end, Broken(_)) {
            raw.offer(0, 0);
        }
        raw.kick(0);
        match end {
            Broken(words) => scene.says(case, &format!("evil: queue 0 is broken and takes no more requests until it is set up anew: {words}")),
            Malformed(words) => {
                scene.says(case, "evil: queue 0: a malformed request was refused");
                scene.says(case, words);
                assert!(raw.wait_used(0, 1, PATIENCE), "{case}: not given back");
            }
            IoError => {
                assert!(raw.wait_used(0, 1, PATIENCE), "{case}: not given back");
                let mut status = [9];
                raw.memory.read(STATUS, &mut status);
                assert_eq!(status, [STATUS_IOERR], "{case}");
            }
            Answered => assert!(good(&mut raw, 1), "{case}"),
        }
        assert!(good(&mut raw, 1), "{case}: the other queue");
        if matches!(end, Malformed(_) | IoError) {
            assert!(good(&mut raw, 0), "{case}: the same queue");
        }
    }
    scene.end();
}

/// Regions end in the middle of a page here: what lies behind them in their file is not the guest's.
#[test]
fn nothing_behind_a_region_is_written() {
    let mut scene = Scene::new();
    let mut raw = scene.raw();
    raw.shake_hands().unwrap();
    let end = Raw::LEN - 0x1e01;
    let mut region = raw.region();
    region.len = end as u64;
    raw.add_region(region, &[raw.memory.fd()]).unwrap();
    raw.start_queue(0).unwrap();
    raw.memory.fill(end, Raw::LEN - end, 0xc5);
    let mut used = 0;
    for (back, len) in [(511, 512), (1, 512), (0, 512), (512, 1024), (512, 512)] {
        let data = raw.guest(end - back);
        read(&mut raw, data, len);
        // The last one fits, to show that the others came this near.
        raw.memory.fill(end - 512, 512, 0xc5);
        raw.offer(0, 0);
        raw.kick(0);
        used += 1;
        assert!(raw.wait_used(0, used, PATIENCE));
        let mut status = [9];
        raw.memory.read(STATUS, &mut status);
        let mut behind = vec![0; Raw::LEN - end];
        raw.memory.read(end, &mut behind);
        assert!(
            behind.iter().all(|&b| b == 0xc5),
            "{len} bytes, {back} before the end"
        );
        assert_eq!(status[0] == STATUS_OK, (back, len) == (512, 512));
    }
    scene.says("a region's end", OUTSIDE);
    scene.end();
}
