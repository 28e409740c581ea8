//! Front ends beside the one that has the vDisk.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use firn_tests::client::message::Code;
use firn_tests::client::raw::{NEXT, Raw, WRITE};
use firn_tests::rig::PATIENCE;

use crate::scene::{Scene, good};

/// More than the backend waits for a front end that has stopped to hang up.
const ENOUGH: Duration = Duration::from_secs(15);

#[test]
fn those_that_only_wait_take_nothing_from_the_first() {
    let mut scene = Scene::new();
    let mut first = scene.running(2);
    // One that says nothing, and one that breaks off in the middle of a message.
    for part in [&[][..], &[1, 0, 0, 0, 1, 0]] {
        let idle = scene.raw();
        idle.link.send_raw(part, &[]).unwrap();
        for _ in 0..20 {
            assert!(scene.raw().is_closed(PATIENCE), "a third");
        }
        scene.says("a third", "is refused: the vDisk is attached by");
        assert!(good(&mut first, 1));
        drop(idle);
        scene.running_refused();
        assert!(good(&mut first, 0));
    }
    // What the first gives up, the one that waits may have, whatever it did before.
    let mut second = scene.raw();
    second.shake_hands().unwrap();
    drop(first);
    second
        .add_region(second.region(), &[second.memory.fd()])
        .unwrap();
    second.start_queue(0).unwrap();
    assert!(good(&mut second, 0));
    scene.end();
}

#[test]
fn a_first_that_stops_and_stays_holds_the_second_up_for_a_while_and_nobody_else() {
    let mut scene = Scene::new();
    let mut first = scene.running(1);
    assert!(good(&mut first, 0));
    first.stop_queue(0).unwrap();
    let mut second = scene.raw();
    let began = Instant::now();
    second.start(2).unwrap();
    offer_read(&mut second);
    // Messages are no way to be forgotten.
    while began.elapsed() < ENOUGH && second.link.command(Code::GetFeatures, &[], &[]).is_ok() {
        assert_eq!(second.used(0), 0, "it is served");
    }
    scene.says("it gives up", "the front end before it does not hang up");
    let waited = began.elapsed();
    assert!(
        waited > Duration::from_secs(5) && waited < ENOUGH,
        "{waited:?}"
    );
    first.restart_queue(0).unwrap();
    assert!(good(&mut first, 0));
    scene.end();
}

/// Four that connect, start, stop, offer, break off and come back as they like: whoever is served is so alone.
#[test]
fn whatever_they_do_one_at_a_time_is_served() {
    let scene = Scene::new();
    let serving = AtomicU32::new(0);
    let served = AtomicU32::new(0);
    let until = Instant::now() + Duration::from_secs(8);
    std::thread::scope(|scope| {
        for seed in 1..=4_u64 {
            let (scene, serving, served) = (&scene, &serving, &served);
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mut next = |below: u64| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % below
                };
                while Instant::now() < until {
                    let mut raw = scene.raw();
                    if raw.start(1).is_err() {
                        continue;
                    }
                    for _ in 0..next(4) {
                        if !is_served(&mut raw) {
                            break;
                        }
                        assert_eq!(serving.fetch_add(1, Ordering::SeqCst), 0, "seed {seed}");
                        served.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(next(3)));
                        assert_eq!(serving.fetch_sub(1, Ordering::SeqCst), 1, "seed {seed}");
                        let going = match next(4) {
                            0 => Ok(()),
                            1 => raw.stop_queue(0),
                            _ => raw.log_all().and_then(|()| raw.stop_queue(0)),
                        };
                        std::thread::sleep(Duration::from_millis(next(5)));
                        if going.and_then(|()| raw.restart_queue(0)).is_err() {
                            break;
                        }
                    }
                }
            });
        }
    });
    let served = served.into_inner();
    assert!(served > 100, "{served}");
    assert!(good(&mut scene.running(1), 0));
    scene.end();
}

impl Scene {
    /// One that wants to have what the first one has.
    fn running_refused(&self) {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let mut raw = self.raw();
            if raw.shake_hands().is_err() {
                // The one before it was not noticed to be gone.
                continue;
            }
            raw.add_region(raw.region(), &[raw.memory.fd()]).unwrap();
            assert!(raw.start_queue(0).is_err());
            assert!(raw.is_closed(PATIENCE));
            return;
        }
        panic!("it is not even let in");
    }
}

const HEADER: usize = Raw::DATA + 0x10_0000;

/// Offers a read by the first descriptors of its first queue.
fn offer_read(raw: &mut Raw) {
    raw.header(HEADER, 0, 0);
    raw.put(0, 0, (raw.guest(HEADER), 16, NEXT, 1));
    raw.put(0, 1, (raw.guest(HEADER + 0x1000), 4096, NEXT | WRITE, 2));
    raw.put(0, 2, (raw.guest(HEADER + 0x100), 1, WRITE, 0));
    raw.offer(0, 0);
    raw.kick(0);
}

/// Whether a read is answered soon.
fn is_served(raw: &mut Raw) -> bool {
    let next = raw.used(0).wrapping_add(1);
    offer_read(raw);
    raw.wait_used(0, next, Duration::from_millis(100))
}
