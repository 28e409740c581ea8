//! What random overwrites do to sequential reads, and what is left of that after one read and some idle time.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use firn_tests::client::Client;
use firn_tests::pattern::Kind;

use crate::cell::{Cell, State};
use crate::contender::{Contender, Spec, Want, options};
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
    /// Which servers.
    #[arg(long, value_delimiter = ',', value_parser = Spec::named, default_value = "raw,qcow2,firn")]
    servers: Vec<Spec>,
    /// Size of the vDisk in MiB.
    #[arg(long, default_value_t = 8192)]
    size_mib: u64,
    /// Seconds of random reads.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// Measures all servers, one after the other.
pub fn fragment(options: &Options, results: &mut Results) -> Fallible {
    for spec in &options.servers {
        one(options, spec, results)?;
    }
    // Fails where something else is in it, which is to stay.
    let _ = std::fs::remove_dir(&options.dir);
    Ok(())
}

fn one(options: &Options, spec: &Spec, results: &mut Results) -> Fallible {
    let size = options.size_mib << 20;
    let want = Want {
        state: State::Sequential,
        kind: Kind::Half,
        size,
        neighbour: false,
    };
    let mut contender = Contender::start(spec, &options.dir.join(spec.name), want)?;
    let fresh = options.read(&mut contender, "seqread")?;
    let socket = contender.socket.clone();
    overwrite(&socket, size, &mut contender.version)?;
    contender.settle();
    let before = options.read(&mut contender, "randread-32")?;
    let scattered = options.read(&mut contender, "seqread")?;
    let idle = Instant::now();
    let meanwhile = options.read(&mut contender, "randread-32")?;
    contender.settle();
    let idle = idle.elapsed();
    let after = options.read(&mut contender, "seqread")?;
    results.point(
        "overwritten at random",
        spec.name,
        &[
            ("fresh MiB/s", speed(&fresh)),
            ("scattered MiB/s", speed(&scattered)),
            ("idle s", idle.as_secs_f64()),
            ("after MiB/s", speed(&after)),
            ("of fresh", speed(&after) / speed(&fresh)),
            ("random ops/s", rate(&before)),
            ("meanwhile ops/s", rate(&meanwhile)),
        ],
    )?;
    contender.remove()
}

impl Options {
    fn read(&self, contender: &mut Contender, name: &str) -> Fallible<Outcome> {
        let cell = Cell::named(name)?;
        let size = self.size_mib << 20;
        let data = Data {
            kind: Kind::Half,
            span: size,
            filled: true,
        };
        let until = match cell.sequential {
            true => Until::Count(size / u64::from(cell.bytes)),
            false => Until::Amount(Amount {
                seconds: self.seconds,
                written: 0,
            }),
        };
        let mut client = Client::connect(&contender.socket, options(1, cell.bytes))?;
        let outcome = load::run(&mut client, &cell, data, until, 1, &mut contender.version)?;
        client.stop()?;
        Ok(outcome)
    }
}

/// Every block once, in random order.
fn overwrite(socket: &Path, size: u64, version: &mut u32) -> Fallible {
    let mut client = Client::connect(socket, options(1, 4096))?;
    load::fill(&mut client, size, Some(Kind::Half), true, version)?;
    Ok(client.stop()?)
}

fn speed(outcome: &Outcome) -> f64 {
    outcome.bytes as f64 / outcome.elapsed.as_secs_f64() / MIB
}

fn rate(outcome: &Outcome) -> f64 {
    outcome.ios as f64 / outcome.elapsed.as_secs_f64()
}
