//! `firn vdisk import`: a raw image becomes a vDisk, or nothing happens.
//!
//! # Interruption
//! The backend fills a vDisk that nobody sees; it appears with the commit. Whatever ends this process before
//! that ends the connection, and the backend discards what was sent.

use crate::args::ImportArgs;
use crate::failure::Failure;
use crate::import::{Chunk, Chunks, Source, check_fit, data_runs};
use crate::progress::Progress;
use crate::settings::Settings;
use crate::units::{bytes, duration};
use control_api::types::{BeginImport, VDisk};
use control_api::{Bytes, Client, ClientError, ErrorKind};
use serde::Serialize;
use std::sync::Arc;

/// What was done.
#[derive(Serialize)]
struct Imported {
    vdisk: VDisk,
    /// Bytes of the source.
    source_bytes: u64,
    /// Of these, sent: the rest are holes and zeroes.
    data_bytes: u64,
    seconds: f64,
}

pub(super) async fn run(settings: &Settings, args: &ImportArgs) -> Result<(), Failure> {
    let source = Arc::new(Source::open(&args.file, args.size)?);
    let mut client = settings.connect().await?;
    check_name_is_free(&mut client, &args.name).await?;
    check_fit(&source, &client.status().await?)?;
    let begin = BeginImport {
        name: args.name.clone(),
        size: source.size,
    };
    client.begin_import(&begin).await?;
    let mut progress = Progress::new(
        settings.progress,
        format!("import {}", args.name),
        source.len,
    );
    let sent = send(&mut client, &args.name, &source, &mut progress).await;
    let data_bytes = match sent {
        Ok(count) => count,
        Err(failure) => {
            // Not only by hanging up: when we return, the name is free again.
            let _ = client.abort_import(&args.name).await;
            return Err(failure);
        }
    };
    let vdisk = client.commit_import(&args.name).await?;
    let seconds = progress.seconds();
    drop(progress);
    let imported = Imported {
        vdisk,
        source_bytes: source.len,
        data_bytes,
        seconds,
    };
    settings.show(&imported, text)
}

/// Said before the image is looked through, which may take a while.
async fn check_name_is_free(client: &mut Client, name: &str) -> Result<(), Failure> {
    match client.vdisk(name).await {
        Ok(_) => Err(
            Failure::refused(format!("there is a vDisk named {name:?} already")).hint(format!(
                "choose another name, or delete that one: firn vdisk delete {name}"
            )),
        ),
        Err(ClientError::Api(error)) if error.kind == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn send(
    client: &mut Client,
    name: &str,
    source: &Arc<Source>,
    progress: &mut Progress,
) -> Result<u64, Failure> {
    let mut chunks = Chunks::read_ahead(source.clone())?;
    let mut sent = 0;
    while let Some(chunk) = chunks.next().await {
        let Chunk { offset, data } = chunk?;
        let end = offset + data.len() as u64;
        let data = Bytes::from(data);
        for run in data_runs(&data) {
            let at = offset + run.start as u64;
            sent += run.len() as u64;
            client.import_data(name, at, data.slice(run)).await?;
        }
        progress.at(end.min(source.len));
    }
    Ok(sent)
}

fn text(imported: &Imported) -> String {
    let vdisk = &imported.vdisk;
    let speed = imported.source_bytes as f64 / imported.seconds.max(0.001);
    format!(
        "vDisk {}: {} imported, {} of it data, in {} ({}/s)\n",
        vdisk.name,
        bytes(vdisk.size),
        bytes(imported.data_bytes),
        duration(imported.seconds),
        bytes(speed as u64)
    )
}
