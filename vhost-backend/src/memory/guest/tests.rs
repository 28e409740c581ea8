use super::*;

use crate::engine::Payload;
use crate::memory::{GuestPayload, cut};

fn file(len: u64) -> File {
    let fd = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    File::from(fd)
}

fn spec(guest: u64, len: u64, offset: u64) -> RegionSpec {
    RegionSpec {
        guest,
        len,
        user: guest.wrapping_add(0x7000_0000),
        offset,
    }
}

/// Two adjacent regions, at 0x1000 and 0x3000, and one apart from them.
fn memory() -> Arc<GuestMemory> {
    let regions = [
        (0x3000, 0x2000, 0x1000),
        (0x1000, 0x2000, 0),
        (0x10000, 0x1000, 0x234),
    ];
    let regions = regions.map(|(guest, len, offset)| (spec(guest, len, offset), file(0x4000)));
    Arc::new(GuestMemory::new(regions).unwrap())
}

#[test]
fn what_lies_is_refused() {
    let refuse = |spec, len| GuestMemory::new([(spec, file(len))]).unwrap_err();
    assert!(matches!(
        refuse(spec(0, 0x1001, 0), 0x1000),
        MapError::TooShort { .. }
    ));
    assert!(matches!(
        refuse(spec(0, 0x1000, 1), 0x1000),
        MapError::TooShort { .. }
    ));
    assert!(matches!(
        refuse(spec(0, 0, 0), 0x1000),
        MapError::Range { .. }
    ));
    assert!(matches!(
        refuse(spec(u64::MAX - 5, 0x1000, 0), 0x1000),
        MapError::Range { .. }
    ));
    let wraps = RegionSpec {
        user: u64::MAX - 5,
        ..spec(0, 0x1000, 0)
    };
    assert!(matches!(refuse(wraps, 0x1000), MapError::Range { .. }));
    let twice = [
        (spec(0, 0x2000, 0), file(0x2000)),
        (spec(0x1fff, 0x1000, 0), file(0x1000)),
    ];
    assert!(matches!(
        GuestMemory::new(twice).unwrap_err(),
        MapError::Overlap(0x1fff)
    ));
    let device = RegionSpec {
        len: 4096,
        ..spec(0, 0, 0)
    };
    let zero = File::options()
        .read(true)
        .write(true)
        .open("/dev/zero")
        .unwrap();
    assert!(
        GuestMemory::new([(device, zero)]).is_err(),
        "a device has no length"
    );
}

#[test]
fn ranges_cross_adjacent_regions_and_stop_at_holes() {
    let memory = memory();
    let pieces = |guest, len| {
        let mut lens = Vec::new();
        memory
            .resolve(guest, len, |place| lens.push(place.len()))
            .map(|()| lens)
    };
    assert_eq!(pieces(0x2f00, 0x200), Some(vec![0x100, 0x100]));
    assert_eq!(pieces(0x4f00, 0x101), None);
    assert_eq!(pieces(0xfff, 1), None);
    assert_eq!(pieces(0x10fff, 1), Some(vec![1]));
    assert_eq!(pieces(u64::MAX, 1), None);
    assert!(
        memory.guest_place(0x2f00, 0x101).is_none(),
        "one place is in one region"
    );
    assert!(memory.user_place(0x7000_1000, 0x2000).is_some());
    assert!(memory.user_place(0x7000_1001, 0x2000).is_none());
}

#[test]
fn payloads_copy_across_pieces_in_both_directions() {
    let memory = memory();
    let mut segments = Vec::new();
    let mut start = 0;
    for (guest, len) in [(0x2ff0u64, 0x20u64), (0x10100, 7), (0x1000, 0x33)] {
        memory
            .resolve(guest, len, |place| {
                segments.push(place.segment(start));
                start += place.len();
            })
            .unwrap();
    }
    let data: Vec<u8> = (0..start as u8).collect();
    let mut payload = GuestPayload::new(Arc::clone(&memory), segments.clone());
    assert_eq!(payload.len(), start);
    payload.copy_in(0, &data[..50]).unwrap();
    payload.copy_in(50, &data[50..]).unwrap();
    for from in 0..start {
        for to in from..=start {
            let mut out = vec![0; to - from];
            payload.copy_out(from, &mut out).unwrap();
            assert_eq!(out, data[from..to]);
        }
    }
    assert!(payload.copy_out(start - 1, &mut [0; 2]).is_err());
    assert!(payload.copy_in(start, &[0]).is_err());
    let mut raw = [0; 7];
    memory.read(0x10100, &mut raw).unwrap();
    assert_eq!(raw, data[0x20..0x27]);
    // A part of it is a payload of its own.
    let mut part = Vec::new();
    cut(&segments, 10, 40, &mut part);
    let part = GuestPayload::new(memory, part);
    let mut out = vec![0; 40];
    part.copy_out(0, &mut out).unwrap();
    assert_eq!(out, data[10..50]);
}

#[test]
fn regions_are_added_and_removed_by_name() {
    let memory = memory();
    assert!(matches!(
        memory.without(0x1000, 0x1000).unwrap_err(),
        MapError::NoRegion { .. }
    ));
    let less = memory.without(0x3000, 0x2000).unwrap();
    assert!(less.guest_place(0x3000, 1).is_none());
    assert!(
        memory.guest_place(0x3000, 1).is_some(),
        "the old snapshot is as it was"
    );
    let more = less.with(spec(0x3000, 0x1000, 0), file(0x1000)).unwrap();
    assert!(more.guest_place(0x3fff, 1).is_some());
}

#[test]
fn a_file_that_can_be_sealed_can_not_be_shortened_under_us() {
    use rustix::fs::MemfdFlags;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("memory", flags).unwrap());
    file.set_len(0x2000).unwrap();
    let memory = GuestMemory::new([(spec(0, 0x2000, 0), file.try_clone().unwrap())]).unwrap();
    assert!(file.set_len(0x1000).is_err());
    memory.read(0x1800, &mut [0; 16]).unwrap();
}
