//! What was measured, one JSON object per line: several commands may add to one file, and one that was
//! interrupted keeps what it had.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;

use firn_tests::pattern::Kind;
use serde::{Deserialize, Serialize};

use crate::report::Row;

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// A command begins.
    Begin(Begin),
    /// A run of `compare`.
    Run(Row),
    /// A line of another table.
    Point(Point),
}

/// Where and how something was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begin {
    /// The command line.
    pub command: String,
    /// What it ran on.
    pub machine: String,
    /// The peer.
    pub qemu: String,
    /// Load average of the last minute before it began.
    pub load: String,
}

/// A line of a table that has no other form.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    /// Which table.
    pub table: String,
    /// Which line.
    pub row: String,
    /// Its columns, in order.
    pub values: Vec<(String, f64)>,
}

/// Where records go.
#[derive(Debug)]
pub struct Results {
    file: Option<File>,
    /// The table whose head was printed last.
    table: String,
}

impl Results {
    /// To the end of a file, if one is named; begins with a record of the circumstances.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = match path {
            Some(path) => Some(File::options().create(true).append(true).open(path)?),
            None => None,
        };
        let mut results = Self {
            file,
            table: String::new(),
        };
        results.add(&Record::Begin(Begin {
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
            machine: machine(),
            qemu: first_line(Command::new("qemu-storage-daemon").arg("--version")),
            load: word(&read("/proc/loadavg"), 0),
        }))?;
        Ok(results)
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record) -> io::Result<()> {
        match &mut self.file {
            Some(file) => writeln!(file, "{}", serde_json::to_string(record)?),
            None => Ok(()),
        }
    }

    /// Adds a line to a table and prints it.
    pub fn point(&mut self, table: &str, row: &str, values: &[(&str, f64)]) -> io::Result<()> {
        if self.table != table {
            self.table = table.into();
            let heads: Vec<_> = values
                .iter()
                .map(|(name, _)| format!("{name:>18}"))
                .collect();
            println!("\n{table:<24}{}", heads.concat());
        }
        let shown: Vec<_> = values
            .iter()
            .map(|(_, v)| format!("{:>18}", number(*v)))
            .collect();
        println!("{row:<24}{}", shown.concat());
        self.add(&Record::Point(Point {
            table: table.into(),
            row: row.into(),
            values: values
                .iter()
                .map(|(name, v)| ((*name).into(), *v))
                .collect(),
        }))
    }
}

/// Reads what [`Results`] wrote.
pub fn load(path: &Path) -> io::Result<Vec<Record>> {
    let lines = BufReader::new(File::open(path)?).lines();
    lines
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect()
}

/// A number with about three digits that matter.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if v >= 1000.0 => {
            let digits = format!("{:.0}", value.abs());
            let mut text = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Compressibility, as in tables.
pub fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Half => "2.0",
        Kind::Random => "incompressible",
        Kind::Tiny => "tiny",
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, name)| name);
    let kib: u64 = word(&read("/proc/meminfo"), 1).parse().unwrap_or(0);
    let kernel = word(&read("/proc/version"), 2);
    format!("{cores} cores ({cpu}), {} GiB, Linux {kernel}", kib >> 20)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn word(text: &str, at: usize) -> String {
    text.split_whitespace().nth(at).unwrap_or("?").into()
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|o| o.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    text.lines().next().unwrap_or("?").into()
}
