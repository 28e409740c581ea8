//! Messages that no decent front end sends.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use firn_tests::client::ClientError;
use firn_tests::client::message::{Code, vring_state};
use firn_tests::client::raw::{Raw, Region, region_table, single_region};
use firn_tests::rig::PATIENCE;
use rustix::event::{EventfdFlags, eventfd};

use crate::scene::{Scene, good};

type Send = fn(&mut Raw) -> Result<(), ClientError>;

/// What is sent, and what the log must say of it. All of it ends the connection.
const CASES: &[(&str, Send, &str)] = &[
    (
        "request 0",
        |r| r.link.send(0, 0, &[], &[]),
        "invalid message",
    ),
    (
        "request 99",
        |r| r.link.send(99, 0, &[1; 7], &[]),
        "invalid message",
    ),
    (
        "a protocol version of 3",
        |r| r.link.send(1, 2, &[], &[]),
        "invalid message",
    ),
    (
        "an answer",
        |r| r.link.send(Code::GetFeatures as u32, 4, &[], &[]),
        "GET_FEATURES of 0 bytes: invalid message",
    ),
    (
        "4097 bytes",
        |r| r.link.send(Code::SetConfig as u32, 0, &[0; 4097], &[]),
        "SET_CONFIG of 4097 bytes: invalid message",
    ),
    (
        "a claim of 4 GiB",
        |r| r.link.send_raw(&header(Code::SetMemTable, u32::MAX), &[]),
        "SET_MEM_TABLE of 4294967295 bytes: invalid message",
    ),
    (
        "too short a body",
        |r| r.link.send(Code::SetFeatures as u32, 0, &[0; 4], &[]),
        "SET_FEATURES of 4 bytes: invalid message",
    ),
    (
        "too long a body",
        |r| r.link.send(Code::SetFeatures as u32, 0, &[0; 16], &[]),
        "SET_FEATURES of 16 bytes: invalid message",
    ),
    (
        "features never offered",
        |r| {
            r.shake_hands()?;
            r.link.send(
                Code::SetFeatures as u32,
                0,
                &(1u64 << 34 | 1 << 63).to_ne_bytes(),
                &[],
            )
        },
        "SET_FEATURES of 8 bytes: handler failed to handle request: features 0x8000000400000000 were not offered",
    ),
    (
        "protocol features never offered",
        |r| {
            r.link.send(
                Code::SetProtocolFeatures as u32,
                0,
                &(1u64 << 5).to_ne_bytes(),
                &[],
            )
        },
        "protocol features 0x20 were not offered",
    ),
    (
        "a second owner",
        |r| {
            r.shake_hands()?;
            r.link.send(Code::SetOwner as u32, 0, &[], &[])
        },
        "SET_OWNER of 0 bytes: invalid operation",
    ),
    (
        "a descriptor that nobody asked for",
        |r| {
            let file = null();
            r.link
                .send(Code::GetFeatures as u32, 0, &[], &[file.as_fd()])
        },
        "GET_FEATURES of 0 bytes: invalid message",
    ),
    (
        "a table of memory without descriptors",
        |r| {
            r.shake_hands()?;
            r.link.send(
                Code::SetMemTable as u32,
                0,
                &region_table(1, &[r.region()]),
                &[],
            )
        },
        "SET_MEM_TABLE of 40 bytes: invalid message",
    ),
    (
        "a table of memory with too many descriptors",
        |r| {
            r.shake_hands()?;
            r.link.send(
                Code::SetMemTable as u32,
                0,
                &region_table(1, &[r.region()]),
                &[r.memory.fd(); 2],
            )
        },
        "SET_MEM_TABLE of 40 bytes: invalid message",
    ),
    (
        "250 descriptors",
        |r| {
            r.shake_hands()?;
            r.link.send(
                Code::SetMemTable as u32,
                0,
                &region_table(1, &[r.region()]),
                &[r.memory.fd(); 250],
            )
        },
        "SET_MEM_TABLE of 40 bytes",
    ),
    (
        "a table of memory that claims more than it has",
        |r| {
            r.shake_hands()?;
            r.link.send(
                Code::SetMemTable as u32,
                0,
                &region_table(u32::MAX, &[r.region()]),
                &[r.memory.fd()],
            )
        },
        "SET_MEM_TABLE of 40 bytes: invalid message",
    ),
    (
        "overlapping regions",
        |r| {
            r.shake_hands()?;
            let mut second = r.region();
            second.guest += 0x1000;
            let body = region_table(2, &[r.region(), second]);
            r.link
                .send(Code::SetMemTable as u32, 0, &body, &[r.memory.fd(); 2])
        },
        "memory regions overlap at guest address 0x10001000",
    ),
    (
        "a region of no length",
        |r| add(r, |region| region.len = 0),
        "memory region: 0 bytes at offset 0 is not a range",
    ),
    (
        "a region past its file",
        |r| add(r, |region| region.len += 4096),
        "memory region: it claims to reach up to byte",
    ),
    (
        "a region that begins past its file",
        |r| add(r, |region| region.offset = 1 << 40),
        "memory region: it claims to reach up to byte",
    ),
    (
        "a region past the end of addresses",
        |r| add(r, |region| region.guest = u64::MAX - 0xfff),
        "ADD_MEM_REG of 40 bytes",
    ),
    (
        "a region past the end of the front end",
        |r| add(r, |region| region.user = u64::MAX - 0xfff),
        "ADD_MEM_REG of 40 bytes",
    ),
    (
        "a region without a descriptor",
        |r| {
            r.shake_hands()?;
            r.link
                .send(Code::AddMemReg as u32, 0, &single_region(r.region()), &[])
        },
        "ADD_MEM_REG of 40 bytes: invalid parameters",
    ),
    (
        "a region that is a pipe",
        |r| add_file(r, &File::from(OwnedFd::from(std::io::pipe().unwrap().0))),
        "memory region: it claims to reach up to byte",
    ),
    (
        "a region that is a device",
        |r| add_file(r, &File::open("/dev/zero").unwrap()),
        "memory region: it claims to reach up to byte",
    ),
    (
        "a region that is a directory",
        |r| add_file(r, &File::open("/proc").unwrap()),
        "memory region: ",
    ),
    (
        "a region that may only be read",
        |r| add_file(r, &File::open("/proc/self/exe").unwrap()),
        "memory region: ",
    ),
    (
        "the end of a region that never was",
        |r| {
            r.shake_hands()?;
            r.link
                .send(Code::RemMemReg as u32, 0, &single_region(r.region()), &[])
        },
        "there is no memory region of 16777216 bytes at guest address 0x10000000",
    ),
    (
        "a queue size of 0",
        |r| vring(r, Code::SetVringNum, 0, 0),
        "queue 0: a size of 0",
    ),
    (
        "a queue size of 3",
        |r| vring(r, Code::SetVringNum, 0, 3),
        "queue 0: a size of 3",
    ),
    (
        "a queue size of 4 Gi",
        |r| vring(r, Code::SetVringNum, 0, u32::MAX),
        "queue 0: a size of 4294967295",
    ),
    (
        "queue 64",
        |r| vring(r, Code::SetVringNum, 64, 128),
        "queue 64: there are 64",
    ),
    (
        "the base of queue 65535",
        |r| vring(r, Code::GetVringBase, 65535, 0),
        "queue 65535: there are 64",
    ),
    (
        "a base past the ring's counter",
        |r| vring(r, Code::SetVringBase, 0, 0x10000),
        "queue 0: a base of 65536",
    ),
    (
        "half enabled",
        |r| vring(r, Code::SetVringEnable, 0, 2),
        "SET_VRING_ENABLE of 8 bytes: invalid parameters",
    ),
    (
        "a kick that is no eventfd",
        |r| {
            r.shake_hands()?;
            let file = null();
            r.link
                .send(Code::SetVringKick as u32, 0, &[0; 8], &[file.as_fd()])
        },
        "kick descriptor is /dev/null, not an eventfd",
    ),
    (
        "a kick that never comes",
        |r| {
            r.shake_hands()?;
            r.link
                .send(Code::SetVringKick as u32, 0, &0x100u64.to_ne_bytes(), &[])
        },
        "a queue without a kick descriptor would have to be polled",
    ),
    (
        "two kicks",
        |r| {
            r.shake_hands()?;
            let event = event();
            r.link
                .send(Code::SetVringKick as u32, 0, &[0; 8], &[event.as_fd(); 2])
        },
        "SET_VRING_KICK of 8 bytes: invalid message",
    ),
    (
        "a kick that is announced and missing",
        |r| {
            r.shake_hands()?;
            r.link.send(Code::SetVringKick as u32, 0, &[0; 8], &[])
        },
        "SET_VRING_KICK of 8 bytes: invalid message",
    ),
    (
        "rings outside of memory",
        |r| {
            r.start(1)?;
            r.set_addresses(0, [0x1000, 0x2000, 0x3000])
        },
        "queue 0: a ring is not within one region",
    ),
    (
        "rings that end outside of memory",
        |r| {
            r.start(1)?;
            let end = r.memory.address() + Raw::LEN as u64;
            r.set_addresses(0, [end - 64, end - 64, end - 64])
        },
        "queue 0: a ring is not within one region",
    ),
    (
        "rings that end behind all addresses",
        |r| {
            r.start(1)?;
            r.set_addresses(0, [u64::MAX - 15, u64::MAX - 3, u64::MAX - 1])
        },
        "SET_VRING_ADDR of 40 bytes",
    ),
    (
        "memory that takes the rings away",
        |r| {
            r.start(1)?;
            r.remove_region(r.region())
        },
        "queue 0 is being served, and its rings are not in the new memory",
    ),
    (
        "an in-flight region for 65535 queues",
        |r| {
            r.shake_hands()?;
            r.link.send(
                Code::GetInflightFd as u32,
                0,
                &inflight(0, 0, u16::MAX, 128),
                &[],
            )
        },
        "an in-flight region for 65535 queues of 128",
    ),
    (
        "an in-flight region past its file",
        |r| {
            r.shake_hands()?;
            r.link.send(
                Code::SetInflightFd as u32,
                0,
                &inflight(1 << 20, 1 << 40, 1, 128),
                &[r.memory.fd()],
            )
        },
        "SET_INFLIGHT_FD of 24 bytes",
    ),
    (
        "an in-flight region behind all addresses",
        |r| {
            r.shake_hands()?;
            r.link.send(
                Code::SetInflightFd as u32,
                0,
                &inflight(1 << 20, u64::MAX - 100, 1, 128),
                &[r.memory.fd()],
            )
        },
        "SET_INFLIGHT_FD of 24 bytes",
    ),
    (
        "an in-flight region without a descriptor",
        |r| {
            r.shake_hands()?;
            r.link.send(
                Code::SetInflightFd as u32,
                0,
                &inflight(4096, 0, 1, 128),
                &[],
            )
        },
        "SET_INFLIGHT_FD of 24 bytes: wrong number of attached fds",
    ),
    (
        "a dirty log past its file",
        |r| {
            r.shake_hands()?;
            let body = [1u64 << 50, 0].map(u64::to_ne_bytes).concat();
            r.link
                .send(Code::SetLogBase as u32, 0, &body, &[r.memory.fd()])
        },
        "dirty log: it claims to reach up to byte",
    ),
    (
        "a dirty log without a descriptor",
        |r| {
            r.shake_hands()?;
            r.link.send(Code::SetLogBase as u32, 0, &[1; 16], &[])
        },
        "SET_LOG_BASE of 16 bytes",
    ),
    (
        "configuration that is longer than its question",
        |r| config(r, Code::GetConfig, 0, 200),
        "GET_CONFIG of 16 bytes: invalid message",
    ),
    (
        "configuration that is longer than its message",
        |r| config(r, Code::SetConfig, 0, 200),
        "SET_CONFIG of 16 bytes: invalid message",
    ),
    (
        "postcopy",
        |r| {
            r.shake_hands()?;
            r.link.send(28, 0, &[], &[])
        },
        "POSTCOPY_ADVISE of 0 bytes: invalid message",
    ),
    (
        "a graphics socket",
        |r| {
            r.shake_hands()?;
            let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            r.link.send(33, 0, &[], &[ours.as_fd()])
        },
        "GPU_SET_SOCKET of 0 bytes: invalid operation: this is a disk",
    ),
    (
        "a back channel",
        |r| {
            r.shake_hands()?;
            let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            r.link.send(21, 0, &[], &[ours.as_fd()])
        },
        "SET_BACKEND_REQ_FD of 0 bytes: inactive protocol operation",
    ),
];

#[test]
fn each_ends_its_connection_and_is_named_in_the_log() {
    let mut scene = Scene::new();
    let files = descriptors(&scene);
    for (case, send, words) in CASES {
        let mut raw = scene.raw();
        // The connection may be closed while we still speak, and REPLY_ACK tells of a refusal too.
        match send(&mut raw) {
            Ok(())
            | Err(ClientError::Closed | ClientError::Refused { .. } | ClientError::Io { .. }) => {}
            Err(e) => panic!("{case}: {e}"),
        }
        assert!(raw.is_closed(PATIENCE), "{case}: the connection goes on");
        scene.says(case, words);
    }
    // And an honest front end finds everything in order.
    assert!(good(&mut scene.running(1), 0));
    assert!(
        descriptors(&scene) <= files + 16,
        "descriptors are left: {files} before, {} after",
        descriptors(&scene)
    );
    scene.end();
}

#[test]
fn half_a_message_keeps_nobody_waiting_but_its_own_connection() {
    let mut scene = Scene::new();
    let whole = [header(Code::SetFeatures, 8), vec![0; 8]].concat();
    for cut in [1, 11, 12, 13, 19] {
        let raw = scene.raw();
        raw.link.send_raw(&whole[..cut], &[]).unwrap();
        raw.link
            .stream()
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        // A body that comes in two parts isn't taken for whole.
        assert!(
            cut > 12 || !raw.is_closed(Duration::from_millis(50)),
            "{cut}"
        );
        drop(raw);
        let words = if cut >= 12 {
            "SET_FEATURES of 8 bytes: invalid message"
        } else {
            "the front end broke off"
        };
        scene.says(&format!("{cut} bytes"), words);
    }
    // One that never ends doesn't hold up the end of the backend either.
    let raw = scene.raw();
    raw.link.send_raw(&whole[..5], &[]).unwrap();
    scene.end();
}

#[test]
fn descriptors_that_come_with_the_second_half_are_not_kept() {
    let scene = Scene::new();
    let files = descriptors(&scene);
    let mut raw = scene.raw();
    raw.shake_hands().unwrap();
    for _ in 0..200 {
        let head = header(Code::RemMemReg, 0);
        for half in [&head[..6], &head[6..]] {
            // The message is no good, so that the connection ends by and by.
            if raw.link.send_raw(half, &[raw.memory.fd(); 8]).is_err() {
                raw = scene.raw();
            }
        }
    }
    drop(raw);
    assert!(good(&mut scene.running(1), 0));
    assert!(
        descriptors(&scene) <= files + 12,
        "{files} before, {} after",
        descriptors(&scene)
    );
    scene.end();
}

fn header(code: Code, len: u32) -> Vec<u8> {
    [code as u32, 1, len].map(u32::to_ne_bytes).concat()
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

fn add(r: &mut Raw, change: fn(&mut Region)) -> Result<(), ClientError> {
    r.shake_hands()?;
    let mut region = r.region();
    change(&mut region);
    r.add_region(region, &[r.memory.fd()])
}

fn add_file(r: &mut Raw, file: &File) -> Result<(), ClientError> {
    r.shake_hands()?;
    let fds: [BorrowedFd<'_>; 1] = [file.as_fd()];
    let region = Region {
        len: 4096,
        ..r.region()
    };
    r.add_region(region, &fds)
}

fn vring(r: &mut Raw, code: Code, index: u16, number: u32) -> Result<(), ClientError> {
    r.shake_hands()?;
    r.link
        .send(code as u32, 0, &vring_state(index, number), &[])
}

fn config(r: &mut Raw, code: Code, offset: u32, len: u32) -> Result<(), ClientError> {
    r.shake_hands()?;
    let body = [offset, len, 0, 0].map(u32::to_ne_bytes).concat();
    r.link.send(code as u32, 0, &body, &[])
}

fn inflight(size: u64, offset: u64, queues: u16, queue_size: u16) -> Vec<u8> {
    let mut body = [size, offset].map(u64::to_ne_bytes).concat();
    body.extend([queues, queue_size, 0, 0].map(u16::to_ne_bytes).concat());
    body
}

/// Files that the backend has open.
fn descriptors(scene: &Scene) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", scene.rig.server.pid()))
        .unwrap()
        .count()
}
