//! The client and the model against a server that is not ours, so that a fault of theirs does not pass
//! for one of the backend.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use firn_tests::client::{Client, ClientOptions, Op, Request, STATUS_OK};
use firn_tests::server::{Format, Qemu, Server};
use firn_tests::workload::{Failure, Mix, Workload};

const PATIENCE: Duration = Duration::from_secs(10);

fn serve(dir: &Path, queues: u16) -> Server {
    let (image, socket) = (dir.join("disk.raw"), dir.join("disk.sock"));
    if !image.exists() {
        std::fs::File::create(&image)
            .unwrap()
            .set_len(16 << 20)
            .unwrap();
    }
    // Through the page cache, because the directory may be a tmpfs.
    let qemu = Qemu {
        format: Format::Raw,
        direct: false,
        queues,
        tracer: Vec::new(),
        disks: vec![(image, socket.clone())],
    };
    let mut server = qemu
        .start(&dir.join("log"))
        .expect("qemu-storage-daemon is in Debian's package qemu-utils");
    server.listening(&socket, PATIENCE).unwrap();
    server
}

/// QEMU neither promises zeroes after a discard nor reports exact lengths, and the page cache tears
/// what is read while it is written.
fn mix() -> Mix {
    Mix {
        exact_discards: false,
        torn_races: true,
        exact_lengths: false,
        ..Mix::default()
    }
}

#[test]
fn every_shape_of_the_rings_carries_a_verified_load() {
    let dir = tempfile::tempdir().unwrap();
    let _server = serve(dir.path(), 4);
    let socket = dir.path().join("disk.sock");
    for shape in 0..8u16 {
        let options = ClientOptions {
            queues: if shape & 1 == 0 { 1 } else { 4 },
            event_idx: shape & 2 == 0,
            indirect: shape & 4 == 0,
            segment_bytes: if shape & 4 == 0 { 4096 } else { 65536 },
            depth: 16,
            ..ClientOptions::default()
        };
        let client = Client::connect(&socket, options.clone()).unwrap();
        let mut load = Workload::new(client, shape, mix(), u64::from(shape));
        // What the former shape left.
        let sectors = load.model.sectors();
        for sector in (0..sectors).step_by(512) {
            let ticket = load.model.zero(sector, 512);
            let request = Request {
                op: Op::WriteZeroes { unmap: true },
                sector,
                bytes: 512 * 512,
            };
            assert_eq!(load.client.run(request, &mut []).unwrap().status, STATUS_OK);
            load.model.written(ticket);
        }
        load.run_for(Duration::from_millis(150), 16)
            .unwrap_or_else(|e| panic!("{options:?}: {e}"));
        load.drain(PATIENCE).unwrap();
        load.verify(PATIENCE).unwrap();
        let tally = load.tally();
        assert!(
            tally.reads > 50 && tally.writes > 50 && tally.flushes > 0,
            "{tally:?}"
        );
        load.client.stop().unwrap();
    }
}

/// It has no in-flight region, so it may die only with nothing in flight; what is submitted while it is
/// dead must all the same be served by the next one.
#[test]
fn a_peer_comes_back_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = serve(dir.path(), 2);
    let options = ClientOptions {
        queues: 2,
        depth: 16,
        ..ClientOptions::default()
    };
    let client = Client::connect(&dir.path().join("disk.sock"), options).unwrap();
    let mut load = Workload::new(client, 1, mix(), 1);
    for _ in 0..10 {
        load.run_for(Duration::from_millis(50), 16).unwrap();
        load.drain(PATIENCE).unwrap();
        server.kill().unwrap();
        load.submit(16);
        server = serve(dir.path(), 2);
        load.client.reconnect(PATIENCE).unwrap();
        // Unlike ours it waits for a kick.
        load.client.queues.iter().for_each(|queue| queue.kick());
        load.drain(PATIENCE).unwrap();
        load.verify(PATIENCE).unwrap();
    }
}

/// The net has no holes: a stale, a misplaced, a torn and a lost sector are each found.
#[test]
fn faults_on_the_disk_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let _server = serve(dir.path(), 1);
    let image = File::options()
        .read(true)
        .write(true)
        .open(dir.path().join("disk.raw"))
        .unwrap();
    let socket = dir.path().join("disk.sock");
    let client = Client::connect(&socket, ClientOptions::default()).unwrap();
    // Whole blocks and nothing but writes, so that the sectors below surely change.
    let mix = Mix {
        sectors: 512..=512,
        reads: 0,
        flushes: 0,
        discards: 0,
        zeroes: 0,
        ..mix()
    };
    let mut load = Workload::new(client, 1, mix, 1);
    let sector = |at: u64| {
        let mut bytes = [0; 512];
        image.read_exact_at(&mut bytes, at * 512).unwrap();
        bytes
    };
    let put = |at: u64, bytes: &[u8; 512]| image.write_all_at(bytes, at * 512).unwrap();
    load.run_for(Duration::from_millis(300), 8).unwrap();
    load.drain(PATIENCE).unwrap();
    let stale = sector(1000);
    load.run_for(Duration::from_millis(300), 8).unwrap();
    load.drain(PATIENCE).unwrap();
    load.verify(PATIENCE).unwrap();
    let good = sector(1000);
    assert_ne!(good, stale, "the load has not come by: nothing is shown");
    let mut torn = good;
    torn[256..].copy_from_slice(&stale[256..]);
    for bad in [stale, torn, sector(1001), [0; 512]] {
        put(1000, &bad);
        let failure = load.verify(PATIENCE).unwrap_err();
        assert!(
            matches!(&failure, Failure::Data(v) if v.sector == 1000),
            "{failure}"
        );
        // Let what the failure left in flight end.
        while load.collect().is_err() || load.client.in_flight() > 0 {
            load.client.wait(Duration::from_millis(10));
        }
        put(1000, &good);
        load.verify(PATIENCE).unwrap();
    }
}

#[test]
fn single_requests() {
    let dir = tempfile::tempdir().unwrap();
    let _server = serve(dir.path(), 1);
    let mut client =
        Client::connect(&dir.path().join("disk.sock"), ClientOptions::default()).unwrap();
    assert_eq!(client.config().capacity, (16 << 20) / 512);
    let mut data = vec![0x5a; 4096];
    assert_eq!(
        client
            .run(Request::write(8, 4096), &mut data)
            .unwrap()
            .status,
        STATUS_OK
    );
    assert_eq!(
        client.run(Request::flush(), &mut []).unwrap().status,
        STATUS_OK
    );
    data.fill(0);
    assert_eq!(
        client
            .run(Request::read(8, 4096), &mut data)
            .unwrap()
            .status,
        STATUS_OK
    );
    assert!(data.iter().all(|&b| b == 0x5a));
    assert_ne!(
        client
            .run(Request::read(1 << 40, 4096), &mut data)
            .unwrap()
            .status,
        STATUS_OK
    );
}
