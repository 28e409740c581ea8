//! Measures vhost-user-blk servers, all through one user-space client.
//!
//! Each run prints a line of JSON. `firn-bench compare` runs servers in turn, so that the machine's moods
//! meet all of them alike, and ends with a table of medians and of the ratios within each round.

mod cell;
mod compare;
mod load;
mod report;
mod restart;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use firn_tests::client::{Client, ClientOptions};
use firn_tests::pattern::Kind;

use cell::{Amount, CELLS, Cell, Data};
use report::Meter;

/// Measures vhost-user-blk servers through one user-space client.
///
/// Without a command: compare, space and restart with their defaults, in ./target/firn-bench.
#[derive(Debug, Parser)]
#[command(name = "firn-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<What>,
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
        pid: Option<u32>,
        /// File or directory whose bytes on disk are reported.
        #[arg(long)]
        disk: Option<PathBuf>,
        #[command(flatten)]
        load: LoadArguments,
    },
    /// Start servers and drive them in turn.
    Compare {
        /// A directory to be created on the filesystem to measure; removed at the end.
        #[arg(long, default_value = DIR)]
        dir: PathBuf,
        /// Which, in turn; ratios are to the first.
        #[arg(long, value_delimiter = ',', default_value = "qsd,firn")]
        servers: Vec<String>,
        /// Rounds.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Do not write the vDisks through once before.
        #[arg(long)]
        no_prefill: bool,
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
    #[arg(long, default_value_t = 2048)]
    size_mib: u64,
    /// Compressibility of the data.
    #[arg(long, value_enum, default_value_t = Compressibility::Half)]
    data: Compressibility,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Compressibility {
    /// 2.0 : 1.
    Half,
    /// Not at all.
    Random,
}

impl LoadArguments {
    fn cells(&self) -> Vec<Cell> {
        if self.cells.is_empty() {
            CELLS.to_vec()
        } else {
            self.cells.clone()
        }
    }

    fn amount(&self) -> Amount {
        Amount {
            seconds: self.seconds,
            written: self.written_mib << 20,
        }
    }

    fn data(&self) -> Data {
        let kind = match self.data {
            Compressibility::Half => Kind::Half,
            Compressibility::Random => Kind::Random,
        };
        Data {
            kind,
            span: self.size_mib << 20,
        }
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Some(command) => execute(command),
        None => everything(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("firn-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What `make bench` runs.
fn everything() -> Result<(), Box<dyn Error>> {
    for command in ["compare", "space", "restart"] {
        let Arguments { command } = Arguments::try_parse_from(["firn-bench", command])?;
        command.map_or(Ok(()), execute)?;
    }
    Ok(())
}

fn execute(what: What) -> Result<(), Box<dyn Error>> {
    match what {
        What::Run {
            socket,
            pid,
            disk,
            load,
        } => {
            let mut version = 0;
            for cell in load.cells() {
                let options = ClientOptions {
                    queues: cell.queues,
                    max_bytes: 1 << 20,
                    ..ClientOptions::default()
                };
                let mut client = Client::connect(&socket, options)?;
                let capacity = client.config().capacity * 512;
                let data = Data {
                    span: load.data().span.min(capacity),
                    ..load.data()
                };
                let meter = Meter::new(pid, disk.as_deref());
                let outcome = load::run(&mut client, &cell, data, load.amount(), 1, &mut version)?;
                meter
                    .row("server", cell.name, 1, &outcome, data.span)
                    .print();
                client.stop()?;
            }
            Ok(())
        }
        What::Compare {
            dir,
            servers,
            rounds,
            no_prefill,
            load,
        } => compare::compare(&compare::Plan {
            dir,
            servers,
            cells: load.cells(),
            rounds,
            size: load.data().span,
            amount: load.amount(),
            kind: load.data().kind,
            prefill: !no_prefill,
        }),
        What::Restart {
            dir,
            size_mib,
            written_mib,
        } => restart::restart(&dir, size_mib << 20, &written_mib),
        What::Space { dir, size_mib } => compare::space(&dir, size_mib << 20),
    }
}
