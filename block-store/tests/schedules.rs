//! Schedules on a simulated machine, whose clock the tests set.

mod support;

use block_store::io::sim::Rng;
use block_store::{Keep, ScheduleInfo, ScheduleSpec, Store, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use support::{BLOCK, Client, Machine, NOW, content, noise, step, vdisk};

const HOUR: u64 = 3600;
/// Blocks of a vDisk.
const BLOCKS: u64 = 600;
const SIZE: u64 = BLOCKS * BLOCK as u64;
/// The next full hour: 2023-11-14 23:00 UTC.
const ELEVEN: u64 = NOW + 2800;

fn last(last: u32) -> Keep {
    Keep {
        last,
        ..Keep::default()
    }
}

fn spec(name: &str, vdisks: &[&str], every: u64, keep: Keep) -> ScheduleSpec {
    ScheduleSpec {
        name: name.into(),
        vdisks: vdisks.iter().map(|v| (*v).to_owned()).collect(),
        every,
        prefix: None,
        keep,
    }
}

fn names(store: &Store, vdisk: &str) -> Vec<String> {
    let all = store.snapshots(Some(vdisk)).unwrap();
    all.into_iter().map(|s| s.name).collect()
}

fn only(store: &Store) -> ScheduleInfo {
    let mut all = store.schedules();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// Sets the clock, and does what is due; how many snapshots were taken.
fn tick(m: &Machine, store: &Store, now: u64) -> usize {
    m.clock.store(now, Relaxed);
    store.tend_schedules(now).taken.len()
}

#[test]
fn each_slot_gets_one_by_one_checkpoint() {
    let m = Machine::new(1, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    vdisk(&store, "b", SIZE);
    let made = store.create_schedule(&spec("hourly", &["a", "b"], HOUR, last(2)));
    let made = made.unwrap();
    assert_eq!((made.next, made.last, made.kept), (ELEVEN, None, 0));
    assert_eq!(made.vdisks, ["a", "b"]);
    for now in [NOW, ELEVEN - 1] {
        assert_eq!(tick(&m, &store, now), 0);
    }
    for hour in 0..4 {
        let before = store.status().checkpoints;
        assert_eq!(tick(&m, &store, ELEVEN + hour * HOUR + 7), 1);
        assert_eq!(tick(&m, &store, ELEVEN + hour * HOUR + 8), 0);
        assert_eq!(store.status().checkpoints, before + 1, "hour {hour}");
    }
    let kept = ["hourly-20231115T010007Z", "hourly-20231115T020007Z"];
    assert_eq!(names(&store, "a"), kept);
    assert_eq!(names(&store, "b"), kept);
    let all = store.snapshots(None).unwrap();
    let of = |name| all.iter().filter(move |s| s.name == name);
    for name in kept {
        let lsns: Vec<u64> = of(name).map(|s| s.lsn).collect();
        assert_eq!((lsns.len(), lsns[0]), (2, lsns[1]), "one instant");
        assert!(of(name).all(|s| s.schedule.as_deref() == Some("hourly")));
    }
    let info = only(&store);
    assert_eq!(
        (info.next, info.last, info.kept, info.missed),
        (ELEVEN + 4 * HOUR, Some(ELEVEN + 3 * HOUR + 7), 2, 0)
    );
    assert!(!info.behind && info.last_error.is_none() && info.took_milliseconds.is_some());
    let status = store.status();
    assert_eq!((status.schedules, status.late_schedules), (1, 0));
}

/// All that are due at a moment share a checkpoint, and get names of their own.
#[test]
fn schedules_that_are_due_together() {
    let m = Machine::new(2, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    for name in ["x", "y"] {
        let spec = ScheduleSpec {
            prefix: Some("auto".into()),
            ..spec(name, &["a"], HOUR, last(9))
        };
        store.create_schedule(&spec).unwrap();
    }
    // What a person has named like that is in nobody's way.
    store
        .create_snapshot(&["a"], "auto-20231114T230000Z")
        .unwrap();
    let before = store.status().checkpoints;
    assert_eq!(tick(&m, &store, ELEVEN), 2);
    assert_eq!(store.status().checkpoints, before + 1);
    let want = ["", "-2", "-3"].map(|n| format!("auto-20231114T230000Z{n}"));
    assert_eq!(names(&store, "a"), want);
}

#[test]
fn only_its_own_snapshots_go_and_held_ones_stay() {
    let m = Machine::new(3, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let by_minutes = spec("m", &["a"], 60, last(2));
    store.create_schedule(&by_minutes).unwrap();
    store.create_snapshot(&["a"], "mine").unwrap();
    let minute = |n: u64| ELEVEN + n * 60;
    for n in 0..3 {
        assert_eq!(tick(&m, &store, minute(n)), 1);
    }
    let held = "m-20231114T230100Z";
    store.hold_snapshot("a", held, "backup").unwrap();
    for n in 3..6 {
        assert_eq!(tick(&m, &store, minute(n)), 1);
    }
    let (four, five) = ("m-20231114T230400Z", "m-20231114T230500Z");
    assert_eq!(names(&store, "a"), ["mine", held, four, five]);
    // Rules for the rest leave the schedule's alone.
    let pruned = store.prune_snapshots("a", &last(1), false).unwrap();
    assert_eq!((pruned.snapshots.len(), pruned.scheduled), (1, 3));
    // Ended, its snapshots are like others; made anew, it goes on with them.
    store.delete_schedule("m").unwrap();
    assert_eq!(tick(&m, &store, minute(6)), 0);
    let pruned = store.prune_snapshots("a", &last(9), true).unwrap();
    assert_eq!((pruned.snapshots.len(), pruned.scheduled), (4, 0));
    store.create_schedule(&by_minutes).unwrap();
    store.release_snapshot("a", held, "backup").unwrap();
    assert_eq!(tick(&m, &store, minute(7)), 1);
    assert_eq!(names(&store, "a"), ["mine", five, "m-20231114T230700Z"]);
}

/// Downtime and clocks that are set: one snapshot each time, and on it goes.
#[test]
fn no_bursts_and_no_standstill() {
    let mut m = Machine::new(4, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let spec = spec("s", &["a"], 1, last(100));
    store.create_schedule(&spec).unwrap();
    let mut now = NOW;
    let three = |m: &Machine, store: &Arc<Store>, now: &mut u64| {
        for _ in 0..3 {
            *now += 1;
            assert_eq!(tick(m, store, *now), 1);
            assert_eq!(tick(m, store, *now), 0);
        }
    };
    three(&m, &store, &mut now);
    // An hour's downtime.
    drop(store);
    m.kill();
    let store = m.open();
    now += HOUR;
    assert_eq!(tick(&m, &store, now), 1);
    let info = only(&store);
    assert_eq!((info.missed, info.kept, info.behind), (HOUR - 1, 4, false));
    three(&m, &store, &mut now);
    // The clock is set forward by a year, and back again.
    now += 365 * 24 * HOUR;
    assert_eq!(tick(&m, &store, now), 1);
    three(&m, &store, &mut now);
    now -= 365 * 24 * HOUR;
    assert_eq!(tick(&m, &store, now), 1);
    three(&m, &store, &mut now);
    // Back by moments: nothing is taken twice, and nothing waits for long.
    now -= 1;
    assert_eq!(tick(&m, &store, now), 0);
    now += 1;
    three(&m, &store, &mut now);
    assert_eq!(only(&store).kept, 3 + 1 + 3 + 1 + 3 + 1 + 3 + 3);
    assert_eq!(only(&store).missed, HOUR - 1 + 365 * 24 * HOUR - 1);
}

#[test]
fn who_comes_late_is_behind_and_says_so() {
    let m = Machine::new(5, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let spec = spec("s", &["a"], 1, last(100));
    store.create_schedule(&spec).unwrap();
    assert_eq!(tick(&m, &store, NOW + 1), 1);
    // It takes three seconds until this is durable: the slots that begin meanwhile are let pass.
    m.clock.store(NOW + 2, Relaxed);
    let cuts = store.cut_scheduled(NOW + 2);
    m.clock.store(NOW + 5, Relaxed);
    assert_eq!(store.complete_scheduled(cuts).taken.len(), 1);
    let info = only(&store);
    assert!(info.behind && info.next == NOW + 6, "{info:?}");
    assert_eq!(store.status().late_schedules, 1);
    assert_eq!(tick(&m, &store, NOW + 5), 0);
    assert_eq!(tick(&m, &store, NOW + 6), 1);
    assert_eq!(only(&store).missed, 3);
    assert!(only(&store).behind, "it has missed some just now");
    assert_eq!(tick(&m, &store, NOW + 7), 1);
    assert!(!only(&store).behind);
    assert_eq!(store.status().late_schedules, 0);
}

#[test]
fn what_can_not_be_kept_is_refused_and_changes_nothing() {
    let m = Machine::new(6, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    vdisk(&store, "b", SIZE);
    let hidden = block_store::VDiskSpec {
        name: "h".into(),
        size: SIZE,
        hidden: true,
    };
    store.create_vdisk(&hidden).unwrap();
    let good = || spec("s", &["a", "b"], 60, last(10));
    store.create_schedule(&good()).unwrap();
    let before = store.schedules();
    let with = |change: &dyn Fn(&mut ScheduleSpec)| {
        let mut spec = ScheduleSpec {
            name: "t".into(),
            ..good()
        };
        change(&mut spec);
        let error = store.create_schedule(&spec).unwrap_err();
        assert_eq!(store.schedules(), before);
        error
    };
    let long = "n".repeat(41);
    type Change<'a> = &'a dyn Fn(&mut ScheduleSpec);
    let cases: [(Change<'_>, &str); 12] = [
        (&|s| s.name = "s".into(), "unschedule s"),
        (&|s| s.name = "a/b".into(), "'/'"),
        (&|s| s.name = long.clone(), "--prefix"),
        (&|s| s.prefix = Some("-x".into()), "begin with"),
        (&|s| s.every = 0, "every 1 s to 366 days"),
        (&|s| s.every = 367 * 24 * HOUR, "every 1 s to 366 days"),
        (&|s| s.keep = Keep::default(), "keep nothing"),
        (
            &|s| s.keep = last(4086),
            "up to 4096 snapshots of vDisk \"a\"",
        ),
        (&|s| s.keep.monthly = u32::MAX, "up to"),
        (&|s| s.vdisks.clear(), "1 to 4096 vDisks"),
        (&|s| s.vdisks.push("a".into()), "\"a\" is named twice"),
        (&|s| s.vdisks.push("c".into()), "firn vdisk list"),
    ];
    for (change, says) in cases {
        let error = with(change);
        assert!(error.to_string().contains(says), "{says:?}: {error}");
    }
    let error = with(&|s| s.vdisks.push("h".into()));
    assert!(matches!(error, StoreError::NotFound(_)), "{error}");
    let refused = store.delete_vdisk("b").unwrap_err().to_string();
    assert!(refused.contains("firn snapshot unschedule s"), "{refused}");
    let unknown = store.delete_schedule("t").unwrap_err();
    assert!(matches!(unknown, StoreError::NoSchedule(_)), "{unknown}");
    store.delete_schedule("s").unwrap();
    store.delete_vdisk("b").unwrap();
}

/// A failure is shown, costs no layer, and is over when its cause is.
#[test]
fn a_full_store_misses_some_and_goes_on() {
    let m = Machine::new(7, 8 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", 64 << 20);
    let mut client = Client::new(&store);
    store
        .create_schedule(&spec("s", &["a"], 1, last(2)))
        .unwrap();
    assert_eq!(tick(&m, &store, NOW + 1), 1);
    let mut waits = false;
    for n in 0..64_u64 {
        let command = block_store::Command::Write {
            offset: n << 17,
            from: noise(n, 1 << 17),
        };
        waits = client.try_run(&disk, command).is_none();
        if waits {
            break;
        }
    }
    assert!(waits && store.status().full);
    let layers = store.status().layers;
    for n in 2..6 {
        assert_eq!(tick(&m, &store, NOW + n), 0);
    }
    let info = only(&store);
    let error = info.last_error.unwrap();
    assert!(error.contains("the store is full"), "{error}");
    assert_eq!((info.failed_at, info.next), (Some(NOW + 5), NOW + 6));
    assert_eq!(info.missed, 3, "the one of this moment can still come");
    let status = store.status();
    assert_eq!((status.layers, status.late_schedules), (layers, 1));
    m.disk.set_capacity(64 << 20);
    client.wait(200).expect("there is space");
    assert_eq!(tick(&m, &store, NOW + 9), 1);
    let info = only(&store);
    assert_eq!((info.missed, info.last_error), (7, None));
    assert_eq!(tick(&m, &store, NOW + 10), 1);
    assert_eq!(store.status().late_schedules, 0);
}

/// A vDisk's blocks by version; 0: zeroes.
type Image = Vec<u64>;

/// Two vDisks, a snapshot of both each second, and what everything must read as.
struct Hour {
    m: Machine,
    client: Option<Client>,
    rng: Rng,
    live: BTreeMap<&'static str, Image>,
    kept: BTreeMap<String, BTreeMap<&'static str, Image>>,
    version: u64,
}

impl Hour {
    fn store(&self) -> Arc<Store> {
        Arc::clone(&self.client.as_ref().unwrap().store)
    }

    fn write(&mut self, blocks: u64) {
        for name in ["a", "b"] {
            let disk = self.store().vdisk(name).unwrap();
            let first = self.rng.below((BLOCKS - blocks) as usize) as u64;
            self.version += 1;
            let bytes = content(self.version, first, blocks);
            let client = self.client.as_mut().unwrap();
            client.write(&disk, first * BLOCK as u64, &bytes).unwrap();
            let image = self.live.get_mut(name).unwrap();
            image[first as usize..][..blocks as usize].fill(self.version);
        }
    }

    /// A second later: what is due is done. The process may die in the middle of that.
    fn tick(&mut self, now: u64) {
        let store = self.store();
        self.m.clock.store(now, Relaxed);
        let cuts = store.cut_scheduled(now);
        let names: Vec<String> = cuts.names().map(|(_, name)| name.to_owned()).collect();
        for name in names {
            self.kept.insert(name, self.live.clone());
        }
        let tended = store.complete_scheduled(cuts);
        if !self.m.disk.is_crashed() {
            assert_eq!(tended.taken.len(), 1);
            let there = self::names(&store, "a");
            self.kept.retain(|name, _| there.contains(name));
        }
    }

    fn restart(&mut self, power: bool) {
        self.client = None;
        match power {
            true => self.m.power_loss(),
            false => self.m.kill(),
        }
        self.client = Some(Client::new(&self.m.open()));
    }

    /// Dies after a few operations of a tick. Everything was flushed before, so live disks are what they were; the snapshot is
    /// there of both vDisks or of none.
    fn die_in_a_tick(&mut self, now: u64, operations: u64, power: bool) {
        self.store().flush().unwrap();
        self.m.disk.crash_after(Some(operations));
        self.tick(now);
        self.m.disk.crash_after(None);
        self.restart(power);
        let there = names(&self.store(), "a");
        self.kept.retain(|name, _| there.contains(name));
        self.verify("after a crash");
    }

    fn verify(&mut self, what: &str) {
        let store = self.store();
        let there = names(&store, "a");
        assert_eq!(there, names(&store, "b"), "{what}");
        assert!(there.iter().eq(self.kept.keys()), "{what}: {there:?}");
        let mut images = Vec::new();
        for (name, of) in &self.kept {
            for (vdisk, image) in of {
                let view = store.open_snapshot(vdisk, name).unwrap();
                images.push((view, image));
            }
        }
        for (vdisk, image) in &self.live {
            images.push((store.vdisk(vdisk).unwrap(), image));
        }
        let client = self.client.as_mut().unwrap();
        for (view, image) in images {
            for first in (0..BLOCKS).step_by(100) {
                let read = client.read(&view, first * BLOCK as u64, 100 * BLOCK);
                let bytes = read.unwrap();
                for (n, block) in (first..).zip(bytes.chunks_exact(BLOCK)) {
                    let right = match image[n as usize] {
                        0 => block.iter().all(|b| *b == 0),
                        version => block == content(version, n, 1),
                    };
                    assert!(right, "{what}: {}, block {n}", view.name());
                }
            }
        }
    }
}

/// The last minute by seconds, and what was before by hours: whatever dies in between, everything that is kept reads as it was,
/// and neither layers nor memory grow with time.
#[test]
fn one_a_second_for_an_hour() {
    let m = Machine::new(8, 256 << 20);
    m.clock.store(ELEVEN - 1800, Relaxed);
    let store = m.open();
    let live = ["a", "b"].map(|name| (name, vec![0; BLOCKS as usize]));
    for (name, _) in &live {
        vdisk(&store, name, SIZE);
    }
    let keep = Keep {
        last: 60,
        hourly: 24,
        daily: 7,
        ..Keep::default()
    };
    store
        .create_schedule(&spec("s", &["a", "b"], 1, keep))
        .unwrap();
    let mut hour = Hour {
        client: Some(Client::new(&store)),
        m,
        rng: Rng::new(8),
        live: live.into(),
        kept: BTreeMap::new(),
        version: 0,
    };
    drop(store);
    let (mut most_layers, mut crashes) = (0, 0);
    for second in 1..=3600 {
        let now = ELEVEN - 1800 + second;
        let blocks = 1 + hour.rng.below(8) as u64;
        hour.write(blocks);
        match second % 400 {
            0 => {
                crashes += 1;
                let operations = 1 + hour.rng.below(24) as u64;
                hour.die_in_a_tick(now, operations, crashes % 2 == 0);
            }
            200 => {
                hour.tick(now);
                hour.restart(false);
            }
            _ => hour.tick(now),
        }
        // What upkeep does by itself twice a minute.
        step(&hour.store(), second % 30 == 0);
        let status = hour.store().status();
        most_layers = most_layers.max(status.layers);
        if second % 300 == 0 {
            hour.verify(&format!("second {second}"));
            let memory = status.presence_memory_bytes + status.resolved_memory_bytes;
            println!(
                "second {second}: {} snapshots, {} layers, {} map nodes, {memory} bytes of maps and leaves, {} segments",
                status.snapshots, status.layers, status.map_nodes, status.segments
            );
            // Six nodes of a map, and two resolved leaves, for each layer that is read.
            assert!(status.map_nodes <= 6 * most_layers, "{status:?}");
            assert!(memory <= 2 * (7 << 10) * most_layers, "{status:?}");
        }
    }
    let status = hour.store().status();
    // A minute by seconds, and the last second of the hour that has ended within; of both vDisks.
    assert_eq!(status.snapshots, 2 * 61);
    // Those, the live ones, and what half a minute leaves to be merged.
    assert!(most_layers <= 2 * (61 + 1 + 30 + 9), "{most_layers} layers");
    assert_eq!(crashes, 9);
    assert!(only(&hour.store()).missed <= 9);
}

/// With the store's own thread and the real clock.
#[test]
fn the_stores_thread_takes_them_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (home, run) = (dir.path().join("store"), dir.path().join("run"));
    let options = block_store::InitOptions {
        segment_size: 1 << 20,
    };
    Store::init(&home, &options).unwrap();
    let open = || Store::open(block_store::OpenConfig::new(&home, &run)).unwrap();
    let store = open();
    vdisk(&store, "a", SIZE);
    store
        .create_schedule(&spec("s", &["a"], 1, last(2)))
        .unwrap();
    let wait = |store: &Store, enough: &dyn Fn(&ScheduleInfo) -> bool| {
        let began = std::time::Instant::now();
        while !enough(&only(store)) {
            assert!(began.elapsed().as_secs() < 30, "{:?}", only(store));
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        only(store)
    };
    let first = wait(&store, &|s| s.last.is_some()).last;
    let info = wait(&store, &|s| s.last >= first.map(|t| t + 3));
    assert_eq!((info.kept, names(&store, "a").len()), (2, 2));
    store.shutdown().unwrap();
    drop(store);
    let store = open();
    wait(&store, &|s| s.last > info.last);
    assert_eq!(names(&store, "a").len(), 2);
}
