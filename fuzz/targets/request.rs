//! A guest that writes anything into its rings, descriptors, request headers and in-flight region: one queue, served without
//! a thread, over memory whose neighbours are watched.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, LazyLock};

use firn_fuzz::{Input, eventfd, memfd};
use libfuzzer_sys::fuzz_target;
use vhost_backend::blk::config::Features;
use vhost_backend::inflight::InflightRegion;
use vhost_backend::memory::{DirtyLog, GuestMemory, RegionSpec};
use vhost_backend::testing::{BareQueue, RamDisk, Trick};
use vhost_backend::virtq::ring::{RingPlaces, avail_len, descriptor_table_len, used_len};
use vhost_backend::workers::{Call, Kick, QueueSetup, QueueWiring};

/// Guest addresses of three regions: the second follows the first without a gap and has an odd length, the third
/// stands alone and ends with the address space.
const REGIONS: [(u64, u64); 3] = [
    (0x10_0000, 0x4_0000),
    (0x14_0000, 0x1235),
    (u64::MAX - 0x2000, 0x2000),
];
/// Where each lies in its file; what is before and behind must stay as it is.
const MARGIN: u64 = 0x1000;
const CANARY: u8 = 0xc5;
const DISK: usize = 64 << 10;
const RINGS: [u64; 3] = [0x10_0000, 0x11_0000, 0x12_0000];
const BUFFERS: u64 = 0x13_0000;

struct Guest {
    files: Vec<File>,
    memory: Arc<GuestMemory>,
}

fn canaries(region: usize) -> [(u64, usize); 2] {
    let end = MARGIN + REGIONS[region].1;
    [(0, MARGIN as usize), (end, 0x1000)]
}

/// Made once: mapping is what costs.
static GUEST: LazyLock<Guest> = LazyLock::new(|| {
    let files: Vec<File> = REGIONS
        .iter()
        .map(|(_, len)| memfd(len + 3 * MARGIN))
        .collect();
    let regions = REGIONS.iter().zip(&files).map(|(&(guest, len), file)| {
        let spec = RegionSpec {
            guest,
            len,
            user: guest.min(1 << 46),
            offset: MARGIN,
        };
        (spec, file.try_clone().unwrap())
    });
    let memory = Arc::new(GuestMemory::new(regions).unwrap());
    for (region, file) in files.iter().enumerate() {
        for (at, len) in canaries(region) {
            file.write_all_at(&vec![CANARY; len], at).unwrap();
        }
    }
    Guest { files, memory }
});

impl Guest {
    /// What is not in one region is not written.
    fn poke(&self, at: u64, bytes: &[u8]) {
        for (region, (start, len)) in REGIONS.iter().enumerate() {
            if at >= *start && at - start <= len.saturating_sub(bytes.len() as u64) {
                self.files[region]
                    .write_all_at(bytes, MARGIN + (at - start))
                    .unwrap();
            }
        }
    }

    fn check(&self) {
        for (region, file) in self.files.iter().enumerate() {
            for (at, len) in canaries(region) {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, at).unwrap();
                assert!(
                    bytes.iter().all(|&b| b == CANARY),
                    "written outside of region {region}"
                );
            }
        }
    }

    fn clear(&self) {
        self.poke(RINGS[0], &[0; 0x4000]);
        self.poke(RINGS[1], &[0; 0x1000]);
        self.poke(RINGS[2], &[0; 0x3000]);
        self.poke(BUFFERS, &[0; 0x1000]);
    }
}

/// An address, mostly one that is near something.
fn address(input: &mut Input) -> u64 {
    let kind = input.u8();
    let low = u64::from(input.u16());
    match kind % 8 {
        0..=3 => BUFFERS + (low & 0xfff),
        4 => RINGS[usize::from(kind >> 3) % 3] + (low & 0x3fff),
        5 => 0x14_0000 - 0x100 + (low & 0x1fff),
        6 => (u64::MAX - 0x2100).wrapping_add(low & 0x2fff),
        _ => input.u64(),
    }
}

fuzz_target!(|data: &[u8]| {
    let input = &mut Input::new(data);
    let guest = &*GUEST;
    guest.clear();

    let shape = input.u8();
    let size = 1u16 << (shape % 11);
    let mut features = Features::offered(shape & 0x10 != 0);
    for (bit, feature) in [
        Features::INDIRECT_DESC,
        Features::EVENT_IDX,
        Features::FLUSH,
    ]
    .into_iter()
    .enumerate()
    {
        if input.u8() & 1 << bit != 0 {
            features.0 &= !(1 << feature);
        }
    }
    let disk = RamDisk::new("fuzz", DISK);
    disk.play([Trick::None, Trick::Reverse, Trick::Fail][usize::from(shape >> 5) % 3]);

    let region = (shape & 0x80 != 0).then(|| {
        let file = InflightRegion::create(1, size).unwrap();
        let len = InflightRegion::len_for(1, size);
        for _ in 0..input.u8() % 8 {
            let at = u64::from(input.u16()) % len;
            let value = input.u64().to_le_bytes();
            let room = value.len().min((len - at) as usize);
            file.write_all_at(&value[..room], at).unwrap();
        }
        InflightRegion::attach(file, 0, len, 1, size).unwrap()
    });
    let mut log_kept = None;
    let log = (shape & 0x40 != 0).then(|| {
        let log = memfd(0x1000);
        log_kept = Some(log.try_clone().unwrap());
        Arc::new(DirtyLog::new(log, 0, 0x25).unwrap())
    });

    let place = |at, len| guest.memory.guest_place(at, len).unwrap();
    let wiring = QueueWiring {
        memory: Arc::clone(&guest.memory),
        places: RingPlaces {
            table: place(RINGS[0], descriptor_table_len(size)),
            avail: place(RINGS[1], avail_len(size)),
            used: place(RINGS[2], used_len(size)),
            used_log: log.as_ref().map(|_| RINGS[2]),
        },
        log,
        kick: Arc::new(Kick::new(eventfd()).unwrap()),
        call: Some(Arc::new(Call::new(eventfd(), "call").unwrap())),
        err: None,
        enabled: true,
    };
    let base = u16::from(input.u8());
    guest.poke(RINGS[1] + 2, &base.to_le_bytes());
    let setup = QueueSetup {
        disk: Arc::clone(&disk),
        index: 0,
        size,
        features,
        base,
        inflight: region.as_ref().and_then(|region| region.queue(0)),
        wiring,
    };
    let Ok(mut queue) = BareQueue::start(setup) else {
        return;
    };

    let mut avail = base;
    let mut taken = 0;
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        match input.u8() % 8 {
            // A descriptor, in the ring's table or, through its address, in an indirect one.
            op @ 0..=2 => {
                let index = u64::from(input.u8());
                let table = if op == 2 { BUFFERS + 0x100 } else { RINGS[0] };
                let mut raw = [0; 16];
                raw[..8].copy_from_slice(&address(input).to_le_bytes());
                let len = match input.u8() {
                    kind @ 0..0xc0 => u32::from(kind & 7) * 512 + u32::from(kind >> 3 & 1),
                    0xc0..0xe0 => u32::from(input.u8()) * 16,
                    _ => input.u32(),
                };
                raw[8..12].copy_from_slice(&len.to_le_bytes());
                raw[12] = input.u8() & 7;
                raw[14..].copy_from_slice(&u16::from(input.u8()).to_le_bytes());
                guest.poke(table + index * 16, &raw);
            }
            // A head is offered.
            3 => {
                let head = match input.u8() {
                    0xff => input.u16(),
                    low => u16::from(low),
                };
                let slot = u64::from(avail % size);
                guest.poke(RINGS[1] + 4 + slot * 2, &head.to_le_bytes());
                avail = avail.wrapping_add(1);
                guest.poke(RINGS[1] + 2, &avail.to_le_bytes());
            }
            // A request's header.
            4 => {
                let at = BUFFERS + (u64::from(input.u8()) << 4);
                let mut raw = [0; 16];
                raw[0] = input.u8() & 15;
                raw[8] = input.u8();
                raw[15] = input.u8();
                guest.poke(at, &raw);
            }
            // Anything anywhere.
            5 => {
                let at = address(input);
                let len = usize::from(input.u8() & 31);
                guest.poke(at, input.bytes(len));
            }
            6 => {
                avail = input.u16();
                guest.poke(RINGS[1] + 2, &avail.to_le_bytes());
            }
            _ => taken += queue.round(),
        }
    }
    taken += queue.round();
    assert!(
        taken <= 65 * usize::from(size),
        "{taken} requests were taken of {size}"
    );
    guest.check();
    if let Some(log) = log_kept {
        let mut bytes = [0; 0x1000 - 0x25];
        log.read_exact_at(&mut bytes, 0x25).unwrap();
        assert!(
            bytes.iter().all(|&b| b == 0),
            "written behind the dirty log"
        );
    }
});
