use super::*;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::inflight::Tracker;

const SIZE: u16 = 8;

fn region() -> (File, Arc<InflightRegion>) {
    let file = InflightRegion::create(2, SIZE).unwrap();
    let region = attach(&file);
    (file, region)
}

fn attach(file: &File) -> Arc<InflightRegion> {
    let len = InflightRegion::len_for(2, SIZE);
    InflightRegion::attach(file.try_clone().unwrap(), 0, len, 2, SIZE).unwrap()
}

#[test]
fn the_layout_is_that_of_the_specification() {
    assert_eq!(
        InflightRegion::len_for(1, 128),
        16 + 16 * 128 + 48,
        "a multiple of 64"
    );
    let (file, region) = region();
    let queue = region.queue(1).unwrap();
    queue.recover(SIZE, 0x0102, 0x0102, 0).unwrap();
    queue.set_counter(3, 0x1122_3344_5566_7788);
    queue.set_inflight(3, true);
    queue.push_batch(5);
    queue.push_batch(3);
    let mut raw = vec![0; InflightRegion::len_for(2, SIZE) as usize];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut raw, 0).unwrap();
    let queue = &raw[192..];
    assert_eq!(
        queue[..16],
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 3, 0, 2, 1]
    );
    let state = &queue[16 + 3 * 16..][..16];
    assert_eq!(
        state,
        [
            1, 0, 0, 0, 0, 0, 5, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11
        ]
    );
    assert!(region.queue(2).is_none());
}

#[test]
fn a_region_that_is_too_small_or_of_another_version_is_refused() {
    let file = InflightRegion::create(2, SIZE).unwrap();
    let len = InflightRegion::len_for(2, SIZE);
    let clone = || file.try_clone().unwrap();
    let small = InflightRegion::attach(clone(), 0, len - 1, 2, SIZE).unwrap_err();
    assert!(matches!(small, InflightError::TooSmall { .. }));
    let short = InflightRegion::attach(clone(), 64, len, 2, SIZE).unwrap_err();
    assert!(
        matches!(short, InflightError::Map(MapError::TooShort { .. })),
        "{short}"
    );
    let queue = attach(&file).queue(0).unwrap();
    assert!(matches!(
        queue.recover(16, 0, 0, 0).unwrap_err(),
        InflightError::QueueSize {
            region: 8,
            ring: 16
        }
    ));
    queue.store_u16(VERSION_AT, 2);
    assert!(matches!(
        queue.recover(SIZE, 0, 0, 0).unwrap_err(),
        InflightError::Version(2)
    ));
}

#[test]
fn what_does_not_fit_the_ring_is_not_believed() {
    let (_file, region) = region();
    let queue = region.queue(0).unwrap();
    type Spoil = fn(&QueueRegion);
    let spoil: [(&str, Spoil); 4] = [
        ("another size", |q| q.store_u16(DESC_NUM_AT, 4)),
        ("a used index from nowhere", |q| q.set_used_idx(500)),
        ("a list that leaves the ring", |q| {
            q.set_used_idx(98);
            q.store_u16(LAST_BATCH_HEAD_AT, SIZE);
        }),
        ("more than was offered", |q| {
            (0..4).for_each(|head| q.set_inflight(head, true))
        }),
    ];
    for (what, spoil) in spoil {
        queue.store_u16(VERSION_AT, 0);
        queue.recover(SIZE, 100, 103, 100).unwrap();
        spoil(&queue);
        let found = queue.recover(SIZE, 100, 103, 42).unwrap();
        assert!(found.discarded.is_some(), "{what}");
        assert_eq!((found.heads.len(), found.next_avail), (0, 42), "{what}");
        let again = queue.recover(SIZE, 100, 103, 42).unwrap();
        assert_eq!(again.discarded, None, "{what}: the region is sound again");
    }
}

/// What the guest and the device agree on: the model that every death is checked against.
struct Model {
    /// Heads that the guest has offered and not seen published, in order.
    with_device: Vec<u16>,
    avail: u16,
    used: u16,
}

/// Runs random batches, dies at a random step of a random batch, and looks at what the next one finds.
#[test]
fn a_death_at_any_step_loses_nothing_and_repeats_nothing_published() {
    for seed in 0..3_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (file, _) = region();
        let start: u16 = rng.random();
        let mut model = Model {
            with_device: Vec::new(),
            avail: start,
            used: start,
        };
        let mut taken: Vec<u16> = Vec::new();
        let queue = || attach(&file).queue(1).unwrap();
        queue().recover(SIZE, start, start, start).unwrap();
        let mut tracker = Tracker::new(SIZE, Some(queue()), 0);
        let raw = queue();
        let lives = rng.random_range(1..20);
        for life in 0..lives {
            // The guest offers some.
            for head in 0..SIZE {
                if !model.with_device.contains(&head) && rng.random_ratio(1, 2) {
                    model.with_device.push(head);
                    model.avail = model.avail.wrapping_add(1);
                }
            }
            // The device takes some of those: in order.
            let fresh: Vec<u16> = model
                .with_device
                .iter()
                .copied()
                .filter(|h| !taken.contains(h))
                .collect();
            for &head in fresh.iter().take(rng.random_range(0..=SIZE.into())) {
                tracker.begin(head).unwrap();
                taken.push(head);
            }
            // And gives a batch back: in any order, and maybe not all the way.
            let mut batch: Vec<u16> = Vec::new();
            for _ in 0..rng.random_range(0..=taken.len()) {
                let at = rng.random_range(0..taken.len());
                batch.push(taken.remove(at));
            }
            if life + 1 < lives || rng.random() {
                batch.iter().for_each(|&head| tracker.retire(head));
                model.used = model.used.wrapping_add(batch.len() as u16);
                model.with_device.retain(|head| !batch.contains(head));
                tracker.published(model.used);
                if life + 1 < lives {
                    continue;
                }
            } else {
                // Death: after `steps` of the 3 n + 2 steps of giving back (6, 7, 8 and 9 of the module doc).
                let n = batch.len();
                let steps = rng.random_range(0..=2 * n + 2);
                for &head in batch.iter().take(steps) {
                    raw.push_batch(head);
                }
                if steps > n {
                    model.used = model.used.wrapping_add(n as u16);
                    model.with_device.retain(|head| !batch.contains(head));
                } else {
                    taken.extend(&batch);
                }
                for &head in batch.iter().take(steps.saturating_sub(n + 1)) {
                    raw.set_inflight(head, false);
                }
                if steps == 2 * n + 2 {
                    raw.set_used_idx(model.used);
                }
            }
            let found = queue()
                .recover(SIZE, model.used, model.avail, model.used)
                .unwrap();
            assert_eq!(found.discarded, None, "seed {seed}");
            let mut heads = found.heads.clone();
            let mut want = taken.clone();
            heads.sort_unstable();
            want.sort_unstable();
            assert_eq!(
                heads, want,
                "seed {seed}: exactly what was taken and not published"
            );
            let next = model.used.wrapping_add(taken.len() as u16);
            assert_eq!(
                found.next_avail, next,
                "seed {seed}: the rest is taken from the ring"
            );
            // In the order of taking, which is the order of offering.
            let order = |h: &u16| model.with_device.iter().position(|x| x == h);
            assert!(found.heads.is_sorted_by_key(order), "seed {seed}");
        }
    }
}

#[test]
fn noise_does_no_harm() {
    let (file, region) = region();
    let queue = region.queue(1).unwrap();
    for seed in 0..20_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut raw = [0u8; 192];
        rng.fill(&mut raw);
        if rng.random() {
            raw[8..12].copy_from_slice(&[1, 0, SIZE as u8, 0]);
        }
        std::os::unix::fs::FileExt::write_all_at(&file, &raw, 192).unwrap();
        let used = if rng.random() {
            queue.used_idx().wrapping_add(3)
        } else {
            rng.random()
        };
        let avail = used.wrapping_add(rng.random_range(0..=SIZE));
        if let Ok(found) = queue.recover(SIZE, used, avail, 7) {
            assert!(found.heads.iter().all(|&head| head < SIZE), "seed {seed}");
        }
    }
}
