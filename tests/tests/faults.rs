//! Faults of the host under the real backend: a disk that stands still, a disk that fails, no file descriptors, no memory. What
//! can be served is served, what can't be is said, and all goes on when the fault is over.

use std::time::{Duration, Instant};

use firn_tests::client::{
    Client, ClientOptions, Completion, Request, STATUS_IOERR, STATUS_OK, wait,
};
use firn_tests::pattern::{self, Found, Kind};
use firn_tests::rig::{PATIENCE, Rig, Setup};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

const MIB: u64 = 1 << 20;
const CHUNK: u32 = 256 << 10;
const SECTORS: u64 = CHUNK as u64 / 512;

fn options() -> ClientOptions {
    ClientOptions {
        queues: 2,
        depth: 64,
        max_bytes: CHUNK,
        ..ClientOptions::default()
    }
}

fn rig(filesystem: u64, thin: Option<u64>) -> Option<Rig> {
    if !rustix::process::geteuid().is_root() {
        println!("not shown: a filesystem of its own takes root");
        return None;
    }
    let setup = Setup {
        filesystem: Some(filesystem),
        thin,
        init: &["--segment-size", "1M"],
        ..Setup::default()
    };
    Some(Rig::with(&setup).unwrap())
}

/// Puts a write of incompressible data on queue 0.
fn begin_write(client: &mut Client, chunk: u64) {
    let queue = &mut client.queues[0];
    let mut data = vec![0; CHUNK as usize];
    let sector = chunk * SECTORS;
    pattern::fill(&mut data, Kind::Random, 1, sector, 1);
    let tag = queue.reserve().unwrap();
    queue.put_data(tag, 0, &data);
    queue.submit(tag, Request::write(sector, CHUNK));
    queue.publish();
}

/// What comes back on queue 0 within `time`, or until nothing is in flight.
fn completed(client: &mut Client, time: Duration) -> Vec<Completion> {
    let until = Instant::now() + time;
    let mut done = Vec::new();
    let queue = &mut client.queues[0];
    while queue.in_flight() > 0 && Instant::now() < until {
        wait(std::slice::from_ref(queue), Duration::from_millis(50));
        queue.poll(&mut done).unwrap();
    }
    done
}

/// One request on queue 1, which must not take longer than `within`.
fn at_once(client: &mut Client, request: Request, within: Duration) -> (Completion, u16) {
    let queue = &mut client.queues[1];
    let tag = queue.reserve().unwrap();
    queue.submit(tag, request);
    queue.publish();
    let (begin, mut done) = (Instant::now(), Vec::new());
    while queue.poll(&mut done).unwrap() == 0 {
        assert!(begin.elapsed() < within, "{request:?} takes too long");
        wait(std::slice::from_ref(queue), within);
    }
    (done.remove(0), tag)
}

fn assert_chunk(client: &mut Client, chunk: u64) {
    let sector = chunk * SECTORS;
    let (done, tag) = at_once(client, Request::read(sector, CHUNK), PATIENCE);
    assert_eq!(done.status, STATUS_OK, "chunk {chunk}");
    let mut bytes = [0; 512];
    for at in 0..SECTORS {
        client.queues[1].get_data(tag, at as usize * 512, &mut bytes);
        let expected = Found::Version {
            vdisk: 1,
            sector: sector + at,
            version: 1,
        };
        assert_eq!(pattern::inspect(&bytes), expected, "chunk {chunk}");
    }
}

fn write(client: &mut Client, chunk: u64) -> u8 {
    begin_write(client, chunk);
    let done = completed(client, PATIENCE);
    assert_eq!(done.len(), 1, "chunk {chunk} is not answered");
    done[0].status
}

fn flush(client: &mut Client) -> u8 {
    client.run(Request::flush(), &mut []).unwrap().status
}

fn status(rig: &Rig) -> String {
    let begin = Instant::now();
    let said = rig.firn.cli(&["store", "status"]).unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "status must not wait for the disk"
    );
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// Seconds per write, or for ever: nothing fails for that, and who needs no writing is served.
#[test]
fn a_disk_that_stands_still() {
    let Some(mut rig) = rig(256 * MIB, None) else {
        return;
    };
    let mut client = rig.attach("disk", 128 * MIB, options()).unwrap();
    let mut other = rig.attach("other", 64 * MIB, options()).unwrap();
    for chunk in 0..8 {
        assert_eq!(write(&mut client, chunk), STATUS_OK);
    }
    assert_eq!(flush(&mut client), STATUS_OK);

    let frozen = rig.freeze_disk().unwrap();
    // More than the write buffer and the spare segments hold.
    let mut begun = 8;
    while client.queues[0].in_flight() < 63 && begun < 8 + 200 {
        begin_write(&mut client, begun);
        begun += 1;
        completed(&mut client, Duration::from_millis(1));
    }
    let waiting = client.queues[0].in_flight();
    completed(&mut client, Duration::from_secs(4));
    assert!(
        client.queues[0].in_flight() > 0,
        "writes must wait for the disk, {waiting} did"
    );
    // Zeroes, and what is on disk, of another vDisk and of the same.
    let second = Duration::from_secs(2);
    assert_eq!(
        at_once(&mut other, Request::read(64, CHUNK), second)
            .0
            .status,
        STATUS_OK
    );
    assert_chunk(&mut client, 3);
    status(&rig);

    drop(frozen);
    let done = completed(&mut client, PATIENCE);
    assert!(
        done.iter().all(|c| c.status == STATUS_OK),
        "a slow disk is no failed one"
    );
    assert_eq!(
        client.queues[0].in_flight(),
        0,
        "the disk is back, yet they wait"
    );
    assert_eq!(flush(&mut client), STATUS_OK);
    for chunk in (0..begun).step_by(7) {
        assert_chunk(&mut client, chunk);
    }

    // An end that has to wait says for what.
    assert_eq!(write(&mut client, begun), STATUS_OK);
    let frozen = rig.freeze_disk().unwrap();
    rig.server.ask_to_end().unwrap();
    let told = Instant::now();
    while !rig.last_words().contains("still ending after") {
        assert!(told.elapsed() < PATIENCE, "{}", rig.last_words());
        assert!(
            rig.server.ended().unwrap().is_none(),
            "it ended without its last checkpoint"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(frozen);
    assert!(
        rig.server.wait(PATIENCE).unwrap().success(),
        "{}",
        rig.last_words()
    );
    rig.server = rig.firn.start().unwrap();
    client.reconnect(PATIENCE).unwrap();
    assert_chunk(&mut client, begun);
}

/// A disk that returns EIO: the store says so and acknowledges nothing more, whatever the disk does later. Reads go on, and a
/// new process has everything that was acknowledged.
#[test]
fn a_disk_that_fails() {
    let Some(mut rig) = rig(512 * MIB, Some(40 * MIB)) else {
        return;
    };
    let mut client = rig.attach("disk", 128 * MIB, options()).unwrap();
    let mut acked = 0;
    let failed = loop {
        if write(&mut client, acked) != STATUS_OK {
            break "a write";
        }
        acked += 1;
        if flush(&mut client) != STATUS_OK {
            break "a flush";
        }
        assert!(acked < 400, "this disk has no faults");
    };
    println!("after {acked} chunks {failed} has failed");
    assert!(acked > 8);
    let said = status(&rig);
    assert!(said.contains("FAILED, takes no writes"), "{said}");
    assert!(
        rig.last_words().contains("takes no more writes"),
        "{}",
        rig.last_words()
    );
    for mended in [false, true] {
        if mended {
            rig.mend_disk().unwrap();
        }
        assert_eq!(write(&mut client, acked), STATUS_IOERR);
        assert_eq!(flush(&mut client), STATUS_IOERR);
        for chunk in 0..acked {
            assert_chunk(&mut client, chunk);
        }
    }
    assert!(rig.firn.cli(&["vdisk", "create", "more", "1M"]).is_err());

    rig.kill().unwrap();
    client.reconnect(PATIENCE).unwrap();
    for chunk in 0..acked {
        assert_chunk(&mut client, chunk);
    }
    assert_eq!(write(&mut client, acked), STATUS_OK);
    assert_eq!(flush(&mut client), STATUS_OK);
    rig.kill().unwrap();
    client.reconnect(PATIENCE).unwrap();
    for chunk in 0..=acked {
        assert_chunk(&mut client, chunk);
    }
}

fn limit(rig: &Rig, resource: Resource, current: Option<u64>) -> Rlimit {
    let pid = Pid::from_raw(rig.server.pid() as i32);
    let old = prlimit(
        pid,
        resource,
        Rlimit {
            current,
            maximum: None,
        },
    );
    // Without the right to raise the hard limit it stays as it is.
    old.unwrap_or_else(|_| {
        let maximum = rustix::process::getrlimit(resource).maximum;
        prlimit(pid, resource, Rlimit { current, maximum }).unwrap()
    })
}

fn open_files(rig: &Rig) -> u64 {
    let dir = format!("/proc/{}/fd", rig.server.pid());
    std::fs::read_dir(dir).unwrap().count() as u64
}

/// No descriptors: what is open is served, what needs another one waits or is refused by name, and the log is not flooded.
#[test]
fn no_file_descriptors_left() {
    let setup = Setup {
        init: &["--segment-size", "1M"],
        ..Setup::default()
    };
    let mut rig = Rig::with(&setup).unwrap();
    let mut client = rig.attach("disk", 128 * MIB, options()).unwrap();
    let socket = rig.create("second", 8 * MIB).unwrap();
    for chunk in 0..4 {
        assert_eq!(write(&mut client, chunk), STATUS_OK);
    }
    assert_eq!(flush(&mut client), STATUS_OK);
    let soft = limit(&rig, Resource::Nofile, Some(open_files(&rig)));
    assert_eq!(
        soft.current, soft.maximum,
        "the backend takes what the host allows"
    );

    // Segments: the spare ones are used up, then writes wait. Reads and flushes go on.
    let mut begun = 4;
    while client.queues[0].in_flight() < 32 {
        begin_write(&mut client, begun);
        begun += 1;
        completed(&mut client, Duration::from_millis(1));
    }
    let done = completed(&mut client, Duration::from_secs(2));
    assert!(done.iter().all(|c| c.status == STATUS_OK));
    assert!(
        client.queues[0].in_flight() > 0,
        "where do the segments come from?"
    );
    assert_chunk(&mut client, 1);
    assert_eq!(
        at_once(&mut client, Request::flush(), PATIENCE).0.status,
        STATUS_OK
    );
    // Front ends and the control API.
    let hopeful = std::thread::spawn(move || Client::connect(&socket, options()).map(drop));
    std::thread::sleep(Duration::from_secs(1));
    let log = std::fs::read_to_string(rig.firn.log()).unwrap();
    let named = log.lines().filter(|l| l.contains("Too many open files"));
    let about = |what: &str| named.clone().filter(|l| l.contains(what)).count();
    assert!((1..4).contains(&about("allocating segment")), "{log}");
    assert!(about("can't accept") > 0, "{log}");
    assert!(named.clone().count() < 60, "the log is flooded: {log}");
    assert_chunk(&mut client, 2);

    limit(&rig, Resource::Nofile, soft.current);
    let done = completed(&mut client, PATIENCE);
    assert!(done.iter().all(|c| c.status == STATUS_OK));
    assert_eq!(
        client.queues[0].in_flight(),
        0,
        "there are descriptors again, yet they wait"
    );
    let _ = hopeful.join().unwrap();
    status(&rig);
    rig.firn.cli(&["vdisk", "create", "third", "1M"]).unwrap();
    rig.connect("second", options()).unwrap();
    for chunk in (0..begun).step_by(5) {
        assert_chunk(&mut client, chunk);
    }
    assert!(rig.server.ended().unwrap().is_none());
}

fn memory(rig: &Rig, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.server.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(what)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// The largest requests that a guest can make, where there is no memory for them: they are taken in parts.
#[test]
fn no_memory_for_a_big_request() {
    const BIG: u32 = 100 << 20;
    let mut rig = Rig::new().unwrap();
    let big = ClientOptions {
        queues: 1,
        depth: 2,
        max_bytes: BIG,
        ..ClientOptions::default()
    };
    let mut client = rig.attach("disk", 512 * MIB, big).unwrap();
    let mut other = rig.attach("other", 64 * MIB, options()).unwrap();
    assert_eq!(write(&mut other, 1), STATUS_OK);
    let space = memory(&rig, "VmSize");
    let mut data = vec![0x5a; BIG as usize];
    // Less than the request, and more than its parts.
    let soft = limit(&rig, Resource::As, Some(space + 64 * MIB));
    let done = client.run(Request::write(0, BIG), &mut data).unwrap();
    assert_eq!(done.status, STATUS_OK);
    data.fill(0);
    let done = client.run(Request::read(0, BIG), &mut data).unwrap();
    assert_eq!(done.status, STATUS_OK);
    assert!(data.iter().all(|b| *b == 0x5a));
    assert_eq!(write(&mut other, 2), STATUS_OK);
    for chunk in [1, 2] {
        assert_chunk(&mut other, chunk);
    }
    limit(&rig, Resource::As, soft.current);
}
