//! Servers driven in turn, round by round, on the same filesystem; and what data costs on disk.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firn_tests::client::{Client, ClientOptions};
use firn_tests::measure;
use firn_tests::pattern::Kind;
use firn_tests::server::{Binaries, Firn, Server, qemu_storage_daemon};

use crate::cell::{Amount, Cell, Data};
use crate::load;
use crate::report::{Meter, Row, print_table};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// A server with a filled vDisk.
struct Contender {
    name: &'static str,
    server: Server,
    socket: PathBuf,
    disk: PathBuf,
    version: u32,
}

/// What to compare, and how long.
pub struct Plan {
    /// An empty or new directory; everything in it is removed at the end.
    pub dir: PathBuf,
    /// Names of servers: `qsd`, `qsd-cached`, `firn`.
    pub servers: Vec<String>,
    /// Loads.
    pub cells: Vec<Cell>,
    /// Rounds.
    pub rounds: u32,
    /// Bytes of the vDisk.
    pub size: u64,
    /// Length of each run.
    pub amount: Amount,
    /// Compressibility of all data.
    pub kind: Kind,
    /// Write through each vDisk once before measuring.
    pub prefill: bool,
}

/// Runs every cell on every server in turn and prints JSON lines and a table.
pub fn compare(plan: &Plan) -> Fallible<()> {
    fs::create_dir_all(&plan.dir)?;
    let mut contenders = Vec::new();
    for name in &plan.servers {
        contenders.push(start(name, &plan.dir, plan.size)?);
    }
    for contender in contenders.iter_mut().filter(|_| plan.prefill) {
        let mut client = Client::connect(&contender.socket, options(1))?;
        let meter = Meter::new(Some(contender.server.pid()), Some(&contender.disk));
        let outcome = load::fill(
            &mut client,
            plan.size,
            Some(plan.kind),
            false,
            &mut contender.version,
        )?;
        meter
            .row(contender.name, "fill", 0, &outcome, plan.size)
            .print();
        client.stop()?;
        settle(&contender.server);
    }
    let mut rows: Vec<Row> = Vec::new();
    for cell in &plan.cells {
        for round in 1..=plan.rounds {
            for contender in &mut contenders {
                let row = one_run(contender, cell, plan, round)?;
                row.print();
                rows.push(row);
                settle(&contender.server);
            }
        }
    }
    let names: Vec<&str> = contenders.iter().map(|c| c.name).collect();
    if !rows.is_empty() {
        print_table(&rows, &names);
    }
    drop(contenders);
    fs::remove_dir_all(&plan.dir)?;
    Ok(())
}

fn one_run(contender: &mut Contender, cell: &Cell, plan: &Plan, round: u32) -> Fallible<Row> {
    let mut client = Client::connect(&contender.socket, options(cell.queues))?;
    let meter = Meter::new(Some(contender.server.pid()), Some(&contender.disk));
    let data = Data {
        kind: plan.kind,
        span: plan.size,
    };
    let seed = u64::from(round);
    let outcome = load::run(
        &mut client,
        cell,
        data,
        plan.amount,
        seed,
        &mut contender.version,
    )?;
    let row = meter.row(contender.name, cell.name, round, &outcome, plan.size);
    client.stop()?;
    Ok(row)
}

/// Fresh vDisks filled in different ways: bytes on disk per byte of data, right after the final flush, with
/// and without (`more`) what an empty store has preallocated.
pub fn space(dir: &Path, size: u64) -> Fallible<()> {
    let fills = [
        ("sequential 2.0", Some(Kind::Half), false),
        ("random order 2.0", Some(Kind::Half), true),
        ("zeroes", None, false),
        ("random data", Some(Kind::Random), false),
    ];
    println!(
        "{:<18} {:>8} {:>12} {:>8} {:>12} {:>8}",
        "fill", "MB/s", "bytes", "per raw", "more", "per raw"
    );
    for (name, kind, shuffled) in fills {
        fs::create_dir_all(dir)?;
        let mut contender = start("firn", dir, size)?;
        let empty = measure::disk_bytes(&contender.disk)?;
        let mut client = Client::connect(&contender.socket, options(1))?;
        let mut fill = |label: &str, shuffled| -> Fallible<()> {
            let outcome = load::fill(&mut client, size, kind, shuffled, &mut contender.version)?;
            let disk = measure::disk_bytes(&contender.disk)?;
            let more = disk.saturating_sub(empty);
            println!(
                "{label:<18} {:>8.0} {disk:>12} {:>8.4} {more:>12} {:>8.4}",
                outcome.bytes as f64 / outcome.elapsed.as_secs_f64() / 1e6,
                disk as f64 / size as f64,
                more as f64 / size as f64
            );
            Ok(())
        };
        fill(name, shuffled)?;
        if name == "sequential 2.0" {
            fill(" + overwritten", true)?;
        }
        client.stop()?;
        drop(contender);
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

fn start(name: &str, dir: &Path, size: u64) -> Fallible<Contender> {
    let home = dir.join(name);
    fs::create_dir_all(&home)?;
    let wait = Duration::from_secs(30);
    match name {
        "qsd" | "qsd-cached" => {
            let (image, socket) = (home.join("disk.raw"), home.join("disk.sock"));
            fs::File::create(&image)?.set_len(size)?;
            let mut server =
                qemu_storage_daemon(&image, &socket, 8, name == "qsd", &home.join("server.log"))?;
            server.listening(&socket, wait)?;
            let name = if name == "qsd" { "qsd" } else { "qsd-cached" };
            Ok(Contender {
                name,
                server,
                socket,
                disk: image,
                version: 0,
            })
        }
        "firn" => {
            let firn = Firn::create(Binaries::find()?, &home)?;
            let mut server = firn.serve()?;
            firn.create_vdisk("disk", size)?;
            let socket = firn.socket("disk");
            server.listening(&socket, wait)?;
            Ok(Contender {
                name: "firn",
                server,
                socket,
                disk: firn.store().into(),
                version: 0,
            })
        }
        _ => Err(format!("no server {name}; there are qsd, qsd-cached, firn").into()),
    }
}

/// Waits until a server has no work left, so that it does not disturb the next one's turn.
fn settle(server: &Server) {
    const STEP: Duration = Duration::from_millis(200);
    let until = Instant::now() + Duration::from_secs(30);
    let mut before = measure::cpu_time(server.pid()).unwrap_or_default();
    while Instant::now() < until {
        std::thread::sleep(STEP);
        let now = measure::cpu_time(server.pid()).unwrap_or_default();
        if now - before < STEP / 10 {
            return;
        }
        before = now;
    }
}

fn options(queues: u16) -> ClientOptions {
    ClientOptions {
        queues,
        max_bytes: 1 << 20,
        ..ClientOptions::default()
    }
}
