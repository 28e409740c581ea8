//! Invariant 1: what a guest has seen completed survives `kill -9` of the backend at any moment, and what
//! was in flight completes after the restart.
//!
//! Three vDisks with 1, 2 and 4 queues are loaded at once, while snapshots of all of them are taken and deleted. Every cycle ends the backend in one of several
//! ways, starts it again and reconnects. Most cycles then wait for everything in flight and read all vDisks
//! back; some go straight on, so that requests live through several deaths.
//!
//! `FIRN_KILLS` cycles (default 25) from the seed `FIRN_SEED` (default: from the clock; printed). With
//! `FIRN_KEEP` set the store stays where the first line says.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use firn_tests::client::ClientOptions;
use firn_tests::rig::{PATIENCE, Rig, Setup};
use firn_tests::server::Firn;
use firn_tests::workload::{Failure, Mix, Workload};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

const DEPTH: usize = 16;

struct Disk {
    name: &'static str,
    mib: u64,
    options: ClientOptions,
}

fn disks() -> [Disk; 3] {
    let base = ClientOptions {
        depth: DEPTH as u16,
        ..ClientOptions::default()
    };
    [
        Disk {
            name: "one",
            mib: 24,
            options: ClientOptions {
                queues: 1,
                ..base.clone()
            },
        },
        Disk {
            name: "two",
            mib: 16,
            options: ClientOptions {
                queues: 2,
                indirect: false,
                event_idx: false,
                segment_bytes: 64 << 10,
                ..base.clone()
            },
        },
        Disk {
            name: "four",
            mib: 8,
            options: ClientOptions {
                queues: 4,
                segment_bytes: 4096,
                ..base
            },
        },
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// SIGKILL under load.
    Kill,
    /// SIGKILL under load, and again while it recovers, so many times.
    KillTwice(u32),
    /// SIGKILL with nothing in flight.
    KillIdle,
    /// SIGTERM under load.
    Terminate,
    /// SIGTERM under load, and SIGKILL while it drains and takes its last checkpoint.
    KillTerminating,
}

struct Run {
    rig: Rig,
    loads: Vec<Workload>,
    rng: SmallRng,
}

/// Takes and deletes snapshots of all vDisks for as long as it is there, whether there is a backend just then or not.
struct Snapshots {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Snapshots {
    fn of(firn: &Firn) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (firn, ended) = (firn.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let (mut round, mut taken) = (0, 0);
            let done = |words: &[&str]| firn.try_cli(words).unwrap().status.success();
            while !ended.load(Relaxed) {
                round += 1;
                let name = format!("s{round}");
                let made = done(&["snapshot", "create", &name, "one", "two", "four"]);
                taken += u32::from(made);
                if round % 6 == 0 {
                    for vdisk in ["one", "two", "four"] {
                        done(&["snapshot", "delete", vdisk, "--all"]);
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            taken
        });
        Self { stop, thread }
    }

    /// How many were taken.
    fn end(self) -> u32 {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        // Small segments fill up, are reclaimed and compacted all the time; large ones are what is shipped.
        let init: &[&str] = if seed.is_multiple_of(2) {
            &["--segment-size", "1M"]
        } else {
            &[]
        };
        let setup = Setup {
            init,
            ..Setup::default()
        };
        let mut rig = Rig::with(&setup).unwrap();
        let loads = (1u16..)
            .zip(disks())
            .map(|(number, disk)| {
                let client = rig.attach(disk.name, disk.mib << 20, disk.options).unwrap();
                assert_eq!(client.config().capacity, disk.mib << 11);
                Workload::new(client, number, Mix::default(), seed)
            })
            .collect();
        Self {
            rig,
            loads,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    fn cycle(&mut self) -> Result<(), Failure> {
        let end = match self.rng.random_range(0..20) {
            0..13 => End::Kill,
            13..16 => End::KillTwice(self.rng.random_range(1..4)),
            16..17 => End::KillIdle,
            17..19 => End::KillTerminating,
            _ => End::Terminate,
        };
        self.load()?;
        if end == End::KillIdle {
            self.drain()?;
        }
        self.end(end)?;
        // A guest does not know, and goes on asking.
        for load in &mut self.loads {
            load.submit(DEPTH);
        }
        self.rig.server = self.rig.firn.start().unwrap();
        if let End::KillTwice(times) = end {
            for _ in 0..times {
                std::thread::sleep(Duration::from_micros(self.rng.random_range(0..40_000)));
                self.rig.kill().unwrap();
            }
        }
        self.reconnect();
        if self.rng.random_range(0..4) != 0 {
            self.drain()?;
            for load in &mut self.loads {
                load.verify(PATIENCE)?;
            }
        }
        Ok(())
    }

    /// Loads all vDisks for a random time, mostly short.
    fn load(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_micros(1 << self.rng.random_range(10..19));
        while Instant::now() < until {
            let mut count = 0;
            for load in &mut self.loads {
                load.submit(DEPTH);
                count += load.collect()?;
            }
            if count == 0 {
                self.loads[0].client.wait(Duration::from_micros(200));
            }
        }
        Ok(())
    }

    fn end(&mut self, end: End) -> Result<(), Failure> {
        if end == End::Terminate {
            // Guests go on reading completions while it drains.
            for load in &mut self.loads {
                load.submit(DEPTH);
            }
            let status = self.rig.server.terminate(PATIENCE).unwrap();
            assert!(status.success(), "SIGTERM ended the backend with {status}");
        } else {
            if end == End::KillTerminating {
                self.rig.server.ask_to_end().unwrap();
                std::thread::sleep(Duration::from_micros(self.rng.random_range(0..60_000)));
            }
            self.rig.server.kill().unwrap();
        }
        for load in &mut self.loads {
            load.collect()?;
        }
        Ok(())
    }

    fn reconnect(&mut self) {
        let mut order: Vec<usize> = (0..self.loads.len()).collect();
        order.shuffle(&mut self.rng);
        for at in order {
            if let Err(e) = self.loads[at].client.reconnect(PATIENCE) {
                panic!(
                    "reconnect to {}: {e}; backend: {:?}",
                    disks()[at].name,
                    self.rig.server.ended()
                );
            }
        }
    }

    fn drain(&mut self) -> Result<(), Failure> {
        self.loads
            .iter_mut()
            .try_for_each(|load| load.drain(PATIENCE))
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={value} is not a number")),
    )
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    let kills = number("FIRN_KILLS").unwrap_or(25);
    let clock = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let seed = number("FIRN_SEED").unwrap_or(clock.as_nanos() as u64 % 1_000_000_007);
    let mut run = Run::new(seed);
    println!(
        "{kills} kills, FIRN_SEED={seed}, store in {}",
        run.rig.dir().display()
    );
    let snapshots = Snapshots::of(&run.rig.firn);
    let begin = Instant::now();
    for kill in 1..=kills {
        if let Err(failure) = run.cycle() {
            let words = run.rig.last_words();
            panic!(
                "kill {kill} of FIRN_SEED={seed}: {failure}\nthe backend's last words:\n{words}"
            );
        }
        if kill % 25 == 0 || kill == kills {
            let tally = run
                .loads
                .iter()
                .map(Workload::tally)
                .fold((0, 0, 0), |sum, t| {
                    (sum.0 + t.reads, sum.1 + t.writes, sum.2 + t.flushes)
                });
            println!(
                "{kill} kills in {:.1?}: {} reads checked, {} writes, {} flushes",
                begin.elapsed(),
                tally.0,
                tally.1,
                tally.2
            );
        }
    }
    let taken = snapshots.end();
    println!("{taken} snapshots of all three");
    assert!(taken > 0, "no snapshot was taken");
    // The end of a guest: rings stop once nothing is in flight.
    run.drain().unwrap();
    for load in &mut run.loads {
        load.verify(PATIENCE).unwrap();
    }
    for load in run.loads {
        load.client.stop().unwrap();
    }
    assert!(run.rig.server.terminate(PATIENCE).unwrap().success());
}
