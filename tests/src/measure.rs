//! Latencies, and what a server costs: CPU, memory, bytes on disk.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Buckets per power of two: values are kept to within 1 %.
const FINE: u32 = 7;

/// Counts of durations in buckets of constant relative width; recording allocates nothing.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; ((64 - FINE + 1) << FINE) as usize],
            count: 0,
        }
    }
}

impl Histogram {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        let ns = duration.as_nanos() as u64;
        self.buckets[Self::bucket(ns)] += 1;
        self.count += 1;
    }

    /// Adds everything that another one has recorded.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += more;
        }
    }

    /// Durations recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration that `share` (0 to 1) of all are not longer than, in microseconds; 0 when empty.
    pub fn percentile_us(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (at, &count) in self.buckets.iter().enumerate() {
            seen += count;
            if count > 0 && seen >= wanted {
                return Self::upper_ns(at) as f64 / 1e3;
            }
        }
        0.0
    }

    fn bucket(ns: u64) -> usize {
        let bits = 64 - ns.leading_zeros();
        let shift = bits.saturating_sub(FINE + 1);
        ((shift << FINE) as u64 + (ns >> shift)) as usize
    }

    fn upper_ns(bucket: usize) -> u64 {
        let shift = (bucket >> FINE).saturating_sub(1) as u32;
        let fine = bucket as u64 - u64::from(shift << FINE);
        (fine << shift) | ((1u64 << shift) - 1)
    }
}

/// CPU time that a process has used so far, all its threads together, dead ones too. Its resolution is
/// one clock tick (10 ms).
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name is in parentheses and may hold anything, spaces too.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok(Duration::from_millis(
            (user + system) * 1000 / rustix::param::clock_ticks_per_second(),
        )),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat: {stat}"),
        )),
    }
}

/// CPU time of a process's living threads, to the nanosecond: shows what [`cpu_time`] is too coarse for.
pub fn cpu_time_exact(pid: u32) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = match fs::read_to_string(task?.path().join("schedstat")) {
            // Ended since the list was made.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => continue,
            stat => stat?,
        };
        let ns = stat.split_whitespace().next().and_then(|n| n.parse().ok());
        total += Duration::from_nanos(ns.ok_or(io::ErrorKind::InvalidData)?);
    }
    Ok(total)
}

/// A process's memory in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Resident now, shared pages included.
    pub resident: u64,
    /// Peak resident set since the last [`reset_peak_memory`], shared pages (guest memory!) included.
    pub peak: u64,
    /// Resident now and its own.
    pub anonymous: u64,
}

/// Reads a process's memory use.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
    };
    match (field("VmRSS:"), field("VmHWM:"), field("RssAnon:")) {
        (Some(resident), Some(peak), Some(anonymous)) => Ok(Memory {
            resident,
            peak,
            anonymous,
        }),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/status lacks VmHWM"),
        )),
    }
}

/// Lets [`Memory::peak`] begin anew.
pub fn reset_peak_memory(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Bytes that a file, or everything below a directory, occupies on disk.
pub fn disk_bytes(path: &Path) -> io::Result<u64> {
    let meta = fs::symlink_metadata(path)?;
    let mut bytes = meta.blocks() * 512;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            match disk_bytes(&entry?.path()) {
                Ok(more) => bytes += more,
                // A live store deletes files while we look.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_one_per_cent() {
        let mut histogram = Histogram::default();
        for us in 1..=10_000 {
            histogram.record(Duration::from_micros(us));
        }
        for (share, us) in [
            (0.5, 5_000.0),
            (0.99, 9_900.0),
            (0.999, 9_990.0),
            (1.0, 10_000.0),
        ] {
            let found = histogram.percentile_us(share);
            assert!((found / us - 1.0).abs() < 0.01, "{share}: {found}");
        }
    }

    #[test]
    fn every_duration_has_a_bucket() {
        let mut histogram = Histogram::default();
        for ns in [0, 1, 127, 128, 255, 256, 257, u64::MAX] {
            let bucket = Histogram::bucket(ns);
            assert!(
                Histogram::upper_ns(bucket) >= ns
                    && (bucket == 0 || Histogram::upper_ns(bucket - 1) < ns),
                "{ns}"
            );
            histogram.record(Duration::from_nanos(ns));
        }
        assert_eq!(histogram.count(), 8);
    }

    #[test]
    fn this_process_has_cpu_time_and_memory() {
        let pid = std::process::id();
        cpu_time(pid).unwrap();
        // While other threads come and go.
        for _ in 0..200 {
            let short = std::thread::spawn(|| {});
            assert!(cpu_time_exact(pid).unwrap() > Duration::ZERO);
            short.join().unwrap();
        }
        let memory = memory(pid).unwrap();
        assert!(memory.peak >= memory.anonymous && memory.anonymous > 0);
    }
}
