//! A load that runs in a guest and notices whether the guest's disk is of the same instant as its memory; see `firn_tests::steps`.
//!
//! ```text
//! firn-guest-pattern FILE SIZE PROGRESS     never ends; PROGRESS says "step N passes M", and at last "WRONG ..."
//! firn-guest-pattern --check FILE SIZE      prints "step N", or "WRONG ..."
//! ```
//!
//! SIZE is in MiB. PROGRESS belongs on a tmpfs: it is a part of the guest's memory, too.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;

use firn_tests::steps::{StepError, Steps};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["--check", file, size] => mib(size).and_then(|size| {
            let steps = Steps::check(Path::new(file), size)?;
            println!("step {}", steps.step());
            Ok(())
        }),
        [file, size, progress] => {
            let progress = File::create(progress);
            progress.map_err(StepError::from).and_then(|progress| {
                let result = mib(size).and_then(|size| run(Path::new(file), size, &progress));
                // Errors that have nothing to do with what the disk holds end it as well, and are told the same way.
                result.inspect_err(|error| tell(&progress, &error.to_string()))
            })
        }
        _ => Err(io::Error::other(
            "usage: firn-guest-pattern FILE MIB PROGRESS, or --check FILE MIB",
        )
        .into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(file: &Path, size: u64, progress: &File) -> Result<(), StepError> {
    let mut seed = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let mut steps = Steps::open(file, size, u64::from_ne_bytes(seed))?;
    loop {
        steps.advance()?;
        let line = format!("step {} passes {}", steps.step(), steps.passes());
        tell(progress, &line);
    }
}

/// Says how far it is. Nothing gets shorter, so that who reads it at any moment finds a whole line.
fn tell(progress: &File, line: &str) {
    // A tmpfs that is full is no matter of the disk's.
    let _ = progress.write_all_at(format!("{line:<48}\n").as_bytes(), 0);
}

fn mib(text: &str) -> Result<u64, StepError> {
    let size: u64 = text
        .parse()
        .map_err(|_| io::Error::other(format!("{text} is no number of MiB")))?;
    Ok(size << 20)
}
