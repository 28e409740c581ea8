//! A whole session: messages of any kind with descriptors of any kind, whole or not, and a guest that puts things into
//! its memory and kicks in between. One worker and one vDisk in memory serve all of them.
#![no_main]

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock};

use firn_fuzz::{Input, eventfd, memfd};
use libfuzzer_sys::fuzz_target;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost_backend::session::{Attachments, FrontEnd, serve};
use vhost_backend::testing::{RamDisk, Trick, pool};

const MEMORY: u64 = 0x1_0000;
const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7f00_0000_0000;
/// Offsets of the rings of queue n, from n times 0x4000; buffers behind those of both queues.
const RINGS: [u64; 3] = [0, 0x1000, 0x2000];
const BUFFERS: u64 = 0x8000;
const QUEUES: u64 = 2;

struct Served {
    disk: Arc<RamDisk>,
    /// A thread that serves one connection after the other.
    sessions: Sender<(UnixStream, Sender<()>)>,
}

static SERVED: LazyLock<Served> = LazyLock::new(|| {
    let disk = RamDisk::new("fuzz", 64 << 10);
    let pool = pool(std::slice::from_ref(&disk));
    let (sessions, inbox) = channel::<(UnixStream, Sender<()>)>();
    let served = Arc::clone(&disk);
    std::thread::spawn(move || {
        for (stream, ended) in inbox {
            let front_end = FrontEnd::of(&stream).unwrap();
            let seat = Attachments::default().admit(&stream, front_end).unwrap();
            serve(stream, seat, Arc::clone(&served), Arc::clone(&pool));
            let _ = ended.send(());
        }
    });
    Served { disk, sessions }
});

/// What may come along with a message.
struct Files {
    memory: File,
    short: File,
    events: [File; 3],
    null: File,
    pipe: OwnedFd,
    socket: UnixStream,
}

impl Files {
    fn new() -> Self {
        Self {
            memory: memfd(MEMORY),
            short: memfd(100),
            events: [eventfd(), eventfd(), eventfd()],
            null: File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .unwrap(),
            pipe: std::io::pipe().unwrap().1.into(),
            socket: UnixStream::pair().unwrap().0,
        }
    }

    fn get(&self, which: u8) -> BorrowedFd<'_> {
        match which % 8 {
            0 => self.memory.as_fd(),
            1 => self.short.as_fd(),
            2 => self.null.as_fd(),
            3 => self.pipe.as_fd(),
            4 => self.socket.as_fd(),
            n => self.events[usize::from(n) - 5].as_fd(),
        }
    }
}

struct Peer {
    stream: UnixStream,
    files: Files,
    /// Whether the connection is of any further use.
    open: bool,
}

impl Peer {
    fn send_raw(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, flags);
        self.open &= sent == Ok(bytes.len());
    }

    /// A message; `flags` beside the version.
    fn send(&mut self, request: u32, flags: u32, body: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut bytes = [request, 1 | flags, body.len() as u32]
            .map(u32::to_ne_bytes)
            .concat();
        bytes.extend_from_slice(body);
        self.send_raw(&bytes, fds);
    }

    /// A request that answers, and its answer: after it, everything that was said before has happened.
    fn settle(&mut self) {
        self.send(1, 0, &[], &[]);
        let mut answers = [0; 4096];
        while self.open {
            match self.stream.read(&mut answers) {
                Ok(0) | Err(_) => self.open = false,
                // The answer to GET_FEATURES ends with what is always the same.
                Ok(len) => {
                    if answers[..len]
                        .windows(12)
                        .any(|w| w == [1, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0])
                    {
                        return;
                    }
                }
            }
        }
    }

    fn duplicate(&self, which: u8) -> OwnedFd {
        self.files.get(which).try_clone_to_owned().unwrap()
    }

    fn words(&mut self, request: u32, words: &[u64], which: Option<u8>) {
        let body = words
            .iter()
            .flat_map(|w| w.to_ne_bytes())
            .collect::<Vec<_>>();
        let file = which.map(|which| self.duplicate(which));
        let fds: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        self.send(request, 0, &body, &fds);
    }

    /// What a decent front end says before its first queue.
    fn shake_hands(&mut self, without: u64) {
        self.words(3, &[], None);
        self.words(1, &[], None);
        self.words(16, &[0b1001_0010_0000_1011], None);
        let offered: u64 = 0x1_7000_7e46;
        self.words(2, &[offered & !without], None);
        self.words(37, &[0, GUEST, MEMORY, USER, 0], Some(0));
    }

    fn start(&mut self, queue: u64, size: u64, base: u64) {
        let at = USER + queue * 0x4000;
        self.words(8, &[queue | size << 32], None);
        self.words(10, &[queue | base << 32], None);
        self.words(
            9,
            &[queue, at + RINGS[0], at + RINGS[2], at + RINGS[1], 0],
            None,
        );
        self.words(13, &[queue], Some(5));
        self.words(12, &[queue], Some(6));
        self.words(18, &[queue | 1 << 32], None);
    }
}

fuzz_target!(|data: &[u8]| {
    let served = &*SERVED;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (ended, end) = channel();
    served.sessions.send((theirs, ended)).unwrap();
    let mut peer = Peer {
        stream: ours,
        files: Files::new(),
        open: true,
    };
    let input = &mut Input::new(data);
    let mut avail = [0u16; QUEUES as usize];

    for _ in 0..48 {
        if input.is_empty() || !peer.open {
            break;
        }
        let op = input.u8();
        match op % 16 {
            0 => peer.shake_hands(u64::from(input.u8()) << 24),
            1 => peer.start(
                u64::from(input.u8() & 1),
                1 << (input.u8() % 12),
                u64::from(input.u8()),
            ),
            // A message with a body of 64-bit words, most of them small or an address.
            2..=5 => {
                let request = u32::from(input.u8() % 46);
                let shape = input.u8();
                let words: Vec<u64> = (0..shape & 7)
                    .map(|_| match input.u8() {
                        0xff => input.u64(),
                        0xfe => GUEST + u64::from(input.u16()),
                        0xfd => USER + u64::from(input.u16()),
                        0xfc => u64::from(input.u16()) << 32 | u64::from(input.u8()),
                        small => u64::from(small),
                    })
                    .collect();
                let mut body: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
                if shape & 8 != 0 {
                    body.extend_from_slice(input.bytes(4));
                }
                let mut fds = Vec::new();
                for _ in 0..shape >> 4 & 3 {
                    let which = input.u8();
                    fds.push(peer.duplicate(which));
                }
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                peer.send(request, u32::from(shape >> 6 & 1) * 8, &body, &fds);
            }
            // Bytes.
            6 => {
                let len = usize::from(input.u8());
                let bytes = input.bytes(len);
                if !bytes.is_empty() {
                    let file = peer.duplicate(op >> 4);
                    let fds = [file.as_fd(); 1];
                    peer.send_raw(bytes, if op & 0x80 == 0 { &[] } else { &fds });
                }
                // The rest of a message may be what the next answer waits for.
                let _ = peer.stream.shutdown(std::net::Shutdown::Write);
                peer.open = false;
            }
            // A chain: header, data, status, the whole of it offered.
            7..=9 => {
                let queue = u64::from(op >> 4 & 1);
                let head = u64::from(input.u8() & 15);
                let (kind, sector, len) = (input.u8() & 15, input.u8(), u32::from(input.u8()) * 64);
                let mut header = [0; 16];
                (header[0], header[8]) = (kind, sector);
                let poke = |at: u64, bytes: &[u8]| {
                    let room = MEMORY.saturating_sub(at).min(bytes.len() as u64);
                    peer.files
                        .memory
                        .write_all_at(&bytes[..room as usize], at)
                        .unwrap();
                };
                poke(BUFFERS + head * 0x20, &header);
                let parts = [
                    (GUEST + BUFFERS + head * 0x20, 16, 1u16),
                    (
                        GUEST + BUFFERS + 0x1000,
                        len,
                        if kind == 0 || kind == 8 { 3 } else { 1 },
                    ),
                    (GUEST + BUFFERS + 0x10 + head * 0x20, 1, 2),
                ];
                for (i, (addr, len, flags)) in (0u16..).zip(parts) {
                    let at = queue * 0x4000 + (head + u64::from(i)) * 16;
                    poke(at, &addr.to_le_bytes());
                    poke(at + 8, &len.to_le_bytes());
                    poke(at + 12, &flags.to_le_bytes());
                    poke(at + 14, &(head as u16 + i + 1).to_le_bytes());
                }
                let avail = &mut avail[queue as usize];
                let ring = queue * 0x4000 + RINGS[1];
                poke(
                    ring + 4 + u64::from(*avail % 16) * 2,
                    &(head as u16).to_le_bytes(),
                );
                *avail = avail.wrapping_add(1);
                poke(ring + 2, &avail.to_le_bytes());
                let _ = peer.files.events[1].write(&1u64.to_ne_bytes());
            }
            10 => {
                let at = u64::from(input.u16()).min(MEMORY - 16);
                let len = usize::from(input.u8() & 15);
                peer.files
                    .memory
                    .write_all_at(input.bytes(len), at)
                    .unwrap();
                let _ = peer.files.events[1].write(&1u64.to_ne_bytes());
            }
            11 => served
                .disk
                .play([Trick::None, Trick::Reverse, Trick::Fail][usize::from(op >> 4) % 3]),
            12 => peer.words(11, &[u64::from(op >> 4 & 1)], None),
            13 => peer.words(38, &[0, GUEST, MEMORY, USER, 0], None),
            _ => peer.settle(),
        }
    }
    if peer.open {
        peer.settle();
    }
    served.disk.play(Trick::None);
    // Answers that nobody reads must not keep the session, nor the next input, waiting.
    let _ = peer.stream.shutdown(std::net::Shutdown::Both);
    end.recv().expect("the session ends");
    served.disk.seen.lock().clear();
});
