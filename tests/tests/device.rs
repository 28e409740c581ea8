//! What a guest finds: the backend as a virtio-blk device, seen through the vhost-user socket.

use std::time::Duration;

use firn_tests::client::{
    Client, ClientError, ClientOptions, Op, Request, STATUS_IOERR, STATUS_OK, STATUS_UNSUPP,
    feature, protocol,
};
use firn_tests::rig::{PATIENCE, Rig};
use firn_tests::workload::{Mix, Workload};

const MIB: u64 = 1 << 20;

#[test]
fn every_shape_of_the_rings_carries_a_verified_load() {
    let mut rig = Rig::new().unwrap();
    for shape in 0..8u16 {
        let options = ClientOptions {
            queues: if shape & 1 == 0 { 1 } else { 4 },
            event_idx: shape & 2 == 0,
            indirect: shape & 4 == 0,
            segment_bytes: if shape & 4 == 0 { 4096 } else { 65536 },
            depth: 16,
            ..ClientOptions::default()
        };
        let client = rig
            .attach(&format!("shape{shape}"), 16 * MIB, options.clone())
            .unwrap();
        let mut load = Workload::new(client, shape, Mix::default(), u64::from(shape));
        load.run_for(Duration::from_millis(150), 16)
            .unwrap_or_else(|e| panic!("{options:?}: {e}"));
        load.drain(PATIENCE).unwrap();
        load.verify(PATIENCE).unwrap();
        let tally = load.tally();
        assert!(
            tally.reads > 0 && tally.writes > 0 && tally.flushes > 0,
            "{tally:?}"
        );
        load.client.stop().unwrap();
    }
}

#[test]
fn segments_of_one_sector_carry_data_too() {
    let mut rig = Rig::new().unwrap();
    let options = ClientOptions {
        segment_bytes: 512,
        max_bytes: 32 << 10,
        depth: 8,
        ..ClientOptions::default()
    };
    let client = rig.attach("disk", 8 * MIB, options).unwrap();
    let mix = Mix {
        sectors: 1..=64,
        ..Mix::default()
    };
    let mut load = Workload::new(client, 1, mix, 1);
    load.run_for(Duration::from_millis(200), 8).unwrap();
    load.drain(PATIENCE).unwrap();
    load.verify(PATIENCE).unwrap();
}

#[test]
fn it_offers_what_guests_and_qemu_need() {
    let mut rig = Rig::new().unwrap();
    let client = rig
        .attach("disk", 24 * MIB + 4096, ClientOptions::default())
        .unwrap();
    let session = client.session().unwrap();
    let config = client.config();
    let wanted = feature::SEG_MAX
        | feature::SIZE_MAX
        | feature::BLK_SIZE
        | feature::TOPOLOGY
        | feature::FLUSH
        | feature::CONFIG_WCE
        | feature::DISCARD
        | feature::WRITE_ZEROES
        | feature::INDIRECT_DESC
        | feature::EVENT_IDX
        | feature::VERSION_1;
    assert_eq!(
        session.features() & wanted,
        wanted,
        "features {:#x}",
        session.features()
    );
    assert_eq!(session.features() & feature::RO, 0);
    let wanted = protocol::MQ
        | protocol::REPLY_ACK
        | protocol::CONFIG
        | protocol::INFLIGHT_SHMFD
        | protocol::CONFIGURE_MEM_SLOTS;
    assert_eq!(
        session.protocol() & wanted,
        wanted,
        "protocol {:#x}",
        session.protocol()
    );
    assert_eq!(config.capacity, (24 * MIB + 4096) / 512);
    assert!(
        config.seg_max >= 126,
        "QEMU's queue of 128 leaves 126 segments, seg_max is {}",
        config.seg_max
    );
    assert!(config.max_discard_sectors > 0 && config.max_discard_seg > 0);
    assert!(config.max_write_zeroes_sectors > 0 && config.max_write_zeroes_seg > 0);
    assert_eq!(config.write_zeroes_may_unmap, 1);
    assert_eq!(
        config.wce, 1,
        "the write cache is on until a guest switches it off"
    );
}

#[test]
fn sixty_four_queues_are_served_by_the_fixed_pool() {
    let mut rig = Rig::new().unwrap();
    // Threads by name; those that wait for the control API's calls come and go, eight at most, whatever guests do.
    let threads = |rig: &Rig| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", rig.server.pid())).unwrap();
        let names =
            tasks.filter_map(|t| std::fs::read_to_string(t.unwrap().path().join("comm")).ok());
        let others = names.filter(|name| name.trim_end() != "firn-control-io");
        others.collect::<Vec<_>>()
    };
    let before = threads(&rig);
    let options = ClientOptions {
        queues: 64,
        depth: 1,
        max_bytes: 4096,
        inflight: true,
        ..ClientOptions::default()
    };
    let mut client = rig.attach("disk", 8 * MIB, options).unwrap();
    for queue in &mut client.queues {
        let tag = queue.reserve().unwrap();
        queue.put_data(tag, 0, &[queue.index() as u8 + 1; 4096]);
        queue.submit(tag, Request::write(8 * u64::from(queue.index()), 4096));
        queue.publish();
    }
    let mut done = Vec::new();
    for queue in &mut client.queues {
        while queue.poll(&mut done).unwrap() == 0 {
            assert!(firn_tests::client::wait(
                std::slice::from_ref(queue),
                PATIENCE
            ));
        }
    }
    assert!(done.iter().all(|c| c.status == STATUS_OK));
    let mut data = [0; 4096];
    for index in 0..64 {
        client
            .run(Request::read(8 * index, 4096), &mut data)
            .unwrap();
        assert!(data.iter().all(|&b| u64::from(b) == index + 1));
    }
    let after = threads(&rig);
    assert!(
        after.len() <= before.len() + 2,
        "{after:?}, without a guest {before:?}"
    );
}

#[test]
fn the_serial_is_that_of_the_vdisk_for_ever() {
    let mut rig = Rig::new().unwrap();
    let mut serials = Vec::new();
    let mut clients = Vec::new();
    for name in ["one", "two"] {
        let mut client = rig.attach(name, MIB, ClientOptions::default()).unwrap();
        let mut id = [0; 20];
        let request = Request {
            op: Op::GetId,
            sector: 0,
            bytes: 0,
        };
        let done = client.run(request, &mut id).unwrap();
        assert_eq!((done.status, done.used_len), (STATUS_OK, 21));
        serials.push(id);
        clients.push(client);
    }
    assert_ne!(serials[0], [0; 20]);
    assert_ne!(serials[0], serials[1]);
    rig.kill().unwrap();
    for (client, serial) in clients.iter_mut().zip(&serials) {
        client.reconnect(PATIENCE).unwrap();
        let mut id = [0; 20];
        client
            .run(
                Request {
                    op: Op::GetId,
                    sector: 0,
                    bytes: 0,
                },
                &mut id,
            )
            .unwrap();
        assert_eq!(id, *serial);
    }
}

#[test]
fn each_kind_of_failure_has_its_status() {
    let mut rig = Rig::new().unwrap();
    let mut client = rig.attach("disk", MIB, ClientOptions::default()).unwrap();
    let mut data = vec![7; 8192];
    let end = MIB / 512;
    let mut status = |request| client.run(request, &mut data).unwrap().status;
    assert_eq!(status(Request::write(end - 8, 4096)), STATUS_OK);
    assert_eq!(
        status(Request::write(end - 8, 8192)),
        STATUS_IOERR,
        "over the end"
    );
    assert_eq!(status(Request::read(end, 512)), STATUS_IOERR, "at the end");
    assert_eq!(
        status(Request::read(u64::MAX - 1, 4096)),
        STATUS_IOERR,
        "an address that overflows"
    );
    assert_eq!(
        status(Request::read(0, 1000)),
        STATUS_IOERR,
        "not whole sectors"
    );
    for op in [
        Op::Discard,
        Op::WriteZeroes { unmap: true },
        Op::WriteZeroes { unmap: false },
    ] {
        assert_eq!(
            status(Request {
                op,
                sector: end - 1,
                bytes: 1024
            }),
            STATUS_IOERR,
            "{op:?} over the end"
        );
    }
    // And none of that has done harm.
    assert_eq!(status(Request::read(end - 8, 4096)), STATUS_OK);
    assert!(data[..4096].iter().all(|&b| b == 7));
}

#[test]
fn an_unknown_request_is_unsupported() {
    let mut rig = Rig::new().unwrap();
    let mut client = rig.attach("disk", MIB, ClientOptions::default()).unwrap();
    let queue = &mut client.queues[0];
    let tag = queue.reserve().unwrap();
    queue.submit(tag, Request::flush());
    // The header of the only slot in use becomes a request of type 99 before the backend may look.
    let header = queue.layout().slots + queue.layout().stride * usize::from(tag);
    queue.memory().write(header, &99u32.to_le_bytes());
    queue.publish();
    let mut done = Vec::new();
    while queue.poll(&mut done).unwrap() == 0 {
        assert!(firn_tests::client::wait(
            std::slice::from_ref(queue),
            PATIENCE
        ));
    }
    assert_eq!(done[0].status, STATUS_UNSUPP);
}

#[test]
fn zeroes_and_discards_read_as_zeroes() {
    let mut rig = Rig::new().unwrap();
    let mut client = rig.attach("disk", MIB, ClientOptions::default()).unwrap();
    for op in [
        Op::Discard,
        Op::WriteZeroes { unmap: true },
        Op::WriteZeroes { unmap: false },
    ] {
        let mut data = vec![0xa5; 64 << 10];
        client.run(Request::write(0, 64 << 10), &mut data).unwrap();
        assert_eq!(
            client
                .run(
                    Request {
                        op,
                        sector: 8,
                        bytes: 16384
                    },
                    &mut []
                )
                .unwrap()
                .status,
            STATUS_OK
        );
        client.run(Request::read(0, 64 << 10), &mut data).unwrap();
        assert!(
            data[..4096].iter().all(|&b| b == 0xa5),
            "{op:?} hit the block before"
        );
        assert!(
            data[4096..20480].iter().all(|&b| b == 0),
            "{op:?} left something"
        );
        assert!(
            data[20480..].iter().all(|&b| b == 0xa5),
            "{op:?} hit what follows"
        );
    }
}

#[test]
fn the_write_cache_mode_survives_a_kill() {
    let mut rig = Rig::new().unwrap();
    let mut client = rig.attach("disk", MIB, ClientOptions::default()).unwrap();
    client.session().unwrap().set_write_cache(false).unwrap();
    assert_eq!(client.session().unwrap().read_config().unwrap().wce, 0);
    rig.kill().unwrap();
    client.reconnect(PATIENCE).unwrap();
    assert_eq!(client.config().wce, 0);
}

#[test]
fn stopping_a_ring_waits_for_what_is_in_flight() {
    let mut rig = Rig::new().unwrap();
    let options = ClientOptions {
        queues: 2,
        ..ClientOptions::default()
    };
    let client = rig.attach("disk", 16 * MIB, options).unwrap();
    let mut load = Workload::new(client, 1, Mix::default(), 1);
    for _ in 0..20 {
        load.submit(32);
        for index in 0..2 {
            let base = load.client.session().unwrap().stop_ring(index).unwrap();
            let queue = &load.client.queues[usize::from(index)];
            assert_eq!(
                base,
                queue.used_idx(),
                "the base tells of requests that have not completed"
            );
        }
        load.collect().unwrap();
        // What was not taken yet is taken after the next start.
        load.client.reconnect(PATIENCE).unwrap();
        load.drain(PATIENCE).unwrap();
    }
    load.verify(PATIENCE).unwrap();
}

#[test]
fn a_front_end_may_leave_and_another_come() {
    let mut rig = Rig::new().unwrap();
    rig.create("disk", MIB).unwrap();
    for round in 1..=5u8 {
        let options = ClientOptions {
            queues: u16::from(round % 3) + 1,
            ..ClientOptions::default()
        };
        let mut client = rig.connect("disk", options).unwrap();
        let mut data = vec![0; 4096];
        client.run(Request::read(0, 4096), &mut data).unwrap();
        assert!(data.iter().all(|&b| b == round - 1));
        data.fill(round);
        assert_eq!(
            client
                .run(Request::write(0, 4096), &mut data)
                .unwrap()
                .status,
            STATUS_OK
        );
        // Politely, or by just closing the socket.
        if round % 2 == 0 {
            client.stop().unwrap();
        }
    }
}

#[test]
fn a_second_front_end_does_not_get_in() {
    let mut rig = Rig::new().unwrap();
    let mut first = rig.attach("disk", MIB, ClientOptions::default()).unwrap();
    let options = ClientOptions {
        timeout: Duration::from_millis(300),
        ..ClientOptions::default()
    };
    let second = Client::connect(&rig.firn.socket("disk"), options);
    assert!(
        matches!(
            second,
            Err(ClientError::Closed | ClientError::Timeout(_) | ClientError::Refused { .. })
        ),
        "{second:?}"
    );
    let mut data = vec![1; 512];
    assert_eq!(
        first.run(Request::write(0, 512), &mut data).unwrap().status,
        STATUS_OK
    );
}
