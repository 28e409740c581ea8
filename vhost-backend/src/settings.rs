//! What the command line says, and what it comes to.

use std::path::PathBuf;
use std::time::Duration;

use block_store::{OnFull, OpenConfig};

use crate::exports::SocketOptions;

/// Serves the vDisks of a Firn store to QEMU (vhost-user-blk).
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "firn-vhost-backend", version)]
pub struct Args {
    /// The store's directory (made by `firn store init`).
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,
    /// The runtime directory: one socket per vDisk, the control socket, and the write buffer. It must survive a
    /// restart of this program (but not a reboot).
    #[arg(long, value_name = "DIR", env = "FIRN_RUN", default_value = control_api::DEFAULT_RUN)]
    pub run: PathBuf,
    /// Threads that serve the queues of all vDisks [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// Group that may connect to vDisks, by name or number (libvirt: the one that QEMU runs as) [default: our own].
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// What guests get when the store is full: their writes wait, or fail.
    #[arg(long, value_name = "WHAT", value_enum, default_value = "stall")]
    pub on_full: Full,
    /// Days after which everything that is stored is read and verified again, in the background; 0: only when told to
    /// (`firn store scrub start`).
    #[arg(long, value_name = "DAYS", value_parser = days, default_value = "30")]
    pub scrub_every: Duration,
    /// Bytes a second that this reads at most: a number, or one with K, M or G (binary).
    #[arg(long, value_name = "RATE", value_parser = rate, default_value = "64M")]
    pub scrub_rate: u64,
    /// Open the store although the write buffer with acknowledged writes is missing. LOSES what was in it.
    #[arg(long)]
    pub discard_write_buffer: bool,
    /// Open the store although flushed parts of its log are damaged. LOSES what was in them.
    #[arg(long)]
    pub accept_log_damage: bool,
}

/// What guests get when the store is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Full {
    /// Their writes wait until there is space.
    Stall,
    /// Their writes fail.
    Error,
}

/// Why the command line can't be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No such group.
    #[error(
        "there is no group {0:?} in /etc/group: make it (groupadd), or name another with --group"
    )]
    NoSuchGroup(String),
    /// The list of groups can't be read.
    #[error("can't look up group {group:?} in /etc/group: {source}")]
    Groups {
        /// The group asked for.
        group: String,
        /// Why not.
        source: std::io::Error,
    },
}

/// Everything decided.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How the store is opened.
    pub store: OpenConfig,
    /// How sockets are made.
    pub sockets: SocketOptions,
    /// Number of workers, at least 1.
    pub workers: usize,
}

impl Args {
    /// Looks up what has to be looked up.
    pub fn resolve(self) -> Result<Settings, SettingsError> {
        let mut store = OpenConfig::new(&self.store, &self.run);
        store.on_full = match self.on_full {
            Full::Stall => OnFull::Stall,
            Full::Error => OnFull::Error,
        };
        store.scrub_every = Some(self.scrub_every).filter(|every| !every.is_zero());
        store.scrub_rate = self.scrub_rate;
        store.discard_write_buffer = self.discard_write_buffer;
        store.accept_log_damage = self.accept_log_damage;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let group = self.group.map(group_id).transpose()?;
        Ok(Settings {
            store,
            sockets: SocketOptions {
                run: self.run,
                group,
            },
            workers: self.workers.map_or(cores, usize::from),
        })
    }
}

/// `30` or `30d`.
fn days(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').unwrap_or(text).parse::<u16>();
    let days = days.map_err(|_| format!("{text:?} is not a number of days, like 30"))?;
    Ok(Duration::from_secs(u64::from(days) * 86_400))
}

/// `1000000` or `64M`.
fn rate(text: &str) -> Result<u64, String> {
    let usage = || format!("{text:?} is not a rate in bytes a second, like 64M");
    let (number, shift) = match text.as_bytes().last() {
        Some(b'K') => (text.strip_suffix('K'), 10),
        Some(b'M') => (text.strip_suffix('M'), 20),
        Some(b'G') => (text.strip_suffix('G'), 30),
        _ => (Some(text), 0),
    };
    let number = number.and_then(|n| n.parse::<u64>().ok());
    let rate = number.and_then(|n| n.checked_mul(1 << shift));
    rate.filter(|rate| *rate > 0).ok_or_else(usage)
}

fn group_id(group: String) -> Result<u32, SettingsError> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    match std::fs::read_to_string("/etc/group") {
        Ok(list) => find_group(&list, &group).ok_or(SettingsError::NoSuchGroup(group)),
        Err(source) => Err(SettingsError::Groups { group, source }),
    }
}

/// The id in the line `name:password:id:members`.
fn find_group(list: &str, group: &str) -> Option<u32> {
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn groups_are_found_by_name_and_number() {
        let list = "root:x:0:\nkvm:x:104:libvirt-qemu\nbroken\nodd:x:many:\n";
        assert_eq!(find_group(list, "kvm"), Some(104));
        assert_eq!(find_group(list, "kv"), None);
        assert_eq!(find_group(list, "odd"), None);
        assert_eq!(find_group(list, "broken"), None);
        assert_eq!(group_id("64055".to_owned()).unwrap(), 64055);
        let error = group_id("no-such-group-here".to_owned())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no-such-group-here"), "{error}");
    }

    #[test]
    fn how_often_and_how_fast_to_scrub() {
        let parse = |more: &[&str]| {
            let args = [&["x", "--store", "/s"], more].concat();
            Args::try_parse_from(args).map(|args| args.resolve().unwrap().store)
        };
        let store = parse(&["--scrub-every", "7d", "--scrub-rate", "3K"]).unwrap();
        let week = Some(Duration::from_secs(7 * 86_400));
        assert_eq!((store.scrub_every, store.scrub_rate), (week, 3072));
        let store = parse(&["--scrub-every", "0", "--scrub-rate", "17"]).unwrap();
        assert_eq!((store.scrub_every, store.scrub_rate), (None, 17));
        for odd in ["", "d", "-1", "x", "99999999", "1.5"] {
            assert!(parse(&["--scrub-every", odd]).is_err(), "{odd}");
        }
        for odd in ["", "M", "0", "-1", "64X", "é", "99999999999999G"] {
            assert!(parse(&["--scrub-rate", odd]).is_err(), "{odd}");
        }
    }

    #[test]
    fn the_command_line_is_understood() {
        let args = [
            "x",
            "--store",
            "/s",
            "--run",
            "/r",
            "--workers",
            "3",
            "--on-full",
            "error",
        ];
        let settings = Args::try_parse_from(args).unwrap().resolve().unwrap();
        assert_eq!(settings.workers, 3);
        assert_eq!(settings.store.on_full, OnFull::Error);
        assert_eq!(
            settings.store.scrub_every,
            Some(Duration::from_secs(2_592_000))
        );
        assert_eq!(settings.store.scrub_rate, 64 << 20);
        assert_eq!(settings.sockets.run, PathBuf::from("/r"));
        assert!(Args::try_parse_from(["x", "--store", "/s", "--workers", "0"]).is_err());
        assert!(Args::try_parse_from(["x"]).is_err());
    }
}
