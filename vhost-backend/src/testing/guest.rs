//! A guest's side: memory, and the driver's half of the rings.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::memory::{GuestMemory, Mapping, RegionSpec};

/// Guest address of its memory.
pub const MEMORY_AT: u64 = 0x10_0000;
/// Where the front end claims to have it.
pub const USER_AT: u64 = 0x7f12_0000_0000;
const MEMORY_LEN: u64 = 16 << 20;
/// Rings of queue n begin at n times this; buffers behind the rings of all.
const RINGS: u64 = 0x8000;
const BUFFERS: u64 = 0x10_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A buffer that the device reads.
pub fn seg_out(addr: u64, len: u32) -> (u64, u32, bool) {
    (addr, len, false)
}

/// A buffer that the device writes.
pub fn seg_in(addr: u64, len: u32) -> (u64, u32, bool) {
    (addr, len, true)
}

struct Driver {
    size: u16,
    avail: u16,
    used: u16,
    free: Vec<u16>,
    chains: Vec<Vec<u16>>,
}

/// A guest with some queues, all of one size.
pub struct Guest {
    pub file: File,
    map: Mapping,
    queues: Vec<Driver>,
    buffers: u64,
}

impl Guest {
    pub fn new(queues: u16, size: u16) -> Self {
        let fd: OwnedFd =
            rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, MEMORY_LEN).unwrap();
        let file = File::from(fd);
        let map = Mapping::new(file.try_clone().unwrap(), 0, MEMORY_LEN, "guest").unwrap();
        let driver = |_| Driver {
            size,
            avail: 0,
            used: 0,
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); size.into()],
        };
        Self {
            file,
            map,
            queues: (0..queues).map(driver).collect(),
            buffers: BUFFERS,
        }
    }

    /// Its memory as the backend would map it.
    pub fn memory(&self) -> Arc<GuestMemory> {
        let file = self.file.try_clone().unwrap();
        Arc::new(GuestMemory::new([(self.region(), file)]).unwrap())
    }

    pub fn region(&self) -> RegionSpec {
        RegionSpec {
            guest: MEMORY_AT,
            len: MEMORY_LEN,
            user: USER_AT,
            offset: 0,
        }
    }

    pub fn queues(&self) -> u16 {
        self.queues.len() as u16
    }

    pub fn size(&self) -> u16 {
        self.queues[0].size
    }

    /// Offsets of table, avail ring and used ring of a queue.
    pub fn rings(&self, queue: u16) -> [u64; 3] {
        let at = u64::from(queue) * RINGS;
        [at, at + 0x4000, at + 0x5000]
    }

    /// A fresh buffer; its guest address.
    pub fn buffer(&mut self, len: u64) -> u64 {
        let at = self.buffers;
        self.buffers += len.next_multiple_of(16);
        assert!(
            self.buffers <= MEMORY_LEN,
            "the guest is too small for this test"
        );
        MEMORY_AT + at
    }

    /// A fresh buffer with this content.
    pub fn filled(&mut self, data: &[u8]) -> u64 {
        let at = self.buffer(data.len() as u64);
        self.write(at, data);
        at
    }

    pub fn write(&self, guest: u64, data: &[u8]) {
        self.map
            .slice((guest - MEMORY_AT) as usize, data.len())
            .unwrap()
            .copy_from(data);
    }

    pub fn read(&self, guest: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.map
            .slice((guest - MEMORY_AT) as usize, len)
            .unwrap()
            .copy_to(&mut out);
        out
    }

    /// A request header in a buffer of its own.
    pub fn header(&mut self, kind: u32, sector: u64) -> u64 {
        let mut raw = [0; 16];
        raw[..4].copy_from_slice(&kind.to_le_bytes());
        raw[8..].copy_from_slice(&sector.to_le_bytes());
        self.filled(&raw)
    }

    fn put_descriptor(&self, table: u64, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&addr.to_le_bytes());
        raw[8..12].copy_from_slice(&len.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        self.write(table + u64::from(index) * 16, &raw);
    }

    /// Puts a chain into the table, without offering it; its head.
    pub fn chain(&mut self, queue: u16, buffers: &[(u64, u32, bool)]) -> u16 {
        let table = MEMORY_AT + self.rings(queue)[0];
        let driver = &mut self.queues[usize::from(queue)];
        let list: Vec<u16> = buffers.iter().map(|_| driver.free.pop().unwrap()).collect();
        driver.chains[usize::from(list[0])] = list.clone();
        for (i, &(addr, len, write)) in buffers.iter().enumerate() {
            let next = list.get(i + 1).copied();
            let flags = if write { WRITE } else { 0 } | next.map_or(0, |_| NEXT);
            self.put_descriptor(table, list[i], addr, len, flags, next.unwrap_or(0));
        }
        list[0]
    }

    /// Like `chain`, by an indirect table.
    pub fn indirect_chain(&mut self, queue: u16, buffers: &[(u64, u32, bool)]) -> u16 {
        let indirect = self.buffer(buffers.len() as u64 * 16);
        for (i, &(addr, len, write)) in buffers.iter().enumerate() {
            let last = i + 1 == buffers.len();
            let flags = if write { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.put_descriptor(indirect, i as u16, addr, len, flags, i as u16 + 1);
        }
        let table = MEMORY_AT + self.rings(queue)[0];
        let driver = &mut self.queues[usize::from(queue)];
        let head = driver.free.pop().unwrap();
        driver.chains[usize::from(head)] = vec![head];
        self.put_descriptor(
            table,
            head,
            indirect,
            buffers.len() as u32 * 16,
            INDIRECT,
            0,
        );
        head
    }

    /// Makes a head available.
    pub fn offer(&mut self, queue: u16, head: u16) {
        let at = self.rings(queue)[1] as usize;
        let driver = &mut self.queues[usize::from(queue)];
        let slot = usize::from(driver.avail % driver.size);
        self.map
            .store(at + 4 + slot * 2, head.to_le(), Relaxed)
            .unwrap();
        driver.avail = driver.avail.wrapping_add(1);
        self.map
            .store(at + 2, driver.avail.to_le(), Release)
            .unwrap();
    }

    /// Chains and offers buffers.
    pub fn send(&mut self, queue: u16, buffers: &[(u64, u32, bool)]) -> u16 {
        let head = self.chain(queue, buffers);
        self.offer(queue, head);
        head
    }

    pub fn used_index(&self, queue: u16) -> u16 {
        u16::from_le(
            self.map
                .load(self.rings(queue)[2] as usize + 2, Acquire)
                .unwrap(),
        )
    }

    pub fn used_flags(&self, queue: u16) -> u16 {
        u16::from_le(
            self.map
                .load(self.rings(queue)[2] as usize, Acquire)
                .unwrap(),
        )
    }

    /// Overwrites the avail index.
    pub fn set_avail_index(&self, queue: u16, avail: u16) {
        self.map
            .store(self.rings(queue)[1] as usize + 2, avail.to_le(), Release)
            .unwrap();
    }

    /// With EVENT_IDX: signal only once the used index passes this.
    pub fn set_used_event(&self, queue: u16, event: u16) {
        let at = self.rings(queue)[1] as usize + 4 + 2 * usize::from(self.size());
        self.map.store(at, event.to_le(), Release).unwrap();
    }

    /// With EVENT_IDX: the device wants a kick once the avail index passes this.
    pub fn avail_event(&self, queue: u16) -> u16 {
        let at = self.rings(queue)[2] as usize + 4 + 8 * usize::from(self.size());
        u16::from_le(self.map.load(at, Acquire).unwrap())
    }

    /// Used elements since the last time, as (head, length); their descriptors are free again.
    pub fn reap(&mut self, queue: u16) -> Vec<(u16, u32)> {
        let index = self.used_index(queue);
        let at = self.rings(queue)[2] as usize;
        let driver = &mut self.queues[usize::from(queue)];
        let mut out = Vec::new();
        while driver.used != index {
            let slot = at + 4 + usize::from(driver.used % driver.size) * 8;
            let id = u32::from_le(self.map.load(slot, Relaxed).unwrap());
            let len = u32::from_le(self.map.load(slot + 4, Relaxed).unwrap());
            let chain = std::mem::take(&mut driver.chains[id as usize]);
            assert!(
                !chain.is_empty(),
                "head {id} was given back, but is not with the device"
            );
            driver.free.extend(chain);
            driver.used = driver.used.wrapping_add(1);
            out.push((id as u16, len));
        }
        out
    }

    /// Waits for so many used elements.
    pub fn wait(&mut self, queue: u16, count: usize) -> Vec<(u16, u32)> {
        let mut got = Vec::new();
        super::eventually("used elements", || {
            got.extend(self.reap(queue));
            got.len() >= count
        });
        assert_eq!(got.len(), count, "{got:?}");
        got
    }
}
