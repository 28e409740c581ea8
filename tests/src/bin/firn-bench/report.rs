//! Figures of a run, as a JSON line and in tables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use firn_tests::measure;
use firn_tests::pattern::Kind;
use serde::{Deserialize, Serialize};

use crate::contender::Spec;
use crate::load::Outcome;
use crate::results::label;

/// One run's figures: a JSON line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Which server.
    pub server: String,
    /// Which cell.
    pub cell: String,
    /// Compressibility of the data.
    pub data: String,
    /// Which round, from 1; 0 for a fill.
    pub round: u32,
    /// Operations.
    pub ios: u64,
    /// Seconds from the first submission to the end of the final flush.
    pub seconds: f64,
    /// Operations per second.
    pub iops: f64,
    /// Megabytes (10^6) per second.
    pub mb_per_s: f64,
    /// Latencies in microseconds.
    pub p50_us: f64,
    /// 99 % of all operations took no longer.
    pub p99_us: f64,
    /// 99.9 % of all operations took no longer.
    pub p999_us: f64,
    /// CPU seconds of the server per 100,000 operations.
    pub cpu_s_per_100k: Option<f64>,
    /// Peak resident memory of the server in MiB, the shared guest memory included.
    pub peak_mib: Option<f64>,
    /// Resident memory of its own, in MiB, at the end.
    pub own_mib: Option<f64>,
    /// Bytes on disk at the end, before any idle work.
    pub disk_bytes: Option<u64>,
    /// These per byte of the vDisk that holds data.
    pub disk_per_raw: Option<f64>,
    /// What a streaming neighbour wrote meanwhile.
    pub neighbour_mb_per_s: Option<f64>,
}

/// Which run: server, cell, compressibility, round.
pub type Which<'a> = (&'a str, &'a str, &'a str, u32);

/// The server's CPU time before a run.
#[derive(Debug)]
pub struct Meter {
    pid: u32,
    disk: PathBuf,
    cpu: Option<Duration>,
}

impl Meter {
    /// Begins to watch a process and a file or directory.
    pub fn new(pid: u32, disk: &Path) -> Self {
        // Needs the right to write there; without it the peak is that of the whole life.
        let _ = measure::reset_peak_memory(pid);
        Self {
            pid,
            disk: disk.into(),
            cpu: measure::cpu_time(pid).ok(),
        }
    }

    /// Puts everything together. `raw` is the number of bytes that hold data.
    pub fn row(&self, (server, cell, data, round): Which<'_>, outcome: &Outcome, raw: u64) -> Row {
        let disk_bytes = measure::disk_bytes(&self.disk).ok();
        let seconds = outcome.elapsed.as_secs_f64();
        let cpu = measure::cpu_time(self.pid).ok();
        let cpu = cpu.zip(self.cpu).map(|(now, then)| now - then);
        let memory = measure::memory(self.pid).ok();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Row {
            server: server.into(),
            cell: cell.into(),
            data: data.into(),
            round,
            ios: outcome.ios,
            seconds,
            iops: outcome.ios as f64 / seconds,
            mb_per_s: outcome.bytes as f64 / seconds / 1e6,
            p50_us: outcome.latency.percentile_us(0.5),
            p99_us: outcome.latency.percentile_us(0.99),
            p999_us: outcome.latency.percentile_us(0.999),
            cpu_s_per_100k: cpu.map(|cpu| cpu.as_secs_f64() * 1e5 / outcome.ios as f64),
            peak_mib: memory.map(|m| mib(m.peak)),
            own_mib: memory.map(|m| mib(m.anonymous)),
            disk_bytes,
            disk_per_raw: disk_bytes.map(|bytes| bytes as f64 / raw as f64),
            neighbour_mb_per_s: None,
        }
    }
}

impl Row {
    /// Prints the row in one line.
    pub fn print(&self) {
        println!(
            "{:<14} {:<22} {:<14} round {}: {:>9.0}/s {:>7.1} MB/s, p50 {:.0} p99 {:.0} p99.9 {:.0} us, {:.3} CPU s/100k, peak {:.0} MiB, {:.3} on disk",
            self.data,
            self.cell,
            self.server,
            self.round,
            self.iops,
            self.mb_per_s,
            self.p50_us,
            self.p99_us,
            self.p999_us,
            self.cpu_s_per_100k.unwrap_or(0.0),
            self.peak_mib.unwrap_or(0.0),
            self.disk_per_raw.unwrap_or(0.0),
        );
    }
}

/// The median; 0 of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Prints each cell's medians per server and the ratio to the first server within each round.
pub fn print_table(rows: &[Row], servers: &[Spec], kind: Kind) {
    let Some(base) = servers.first().map(|spec| spec.name) else {
        return;
    };
    println!(
        "\n{:<22} {:<14} {:>9} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8} {:>6}  ratio to {base}, by round",
        format!("data {}", label(kind)),
        "server",
        "ops/s",
        "MB/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "cpu/100k",
        "peak MiB",
        "disk",
    );
    for cell in cells(rows) {
        for server in servers {
            let these = of(rows, cell, server.name);
            if these.is_empty() {
                continue;
            }
            let mid = |get: fn(&Row) -> f64| median(these.iter().map(|row| get(row)).collect());
            let ratios = ratios(rows, cell, server.name, base);
            let shown: Vec<String> = ratios.iter().map(|r| format!("{r:.2}")).collect();
            println!(
                "{cell:<22} {:<14} {:>9.0} {:>8.1} {:>8.1} {:>8.1} {:>9.1} {:>8.3} {:>8.1} {:>6.3}  {:.2} ({})",
                server.name,
                mid(|r| r.iops),
                mid(|r| r.mb_per_s),
                mid(|r| r.p50_us),
                mid(|r| r.p99_us),
                mid(|r| r.p999_us),
                mid(|r| r.cpu_s_per_100k.unwrap_or(0.0)),
                mid(|r| r.peak_mib.unwrap_or(0.0)),
                mid(|r| r.disk_per_raw.unwrap_or(0.0)),
                median(ratios),
                shown.join(" ")
            );
        }
    }
}

/// The cells of some rows, in their order.
pub fn cells(rows: &[Row]) -> Vec<&str> {
    let mut cells: Vec<&str> = Vec::new();
    for row in rows {
        if !cells.contains(&row.cell.as_str()) {
            cells.push(&row.cell);
        }
    }
    cells
}

/// A server's rows of a cell.
pub fn of<'a>(rows: &'a [Row], cell: &str, server: &str) -> Vec<&'a Row> {
    let these = |row: &&Row| row.cell == cell && row.server == server;
    rows.iter().filter(these).collect()
}

/// A server's operations per second by those of another one in the same round.
pub fn ratios(rows: &[Row], cell: &str, server: &str, base: &str) -> Vec<f64> {
    let bases = of(rows, cell, base);
    let ratio = |row: &Row| {
        let base = bases.iter().find(|base| base.round == row.round)?;
        Some(row.iops / base.iops)
    };
    of(rows, cell, server)
        .into_iter()
        .filter_map(ratio)
        .collect()
}
