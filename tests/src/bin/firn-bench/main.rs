//! Measures vhost-user-blk servers, all through one user-space client.
//!
//! `firn-bench compare` runs servers in turn, round by round, so that the machine's moods meet all of them
//! alike, and ends with tables of medians and of the ratios within each round. The other commands measure
//! what Firn costs as things grow.

mod cell;
mod chain;
mod charts;
mod compare;
mod contender;
mod count;
mod fragment;
mod grow;
mod load;
mod publish;
mod report;
mod restart;
mod results;
mod schedule;
mod space;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use firn_tests::client::Client;
use firn_tests::pattern::Kind;

use cell::{CELLS, Cell};
use contender::{SERVERS, Spec};
use load::{Amount, Data, Until};
use report::Meter;
use results::Results;

/// Measures vhost-user-blk servers through one user-space client.
///
/// Without a command: compare, space and restart with their defaults, in ./target/firn-bench.
#[derive(Debug, Parser)]
#[command(name = "firn-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<What>,
    /// A file that the figures are added to, one JSON object per line.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Where files go unless another directory is named.
const DIR: &str = "target/firn-bench";

#[derive(Debug, Subcommand)]
enum What {
    /// Drive a server that already runs. Overwrites what the vDisk holds.
    Run {
        /// The vhost-user socket.
        socket: PathBuf,
        /// The server's process, for CPU time and memory.
        #[arg(long)]
        pid: u32,
        /// File or directory whose bytes on disk are reported.
        #[arg(long)]
        disk: PathBuf,
        #[command(flatten)]
        load: LoadArguments,
    },
    /// Start servers and drive them in turn.
    Compare {
        /// A directory to be created on the filesystem to measure; removed at the end.
        #[arg(long, default_value = DIR)]
        dir: PathBuf,
        /// Which, in turn; ratios are to the first (default: all).
        #[arg(long, value_delimiter = ',', value_parser = Spec::named)]
        servers: Vec<Spec>,
        /// Rounds.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        #[command(flatten)]
        load: LoadArguments,
    },
    /// Measure what data costs on disk: sequential and random fills, zeroes, random data.
    Space {
        /// A directory to be created; removed at the end.
        #[arg(long, default_value = DIR)]
        dir: PathBuf,
        /// Size of the vDisk in MiB.
        #[arg(long, default_value_t = 8192)]
        size_mib: u64,
    },
    /// Count syscalls (strace) and instructions (valgrind) per I/O.
    Count(count::Options),
    /// Make Markdown tables and SVG charts of what --json has kept.
    Report {
        /// Files to read.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// A directory for what is made.
        #[arg(long, default_value = "docs/benchmarks")]
        out: PathBuf,
    },
    /// Measure what Firn costs as maps, vDisks, queues and overwrites grow, and what it costs idle.
    Grow(grow::Options),
    /// Measure reads through many snapshots, beside a chain of qcow2 images, and what taking one costs.
    Snapshots(chain::Options),
    /// Measure reads and memory while a schedule takes a snapshot a second and deletes old ones.
    Schedule(schedule::Options),
    /// Measure sequential reads after random overwrites, and again after one read and some idle time.
    Fragment(fragment::Options),
    /// Measure how long a backend takes from its start after a SIGKILL to the first read.
    Restart {
        /// A directory to be created; removed at the end.
        #[arg(long, default_value = DIR)]
        dir: PathBuf,
        /// Size of the vDisk in MiB; it is filled with 2.0-compressible data.
        #[arg(long, default_value_t = 4096)]
        size_mib: u64,
        /// MiB of random 4 KiB writes before each kill: the kills come at different lengths of the log.
        #[arg(long, value_delimiter = ',', default_value = "64,256,512,1024")]
        written_mib: Vec<u64>,
    },
}

#[derive(Debug, Args)]
struct LoadArguments {
    /// Cells to run (default: all).
    #[arg(long, value_delimiter = ',', value_parser = Cell::named)]
    cells: Vec<Cell>,
    /// Seconds per run, at least.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// MiB that each run with writes moves, at least: 8 times the write buffer and more.
    #[arg(long, default_value_t = 1024)]
    written_mib: u64,
    /// Size of the vDisk, or of the part of it that is used, in MiB.
    #[arg(long, default_value_t = 8192)]
    size_mib: u64,
    /// Compressibility of the data.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "half")]
    data: Vec<Compressibility>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Compressibility {
    /// 2.0 : 1.
    Half,
    /// Not at all.
    Random,
    /// To some 25 bytes a block: for maps of more data than the disk holds.
    Tiny,
}

impl From<Compressibility> for Kind {
    fn from(data: Compressibility) -> Self {
        match data {
            Compressibility::Half => Self::Half,
            Compressibility::Random => Self::Random,
            Compressibility::Tiny => Self::Tiny,
        }
    }
}

impl LoadArguments {
    fn cells(&self) -> Vec<Cell> {
        match self.cells.is_empty() {
            true => CELLS.to_vec(),
            false => self.cells.clone(),
        }
    }

    fn amount(&self) -> Amount {
        Amount {
            seconds: self.seconds,
            written: self.written_mib << 20,
        }
    }

    fn kinds(&self) -> Vec<Kind> {
        self.data.iter().map(|data| (*data).into()).collect()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = Results::open(arguments.json.as_deref())
        .map_err(Into::into)
        .and_then(|mut results| match arguments.command {
            Some(command) => execute(command, &mut results),
            None => everything(&mut results),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("firn-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What `make bench` runs.
fn everything(results: &mut Results) -> Result<(), Box<dyn Error>> {
    for command in ["compare --data half,random", "space", "restart"] {
        let words = ["firn-bench"].into_iter().chain(command.split(' '));
        let Arguments { command, .. } = Arguments::try_parse_from(words)?;
        command.map_or(Ok(()), |command| execute(command, results))?;
    }
    Ok(())
}

fn execute(what: What, results: &mut Results) -> Result<(), Box<dyn Error>> {
    match what {
        What::Run {
            socket,
            pid,
            disk,
            load,
        } => {
            let mut version = 0;
            for cell in load.cells() {
                let options = contender::options(cell.queues, cell.bytes);
                let mut client = Client::connect(&socket, options)?;
                let capacity = client.config().capacity * 512;
                let data = Data {
                    kind: *load.kinds().first().unwrap_or(&Kind::Half),
                    span: (load.size_mib << 20).min(capacity),
                    filled: false,
                };
                let meter = Meter::new(pid, &disk);
                let until = Until::Amount(load.amount());
                let outcome = load::run(&mut client, &cell, data, until, 1, &mut version)?;
                let run = ("server", cell.name, results::label(data.kind), 1);
                let row = meter.row(run, &outcome, data.span);
                row.print();
                results.add(&results::Record::Run(row))?;
                client.stop()?;
            }
            Ok(())
        }
        What::Compare {
            dir,
            servers,
            rounds,
            load,
        } => {
            let plan = compare::Plan {
                dir,
                servers: match servers.is_empty() {
                    true => SERVERS.to_vec(),
                    false => servers,
                },
                cells: load.cells(),
                kinds: load.kinds(),
                rounds,
                size: load.size_mib << 20,
                amount: load.amount(),
            };
            compare::compare(&plan, results)
        }
        What::Count(options) => count::count(&options, results),
        What::Report { files, out } => publish::publish(&files, &out),
        What::Grow(options) => grow::grow(&options, results),
        What::Snapshots(options) => chain::chain(&options, results),
        What::Schedule(options) => schedule::schedule(&options, results),
        What::Fragment(options) => fragment::fragment(&options, results),
        What::Restart {
            dir,
            size_mib,
            written_mib,
        } => restart::restart(&dir, size_mib << 20, &written_mib, results),
        What::Space { dir, size_mib } => space::space(&dir, size_mib << 20, results),
    }
}
