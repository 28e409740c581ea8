//! The traps that a design like ours may fall into, each provoked on the real backend.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use firn_tests::client::{Client, ClientOptions, Request, STATUS_OK};
use firn_tests::pattern::{self, Kind};
use firn_tests::rig::{PATIENCE, Rig};
use firn_tests::workload::{Mix, Workload};

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;

/// A guest may dirty a page again while it is being written (writeback does). That page is then anybody's
/// guess; all others of the same write must be intact.
#[test]
fn a_page_rewritten_during_its_write_leaves_its_neighbours_intact() {
    let mut rig = Rig::new().unwrap();
    let mut client = rig
        .attach("disk", 8 * MIB, ClientOptions::default())
        .unwrap();
    let (bytes, dirty) = (64 << 10, 7);
    let mut contents = vec![0; bytes];
    let mut found = vec![0; bytes];
    for round in 1..=400u32 {
        let sector = u64::from(round % 128) * (bytes as u64 / 512);
        pattern::fill(&mut contents, Kind::Half, 1, sector, round);
        write_while_scribbling(&mut client, sector, &contents, dirty * PAGE, round);
        assert_eq!(
            client
                .run(Request::read(sector, bytes as u32), &mut found)
                .unwrap()
                .status,
            STATUS_OK
        );
        for page in (0..bytes / PAGE).filter(|&page| page != dirty) {
            let range = page * PAGE..(page + 1) * PAGE;
            assert!(
                found[range.clone()] == contents[range],
                "round {round}: page {page} of the write is damaged"
            );
        }
    }
}

/// Writes `contents` while the page at `dirty` of the request's buffer is rewritten all the time.
fn write_while_scribbling(
    client: &mut Client,
    sector: u64,
    contents: &[u8],
    dirty: usize,
    round: u32,
) {
    let queue = &mut client.queues[0];
    let tag = queue.reserve().unwrap();
    queue.put_data(tag, 0, contents);
    let mut done = Vec::new();
    let over = AtomicBool::new(false);
    let memory = queue.memory_handle();
    let at = queue.layout().slots
        + queue.layout().stride * usize::from(tag)
        + queue.layout().data
        + dirty;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut page = [0; PAGE];
            let mut version = round;
            while !over.load(Ordering::Relaxed) {
                version += 1000;
                // Compressible and incompressible in turn, so that compressed lengths differ.
                let kind = if version & 8 == 0 {
                    Kind::Half
                } else {
                    Kind::Random
                };
                pattern::fill(&mut page, kind, 2, 0, version);
                memory.write(at, &page);
            }
        });
        queue.submit(tag, Request::write(sector, contents.len() as u32));
        queue.publish();
        while queue.poll(&mut done).unwrap() == 0 {
            assert!(firn_tests::client::wait(
                std::slice::from_ref(queue),
                PATIENCE
            ));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(done[0].status, STATUS_OK);
}

/// Of two writes in flight to the same block either may win, but the winner that was read once is read
/// after every restart too.
#[test]
fn overlapping_writes_keep_their_winner_over_restarts() {
    let mut rig = Rig::new().unwrap();
    let options = ClientOptions {
        queues: 4,
        ..ClientOptions::default()
    };
    let client = rig.attach("disk", 4 * MIB, options).unwrap();
    // Writes only, so that nearly every block has overlapping ones.
    let mix = Mix {
        sectors: 1..=64,
        reads: 0,
        flushes: 1,
        ..Mix::default()
    };
    let mut load = Workload::new(client, 1, mix, 3);
    for _ in 0..8 {
        load.run_for(Duration::from_millis(60), 32).unwrap();
        load.drain(PATIENCE).unwrap();
        // Settles every sector ...
        load.verify(PATIENCE).unwrap();
        rig.kill().unwrap();
        load.client.reconnect(PATIENCE).unwrap();
        // ... so now only the winners pass, from the write buffer and from disk.
        load.verify(PATIENCE).unwrap();
    }
    rig.server.terminate(PATIENCE).unwrap();
    rig.server = rig.firn.start().unwrap();
    load.client.reconnect(PATIENCE).unwrap();
    load.verify(PATIENCE).unwrap();
}

/// Acknowledged data that waits in the write buffer is lost without it: a backend that can't find it must
/// not serve.
#[test]
fn acknowledged_data_binds_the_store_to_its_runtime_directory() {
    let mut rig = Rig::new().unwrap();
    let client = rig
        .attach("disk", 8 * MIB, ClientOptions::default())
        .unwrap();
    let mut load = Workload::new(
        client,
        1,
        Mix {
            flushes: 0,
            ..Mix::default()
        },
        1,
    );
    load.run_for(Duration::from_millis(100), 16).unwrap();
    rig.server.kill().unwrap();

    let elsewhere = rig.dir().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut refused = rig.firn.with_run(&elsewhere).start().unwrap();
    let status = refused
        .wait(PATIENCE)
        .expect("a backend without the write buffer must not serve");
    assert!(!status.success());
    let said = rig.last_words();
    let named = rig.firn.run().display().to_string();
    assert!(
        said.contains(&named),
        "the refusal does not name {named}:\n{said}"
    );

    rig.server = rig.firn.start().unwrap();
    load.client.reconnect(PATIENCE).unwrap();
    load.drain(PATIENCE).unwrap();
    load.verify(PATIENCE).unwrap();
}

/// One backend per store: the second one says who has it.
#[test]
fn a_store_has_one_backend() {
    let mut rig = Rig::new().unwrap();
    let elsewhere = rig.dir().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let mut second = rig.firn.with_run(&elsewhere).start().unwrap();
    let status = second
        .wait(PATIENCE)
        .expect("a second backend must not serve the same store");
    assert!(!status.success());
    assert!(
        rig.server.ended().unwrap().is_none(),
        "the first backend must not be disturbed"
    );
}
