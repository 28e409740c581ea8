use std::collections::HashMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

#[derive(Default)]
struct Tables {
    ring: Vec<Descriptor>,
    indirect: HashMap<u64, Vec<Descriptor>>,
}

impl DescriptorSource for Tables {
    fn table(&self, index: u16) -> Option<Descriptor> {
        self.ring.get(usize::from(index)).copied()
    }

    fn indirect(&self, table: u64, index: u16) -> Option<Descriptor> {
        self.indirect.get(&table)?.get(usize::from(index)).copied()
    }
}

fn d(addr: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        addr,
        len,
        flags,
        next,
    }
}

const LIMITS: Limits = Limits {
    queue_size: 8,
    descriptors: 8,
    indirect: true,
};

fn walked(tables: &Tables, head: u16, limits: Limits) -> Result<Chain, ChainError> {
    let mut chain = Chain::default();
    walk(tables, head, limits, &mut chain).map(|()| chain)
}

fn ring(descriptors: &[Descriptor]) -> Tables {
    let mut ring = descriptors.to_vec();
    ring.resize(8, d(0, 0, 0, 0));
    Tables {
        ring,
        ..Default::default()
    }
}

#[test]
fn the_words_of_a_descriptor() {
    let raw: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    let low = u64::from_ne_bytes(*raw.first_chunk().unwrap());
    let high = u64::from_ne_bytes(*raw.last_chunk().unwrap());
    let want = d(0x0807_0605_0403_0201, 0x0c0b_0a09, 0x0e0d, 0x100f);
    assert_eq!(Descriptor::from_words([low, high]), want);
}

#[test]
fn buffers_come_in_order_and_by_direction() {
    let tables = ring(&[
        d(100, 16, NEXT, 3),
        d(300, 1, WRITE, 0),
        d(200, 512, NEXT | WRITE, 1),
        d(150, 0, NEXT, 2),
    ]);
    let chain = walked(&tables, 0, LIMITS).unwrap();
    assert_eq!(chain.readable, [Span { addr: 100, len: 16 }]);
    assert_eq!(
        chain.writable,
        [
            Span {
                addr: 200,
                len: 512
            },
            Span { addr: 300, len: 1 }
        ]
    );
    assert_eq!((chain.readable_len(), chain.writable_len()), (16, 513));
}

#[test]
fn an_indirect_table_may_follow_direct_descriptors() {
    let mut tables = ring(&[d(100, 16, NEXT, 1), d(0x1000, 32, INDIRECT, 0)]);
    tables.indirect.insert(
        0x1000,
        vec![d(200, 8, NEXT | WRITE, 1), d(300, 1, WRITE, 9)],
    );
    let chain = walked(&tables, 0, LIMITS).unwrap();
    assert_eq!((chain.readable.len(), chain.writable.len()), (1, 2));
    let off = Limits {
        indirect: false,
        ..LIMITS
    };
    assert_eq!(
        walked(&tables, 0, off).unwrap_err(),
        ChainError::IndirectPlace
    );
}

#[test]
fn every_malformed_chain_has_its_error() {
    let looping = ring(&[d(1, 1, NEXT, 1), d(1, 1, NEXT, 0)]);
    assert_eq!(
        walked(&looping, 0, LIMITS).unwrap_err(),
        ChainError::TooLong(8)
    );
    let outside = ring(&[d(1, 1, NEXT, 8)]);
    assert_eq!(
        walked(&outside, 0, LIMITS).unwrap_err(),
        ChainError::Index(8)
    );
    assert_eq!(
        walked(&outside, 9, LIMITS).unwrap_err(),
        ChainError::Index(9)
    );
    let order = ring(&[d(1, 1, NEXT | WRITE, 1), d(1, 1, 0, 0)]);
    assert_eq!(walked(&order, 0, LIMITS).unwrap_err(), ChainError::Order);
    let unreadable = Tables::default();
    assert_eq!(
        walked(&unreadable, 0, LIMITS).unwrap_err(),
        ChainError::Memory
    );
    for len in [0, 8, 17, 16 * 65536] {
        let table = ring(&[d(0x1000, len, INDIRECT, 0)]);
        assert_eq!(
            walked(&table, 0, LIMITS).unwrap_err(),
            ChainError::IndirectLength(len)
        );
    }
    let next = ring(&[d(0x1000, 16, INDIRECT | NEXT, 1)]);
    assert_eq!(
        walked(&next, 0, LIMITS).unwrap_err(),
        ChainError::IndirectPlace
    );
    let mut nested = ring(&[d(0x1000, 16, INDIRECT, 0)]);
    nested
        .indirect
        .insert(0x1000, vec![d(0x1000, 16, INDIRECT, 0)]);
    assert_eq!(
        walked(&nested, 0, LIMITS).unwrap_err(),
        ChainError::IndirectPlace
    );
    nested.indirect.insert(0x1000, vec![d(1, 1, NEXT, 0)]);
    assert_eq!(
        walked(&nested, 0, LIMITS).unwrap_err(),
        ChainError::TooLong(8)
    );
    nested.indirect.insert(0x1000, vec![d(1, 1, NEXT, 1)]);
    assert_eq!(
        walked(&nested, 0, LIMITS).unwrap_err(),
        ChainError::Index(1)
    );
}

/// A source that answers with noise: whatever it says, a walk ends and stays within its bounds.
struct Noise(std::cell::RefCell<SmallRng>);

impl Noise {
    fn descriptor(&self) -> Option<Descriptor> {
        let mut rng = self.0.borrow_mut();
        let flags = match rng.random_range(0..10) {
            0 => rng.random(),
            1 => INDIRECT,
            2..5 => NEXT | WRITE,
            _ => NEXT,
        };
        let addr = if rng.random() {
            rng.random()
        } else {
            rng.random_range(0..64) * 16
        };
        let len = if rng.random() {
            rng.random()
        } else {
            rng.random_range(0..300) * 16
        };
        rng.random_ratio(99, 100)
            .then(|| d(addr, len, flags, rng.random_range(0..270)))
    }
}

impl DescriptorSource for Noise {
    fn table(&self, _: u16) -> Option<Descriptor> {
        self.descriptor()
    }

    fn indirect(&self, _: u64, _: u16) -> Option<Descriptor> {
        self.descriptor()
    }
}

#[test]
fn noise_does_no_harm() {
    let mut chain = Chain::default();
    for seed in 0..200_000 {
        let noise = Noise(SmallRng::seed_from_u64(seed).into());
        let limits = Limits {
            queue_size: 256,
            descriptors: 256,
            indirect: seed % 2 == 0,
        };
        let _ = walk(&noise, (seed % 300) as u16, limits, &mut chain);
        assert!(
            chain.readable.len() + chain.writable.len() <= 512,
            "seed {seed}"
        );
        assert!(
            chain
                .readable
                .iter()
                .chain(&chain.writable)
                .all(|s| s.len > 0),
            "seed {seed}"
        );
    }
}

/// The oracle: virtio-queue's own walker, over the same memory. Where both accept a chain they must agree.
#[test]
fn chains_are_walked_as_virtio_queue_walks_them() {
    use virtio_queue::{Queue, QueueOwnedT, QueueT};
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    const SIZE: u16 = 16;
    struct Memory<'a>(&'a GuestMemoryMmap);
    impl DescriptorSource for Memory<'_> {
        fn table(&self, index: u16) -> Option<Descriptor> {
            self.indirect(0x1000, index)
        }

        fn indirect(&self, table: u64, index: u16) -> Option<Descriptor> {
            let mut raw = [0; 16];
            self.0
                .read_slice(&mut raw, GuestAddress(table + u64::from(index) * 16))
                .ok()?;
            let low = u64::from_le_bytes(*raw.first_chunk().unwrap());
            let high = u64::from_le_bytes(*raw.last_chunk().unwrap());
            Some(Descriptor::from_words([low.to_le(), high.to_le()]))
        }
    }

    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 16)]).unwrap();
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut agreed, mut indirect) = (0, 0);
    for round in 0..20_000 {
        // A permutation, so that most chains end; now and then one that doesn't.
        for table in [0x1000u64, 0x2000] {
            for index in 0..u64::from(SIZE) {
                let last = rng.random_ratio(1, 4);
                let next = if rng.random_ratio(1, 50) {
                    0
                } else {
                    index as u16 + 1
                };
                let mut flags = if last { 0 } else { NEXT };
                if index > 3 {
                    flags |= WRITE;
                }
                let mut one = (rng.random_range(0..0x8000u64), rng.random_range(1..4096u32));
                if table == 0x1000 && last && rng.random_ratio(1, 3) {
                    one = (0x2000, u32::from(SIZE) * 16);
                    flags = INDIRECT;
                }
                let mut raw = one.0.to_le_bytes().to_vec();
                raw.extend(one.1.to_le_bytes());
                raw.extend(flags.to_le_bytes());
                raw.extend(next.to_le_bytes());
                memory
                    .write_slice(&raw, GuestAddress(table + index * 16))
                    .unwrap();
            }
        }
        let head = rng.random_range(0..SIZE);
        memory
            .write_slice(&[0, 0, 1, 0], GuestAddress(0x3000))
            .unwrap();
        memory
            .write_slice(&head.to_le_bytes(), GuestAddress(0x3004))
            .unwrap();
        let mut queue = Queue::new(SIZE).unwrap();
        queue.set_size(SIZE);
        queue
            .try_set_desc_table_address(GuestAddress(0x1000))
            .unwrap();
        queue
            .try_set_avail_ring_address(GuestAddress(0x3000))
            .unwrap();
        queue
            .try_set_used_ring_address(GuestAddress(0x4000))
            .unwrap();
        queue.set_ready(true);
        let theirs: Vec<_> = queue
            .iter(&memory)
            .unwrap()
            .next()
            .unwrap()
            .map(|d| (d.addr().0, d.len()))
            .collect();
        let limits = Limits {
            queue_size: SIZE,
            descriptors: 2 * SIZE,
            indirect: true,
        };
        let Ok(ours) = walked_over(&Memory(&memory), head, limits) else {
            continue;
        };
        let ours: Vec<_> = ours
            .readable
            .iter()
            .chain(&ours.writable)
            .map(|s| (s.addr, s.len))
            .collect();
        assert_eq!(ours, theirs, "round {round}");
        agreed += 1;
        indirect += usize::from(ours.len() > 1);
    }
    assert!(agreed > 5_000 && indirect > 1_000, "{agreed} {indirect}");
}

fn walked_over(
    source: &impl DescriptorSource,
    head: u16,
    limits: Limits,
) -> Result<Chain, ChainError> {
    let mut chain = Chain::default();
    walk(source, head, limits, &mut chain).map(|()| chain)
}
