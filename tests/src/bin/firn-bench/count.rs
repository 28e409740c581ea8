//! Syscalls and instructions per I/O: what a noisy machine can't blur. Each figure is the difference of two
//! runs of different length, so that starting, filling and stopping cancel out.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firn_tests::client::Client;
use firn_tests::pattern::Kind;

use crate::cell::{Cell, State};
use crate::contender::{Contender, Spec, Want, options};
use crate::load::{self, Data, Until};
use crate::results::Results;

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

const CELLS: [&str; 2] = ["randread-32", "randwrite-32"];
const SERVERS: [&str; 2] = ["raw", "firn"];
/// The calls that have a column of their own.
const CALLS: [&str; 9] = [
    "io_uring_enter",
    "read",
    "write",
    "pread64",
    "pwrite64",
    "futex",
    "epoll_wait",
    "ppoll",
    "fdatasync",
];

/// What to count, and over how much.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// A directory to be created; removed at the end.
    #[arg(long, default_value = crate::DIR)]
    dir: PathBuf,
    /// I/Os to count syscalls over.
    #[arg(long, default_value_t = 50_000)]
    syscall_ios: u64,
    /// I/Os to count instructions over; valgrind makes each some fifty times as slow. 0: don't.
    #[arg(long, default_value_t = 20_000)]
    instruction_ios: u64,
    /// Size of the vDisk in MiB.
    #[arg(long, default_value_t = 256)]
    size_mib: u64,
}

/// Counts for Firn and the raw image.
pub fn count(options: &Options, results: &mut Results) -> Fallible {
    for cell in CELLS {
        let cell = Cell::named(cell)?;
        for name in SERVERS {
            let row = format!("{name} {}", cell.name);
            let calls = per_io(options, &cell, name, options.syscall_ios, &STRACE)?;
            let of = |call: &str| calls.get(call).copied().unwrap_or(0.0);
            let mut values = vec![("total", calls.values().sum::<f64>())];
            values.extend(CALLS.iter().map(|call| (*call, of(call))));
            let named: f64 = CALLS.iter().map(|call| of(call)).sum();
            values.push(("others", values[0].1 - named));
            results.point("syscalls per I/O", &row, &values)?;
        }
    }
    for cell in CELLS.iter().filter(|_| options.instruction_ios > 0) {
        let cell = Cell::named(cell)?;
        for name in SERVERS {
            let row = format!("{name} {}", cell.name);
            let counts = per_io(options, &cell, name, options.instruction_ios, &CALLGRIND)?;
            let values = [("instructions", counts.values().sum::<f64>())];
            results.point("instructions per I/O", &row, &values)?;
        }
    }
    Ok(())
}

/// A program that counts what another one does.
struct Tracer {
    command: &'static [&'static str],
    /// The argument that names the file for its findings, up to the file's name.
    output: &'static str,
    read: fn(&str) -> BTreeMap<String, f64>,
}

const STRACE: Tracer = Tracer {
    command: &["strace", "-f", "-c", "-U", "name,calls"],
    output: "--output=",
    read: |text| {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let (name, calls) = (words.next()?, words.next()?.parse().ok()?);
            (name != "total").then(|| (name.to_owned(), calls))
        };
        text.lines().filter_map(line).collect()
    },
};

const CALLGRIND: Tracer = Tracer {
    command: &["valgrind", "--quiet", "--tool=callgrind"],
    output: "--callgrind-out-file=",
    read: |text| {
        let line = |line: &str| line.strip_prefix("totals:")?.trim().parse().ok();
        let total = text.lines().find_map(line).unwrap_or(0.0);
        BTreeMap::from([("instructions".to_owned(), total)])
    },
};

/// What `ios` I/Os of a cell add to each count, per I/O.
fn per_io(
    options: &Options,
    cell: &Cell,
    server: &str,
    ios: u64,
    tracer: &Tracer,
) -> Fallible<BTreeMap<String, f64>> {
    let short = counted(options, cell, server, ios / 4, tracer)?;
    let long = counted(options, cell, server, ios / 4 + ios, tracer)?;
    let more = |name: &String, count: f64| count - short.get(name).copied().unwrap_or(0.0);
    Ok(long
        .iter()
        .map(|(name, count)| (name.clone(), more(name, *count).max(0.0) / ios as f64))
        .collect())
}

fn counted(
    options: &Options,
    cell: &Cell,
    server: &str,
    ios: u64,
    tracer: &Tracer,
) -> Fallible<BTreeMap<String, f64>> {
    fs::create_dir_all(&options.dir)?;
    // The server may have another working directory.
    let findings = fs::canonicalize(&options.dir)?.join("findings");
    let mut spec = Spec::named(server)?;
    spec.tracer = tracer.command.iter().map(ToString::to_string).collect();
    spec.tracer
        .push(format!("{}{}", tracer.output, findings.display()));
    let want = Want {
        state: State::Sequential,
        kind: Kind::Half,
        size: options.size_mib << 20,
        neighbour: false,
    };
    let mut contender = Contender::start(&spec, &options.dir.join("server"), want)?;
    run(&mut contender, cell, want.size, ios)?;
    contender.server.end_traced(Duration::from_secs(120))?;
    let text = read(&findings)?;
    contender.remove()?;
    fs::remove_dir_all(&options.dir)?;
    Ok((tracer.read)(&text))
}

fn run(contender: &mut Contender, cell: &Cell, span: u64, ios: u64) -> Fallible {
    let mut client = Client::connect(&contender.socket, options(cell.queues, cell.bytes))?;
    let data = Data {
        kind: Kind::Half,
        span,
        filled: true,
    };
    let version = &mut contender.version;
    load::run(&mut client, cell, data, Until::Count(ios), 1, version)?;
    Ok(client.stop()?)
}

fn read(findings: &Path) -> Fallible<String> {
    let wrong = |e| format!("{}: {e}", findings.display());
    Ok(fs::read_to_string(findings).map_err(wrong)?)
}
