//! Queues that are stopped, changed or left with requests in flight, and in-flight regions from nowhere.

use firn_tests::client::message::{Code, vring_state};
use firn_tests::client::raw::{NEXT, Raw, WRITE};
use firn_tests::client::{ClientError, SharedMemory};
use firn_tests::rig::PATIENCE;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use crate::scene::{Scene, good};

/// Offers 64 reads of 128 KiB, whose descriptors are 0 to 191.
fn load(raw: &mut Raw, queue: u16) {
    for i in 0..64u16 {
        let header = Raw::DATA + 0x1000 * usize::from(i);
        raw.header(header, 0, u64::from(i) * 256);
        let data = raw.guest(Raw::DATA + 0x20_0000);
        raw.put(queue, 3 * i, (raw.guest(header), 16, NEXT, 3 * i + 1));
        raw.put(queue, 3 * i + 1, (data, 128 << 10, NEXT | WRITE, 3 * i + 2));
        raw.put(queue, 3 * i + 2, (raw.guest(header + 0x100), 1, WRITE, 0));
        raw.offer(queue, 3 * i);
    }
    raw.kick(queue);
}

type Act = fn(&mut Raw) -> Result<(), ClientError>;

/// What is done with requests in flight, and what the log says where it is refused.
const CASES: &[(&str, Act, Option<&str>)] = &[
    (
        "resized",
        |r| r.link.command(Code::SetVringNum, &vring_state(0, 128), &[]),
        Some("queue 0 is being served, its size can't change"),
    ),
    (
        "moved on",
        |r| r.link.command(Code::SetVringBase, &vring_state(0, 7), &[]),
        Some("queue 0 is being served, its base can't change"),
    ),
    (
        "other features",
        |r| {
            r.link.command(
                Code::SetFeatures,
                &(1u64 << 30 | 1 << 32).to_ne_bytes(),
                &[],
            )
        },
        Some("can't change while queues are being served"),
    ),
    (
        "another in-flight region",
        |r| {
            let mut body = [1u64 << 20, 0].map(u64::to_ne_bytes).concat();
            body.extend([1, r.size, 0, 0].map(u16::to_ne_bytes).concat());
            r.link.command(Code::SetInflightFd, &body, &[r.memory.fd()])
        },
        Some("queues are being served with another region"),
    ),
    (
        "rings moved over each other",
        |r| {
            let [table, ..] = r.ring_addresses(0);
            r.set_addresses(0, [table; 3])
        },
        None,
    ),
    (
        "rings moved to an odd address",
        |r| {
            let [table, used, avail] = r.ring_addresses(0);
            r.set_addresses(0, [table, used + 1, avail + 1])
        },
        Some("SET_VRING_ADDR of 40 bytes: invalid message"),
    ),
    (
        "disabled",
        |r| {
            r.link
                .command(Code::SetVringEnable, &vring_state(0, 0), &[])
        },
        None,
    ),
    (
        "stopped",
        |r| r.link.ask(Code::GetVringBase, &vring_state(0, 0)).map(drop),
        None,
    ),
    ("reset", |r| r.link.send(4, 0, &[], &[]), None),
    ("left alone", |_| Ok(()), None),
];

#[test]
fn queues_are_changed_and_stopped_with_requests_in_flight() {
    let mut scene = Scene::new();
    for round in 0..3 {
        for (case, act, says) in CASES {
            let mut raw = scene.running(1);
            load(&mut raw, 0);
            let done = act(&mut raw);
            match says {
                Some(words) => {
                    assert!(done.is_err(), "{case}");
                    scene.says(case, words);
                    assert!(raw.is_closed(PATIENCE), "{case}");
                }
                None => done.unwrap_or_else(|e| panic!("{case}, round {round}: {e}")),
            }
            // Hung up on, with what is in flight.
        }
    }
    assert!(good(&mut scene.running(1), 0));
    scene.end();
}

#[test]
fn a_stopped_queue_has_nothing_in_flight() {
    let scene = Scene::new();
    let mut raw = scene.running(1);
    for _ in 0..20 {
        load(&mut raw, 0);
        let reply = raw
            .link
            .ask(Code::GetVringBase, &vring_state(0, 0))
            .unwrap();
        let base = u16::from_ne_bytes([reply.body[4], reply.body[5]]);
        assert_eq!(raw.used(0), base, "all that was taken is answered");
        // And nothing comes later.
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_eq!(raw.used(0), base);
        drop(raw);
        raw = scene.running(1);
    }
    scene.end();
}

#[test]
fn forged_in_flight_regions_execute_nothing_that_was_not_offered() {
    let mut scene = Scene::new();
    let mut random = SmallRng::seed_from_u64(7);
    let mut afresh = 0;
    for round in 0..40u32 {
        scene.turn_page();
        let mut raw = scene.raw();
        raw.shake_hands().unwrap();
        let mut body = [0u64; 2].map(u64::to_ne_bytes).concat();
        body.extend([1, raw.size, 0, 0].map(u16::to_ne_bytes).concat());
        let mut reply = raw.link.ask(Code::GetInflightFd, &body).unwrap();
        let len = u64::from_ne_bytes(reply.body[..8].try_into().unwrap());
        let region = SharedMemory::map(reply.fds.pop().unwrap(), len as usize, 0).unwrap();
        let mut noise = vec![0; len as usize];
        random.fill_bytes(&mut noise);
        if round % 2 == 0 {
            // A right version and size, so that the rest is believed longer.
            noise[..8].fill(0);
            noise[8..12].copy_from_slice(&[1, 0, raw.size as u8, (raw.size >> 8) as u8]);
        }
        if round % 4 == 0 {
            // All heads in flight.
            for head in 0..usize::from(raw.size) {
                noise[16 + 16 * head] = 1;
            }
            noise[14..16].fill(0);
        }
        region.write(0, &noise);
        let fd = region.fd();
        raw.link
            .command(Code::SetInflightFd, &reply.body, &[fd])
            .unwrap();
        raw.add_region(raw.region(), &[raw.memory.fd()]).unwrap();
        let started = raw.start_queue(0);
        if round % 2 == 1 {
            assert!(started.is_err(), "round {round}");
            scene.says("another version", "queue 0: in-flight region: version");
            continue;
        }
        started.unwrap();
        assert_eq!(raw.used(0), 0, "round {round}: something was executed");
        assert!(good(&mut raw, 0), "round {round}");
        drop(raw);
        let log = std::fs::read_to_string(scene.rig.firn.log()).unwrap();
        afresh = log
            .matches("the in-flight region is started afresh")
            .count();
    }
    assert!(afresh >= 20, "the log tells of {afresh}");
    scene.end();
}
