//! `firn vdisk stats`.

use crate::failure::Failure;
use crate::output::{Align, table};
use crate::settings::Settings;
use crate::units::{bytes, ratio};
use control_api::types::{ErrorKind, VDiskStats};
use control_api::{Client, ClientError};
use serde::Serialize;

#[derive(Serialize)]
struct All {
    stats: Vec<VDiskStats>,
}

pub(super) async fn run(settings: &Settings, name: Option<String>) -> Result<(), Failure> {
    let mut client = settings.connect().await?;
    let stats = match name {
        Some(name) => vec![client.stats(&name).await?],
        None => all(&mut client).await?,
    };
    settings.show(&All { stats }, |all| text(&all.stats))
}

async fn all(client: &mut Client) -> Result<Vec<VDiskStats>, Failure> {
    let mut all = Vec::new();
    for vdisk in client.vdisks().await? {
        match client.stats(&vdisk.name).await {
            Ok(stats) => all.push(stats),
            // Deleted since we asked for the list.
            Err(ClientError::Api(error)) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

fn text(stats: &[VDiskStats]) -> String {
    let heading = [
        ("NAME", Align::Left),
        ("READS", Align::Right),
        ("READ", Align::Right),
        ("WRITES", Align::Right),
        ("WRITTEN", Align::Right),
        ("ZEROES", Align::Right),
        ("STORED", Align::Right),
        ("RATIO", Align::Right),
        ("FLUSHES", Align::Right),
        ("ERRORS", Align::Right),
    ];
    let rows: Vec<_> = stats.iter().map(row).collect();
    table(heading, &rows)
}

fn row(stats: &VDiskStats) -> [String; 10] {
    let content = stats.written_bytes.saturating_sub(stats.zero_bytes);
    [
        stats.name.clone(),
        stats.reads.to_string(),
        bytes(stats.read_bytes),
        stats.writes.to_string(),
        bytes(stats.written_bytes),
        bytes(stats.zero_bytes),
        bytes(stats.stored_bytes),
        ratio(content, stats.stored_bytes),
        stats.flushes.to_string(),
        stats.errors.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let stats = VDiskStats {
            name: "web".into(),
            reads: 1200,
            read_bytes: 1 << 30,
            writes: 77,
            written_bytes: 3 << 20,
            stored_bytes: 1 << 20,
            zero_bytes: 1 << 20,
            flushes: 5,
            errors: 0,
        };
        assert_eq!(
            text(&[stats]),
            "NAME  READS      READ  WRITES   WRITTEN    ZEROES    STORED  RATIO  FLUSHES  ERRORS\n\
             web    1200  1.00 GiB      77  3.00 MiB  1.00 MiB  1.00 MiB  2.00x        5       0\n"
        );
    }
}
