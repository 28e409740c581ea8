//! Figures as a page of Markdown tables, with charts beside it.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cell::{BAR_INCOMPRESSIBLE, CELLS};
use crate::charts;
use crate::contender::SERVERS;
use crate::report::{Row, cells, median, of, ratios};
use crate::results::{self, Begin, Point, Record, number};

/// What ratios are to.
pub const BASE: &str = "raw";
const OURS: &str = "firn";

/// Reads files of records and writes `out/figures.md` and its charts.
pub fn publish(files: &[PathBuf], out: &Path) -> Result<(), Box<dyn Error>> {
    let (mut begins, mut rows, mut points) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        for record in results::load(file)? {
            match record {
                Record::Begin(begin) => begins.push(begin),
                Record::Run(row) => rows.push(row),
                Record::Point(point) => points.push(point),
            }
        }
    }
    fs::create_dir_all(out)?;
    let mut page = String::from(
        "# Figures\n\nMade by `firn-bench report`; what they mean is in [benchmarks.md](../benchmarks.md).\n",
    );
    circumstances(&mut page, &begins)?;
    for data in kinds(&rows) {
        let rows: Vec<Row> = rows.iter().filter(|r| r.data == data).cloned().collect();
        writeln!(page, "\n## Data {data}")?;
        compared(&mut page, &rows, &data, out)?;
    }
    others(&mut page, &points, out)?;
    fs::write(out.join("figures.md"), page)?;
    println!("wrote {}", out.join("figures.md").display());
    Ok(())
}

fn kinds(rows: &[Row]) -> Vec<String> {
    let mut kinds: Vec<String> = rows.iter().map(|row| row.data.clone()).collect();
    kinds.dedup();
    kinds
}

fn circumstances(page: &mut String, begins: &[Begin]) -> std::fmt::Result {
    for begin in begins {
        writeln!(
            page,
            "\n`firn-bench {}`: {}; {}; load average before it {}.",
            begin.command, begin.machine, begin.qemu, begin.load
        )?;
    }
    Ok(())
}

/// The tables of one compressibility.
fn compared(page: &mut String, rows: &[Row], data: &str, out: &Path) -> Result<(), Box<dyn Error>> {
    let servers: Vec<&str> = SERVERS
        .iter()
        .map(|spec| spec.name)
        .filter(|name| rows.iter().any(|row| row.server == *name))
        .collect();
    let chart = format!("ratios-{data}.svg");
    charts::ratios(&out.join(&chart), rows, &servers, data)?;
    writeln!(
        page,
        "\nMedian of the ratios to `{BASE}` within each round; the first column is `{BASE}` itself.\n"
    )?;
    writeln!(page, "![Ratios]({chart})\n")?;
    let others: Vec<&str> = servers
        .iter()
        .copied()
        .filter(|name| *name != BASE)
        .collect();
    writeln!(page, "| cell | {BASE} | {} | bar |", others.join(" | "))?;
    writeln!(page, "|---|{}---|", "---|".repeat(others.len() + 1))?;
    for cell in cells(rows) {
        let base: Vec<f64> = of(rows, cell, BASE).iter().map(|r| r.iops).collect();
        match base.is_empty() {
            true => write!(page, "| {cell} | |")?,
            false => write!(page, "| {cell} | {}/s |", number(median(base)))?,
        }
        for server in &others {
            let found = ratios(rows, cell, server, BASE);
            match found.is_empty() {
                true => write!(page, " |")?,
                false => write!(page, " {:.2} |", median(found))?,
            }
        }
        writeln!(page, " {} |", bar(rows, cell, data))?;
    }
    let chart = format!("latency-{data}.svg");
    charts::latencies(&out.join(&chart), rows, &[OURS, BASE], data)?;
    writeln!(
        page,
        "\nLatency of an operation, CPU of the server, its peak memory, and bytes on disk per raw byte; medians over rounds.\n"
    )?;
    writeln!(page, "![Latencies]({chart})\n")?;
    writeln!(
        page,
        "| cell | server | MB/s | p50 us | p99 us | p99.9 us | CPU s per 100k | peak MiB | on disk | ratios by round |\n|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for cell in cells(rows) {
        for server in &servers {
            details(page, rows, cell, server)?;
        }
    }
    neighbours(page, rows, &servers)?;
    Ok(())
}

fn details(page: &mut String, rows: &[Row], cell: &str, server: &str) -> std::fmt::Result {
    let these = of(rows, cell, server);
    if these.is_empty() {
        return Ok(());
    }
    let mid = |get: fn(&Row) -> f64| number(median(these.iter().map(|row| get(row)).collect()));
    let ratios: Vec<String> = ratios(rows, cell, server, BASE)
        .iter()
        .map(|ratio| format!("{ratio:.2}"))
        .collect();
    writeln!(
        page,
        "| {cell} | {server} | {} | {} | {} | {} | {} | {} | {} | {} |",
        mid(|r| r.mb_per_s),
        mid(|r| r.p50_us),
        mid(|r| r.p99_us),
        mid(|r| r.p999_us),
        mid(|r| r.cpu_s_per_100k.unwrap_or(0.0)),
        mid(|r| r.peak_mib.unwrap_or(0.0)),
        mid(|r| r.disk_per_raw.unwrap_or(0.0)),
        ratios.join(" ")
    )
}

/// The bar and whether Firn meets it.
fn bar(rows: &[Row], cell: &str, data: &str) -> String {
    let wanted = wanted(cell, data);
    if wanted == 0.0 {
        return String::new();
    }
    let met = median(ratios(rows, cell, OURS, BASE)) >= wanted;
    format!("{wanted}: {}", if met { "met" } else { "**missed**" })
}

/// What Firn's ratio is to be in a cell; 0 for none.
pub fn wanted(cell: &str, data: &str) -> f64 {
    let bar = CELLS.iter().find(|c| c.name == cell).map_or(0.0, |c| c.bar);
    match data == "2.0" || bar == 0.0 {
        true => bar,
        false => BAR_INCOMPRESSIBLE,
    }
}

/// What a streaming neighbour does to the latency of flushes.
fn neighbours(page: &mut String, rows: &[Row], servers: &[&str]) -> std::fmt::Result {
    writeln!(
        page,
        "\nA write and a flush beside a streaming vDisk; the bar for Firn's p99 is 3 times alone.\n"
    )?;
    writeln!(
        page,
        "| server | p99 us alone | beside | ratio by round | neighbour MB/s |\n|---|---|---|---|---|"
    )?;
    for server in servers {
        let (alone, beside) = (
            of(rows, "writeflush", server),
            of(rows, "writeflush-beside", server),
        );
        if alone.is_empty() || beside.is_empty() {
            continue;
        }
        let ratios: Vec<String> = alone
            .iter()
            .zip(&beside)
            .map(|(alone, beside)| format!("{:.1}", beside.p99_us / alone.p99_us))
            .collect();
        writeln!(
            page,
            "| {server} | {} | {} | {} | {} |",
            number(median(alone.iter().map(|r| r.p99_us).collect())),
            number(median(beside.iter().map(|r| r.p99_us).collect())),
            ratios.join(" "),
            number(median(
                beside.iter().filter_map(|r| r.neighbour_mb_per_s).collect()
            ))
        )?;
    }
    Ok(())
}

/// The tables that have no other form, each with a chart where its lines are numbered.
fn others(page: &mut String, points: &[Point], out: &Path) -> Result<(), Box<dyn Error>> {
    let mut tables: Vec<&str> = Vec::new();
    for point in points {
        if !tables.contains(&point.table.as_str()) {
            tables.push(&point.table);
        }
    }
    for table in tables {
        let lines: Vec<&Point> = points.iter().filter(|p| p.table == table).collect();
        let Some(first) = lines.first() else { continue };
        writeln!(page, "\n## {table}\n")?;
        let chart = format!("{}.svg", file_name(table));
        if charts::line(&out.join(&chart), table, &lines)? {
            writeln!(page, "![{table}]({chart})\n")?;
        }
        let heads: Vec<&str> = first.values.iter().map(|(name, _)| name.as_str()).collect();
        writeln!(
            page,
            "| | {} |\n|---|{}",
            heads.join(" | "),
            "---|".repeat(heads.len())
        )?;
        for point in lines {
            let values: Vec<String> = point.values.iter().map(|(_, v)| number(*v)).collect();
            writeln!(page, "| {} | {} |", point.row, values.join(" | "))?;
        }
    }
    Ok(())
}

fn file_name(table: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let words: String = table.to_lowercase().chars().map(plain).collect();
    let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
    words.join("-")
}
