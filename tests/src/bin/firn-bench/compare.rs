//! Servers driven in turn, round by round, on the same filesystem.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use firn_tests::client::{Client, ClientError};
use firn_tests::pattern::Kind;

use crate::cell::{Cell, NEIGHBOUR, State};
use crate::contender::{Contender, Spec, Want, neighbour_size, options};
use crate::load::{self, Amount, Data, Outcome, Until};
use crate::report::{Meter, Row, print_table};
use crate::results::{Record, Results, label};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// What to compare, and how long.
pub struct Plan {
    /// An empty or new directory; everything in it is removed at the end.
    pub dir: PathBuf,
    /// Ratios are to the first.
    pub servers: Vec<Spec>,
    /// Loads; those of one state together.
    pub cells: Vec<Cell>,
    /// Compressibilities, one after the other.
    pub kinds: Vec<Kind>,
    /// Rounds.
    pub rounds: u32,
    /// Bytes of the vDisk.
    pub size: u64,
    /// Length of each run.
    pub amount: Amount,
}

/// Runs every cell on every server in turn and prints tables.
pub fn compare(plan: &Plan, results: &mut Results) -> Fallible<()> {
    for &kind in &plan.kinds {
        let mut rows = Vec::new();
        for cells in plan.cells.chunk_by(|a, b| a.state == b.state) {
            stage(plan, kind, cells, &mut rows, results)?;
        }
        print_table(&rows, &plan.servers, kind);
    }
    Ok(fs::remove_dir_all(&plan.dir)?)
}

/// All cells that begin with vDisks of the same contents.
fn stage(
    plan: &Plan,
    kind: Kind,
    cells: &[Cell],
    rows: &mut Vec<Row>,
    results: &mut Results,
) -> Fallible<()> {
    let state = cells.first().map_or(State::Fresh, |cell| cell.state);
    let want = Want {
        state,
        kind,
        size: plan.size,
        neighbour: cells.iter().any(|cell| cell.neighbour),
    };
    let specs = plan.servers.iter();
    let specs = specs.filter(|spec| cells.iter().any(|cell| spec.runs(cell)));
    let home = |spec: &Spec| plan.dir.join(spec.name);
    let mut keep = |row: Row| -> Fallible<()> {
        row.print();
        results.add(&Record::Run(row.clone()))?;
        rows.push(row);
        Ok(())
    };
    if state == State::Fresh {
        let specs: Vec<_> = specs.collect();
        for cell in cells {
            for round in 1..=plan.rounds {
                for spec in &specs {
                    let mut contender = Contender::start(spec, &home(spec), want)?;
                    keep(one_run(&mut contender, cell, want, plan.amount, round)?)?;
                    contender.remove()?;
                }
            }
        }
        return Ok(());
    }
    let mut contenders = Vec::new();
    for spec in specs {
        let contender = Contender::start(spec, &home(spec), want)?;
        if let Some(row) = contender.filled.clone() {
            keep(row)?;
        }
        contenders.push(contender);
    }
    for cell in cells {
        for round in 1..=plan.rounds {
            for contender in contenders.iter_mut().filter(|c| c.spec.runs(cell)) {
                keep(one_run(contender, cell, want, plan.amount, round)?)?;
                contender.settle();
            }
        }
    }
    contenders.into_iter().try_for_each(Contender::remove)
}

fn one_run(
    contender: &mut Contender,
    cell: &Cell,
    want: Want,
    amount: Amount,
    round: u32,
) -> Fallible<Row> {
    let mut client = Client::connect(&contender.socket, options(cell.queues, cell.bytes))?;
    let meter = Meter::new(contender.server.pid(), &contender.disk);
    let data = Data {
        kind: want.kind,
        span: want.size,
        filled: want.state != State::Fresh,
    };
    let until = Until::Amount(amount);
    let seed = u64::from(round);
    let version = &mut contender.version;
    let mut measured = || load::run(&mut client, cell, data, until, seed, version);
    let (outcome, beside) = match &contender.neighbour {
        Some(socket) if cell.neighbour => {
            let span = neighbour_size(want.size);
            let (outcome, beside) = beside(socket, Data { span, ..data }, measured)?;
            (outcome, Some(beside))
        }
        _ => (measured()?, None),
    };
    let written = match want.state {
        State::Fresh => outcome.bytes,
        _ => want.size,
    };
    let mut row = meter.row(
        (contender.spec.name, cell.name, label(want.kind), round),
        &outcome,
        written,
    );
    row.neighbour_mb_per_s = beside;
    client.stop()?;
    Ok(row)
}

/// Measures while the vDisk at `socket` is written sequentially; also returns MB/s of the latter.
fn beside(
    socket: &Path,
    data: Data,
    measured: impl FnOnce() -> Result<Outcome, ClientError>,
) -> Result<(Outcome, f64), ClientError> {
    let mut client = Client::connect(socket, options(1, NEIGHBOUR.bytes))?;
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let neighbour = scope.spawn(|| {
            let until = Until::Told(&enough);
            load::run(&mut client, &NEIGHBOUR, data, until, 1, &mut 0)
        });
        let outcome = measured();
        enough.store(true, Ordering::Relaxed);
        let stream = neighbour
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((
            outcome?,
            stream.bytes as f64 / stream.elapsed.as_secs_f64() / 1e6,
        ))
    })
}
