//! Figures of a run, as a JSON line and in tables.

use std::path::Path;
use std::time::Duration;

use firn_tests::measure;
use serde::Serialize;

use crate::load::Outcome;

/// One run's figures: a JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which server.
    pub server: String,
    /// Which cell.
    pub cell: String,
    /// Which round, from 1.
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
}

/// The server's CPU time before a run.
#[derive(Debug)]
pub struct Meter<'a> {
    pid: Option<u32>,
    disk: Option<&'a Path>,
    cpu: Option<Duration>,
}

impl<'a> Meter<'a> {
    /// Begins to watch a process and a file or directory.
    pub fn new(pid: Option<u32>, disk: Option<&'a Path>) -> Self {
        let cpu = pid.and_then(|pid| measure::cpu_time(pid).ok());
        if let Some(pid) = pid {
            // Needs the right to write there; without it the peak is that of the whole life.
            let _ = measure::reset_peak_memory(pid);
        }
        Self { pid, disk, cpu }
    }

    /// Puts everything together. `raw` is the number of bytes that hold data.
    pub fn row(&self, server: &str, cell: &str, round: u32, outcome: &Outcome, raw: u64) -> Row {
        let disk_bytes = self.disk.and_then(|path| measure::disk_bytes(path).ok());
        let seconds = outcome.elapsed.as_secs_f64();
        let cpu = self
            .pid
            .and_then(|pid| measure::cpu_time(pid).ok())
            .zip(self.cpu)
            .map(|(now, then)| now - then);
        let memory = self.pid.and_then(|pid| measure::memory(pid).ok());
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Row {
            server: server.into(),
            cell: cell.into(),
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
        }
    }
}

impl Row {
    /// Prints the row as one line of JSON.
    pub fn print(&self) {
        match serde_json::to_string(self) {
            Ok(line) => println!("{line}"),
            Err(e) => eprintln!("firn-bench: {e}"),
        }
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

/// Prints a cell's medians per server and the ratio to the first server within each round.
pub fn print_table(rows: &[Row], servers: &[&str]) {
    println!(
        "\n{:<16} {:<14} {:>9} {:>9} {:>8} {:>8} {:>9} {:>9} {:>8} {:>6}  ratio to {} by round",
        "cell",
        "server",
        "ops/s",
        "MB/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "cpu/100k",
        "own MiB",
        "disk",
        servers[0]
    );
    let mut cells: Vec<&str> = Vec::new();
    for row in rows {
        if !cells.contains(&row.cell.as_str()) {
            cells.push(&row.cell);
        }
    }
    for cell in cells {
        for server in servers {
            let of = |server: &str| -> Vec<&Row> {
                rows.iter()
                    .filter(|r| r.cell == cell && r.server == server)
                    .collect()
            };
            let mid = |get: fn(&Row) -> f64| median(of(server).into_iter().map(get).collect());
            let ratios: Vec<f64> = of(server)
                .into_iter()
                .filter_map(|row| {
                    let base = of(servers[0])
                        .into_iter()
                        .find(|base| base.round == row.round)?;
                    Some(row.iops / base.iops)
                })
                .collect();
            let shown: Vec<String> = ratios.iter().map(|r| format!("{r:.2}")).collect();
            println!(
                "{cell:<16} {server:<14} {:>9.0} {:>9.1} {:>8.1} {:>8.1} {:>9.1} {:>9.3} {:>8.1} {:>6.3}  {:.2} ({})",
                mid(|r| r.iops),
                mid(|r| r.mb_per_s),
                mid(|r| r.p50_us),
                mid(|r| r.p99_us),
                mid(|r| r.p999_us),
                mid(|r| r.cpu_s_per_100k.unwrap_or(0.0)),
                mid(|r| r.own_mib.unwrap_or(0.0)),
                mid(|r| r.disk_per_raw.unwrap_or(0.0)),
                median(ratios),
                shown.join(" ")
            );
        }
    }
}
