use super::*;

use crate::testing::{Guest, USER_AT};

fn places(guest: &Guest, memory: &GuestMemory) -> RingPlaces {
    let [table, avail, used] = guest.rings(0);
    let size = guest.size();
    let place = |at, len| memory.user_place(USER_AT + at, len).unwrap();
    RingPlaces {
        table: place(table, descriptor_table_len(size)),
        avail: place(avail, avail_len(size)),
        used: place(used, used_len(size)),
        used_log: None,
    }
}

#[test]
fn an_event_is_crossed_in_every_position_of_the_wrap() {
    for start in [0u16, 10, u16::MAX - 2, u16::MAX] {
        let at = |n: u16| start.wrapping_add(n);
        assert!(crossed(at(0), at(1), at(0)));
        assert!(crossed(at(4), at(5), at(0)));
        assert!(!crossed(at(5), at(5), at(0)), "not reached");
        assert!(!crossed(at(u16::MAX), at(5), at(0)), "passed before");
    }
}

#[test]
fn heads_are_taken_across_the_wrap_and_nothing_beyond() {
    let mut guest = Guest::new(1, 4);
    let memory = guest.memory();
    let places = places(&guest, &memory);
    let mut ring = Ring::new(4, false, 0, 0);
    for round in 0..70_000u32 {
        assert_eq!(ring.pop(&memory, &places), Ok(None));
        let head = (round % 4) as u16;
        guest.offer(0, head);
        assert_eq!(ring.pop(&memory, &places), Ok(Some(head)));
    }
    guest.offer(0, 4);
    assert_eq!(ring.pop(&memory, &places), Err(RingError::Head(4)));
    guest.set_avail_index(0, ring.next_avail().wrapping_add(5));
    let error = ring.available(&memory, &places).unwrap_err();
    assert!(
        matches!(error, RingError::AvailIndex { ahead: 5, .. }),
        "{error}"
    );
}

#[test]
fn a_batch_shows_at_once() {
    let guest = Guest::new(1, 4);
    let memory = guest.memory();
    let places = places(&guest, &memory);
    let view = View {
        memory: &memory,
        log: None,
    };
    let mut ring = Ring::new(4, false, 0, 0);
    ring.put_used(view, &places, 2, 7).unwrap();
    ring.put_used(view, &places, 1, 9).unwrap();
    assert_eq!(guest.used_index(0), 0);
    ring.publish(view, &places).unwrap();
    assert_eq!(guest.used_index(0), 2);
    let raw = guest.read(crate::testing::MEMORY_AT + guest.rings(0)[2] + 4, 16);
    assert_eq!(raw, [2, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
    assert!(ring.needs_signal(&memory, &places).unwrap());
    assert!(
        !ring.needs_signal(&memory, &places).unwrap(),
        "once per batch"
    );
}
