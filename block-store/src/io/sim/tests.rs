//! The simulation's own semantics: that it is as harsh as its documentation says, and no harsher.

use super::*;
use std::collections::BTreeSet;
use std::io::ErrorKind;

const LEN: u64 = 8 * PAGE as u64;
const SEEDS: u64 = 200;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(seed, 1 << 20)
}

fn fill(file: &Arc<dyn DiskFile>, page: u64, byte: u8) {
    file.write_at(&[byte; PAGE], page * PAGE as u64).unwrap();
}

fn read(disk: &SimDisk, name: &str, page: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PAGE];
    disk.open(name)?.read_at(&mut bytes, page * PAGE as u64)?;
    Ok(bytes)
}

/// A durable file of zeros.
fn durable(disk: &SimDisk, name: &str) -> Arc<dyn DiskFile> {
    let file = disk.create(name, LEN).unwrap();
    file.sync().unwrap();
    disk.sync_dir().unwrap();
    file
}

#[test]
fn synced_data_under_a_synced_name_survives_power_loss() {
    for seed in 0..SEEDS {
        let disk = disk(seed);
        let file = durable(&disk, "a");
        fill(&file, 3, 7);
        file.sync().unwrap();
        fill(&file, 4, 9);
        disk.power_loss();
        let disk = disk.restart();
        assert_eq!(read(&disk, "a", 3).unwrap(), [7; PAGE]);
    }
}

#[test]
fn unsynced_pages_are_kept_lost_or_torn_each_on_its_own() {
    let mut fates = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = disk(seed);
        let file = durable(&disk, "a");
        fill(&file, 0, 1);
        fill(&file, 1, 2);
        disk.power_loss();
        let disk = disk.restart();
        let fate = |page, new| {
            let bytes = read(&disk, "a", page).unwrap();
            for sector in bytes.chunks(512) {
                assert!(
                    sector == [0; 512] || sector == [new; 512],
                    "torn inside a sector"
                );
            }
            let written = bytes.iter().filter(|byte| **byte == new).count();
            if written == PAGE {
                "kept"
            } else if written == 0 {
                "lost"
            } else {
                "torn"
            }
        };
        fates.insert((fate(0, 1), fate(1, 2)));
    }
    assert_eq!(fates.len(), 9, "{fates:?}");
}

#[test]
fn an_overwrite_yields_any_of_its_versions() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = disk(seed);
        let file = durable(&disk, "a");
        fill(&file, 0, 1);
        file.sync().unwrap();
        fill(&file, 0, 2);
        fill(&file, 0, 3);
        disk.power_loss();
        seen.insert(read(&disk.restart(), "a", 0).unwrap()[0]);
    }
    assert_eq!(seen, [1, 2, 3].into());
}

#[test]
fn names_are_durable_only_by_a_directory_sync() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = disk(seed);
        durable(&disk, "old");
        let file = disk.create("new", LEN).unwrap();
        fill(&file, 0, 1);
        file.sync().unwrap();
        disk.remove("old").unwrap();
        disk.power_loss();
        let disk = disk.restart();
        let names = disk.list().unwrap();
        if names.contains(&"new".to_owned()) {
            assert_eq!(
                read(&disk, "new", 0).unwrap(),
                [1; PAGE],
                "its content was synced"
            );
        }
        seen.insert(names);
    }
    assert_eq!(
        seen.len(),
        4,
        "each of create and remove may be undone: {seen:?}"
    );
}

#[test]
fn a_synced_name_does_not_make_the_length_durable() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = disk(seed);
        disk.create("a", LEN).unwrap();
        disk.sync_dir().unwrap();
        disk.power_loss();
        seen.insert(disk.restart().open("a").unwrap().len().unwrap());
    }
    assert_eq!(seen, [0, LEN].into());
}

#[test]
fn space_given_back_is_back_whole_or_not_at_all() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = disk(seed);
        let file = durable(&disk, "a");
        fill(&file, 7, 5);
        file.sync().unwrap();
        file.give_back(PAGE as u64).unwrap();
        assert_eq!(read(&disk, "a", 7).unwrap(), [0; PAGE]);
        disk.power_loss();
        let disk = disk.restart();
        assert_eq!(disk.open("a").unwrap().len().unwrap(), LEN);
        seen.insert(read(&disk, "a", 7).unwrap()[0]);

        let file = disk.open("a").unwrap();
        file.give_back(PAGE as u64).unwrap();
        file.sync().unwrap();
        disk.power_loss();
        assert_eq!(read(&disk.restart(), "a", 7).unwrap(), [0; PAGE]);
    }
    assert_eq!(seen, [0, 5].into());
}

#[test]
fn a_failed_sync_dooms_what_it_covered() {
    for seed in 0..SEEDS {
        let disk = disk(seed);
        let file = durable(&disk, "a");
        fill(&file, 0, 1);
        disk.fail_nth(Op::Sync, 1);
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
        fill(&file, 1, 2);
        file.sync().unwrap();
        assert_eq!(
            read(&disk, "a", 0).unwrap(),
            [1; PAGE],
            "still in the page cache"
        );
        disk.power_loss();
        let disk = disk.restart();
        assert_eq!(read(&disk, "a", 0).unwrap(), [0; PAGE]);
        assert_eq!(
            read(&disk, "a", 1).unwrap(),
            [2; PAGE],
            "written after the failure"
        );
    }
}

#[test]
fn a_killed_process_loses_nothing_but_its_handles() {
    let disk = disk(1);
    let file = disk.create("a", LEN).unwrap();
    let mut memory = disk.create_memory("m", PAGE).unwrap();
    fill(&file, 0, 1);
    memory.bytes_mut()[0] = 1;
    disk.kill();
    assert!(disk.is_crashed());
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(disk.list().unwrap_err().kind(), ErrorKind::BrokenPipe);
    memory.bytes_mut()[0] = 2;
    assert_eq!(memory.bytes()[0], 2, "the dead see their own copy");
    let next = disk.restart();
    assert_eq!(
        next.open_memory("m", PAGE).err().unwrap().kind(),
        ErrorKind::WouldBlock
    );
    drop(memory);
    assert_eq!(next.open_memory("m", PAGE).unwrap().bytes()[0], 1);
    assert_eq!(read(&next, "a", 0).unwrap(), [1; PAGE]);
    assert!(
        file.write_at(&[9; PAGE], 0).is_err(),
        "the old process stays dead"
    );
    assert!(disk.create("b", LEN).is_err());
    assert_eq!(read(&next, "a", 0).unwrap(), [1; PAGE]);
    assert_eq!(next.boot_id().unwrap(), next.boot_id().unwrap());
}

#[test]
fn power_loss_takes_the_buffer_memory() {
    let disk = disk(1);
    let boot = disk.boot_id().unwrap();
    let held = disk.create_memory("held", PAGE).unwrap();
    drop(disk.create_memory("closed", PAGE).unwrap());
    disk.power_loss();
    let disk = disk.restart();
    drop(held);
    for name in ["held", "closed"] {
        assert_eq!(
            disk.open_memory(name, PAGE).err().unwrap().kind(),
            ErrorKind::NotFound
        );
    }
    assert_ne!(disk.boot_id().unwrap(), boot);
}

#[test]
fn a_crash_comes_after_so_many_operations_and_may_leave_half_a_write() {
    let mut written = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = disk(seed);
        let file = disk.create("a", LEN).unwrap();
        disk.crash_after(Some(2));
        fill(&file, 0, 1);
        file.sync().unwrap();
        assert_eq!(
            file.write_at(&[2; 4 * PAGE], 0).unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
        assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::BrokenPipe);
        let disk = disk.restart();
        written.insert(
            (0..4)
                .take_while(|page| read(&disk, "a", *page).unwrap()[0] == 2)
                .count(),
        );
    }
    assert_eq!(written, (0..=4).collect());
}

#[test]
fn faults_strike_once_and_where_they_were_ordered() {
    let disk = disk(1);
    let file = disk.create("a", LEN).unwrap();
    disk.fail_nth(Op::Read, 2);
    disk.fail_nth(Op::Write, 1);
    assert!(read(&disk, "a", 0).is_ok());
    assert_eq!(
        read(&disk, "a", 0).unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    assert!(read(&disk, "a", 0).is_ok());
    assert_eq!(
        file.write_at(&[1; PAGE], 0).unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    fill(&file, 0, 1);
}

#[test]
fn space_is_reserved_and_comes_back() {
    let disk = SimDisk::new(1, 2 * LEN + 100);
    let a = disk.create("a", LEN).unwrap();
    disk.create("b", LEN).unwrap();
    assert_eq!(
        disk.create("c", PAGE as u64).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    a.give_back(LEN - PAGE as u64).unwrap();
    disk.create("c", PAGE as u64).unwrap();
    disk.remove("a").unwrap();
    assert_eq!(
        disk.space().unwrap().free,
        100,
        "an open file keeps its space"
    );
    drop(a);
    assert_eq!(disk.space().unwrap().free, 100 + LEN - PAGE as u64);
    disk.set_capacity(0);
    assert_eq!(disk.space().unwrap().free, 0);
    fill(&disk.open("b").unwrap(), 0, 1);
}

#[test]
fn damage_is_on_the_medium_and_in_the_cache() {
    let disk = disk(1);
    let file = durable(&disk, "a");
    for page in 0..8 {
        fill(&file, page, page as u8 + 1);
    }
    file.sync().unwrap();
    fill(&file, 1, 2);
    disk.damage(
        "a",
        Damage::Rot {
            offset: 4000,
            len: 200,
        },
    )
    .unwrap();
    let (first, second) = (read(&disk, "a", 0).unwrap(), read(&disk, "a", 1).unwrap());
    assert!(
        first[..4000].iter().all(|byte| *byte == 1) && first[4000..].iter().all(|byte| *byte != 1)
    );
    assert!(
        second[..104].iter().all(|byte| *byte != 2) && second[104..].iter().all(|byte| *byte == 2)
    );
    disk.damage(
        "a",
        Damage::Swap {
            a: 2 * PAGE as u64,
            b: 3 * PAGE as u64,
            len: PAGE as u64,
        },
    )
    .unwrap();
    disk.damage(
        "a",
        Damage::Zero {
            offset: 4 * PAGE as u64 + 10,
            len: 20,
        },
    )
    .unwrap();
    disk.power_loss();
    let disk = disk.restart();
    assert_eq!(read(&disk, "a", 2).unwrap(), [4; PAGE]);
    assert_eq!(read(&disk, "a", 3).unwrap(), [3; PAGE]);
    assert_eq!(
        read(&disk, "a", 4).unwrap()[9..31],
        [[5; 1].as_slice(), &[0; 20], &[5; 1]].concat()
    );
    assert_eq!(read(&disk, "a", 0).unwrap(), first);
    disk.damage(
        "a",
        Damage::Rot {
            offset: LEN,
            len: u64::MAX - LEN,
        },
    )
    .unwrap();
    disk.damage("a", Damage::Truncate(5000)).unwrap();
    assert_eq!(disk.open("a").unwrap().len().unwrap(), PAGE as u64);
    disk.damage("a", Damage::Remove).unwrap();
    assert_eq!(
        disk.damage("a", Damage::Remove).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn counters_count() {
    let disk = disk(1);
    let file = disk.create("a", LEN).unwrap();
    file.write_at(&[1; 2 * PAGE], 0).unwrap();
    file.sync().unwrap();
    read(&disk, "a", 0).unwrap();
    let counters = disk.counters();
    assert_eq!(
        (
            counters.reads,
            counters.writes,
            counters.syncs,
            counters.others
        ),
        (1, 1, 1, 2)
    );
    assert_eq!(
        (counters.bytes_read, counters.bytes_written),
        (PAGE as u64, 2 * PAGE as u64)
    );
    assert_eq!(counters.operations(), 5);
}

#[test]
fn a_seed_replays() {
    let history = |seed| {
        let disk = disk(seed);
        let file = durable(&disk, "a");
        for page in 0..8 {
            fill(&file, page, page as u8);
        }
        let mut queue = disk.read_queue(4).unwrap();
        for tag in 0..8 {
            queue.push(
                &file,
                tag * PAGE as u64,
                crate::io::AlignedBuf::zeroed(PAGE).unwrap(),
                tag,
            );
        }
        let mut done = Vec::new();
        while queue.in_flight() > 0 {
            queue.poll(&mut done);
        }
        let order: Vec<u64> = done.iter().map(|read| read.tag).collect();
        disk.power_loss();
        let disk = disk.restart();
        (
            order,
            (0..8)
                .map(|page| read(&disk, "a", page).ok())
                .collect::<Vec<_>>(),
        )
    };
    let orders: BTreeSet<Vec<u64>> = (0..20).map(|seed| history(seed).0).collect();
    assert!(orders.len() > 10, "reads finish in any order");
    for seed in 0..20 {
        assert!(history(seed) == history(seed));
    }
}
