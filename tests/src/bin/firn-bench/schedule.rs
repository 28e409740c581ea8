//! What a snapshot a second costs as time goes by: read latency, memory and layers, minute by minute.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firn_tests::client::Client;
use firn_tests::measure;
use firn_tests::pattern::Kind;
use firn_tests::rig::{Rig, Setup};

use crate::cell::Cell;
use crate::contender::options;
use crate::load::{self, Amount, Data, Outcome, Until};
use crate::results::Results;

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

const MIB: f64 = 1048576.0;

/// What to measure, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// A directory on the filesystem to measure; what is made in it is removed.
    #[arg(long, default_value = crate::DIR)]
    dir: PathBuf,
    /// How long.
    #[arg(long, default_value_t = 60)]
    minutes: u32,
    /// Size of the vDisk in MiB.
    #[arg(long, default_value_t = 2048)]
    size_mib: u64,
    /// Blocks overwritten at random each second, in per cent of the vDisk.
    #[arg(long, default_value_t = 1)]
    changed_percent: u64,
    /// Snapshots that the schedule keeps.
    #[arg(long, default_value_t = 120)]
    keep: u32,
}

/// Lets a schedule take and delete snapshots, and measures.
pub fn schedule(options: &Options, results: &mut Results) -> Fallible {
    let mut rig = Rig::with(&Setup {
        base: Some(&options.dir),
        ..Setup::default()
    })?;
    let socket = rig.create("disk", options.size_mib << 20)?;
    let mut version = 0;
    let mut client = Client::connect(&socket, crate::contender::options(1, 1 << 20))?;
    let size = options.size_mib << 20;
    load::fill(&mut client, size, Some(Kind::Half), false, &mut version)?;
    client.stop()?;
    let keep = options.keep.to_string();
    let words = ["snapshot", "schedule", "s", "disk", "--every", "1s"];
    rig.firn
        .cli(&[&words[..], &["--keep-last", &keep]].concat())?;
    for minute in 1..=options.minutes {
        options.minute(minute, &rig, &socket, &mut version, results)?;
    }
    rig.firn.cli(&["store", "check"])?;
    drop(rig);
    // Fails where something else is in it, which is to stay.
    let _ = std::fs::remove_dir(&options.dir);
    Ok(())
}

impl Options {
    /// Writes at the start of each second, and random reads in the rest: at depth 1 in even ones, else at depth 32.
    fn minute(
        &self,
        minute: u32,
        rig: &Rig,
        socket: &Path,
        version: &mut u32,
        results: &mut Results,
    ) -> Fallible {
        let blocks = (self.size_mib << 20) / 4096;
        let writes = Until::Count(blocks * self.changed_percent / 100);
        let mut reads: [Vec<Outcome>; 2] = Default::default();
        for second in 0..60 {
            let begun = Instant::now();
            let seed = minute * 60 + second;
            self.run(socket, "randwrite-32", writes, seed, version)?;
            let one = usize::from(second % 2 == 1);
            let name = ["randread-1", "randread-32"][one];
            let left = Duration::from_secs(1).saturating_sub(begun.elapsed());
            let until = Until::Amount(Amount {
                seconds: left.as_secs_f64().max(0.1),
                written: 0,
            });
            reads[one].push(self.run(socket, name, until, seed, version)?);
        }
        let [single, many] = reads.map(Reads::of);
        let memory = measure::memory(rig.server.pid())?;
        let out = rig.firn.cli(&["store", "status", "--json"])?;
        let status: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        let status = status.get("store").unwrap_or(&status);
        let number = |name: &str| status[name].as_u64().unwrap_or(0) as f64;
        results.point(
            "snapshots: one a second, by minute",
            &minute.to_string(),
            &[
                ("depth 1 p50 us", single.latency.percentile_us(0.5)),
                ("p99 us", single.latency.percentile_us(0.99)),
                ("depth 32 ops/s", many.rate),
                ("then p99 us", many.latency.percentile_us(0.99)),
                ("snapshots", number("snapshots")),
                ("layers", number("layers")),
                ("live MiB", number("live_bytes") / MIB),
                ("resident MiB", memory.resident as f64 / MIB),
            ],
        )?;
        Ok(())
    }

    fn run(
        &self,
        socket: &Path,
        cell: &str,
        until: Until<'_>,
        seed: u32,
        version: &mut u32,
    ) -> Fallible<Outcome> {
        let cell = Cell::named(cell)?;
        let mut client = Client::connect(socket, options(1, cell.bytes))?;
        let data = Data {
            kind: Kind::Half,
            span: self.size_mib << 20,
            filled: true,
        };
        let outcome = load::run(&mut client, &cell, data, until, seed.into(), version)?;
        client.stop()?;
        Ok(outcome)
    }
}

/// All runs of a kind in a minute.
struct Reads {
    latency: measure::Histogram,
    rate: f64,
}

impl Reads {
    fn of(runs: Vec<Outcome>) -> Self {
        let mut latency = measure::Histogram::default();
        let (mut ios, mut seconds) = (0, 0.0);
        for run in &runs {
            latency.merge(&run.latency);
            ios += run.ios;
            seconds += run.elapsed.as_secs_f64();
        }
        let rate = ios as f64 / seconds;
        Self { latency, rate }
    }
}
