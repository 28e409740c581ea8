//! Invariant 6: full is not broken. The store gets a small filesystem of its own, guests fill it, and what
//! is promised then is tried: writes wait (or fail, as configured), reads and deletes work, and writes go on
//! when there is space again.

use std::time::{Duration, Instant};

use firn_tests::client::{Client, ClientError, ClientOptions, Op, Request, STATUS_OK};
use firn_tests::pattern::{self, Found, Kind};
use firn_tests::rig::{PATIENCE, Rig, Setup};

const MIB: u64 = 1 << 20;
const CHUNK: u32 = 256 << 10;
/// Nothing has completed for so long: then writes wait, for space and not for the disk.
const STALLED: Duration = Duration::from_secs(8);

fn rig(on_full: &str) -> Option<Rig> {
    let setup = Setup {
        filesystem: Some(128 * MIB),
        init: &["--segment-size", "1M"],
        serve: &["--on-full", on_full],
        ..Setup::default()
    };
    if !rustix::process::geteuid().is_root() {
        println!("not shown: a filesystem of its own takes root");
        return None;
    }
    Some(Rig::with(&setup).unwrap())
}

/// Writes `chunks` of incompressible data from the start of a vDisk on, on queue 0, and returns how many were
/// acknowledged before the first failed or all waited.
fn write_chunks(client: &mut Client, chunks: u64) -> Result<u64, ClientError> {
    let mut data = vec![0; CHUNK as usize];
    let (mut next, mut good, mut failed) = (0, 0, false);
    let mut done = Vec::new();
    loop {
        let queue = &mut client.queues[0];
        while !failed && next < chunks && queue.in_flight() < 8 {
            let Some(tag) = queue.reserve() else { break };
            let sector = next * u64::from(CHUNK) / 512;
            pattern::fill(&mut data, Kind::Random, 1, sector, 1);
            queue.put_data(tag, 0, &data);
            queue.submit(tag, Request::write(sector, CHUNK));
            next += 1;
        }
        queue.publish();
        if queue.in_flight() == 0 {
            return Ok(good);
        }
        if !firn_tests::client::wait(std::slice::from_ref(queue), STALLED) {
            return Ok(good);
        }
        done.clear();
        queue.poll(&mut done)?;
        failed |= done.iter().any(|c| c.status != STATUS_OK);
        good += done.iter().filter(|c| c.status == STATUS_OK).count() as u64;
    }
}

/// Reads chunk `chunk` on queue 1 and checks it.
fn assert_chunk(client: &mut Client, chunk: u64) {
    let queue = &mut client.queues[1];
    let sector = chunk * u64::from(CHUNK) / 512;
    let tag = queue.reserve().unwrap();
    queue.submit(tag, Request::read(sector, CHUNK));
    queue.publish();
    let mut done = Vec::new();
    while queue.poll(&mut done).unwrap() == 0 {
        assert!(
            firn_tests::client::wait(std::slice::from_ref(queue), PATIENCE),
            "a full store must still read"
        );
    }
    assert_eq!((done[0].request.op, done[0].status), (Op::Read, STATUS_OK));
    let mut bytes = [0; 512];
    for at in 0..u64::from(CHUNK) / 512 {
        queue.get_data(tag, at as usize * 512, &mut bytes);
        let expected = Found::Version {
            vdisk: 1,
            sector: sector + at,
            version: 1,
        };
        assert_eq!(pattern::inspect(&bytes), expected, "chunk {chunk}");
    }
}

fn options() -> ClientOptions {
    ClientOptions {
        queues: 2,
        depth: 16,
        max_bytes: CHUNK,
        ..ClientOptions::default()
    }
}

/// A vDisk to be deleted later, with 40 MiB of incompressible data.
fn ballast(rig: &mut Rig) {
    let mut client = rig.attach("ballast", 64 * MIB, options()).unwrap();
    assert_eq!(write_chunks(&mut client, 160).unwrap(), 160);
    client.run(Request::flush(), &mut []).unwrap();
    client.stop().unwrap();
}

fn wait_for_all(client: &mut Client) -> u64 {
    let begin = Instant::now();
    let mut done = Vec::new();
    while client.in_flight() > 0 {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "space has returned, yet {} wait",
            client.in_flight()
        );
        client.wait(Duration::from_millis(100));
        client.queues[0].poll(&mut done).unwrap();
    }
    assert!(done.iter().all(|c| c.status == STATUS_OK), "{done:?}");
    done.len() as u64
}

#[test]
fn writes_wait_for_space_and_go_on() {
    let Some(mut rig) = rig("stall") else { return };
    ballast(&mut rig);
    let mut client = rig.attach("disk", 256 * MIB, options()).unwrap();
    let written = write_chunks(&mut client, 1024).unwrap();
    assert!(written < 1024, "256 MiB can't fit");
    assert!(written > 160, "only {written} chunks fit");
    // Those in flight are among the last few: writes may overtake each other.
    let waiting = client.queues[0].in_flight();
    assert!(waiting > 0, "writes must wait");
    for chunk in [0, written / 2, written - 16] {
        assert_chunk(&mut client, chunk);
    }

    // Death does not change any of that.
    rig.kill().unwrap();
    client.reconnect(PATIENCE).unwrap();
    for chunk in [0, written / 2, written - 16] {
        assert_chunk(&mut client, chunk);
    }
    assert!(
        client.queues[0].in_flight() > 0,
        "where should the space have come from?"
    );

    rig.firn
        .cli(&["vdisk", "delete", "ballast"])
        .expect("a full store must still delete");
    let completed = wait_for_all(&mut client);
    assert!(completed > 0);
    for chunk in 0..written {
        assert_chunk(&mut client, chunk);
    }
}

#[test]
fn writes_fail_when_so_configured_and_work_again() {
    let Some(mut rig) = rig("error") else { return };
    ballast(&mut rig);
    let mut client = rig.attach("disk", 256 * MIB, options()).unwrap();
    let written = write_chunks(&mut client, 1024).unwrap();
    assert!(written < 1024 && written > 160, "{written} chunks fit");
    assert_eq!(client.in_flight(), 0, "writes must fail, not wait");
    for chunk in [0, written / 2] {
        assert_chunk(&mut client, chunk);
    }
    rig.firn
        .cli(&["vdisk", "delete", "ballast"])
        .expect("a full store must still delete");
    let begin = Instant::now();
    let mut data = vec![0; CHUNK as usize];
    pattern::fill(&mut data, Kind::Random, 1, 0, 1);
    while client
        .run(Request::write(0, CHUNK), &mut data)
        .unwrap()
        .status
        != STATUS_OK
    {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "space has returned, yet writes fail"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_chunk(&mut client, 0);
}

/// A guest that overwrites what it has again and again needs no more space than that: what it replaces is
/// reclaimed while it writes.
#[test]
fn overwriting_for_ever_never_fills_the_store() {
    let Some(mut rig) = rig("error") else { return };
    let mut client = rig.attach("disk", 48 * MIB, options()).unwrap();
    for round in 0..12 {
        assert_eq!(
            write_chunks(&mut client, 192).unwrap(),
            192,
            "round {round} of 48 MiB on 128 MiB"
        );
    }
    for chunk in 0..192 {
        assert_chunk(&mut client, chunk);
    }
}
