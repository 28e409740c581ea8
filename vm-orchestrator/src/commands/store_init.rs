//! `firn store init`: the one command that makes something without a backend.

use crate::args::InitArgs;
use crate::failure::{Exit, Failure};
use crate::settings::Settings;
use block_store::{InitOptions, Store, StoreError};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Serialize)]
struct Made {
    dir: PathBuf,
}

pub(super) fn run(settings: &Settings, args: &InitArgs) -> Result<(), Failure> {
    let dir = std::path::absolute(&args.dir).unwrap_or_else(|_| args.dir.clone());
    let mut options = InitOptions::default();
    if let Some(size) = args.segment_size {
        options.segment_size =
            u32::try_from(size).map_err(|_| Failure::usage("a segment has at most 64M"))?;
    }
    Store::init(&dir, &options).map_err(explain)?;
    settings.show(&Made { dir }, |made| {
        let (dir, run) = (made.dir.display(), settings.run.display());
        format!("{dir} is an empty store now\nserve it with: firn-vhost-backend --store {dir} --run {run}\n")
    })
}

fn explain(error: StoreError) -> Failure {
    let exit = match &error {
        StoreError::Exists(_) | StoreError::Locked(_) | StoreError::Refused(_) => Exit::Refused,
        StoreError::Invalid(_) => Exit::Usage,
        StoreError::NoSpace(_) => Exit::NoSpace,
        _ => Exit::Failed,
    };
    Failure {
        exit,
        message: error.to_string(),
        hint: None,
    }
}
