//! What every implementation of the traits must do alike.

use super::real::{RealDisk, RealOptions, RealRuntime, Use};
use super::sim::SimDisk;
use super::*;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

const LEN: u64 = 64 * PAGE as u64;

/// Runs a test on all implementations: real ones on a filesystem and on tmpfs, with each fallback forced.
fn on_all(test: impl Fn(&dyn Disk)) {
    let choices = [
        (Use::Auto, Use::Auto),
        (Use::Off, Use::Auto),
        (Use::Auto, Use::Off),
        (Use::Off, Use::Off),
    ];
    for parent in [std::env::temp_dir().as_path(), Path::new("/dev/shm")] {
        for (direct, uring) in choices {
            let dir = tempfile::tempdir_in(parent).unwrap();
            let disk = RealDisk::open(dir.path(), RealOptions { direct, uring }).unwrap();
            assert!(direct == Use::Auto || !disk.is_direct());
            assert!(uring == Use::Auto || !disk.is_uring());
            assert_eq!(
                disk.list().unwrap(),
                Vec::<String>::new(),
                "the trial left something"
            );
            test(&disk);
        }
    }
    for seed in 0..20 {
        test(&SimDisk::new(seed, 1 << 30));
    }
}

fn page(fill: u8) -> AlignedBuf {
    AlignedBuf::from_bytes(&[fill; PAGE]).unwrap()
}

#[test]
fn files_keep_what_is_written() {
    on_all(|disk| {
        let file = disk.create("a", LEN).unwrap();
        assert_eq!(file.len().unwrap(), LEN);
        let mut back = AlignedBuf::zeroed(2 * PAGE).unwrap();
        back.fill(9);
        file.read_at(&mut back, 0).unwrap();
        assert!(
            back.iter().all(|byte| *byte == 0),
            "new space reads as zero"
        );
        file.write_at(&page(1), 0).unwrap();
        file.write_at(&page(2), PAGE as u64).unwrap();
        file.sync().unwrap();
        disk.sync_dir().unwrap();
        drop(file);
        let file = disk.open("a").unwrap();
        file.read_at(&mut back, 0).unwrap();
        assert_eq!((back[PAGE - 1], back[PAGE]), (1, 2));
        assert_eq!(file.len().unwrap(), LEN);
    });
}

#[test]
fn what_is_read_may_begin_and_end_in_a_page() {
    on_all(|disk| {
        let file = disk.create("a", LEN).unwrap();
        let bytes: Vec<u8> = (0..2 * PAGE).map(|n| (n % 251) as u8).collect();
        file.write_at(&bytes, 0).unwrap();
        let unit = file.read_unit();
        assert!(unit == SECTOR || unit == PAGE);
        let mut back = AlignedBuf::zeroed(PAGE).unwrap();
        file.read_at(&mut back, unit as u64).unwrap();
        assert!(back[..] == bytes[unit..unit + PAGE]);
        let mut short = AlignedBuf::zeroed(unit).unwrap();
        file.read_at(&mut short, (2 * PAGE - unit) as u64).unwrap();
        assert!(short[..] == bytes[2 * PAGE - unit..]);
    });
}

#[test]
fn parts_are_written_one_after_the_other() {
    on_all(|disk| {
        let file = disk.create("a", LEN).unwrap();
        let parts = [page(1), page(2), page(3)];
        let slices: Vec<_> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
        file.write_parts(&slices, PAGE as u64).unwrap();
        let mut back = AlignedBuf::zeroed(5 * PAGE).unwrap();
        file.read_at(&mut back, 0).unwrap();
        let firsts: Vec<u8> = back.chunks(PAGE).map(|page| page[0]).collect();
        assert_eq!(firsts, [0, 1, 2, 3, 0]);
        let error = file
            .write_parts(&slices, LEN - 2 * PAGE as u64)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteZero);
    });
}

#[test]
fn memory_need_not_be_aligned() {
    on_all(|disk| {
        let file = disk.create("a", 1 << 20).unwrap();
        let bytes: Vec<u8> = (0..600_000 / PAGE * PAGE + 1)
            .map(|index| (index % 251) as u8)
            .collect();
        file.write_at(&bytes[1..], PAGE as u64).unwrap();
        let mut back = vec![0; bytes.len()];
        file.read_at(&mut back[1..], PAGE as u64).unwrap();
        assert!(back[1..] == bytes[1..]);
    });
}

#[test]
fn nothing_happens_past_the_end() {
    on_all(|disk| {
        let file = disk.create("a", LEN).unwrap();
        let two = AlignedBuf::zeroed(2 * PAGE).unwrap();
        for offset in [LEN - PAGE as u64, LEN, u64::MAX - PAGE as u64 + 1] {
            assert_eq!(
                file.write_at(&two, offset).unwrap_err().kind(),
                ErrorKind::WriteZero,
                "{offset}"
            );
        }
        assert_eq!(file.len().unwrap(), LEN);
        let mut back = AlignedBuf::zeroed(2 * PAGE).unwrap();
        assert_eq!(
            file.read_at(&mut back, LEN - PAGE as u64)
                .unwrap_err()
                .kind(),
            ErrorKind::UnexpectedEof
        );
    });
}

#[test]
fn space_that_was_given_back_reads_as_zeroes() {
    on_all(|disk| {
        let file = disk.create("a", LEN).unwrap();
        for number in 0..LEN / PAGE as u64 {
            file.write_at(&page(5), number * PAGE as u64).unwrap();
        }
        file.sync().unwrap();
        file.give_back(LEN).unwrap();
        file.give_back(PAGE as u64).unwrap();
        file.sync().unwrap();
        assert!(file.give_back(LEN + PAGE as u64).is_err());
        let file = disk.open("a").unwrap();
        assert_eq!(file.len().unwrap(), LEN, "as long as it was");
        let mut back = page(1);
        for number in 0..LEN / PAGE as u64 {
            file.read_at(&mut back, number * PAGE as u64).unwrap();
            let wanted = if number == 0 { 5 } else { 0 };
            assert!(back.iter().all(|b| *b == wanted), "page {number}");
        }
    });
}

#[test]
fn what_has_no_name_any_more_can_be_cut_short() {
    on_all(|disk| {
        let file = disk.create("a", LEN).unwrap();
        file.write_at(&page(5), 0).unwrap();
        file.sync().unwrap();
        disk.remove("a").unwrap();
        assert!(file.shrink(LEN + PAGE as u64).is_err());
        file.shrink(PAGE as u64).unwrap();
        assert_eq!(file.len().unwrap(), PAGE as u64);
        let mut back = page(1);
        file.read_at(&mut back, 0).unwrap();
        assert!(back.iter().all(|b| *b == 5));
        let behind = file.read_at(&mut back, PAGE as u64);
        assert_eq!(behind.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn half_pages_are_refused() {
    on_all(|disk| {
        let file = disk.create("a", LEN).unwrap();
        assert_eq!(
            file.write_at(&page(1)[..512], 0).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        let odd = file.read_unit() as u64 / 2;
        assert_eq!(
            file.read_at(&mut page(1), odd).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            file.give_back(100).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            disk.create("b", 100).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            disk.create("b", 0).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    });
}

#[test]
fn names_come_and_go() {
    on_all(|disk| {
        assert_eq!(disk.open("a").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(disk.remove("a").unwrap_err().kind(), ErrorKind::NotFound);
        disk.create("b", LEN)
            .unwrap()
            .write_at(&page(7), 0)
            .unwrap();
        drop(disk.create("a", LEN).unwrap());
        assert_eq!(
            disk.create("b", LEN).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(disk.list().unwrap(), ["a", "b"]);
        let open = disk.open("b").unwrap();
        disk.remove("b").unwrap();
        assert_eq!(disk.list().unwrap(), ["a"]);
        let mut back = page(0);
        open.read_at(&mut back, 0).unwrap();
        assert_eq!(back[0], 7, "an open file stays readable");
        for name in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "/a",
            "a\0",
            &"x".repeat(256),
        ] {
            assert_eq!(
                disk.create(name, LEN).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{name:?}"
            );
            assert_eq!(
                disk.open(name).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{name:?}"
            );
            assert_eq!(
                disk.remove(name).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{name:?}"
            );
        }
    });
}

#[test]
fn what_does_not_fit_leaves_nothing() {
    on_all(|disk| {
        let error = disk.create("a", 1 << 50).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::FileTooLarge
            ),
            "{error:?}"
        );
        assert_eq!(disk.list().unwrap(), Vec::<String>::new());
        let space = disk.space().unwrap();
        assert!(space.free <= space.total && space.free > 0);
    });
}

/// Collects reads until none is in flight, by polling or by waiting.
fn finish(queue: &mut dyn ReadQueue, waiting: bool) -> BTreeMap<u64, ReadDone> {
    let mut done = Vec::new();
    while queue.in_flight() > 0 {
        if waiting {
            let before = done.len();
            queue.wait(&mut done);
            assert!(done.len() > before, "wait came back with nothing");
        } else {
            queue.poll(&mut done);
        }
    }
    let reads = done.len();
    let done: BTreeMap<u64, ReadDone> = done.into_iter().map(|read| (read.tag, read)).collect();
    assert_eq!(done.len(), reads, "a read came back twice");
    done
}

#[test]
fn queues_return_every_read_once() {
    on_all(|disk| {
        let file = disk.create("a", LEN).unwrap();
        for number in 0..64 {
            file.write_at(&page(number as u8), number * PAGE as u64)
                .unwrap();
        }
        for depth in [1, 4, 64] {
            for waiting in [false, true] {
                let mut queue = disk.read_queue(depth).unwrap();
                for number in 0..64 {
                    queue.push(
                        &file,
                        number * PAGE as u64,
                        AlignedBuf::zeroed(PAGE).unwrap(),
                        number,
                    );
                }
                assert_eq!(queue.in_flight(), 64);
                let done = finish(&mut *queue, waiting);
                assert_eq!(done.len(), 64);
                for (tag, read) in done {
                    read.result.unwrap();
                    assert!(read.buf.iter().all(|byte| *byte == tag as u8));
                }
            }
        }
    });
}

#[test]
fn queues_report_what_cannot_be_read() {
    on_all(|disk| {
        let file = disk.create("a", LEN).unwrap();
        file.write_at(&page(5), 0).unwrap();
        let mut queue = disk.read_queue(4).unwrap();
        queue.push(&file, LEN, page(0), 0);
        queue.push(
            &file,
            LEN - PAGE as u64,
            AlignedBuf::zeroed(2 * PAGE).unwrap(),
            1,
        );
        queue.push(&file, 100, page(0), 2);
        queue.push(&file, 0, page(0), 3);
        queue.push(&file, u64::MAX - PAGE as u64 + 1, page(0), 4);
        queue.push(&file, 0, AlignedBuf::empty(), 5);
        let done = finish(&mut *queue, true);
        let kind = |tag: u64| done[&tag].result.as_ref().map_err(io::Error::kind);
        assert_eq!(kind(0), Err(ErrorKind::UnexpectedEof));
        assert_eq!(kind(1), Err(ErrorKind::UnexpectedEof));
        assert_eq!(kind(2), Err(ErrorKind::InvalidInput));
        assert_eq!(kind(3), Ok(&()));
        assert_eq!(done[&3].buf[0], 5);
        assert!(kind(4).is_err());
        assert_eq!(kind(5), Ok(&()));
        assert_eq!(
            done[&1].buf.len(),
            2 * PAGE,
            "the buffer comes back also then"
        );
    });
}

#[test]
fn a_queue_can_be_dropped_and_moved_with_reads_in_flight() {
    on_all(|disk| {
        let file = disk.create("a", LEN).unwrap();
        let mut queue = disk.read_queue(8).unwrap();
        for tag in 0..32 {
            queue.push(
                &file,
                tag % 16 * PAGE as u64,
                AlignedBuf::zeroed(4 * PAGE).unwrap(),
                tag,
            );
        }
        let mut done = Vec::new();
        queue.poll(&mut done);
        std::thread::spawn(move || {
            queue.poll(&mut done);
            drop(queue);
        })
        .join()
        .unwrap();
    });
}

#[test]
fn the_descriptor_wakes_who_waits_for_reads() {
    on_all(|disk| {
        let file = disk.create("a", LEN).unwrap();
        let mut queue = disk.read_queue(8).unwrap();
        let Some(fd) = queue.fd() else { return };
        for round in 0..50 {
            for tag in 0..20 {
                queue.push(
                    &file,
                    tag % 16 * PAGE as u64,
                    AlignedBuf::zeroed(4 * PAGE).unwrap(),
                    tag,
                );
            }
            let mut done = Vec::new();
            queue.poll(&mut done);
            while queue.in_flight() > 0 {
                let mut poll = libc::pollfd {
                    fd,
                    events: libc::POLLIN,
                    revents: 0,
                };
                // SAFETY: one valid pollfd.
                let ready = unsafe { libc::poll(&mut poll, 1, 10_000) };
                assert_ne!(
                    ready,
                    0,
                    "round {round}: nobody said that {} reads are done",
                    queue.in_flight()
                );
                queue.poll(&mut done);
            }
            assert_eq!(done.len(), 20);
        }
    });
}

#[test]
fn memory_outlives_its_handle() {
    let dir = tempfile::tempdir().unwrap();
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    let sim = SimDisk::new(1, 1 << 30);
    let sim_file = SimDisk::new(2, 1 << 30);
    let runtimes: [Box<dyn Runtime>; 3] = [
        Box::new(RealRuntime::new(dir.path())),
        Box::new(RealRuntime::new(shm.path())),
        Box::new(sim),
    ];
    for runtime in runtimes {
        assert_eq!(
            runtime.open_memory("m", PAGE).err().unwrap().kind(),
            ErrorKind::NotFound
        );
        let mut memory = runtime.create_memory("m", 4 * PAGE).unwrap();
        assert_eq!(memory.bytes().len(), 4 * PAGE);
        assert!(memory.bytes().iter().all(|byte| *byte == 0));
        assert_eq!(
            runtime.create_memory("m", PAGE).err().unwrap().kind(),
            ErrorKind::AlreadyExists
        );
        memory.bytes_mut()[PAGE] = 42;
        drop(memory);
        assert_eq!(
            runtime.open_memory("m", 5 * PAGE).err().unwrap().kind(),
            ErrorKind::InvalidData
        );
        assert_eq!(
            runtime.open_memory("m", 4 * PAGE).unwrap().bytes()[PAGE],
            42
        );
        runtime.remove_memory("m").unwrap();
        assert_eq!(
            runtime.remove_memory("m").unwrap_err().kind(),
            ErrorKind::NotFound
        );
        let mut live = runtime.create_memory("m", 4 * PAGE).unwrap().into_live();
        live.write(PAGE - 1, &[7; 2]);
        let mut back = [1; 4];
        live.read(PAGE - 2, &mut back);
        assert_eq!(back, [0, 7, 7, 0]);
        live.read(4 * PAGE - 2, &mut back);
        assert_eq!(back, [0; 4], "what lies outside is zeroes");
        let file = sim_file.create("out", LEN).unwrap();
        let pages = live.pages();
        pages
            .write_out(&[PAGE..2 * PAGE, 0..PAGE], &*file, 0)
            .unwrap();
        let outside = std::iter::once(4 * PAGE..5 * PAGE).collect::<Vec<_>>();
        assert!(pages.write_out(&outside, &*file, 0).is_err());
        drop((live, pages));
        let mut out = AlignedBuf::zeroed(2 * PAGE).unwrap();
        file.read_at(&mut out, 0).unwrap();
        assert_eq!((out[0], out[2 * PAGE - 1]), (7, 7));
        sim_file.remove("out").unwrap();
        runtime.remove_memory("m").unwrap();
        assert!(runtime.create_memory("m", 100).is_err());
        assert!(runtime.create_memory("../m", PAGE).is_err());
        assert_eq!(runtime.boot_id().unwrap(), runtime.boot_id().unwrap());
    }
}
