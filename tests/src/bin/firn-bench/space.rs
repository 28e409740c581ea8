//! What data costs on disk.

use std::error::Error;
use std::fs;
use std::path::Path;

use firn_tests::client::Client;
use firn_tests::measure;
use firn_tests::pattern::Kind;

use crate::cell::State;
use crate::contender::{Contender, Spec, Want, options};
use crate::load;
use crate::results::Results;

/// Fresh vDisks filled in different ways: bytes on disk per byte of data, right after the final flush, with
/// and without what an empty store has preallocated.
pub fn space(dir: &Path, size: u64, results: &mut Results) -> Result<(), Box<dyn Error>> {
    let fills = [
        ("sequential, 2.0", Some(Kind::Half), false),
        ("random order, 2.0", Some(Kind::Half), true),
        ("zeroes", None, false),
        ("incompressible", Some(Kind::Random), false),
    ];
    let want = Want {
        state: State::Fresh,
        kind: Kind::Half,
        size,
        neighbour: false,
    };
    for (name, kind, shuffled) in fills {
        let mut firn = Contender::start(&Spec::named("firn")?, dir, want)?;
        let empty = measure::disk_bytes(&firn.disk)?;
        let mut client = Client::connect(&firn.socket, options(1, 1 << 20))?;
        let mut fill = |label: &str, shuffled| -> Result<(), Box<dyn Error>> {
            let outcome = load::fill(&mut client, size, kind, shuffled, &mut firn.version)?;
            let disk = measure::disk_bytes(&firn.disk)?;
            let values = [
                (
                    "MB/s",
                    outcome.bytes as f64 / outcome.elapsed.as_secs_f64() / 1e6,
                ),
                ("MiB on disk", (disk >> 20) as f64),
                ("per raw byte", disk as f64 / size as f64),
                (
                    "without spares",
                    disk.saturating_sub(empty) as f64 / size as f64,
                ),
            ];
            Ok(results.point("space", label, &values)?)
        };
        fill(name, shuffled)?;
        if name.starts_with("sequential") {
            fill("then all overwritten", true)?;
        }
        client.stop()?;
        firn.remove()?;
    }
    fs::remove_dir_all(dir).or(Ok(()))
}
