//! What snapshots cost: reads through many of them, and taking one under load.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use firn_tests::client::Client;
use firn_tests::measure::{self, Histogram};
use firn_tests::pattern::Kind;
use firn_tests::rig::{PATIENCE, Rig, Setup};
use firn_tests::server::{Format, Qemu, Server, create_overlay, create_qcow2};

use crate::Compressibility;
use crate::cell::Cell;
use crate::contender::{options, settle};
use crate::load::{self, Amount, Data, Outcome, Until};
use crate::results::Results;

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

const MIB: f64 = 1048576.0;

/// What to measure, and how large.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// A directory on the filesystem to measure; what is made in it is removed.
    #[arg(long, default_value = crate::DIR)]
    dir: PathBuf,
    /// Seconds per run.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Numbers of snapshots to read through; the first is what the others are compared with.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000")]
    depths: Vec<u32>,
    /// The same for a chain of qcow2 images.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    qcow2_depths: Vec<u32>,
    /// Size of the vDisk in MiB.
    #[arg(long, default_value_t = 2048)]
    size_mib: u64,
    /// Blocks overwritten at random before each snapshot, in per cent of the vDisk.
    #[arg(long, default_value_t = 1)]
    changed_percent: u64,
    /// Compressibility of the data.
    #[arg(long, value_enum, default_value = "half")]
    data: Compressibility,
    /// vDisks of the group that is snapshotted under load.
    #[arg(long, default_value_t = 8)]
    group: u16,
    /// Snapshots taken of the group.
    #[arg(long, default_value_t = 100)]
    snapshots: u32,
}

impl Options {
    fn size(&self) -> u64 {
        self.size_mib << 20
    }

    fn contents(&self, filled: bool) -> Data {
        Data {
            kind: self.data.into(),
            span: self.size(),
            filled,
        }
    }

    /// Random overwrites, as before each snapshot.
    fn change(&self, socket: &Path, seed: u32, version: &mut u32) -> Fallible {
        let cell = Cell::named("randwrite-32")?;
        let mut client = Client::connect(socket, options(1, cell.bytes))?;
        let writes = self.size() / u64::from(cell.bytes) * self.changed_percent / 100;
        let until = Until::Count(writes);
        load::run(
            &mut client,
            &cell,
            self.contents(true),
            until,
            seed.into(),
            version,
        )?;
        Ok(client.stop()?)
    }

    fn read(&self, socket: &Path, name: &str, version: &mut u32) -> Fallible<Outcome> {
        let cell = Cell::named(name)?;
        let mut client = Client::connect(socket, options(1, cell.bytes))?;
        let until = match cell.sequential {
            true => Until::Count(self.size() / u64::from(cell.bytes)),
            false => Until::Amount(Amount {
                seconds: self.seconds,
                written: 0,
            }),
        };
        let outcome = load::run(&mut client, &cell, self.contents(true), until, 1, version)?;
        client.stop()?;
        Ok(outcome)
    }

    /// A cold server's first second of random reads, a pass over everything, and random reads after that.
    fn measure(
        &self,
        table: &str,
        depth: u32,
        (socket, server): (&Path, &Server),
        version: &mut u32,
        results: &mut Results,
    ) -> Fallible {
        let begin = Instant::now();
        let cold = Self {
            seconds: 1.0,
            ..self.clone()
        }
        .read(socket, "randread-32", version)?;
        let pass = self.read(socket, "seqread", version)?;
        settle(server.pid());
        let ready = begin.elapsed();
        let one = self.read(socket, "randread-1", version)?;
        let many = self.read(socket, "randread-32", version)?;
        let memory = measure::memory(server.pid())?;
        results.point(
            table,
            &depth.to_string(),
            &[
                ("cold ops/s", rate(&cold)),
                (
                    "first pass MiB/s",
                    pass.bytes as f64 / pass.elapsed.as_secs_f64() / MIB,
                ),
                ("warm after s", ready.as_secs_f64()),
                ("depth 1 ops/s", rate(&one)),
                ("depth 32 ops/s", rate(&many)),
                ("p99 us", many.latency.percentile_us(0.99)),
                ("resident MiB", memory.resident as f64 / MIB),
            ],
        )?;
        Ok(())
    }
}

fn rate(outcome: &Outcome) -> f64 {
    outcome.ios as f64 / outcome.elapsed.as_secs_f64()
}

/// Measures all of it.
pub fn chain(options: &Options, results: &mut Results) -> Fallible {
    firn(options, results)?;
    qcow2(options, results)?;
    taking(options, results)?;
    // Fails where something else is in it, which is to stay.
    let _ = std::fs::remove_dir(&options.dir);
    Ok(())
}

/// Reads through Firn's snapshots.
fn firn(options: &Options, results: &mut Results) -> Fallible {
    let mut rig = Rig::with(&Setup {
        base: Some(&options.dir),
        ..Setup::default()
    })?;
    let socket = rig.create("disk", options.size())?;
    let mut version = 0;
    let mut client = Client::connect(&socket, crate::contender::options(1, 1 << 20))?;
    load::fill(
        &mut client,
        options.size(),
        Some(options.data.into()),
        false,
        &mut version,
    )?;
    client.stop()?;
    let mut depth = 0;
    for &wanted in &options.depths {
        while depth < wanted {
            depth += 1;
            if depth > 1 {
                options.change(&socket, depth, &mut version)?;
            }
            let name = format!("s{depth}");
            rig.firn.cli(&["snapshot", "create", &name, "disk"])?;
        }
        rig.kill()?;
        settle(rig.server.pid());
        let server = (socket.as_path(), &rig.server);
        options.measure("snapshots: Firn", wanted, server, &mut version, results)?;
    }
    deleting(options, depth, &rig, &socket, results)
}

/// All snapshots go while the vDisk is written to at random, until their layers are merged; then the store is checked.
fn deleting(
    options: &Options,
    depth: u32,
    rig: &Rig,
    socket: &Path,
    results: &mut Results,
) -> Fallible {
    let cell = Cell {
        depth: 16,
        ..Cell::named("randwrite-32")?
    };
    let sockets = [socket.to_owned()];
    let before = under_load(&sockets, &cell, options.size(), || {
        std::thread::sleep(Duration::from_secs_f64(options.seconds));
        Ok(())
    })?;
    let used = live_bytes(rig)?.0;
    let (mut named, mut merged) = (0.0, 0.0);
    let during = under_load(&sockets, &cell, options.size(), || {
        let begun = Instant::now();
        rig.firn.cli(&["snapshot", "delete", "disk", "--all"])?;
        named = begun.elapsed().as_secs_f64();
        while live_bytes(rig)?.1 > 1 {
            std::thread::sleep(Duration::from_millis(100));
        }
        merged = begun.elapsed().as_secs_f64();
        Ok(())
    })?;
    let left = live_bytes(rig)?.0;
    rig.firn.cli(&["store", "check"])?;
    results.point(
        "snapshots: deleted under 16 random writes",
        &depth.to_string(),
        &[
            ("names gone after s", named),
            ("merged after s", merged),
            ("live MiB before", used as f64 / MIB),
            ("live MiB after", left as f64 / MIB),
            ("writes p99 us", before.percentile_us(0.99)),
            ("longest us", before.percentile_us(1.0)),
            ("then p99 us", during.percentile_us(0.99)),
            ("then longest us", during.percentile_us(1.0)),
        ],
    )?;
    Ok(())
}

/// Live bytes of the store, and its layers.
fn live_bytes(rig: &Rig) -> Fallible<(u64, u64)> {
    let out = rig.firn.cli(&["store", "status", "--json"])?;
    let status: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let number = |name: &str| {
        let store = status.get("store").unwrap_or(&status);
        store[name].as_u64().ok_or("no such number in the status")
    };
    Ok((number("live_bytes")?, number("layers")?))
}

/// Reads through a chain of qcow2 images, each with the one before as its backing file.
fn qcow2(options: &Options, results: &mut Results) -> Fallible {
    let home = options.dir.join("qcow2");
    std::fs::create_dir_all(&home)?;
    let image = |depth: u32| home.join(format!("{depth}.qcow2"));
    let serve = |depth: u32| -> Fallible<(PathBuf, Server)> {
        let socket = home.join("disk.sock");
        let _ = std::fs::remove_file(&socket);
        let qemu = Qemu {
            format: Format::Qcow2,
            direct: true,
            queues: 1,
            tracer: Vec::new(),
            disks: vec![(image(depth), socket.clone())],
        };
        let mut server = qemu.start(&home.join("server.log"))?;
        server.listening(&socket, PATIENCE)?;
        Ok((socket, server))
    };
    let mut version = 0;
    create_qcow2(&image(0), options.size())?;
    let (socket, server) = serve(0)?;
    let mut client = Client::connect(&socket, crate::contender::options(1, 1 << 20))?;
    load::fill(
        &mut client,
        options.size(),
        Some(options.data.into()),
        false,
        &mut version,
    )?;
    client.stop()?;
    drop(server);
    let mut depth = 0;
    for &wanted in &options.qcow2_depths {
        while depth < wanted {
            depth += 1;
            create_overlay(&image(depth), &image(depth - 1))?;
            // The highest one is what a guest writes to after the last snapshot: empty.
            if depth < wanted {
                let (socket, _server) = serve(depth)?;
                options.change(&socket, depth, &mut version)?;
            }
        }
        let (socket, server) = serve(wanted)?;
        let server = (socket.as_path(), &server);
        options.measure("snapshots: qcow2", wanted, server, &mut version, results)?;
    }
    Ok(std::fs::remove_dir_all(&home)?)
}

/// Snapshots of a group while each of its vDisks is written to at random, 16 writes in flight in all.
fn taking(options: &Options, results: &mut Results) -> Fallible {
    for mib in [options.size_mib / 8, options.size_mib] {
        let mut rig = Rig::with(&Setup {
            base: Some(&options.dir),
            ..Setup::default()
        })?;
        let names: Vec<String> = (0..options.group).map(|n| format!("disk{n}")).collect();
        let mut sockets = Vec::new();
        for name in &names {
            sockets.push(rig.create(name, mib << 20)?);
        }
        let cell = Cell {
            depth: (16 / options.group).max(1),
            ..Cell::named("randwrite-32")?
        };
        let before = under_load(&sockets, &cell, mib << 20, || {
            std::thread::sleep(Duration::from_secs_f64(options.seconds));
            Ok(())
        })?;
        let (mut stalls, mut durable) = (Histogram::default(), Histogram::default());
        let during = under_load(&sockets, &cell, mib << 20, || {
            for n in 0..options.snapshots {
                let name = format!("s{n}");
                let mut words = vec!["snapshot", "create", "--json", name.as_str()];
                words.extend(names.iter().map(String::as_str));
                let made: serde_json::Value =
                    serde_json::from_slice(&rig.firn.cli(&words)?.stdout)?;
                for (field, to) in [
                    ("stall_microseconds", &mut stalls),
                    ("durable_microseconds", &mut durable),
                ] {
                    let time = made[field].as_u64().ok_or("no time in the answer")?;
                    to.record(Duration::from_micros(time));
                }
            }
            Ok(())
        })?;
        let row = format!("{} x {mib} MiB", options.group);
        results.point(
            "snapshots: taken under 16 random writes",
            &row,
            &[
                ("cut p50 us", stalls.percentile_us(0.5)),
                ("cut p99 us", stalls.percentile_us(0.99)),
                ("durable p50 us", durable.percentile_us(0.5)),
                ("durable p99 us", durable.percentile_us(0.99)),
                ("writes p99 us", before.percentile_us(0.99)),
                ("then p99 us", during.percentile_us(0.99)),
                ("then p99.9 us", during.percentile_us(0.999)),
            ],
        )?;
    }
    Ok(())
}

/// Latencies of a load on all vDisks while something is done.
fn under_load(
    sockets: &[PathBuf],
    cell: &Cell,
    size: u64,
    what: impl FnOnce() -> Fallible,
) -> Fallible<Histogram> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loads: Vec<_> = sockets
            .iter()
            .enumerate()
            .map(|(n, socket)| {
                let stop = &stop;
                scope.spawn(move || -> Result<Histogram, String> {
                    let run = || -> Fallible<Histogram> {
                        let mut client = Client::connect(socket, options(1, cell.bytes))?;
                        let data = Data {
                            kind: Kind::Half,
                            span: size,
                            filled: false,
                        };
                        let (until, mut version) = (Until::Told(stop), 0);
                        let seed = n as u64;
                        let outcome =
                            load::run(&mut client, cell, data, until, seed, &mut version)?;
                        client.stop()?;
                        Ok(outcome.latency)
                    };
                    run().map_err(|e| e.to_string())
                })
            })
            .collect();
        let done = what();
        stop.store(true, Ordering::Relaxed);
        let mut all = Histogram::default();
        for load in loads {
            all.merge(&load.join().map_err(|_| "a load has panicked")??);
        }
        done.map(|()| all)
    })
}
