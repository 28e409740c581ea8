//! What Firn costs as things grow: maps, vDisks, queues, overwrites. Each table is one function; all run the
//! backend as shipped.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use firn_tests::client::{Client, ClientError};
use firn_tests::measure::{self, Histogram};
use firn_tests::pattern::Kind;
use firn_tests::rig::{Rig, Setup};

use crate::cell::Cell;
use crate::contender::{options, settle};
use crate::load::{self, Amount, Data, Outcome, Until};
use crate::results::Results;

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

const MIB: f64 = 1048576.0;

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Table {
    /// Memory, speed and map writes over small and huge vDisks.
    Map,
    /// Throughput over many vDisks.
    Vdisks,
    /// Throughput over many queues.
    Queues,
    /// Write amplification of random overwrites on a filesystem that is nearly full.
    Overwrite,
    /// CPU that connected vDisks use which do nothing.
    Idle,
}

/// What to measure, and how large.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// A directory on the filesystem to measure; what is made in it is removed.
    #[arg(long, default_value = crate::DIR)]
    dir: PathBuf,
    /// Tables (default: all).
    #[arg(long, value_enum, value_delimiter = ',')]
    tables: Vec<Table>,
    /// Seconds per run, at least.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Sizes of the vDisks of table map, in MiB; the first is what the others are compared with.
    #[arg(long, value_delimiter = ',', default_value = "8192,65536,1048576")]
    map_mib: Vec<u64>,
    /// Numbers of vDisks.
    #[arg(long, value_delimiter = ',', default_value = "1,2,5,10,20,50")]
    vdisks: Vec<u16>,
    /// Numbers of queues, at most 16.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8")]
    queues: Vec<u16>,
    /// Size of each vDisk of tables vdisks, queues and overwrite, in MiB.
    #[arg(long, default_value_t = 1024)]
    vdisk_mib: u64,
    /// How many times table overwrite overwrites as much as the vDisk holds.
    #[arg(long, default_value_t = 6)]
    overwrites: u32,
    /// Seconds that table idle watches.
    #[arg(long, default_value_t = 10.0)]
    idle_seconds: f64,
}

/// Measures the tables that were asked for.
pub fn grow(options: &Options, results: &mut Results) -> Fallible {
    let tables = match options.tables.is_empty() {
        true => Table::value_variants(),
        false => &options.tables,
    };
    for table in tables {
        match table {
            Table::Map => map(options, results)?,
            Table::Vdisks => vdisks(options, results)?,
            Table::Queues => queues(options, results)?,
            Table::Overwrite => overwrite(options, results)?,
            Table::Idle => idle(options, results)?,
        }
    }
    // Fails where something else is in it, which is to stay.
    let _ = std::fs::remove_dir(&options.dir);
    Ok(())
}

impl Options {
    fn rig(&self, filesystem: Option<u64>) -> Fallible<Rig> {
        Ok(Rig::with(&Setup {
            base: Some(&self.dir),
            filesystem,
            ..Setup::default()
        })?)
    }

    fn until(&self) -> Until<'static> {
        Until::Amount(Amount {
            seconds: self.seconds,
            written: 0,
        })
    }
}

/// Counters of the store, in bytes unless named otherwise.
#[derive(Debug, Clone, Copy)]
struct Counters {
    log: f64,
    map: f64,
    relocated: f64,
    checkpoints: f64,
    checkpoint_ms: f64,
    map_size: f64,
}

impl Counters {
    fn of(rig: &Rig) -> Fallible<Self> {
        let status = rig.firn.status()?;
        let field = |name: &str| {
            let value = status[name].as_f64();
            value.ok_or_else(|| format!("firn store status tells no {name}"))
        };
        Ok(Self {
            log: field("log_written_bytes")?,
            map: field("meta_written_bytes")?,
            relocated: field("relocated_bytes")?,
            checkpoints: field("checkpoints")?,
            checkpoint_ms: field("checkpoint_milliseconds")?,
            map_size: field("meta_bytes")?,
        })
    }

    /// What came since, per byte that guests wrote: log, of it relocated, map; and the size and the time of
    /// the average checkpoint in MiB and ms.
    fn since(&self, before: &Self, guest: u64) -> [(&'static str, f64); 5] {
        let guest = (guest as f64).max(1.0);
        let checkpoints = (self.checkpoints - before.checkpoints).max(1.0);
        [
            ("log/byte", (self.log - before.log) / guest),
            (
                "relocated/byte",
                (self.relocated - before.relocated) / guest,
            ),
            ("map/byte", (self.map - before.map) / guest),
            (
                "checkpoint MiB",
                (self.map - before.map) / checkpoints / MIB,
            ),
            (
                "checkpoint ms",
                (self.checkpoint_ms - before.checkpoint_ms) / checkpoints,
            ),
        ]
    }
}

/// Tiny blocks, so that the map of a vDisk larger than the disk can be full; then reads and writes over it.
fn map(options: &Options, results: &mut Results) -> Fallible {
    for shuffled in [false, true] {
        for &mib in &options.map_mib {
            let mut rig = options.rig(None)?;
            let size = mib << 20;
            let socket = rig.create("disk", size)?;
            let order = if shuffled { "random" } else { "sequential" };
            let row = format!("{} GiB {order}", size as f64 / (MIB * 1024.0));
            let mut version = 0;
            let mut client = Client::connect(&socket, options_for(shuffled))?;
            let filled = load::fill(&mut client, size, Some(Kind::Tiny), shuffled, &mut version)?;
            client.stop()?;
            settle(rig.server.pid());
            let counters = Counters::of(&rig)?;
            let disk = measure::disk_bytes(rig.firn.store())?;
            results.point(
                "map: fill",
                &row,
                &[
                    ("fill s", filled.elapsed.as_secs_f64()),
                    ("MiB on disk", disk as f64 / MIB),
                    ("map MiB on disk", counters.map_size / MIB),
                    ("map written MiB", counters.map / MIB),
                    (
                        "peak MiB",
                        measure::memory(rig.server.pid())?.peak as f64 / MIB,
                    ),
                ],
            )?;
            for name in ["randread-1", "randread-32", "randwrite-32"] {
                let cell = Cell::named(name)?;
                let data = Data {
                    kind: Kind::Tiny,
                    span: size,
                    filled: true,
                };
                let mut client =
                    Client::connect(&socket, crate::contender::options(1, cell.bytes))?;
                let before = Counters::of(&rig)?;
                let outcome =
                    load::run(&mut client, &cell, data, options.until(), 1, &mut version)?;
                client.stop()?;
                settle(rig.server.pid());
                let written = if cell.reads == 0 { outcome.bytes } else { 0 };
                let cost = Counters::of(&rig)?.since(&before, written);
                let memory = measure::memory(rig.server.pid())?;
                let mut values = speed(&outcome, None);
                values.push(("resident MiB", memory.resident as f64 / MIB));
                values.push(("peak MiB", memory.peak as f64 / MIB));
                if written > 0 {
                    values.extend(cost);
                }
                results.point(&format!("map: {name}"), &row, &values)?;
            }
        }
    }
    Ok(())
}

fn options_for(shuffled: bool) -> firn_tests::client::ClientOptions {
    options(1, if shuffled { 4096 } else { 1 << 20 })
}

/// Operations and their latency; CPU of the server where it is given.
fn speed(outcome: &Outcome, cpu: Option<Duration>) -> Vec<(&'static str, f64)> {
    let mut values = vec![
        ("ops/s", outcome.ios as f64 / outcome.elapsed.as_secs_f64()),
        ("p50 us", outcome.latency.percentile_us(0.5)),
        ("p99 us", outcome.latency.percentile_us(0.99)),
    ];
    if let Some(cpu) = cpu {
        values.push(("CPU s/100k", cpu.as_secs_f64() * 1e5 / outcome.ios as f64));
    }
    values
}

/// Depth 4 on each of many vDisks.
fn vdisks(options: &Options, results: &mut Results) -> Fallible {
    let mut rig = options.rig(None)?;
    let size = options.vdisk_mib << 20;
    let most = options.vdisks.iter().max().copied().unwrap_or(0);
    let mut sockets = Vec::new();
    for at in 0..most {
        let socket = rig.create(&format!("disk{at}"), size)?;
        fill(&socket, size)?;
        sockets.push(socket);
    }
    for name in ["randread-1", "randwrite-1"] {
        let cell = Cell {
            depth: 4,
            ..Cell::named(name)?
        };
        for &count in &options.vdisks {
            settle(rig.server.pid());
            let cpu = measure::cpu_time(rig.server.pid())?;
            let sockets = &sockets[..usize::from(count)];
            let outcome = together(sockets, &cell, size, options.until())?;
            let cpu = measure::cpu_time(rig.server.pid())? - cpu;
            let values = speed(&outcome, Some(cpu));
            results.point(
                &format!("vdisks: {name}, depth 4 each"),
                &count.to_string(),
                &values,
            )?;
        }
    }
    Ok(())
}

fn fill(socket: &Path, size: u64) -> Fallible {
    let mut client = Client::connect(socket, options_for(false))?;
    load::fill(&mut client, size, Some(Kind::Half), false, &mut 0)?;
    Ok(client.stop()?)
}

/// Drives several vDisks, a thread each, and adds everything up.
fn together(
    sockets: &[PathBuf],
    cell: &Cell,
    span: u64,
    until: Until<'_>,
) -> Result<Outcome, ClientError> {
    let data = Data {
        kind: Kind::Half,
        span,
        filled: true,
    };
    let one = |socket: &PathBuf, seed| {
        let mut client = Client::connect(socket, options(cell.queues, cell.bytes))?;
        let outcome = load::run(&mut client, cell, data, until, seed, &mut 1000)?;
        client.stop()?;
        Ok::<_, ClientError>(outcome)
    };
    let mut sum = Outcome {
        ios: 0,
        bytes: 0,
        elapsed: Duration::ZERO,
        latency: Histogram::default(),
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (1..)
            .zip(sockets)
            .map(|(seed, socket)| scope.spawn(move || one(socket, seed)))
            .collect();
        for thread in threads {
            let outcome = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            sum.ios += outcome.ios;
            sum.bytes += outcome.bytes;
            sum.elapsed = sum.elapsed.max(outcome.elapsed);
            sum.latency.merge(&outcome.latency);
        }
        Ok(sum)
    })
}

/// Depth 32, spread over several queues of one vDisk.
fn queues(options: &Options, results: &mut Results) -> Fallible {
    let mut rig = options.rig(None)?;
    let size = options.vdisk_mib << 20;
    let socket = rig.create("disk", size)?;
    fill(&socket, size)?;
    for name in ["randread-32", "randwrite-32"] {
        for &queues in &options.queues {
            let cell = Cell {
                queues,
                ..Cell::named(name)?
            };
            settle(rig.server.pid());
            let cpu = measure::cpu_time(rig.server.pid())?;
            let outcome = together(std::slice::from_ref(&socket), &cell, size, options.until())?;
            let cpu = measure::cpu_time(rig.server.pid())? - cpu;
            let values = speed(&outcome, Some(cpu));
            results.point(
                &format!("queues: {name} in all"),
                &queues.to_string(),
                &values,
            )?;
        }
    }
    Ok(())
}

/// Random 4 KiB overwrites with room for a third more than the data, so that space must be reclaimed.
fn overwrite(options: &Options, results: &mut Results) -> Fallible {
    let size = options.vdisk_mib << 20;
    // Data at 0.6 of raw, a third of that, and what a store allocates ahead.
    let filesystem = size * 4 / 5 + (512 << 20);
    let mut rig = options.rig(Some(filesystem))?;
    let socket = rig.create("disk", size)?;
    fill(&socket, size)?;
    let mut client = Client::connect(&socket, options_for(true))?;
    let cell = Cell::named("randwrite-32")?;
    let data = Data {
        kind: Kind::Half,
        span: size,
        filled: true,
    };
    let mut version = 1000;
    for times in 1..=options.overwrites {
        let before = Counters::of(&rig)?;
        let until = Until::Count(size / u64::from(cell.bytes));
        let outcome = load::run(&mut client, &cell, data, until, times.into(), &mut version)?;
        let after = Counters::of(&rig)?;
        let mut values = speed(&outcome, None);
        values.extend(after.since(&before, outcome.bytes));
        let disk = measure::disk_bytes(rig.firn.store())? as f64;
        values.push(("disk/raw", disk / size as f64));
        results.point(
            "overwrite: randwrite-32",
            &format!("{times} times"),
            &values,
        )?;
    }
    Ok(client.stop()?)
}

/// Clients connected to many vDisks, each of which has been used.
fn idle(options: &Options, results: &mut Results) -> Fallible {
    let mut rig = options.rig(None)?;
    let size = 64 << 20;
    let mut clients = Vec::new();
    for at in 0..options.vdisks.iter().max().copied().unwrap_or(1) {
        let socket = rig.create(&format!("disk{at}"), size)?;
        let mut client = Client::connect(&socket, options_for(true))?;
        let cell = Cell::named("randwrite-32")?;
        let data = Data {
            kind: Kind::Half,
            span: size,
            filled: false,
        };
        load::run(&mut client, &cell, data, Until::Count(1000), 1, &mut 0)?;
        clients.push(client);
    }
    // The checkpoint that comes some time after the last write is work, not idleness.
    let pid = rig.server.pid();
    let until = Instant::now() + Duration::from_secs(60);
    let quiet = Duration::from_secs_f64(options.idle_seconds);
    let used = loop {
        let before = measure::cpu_time_exact(pid)?;
        thread::sleep(quiet);
        let used = measure::cpu_time_exact(pid)?.saturating_sub(before);
        if used.is_zero() || Instant::now() > until {
            break used;
        }
    };
    let values = [
        ("CPU us", used.as_secs_f64() * 1e6),
        ("in s", quiet.as_secs_f64()),
    ];
    Ok(results.point("idle", &format!("{} vDisks", clients.len()), &values)?)
}
