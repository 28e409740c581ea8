//! `firn store check` of a store that is being served: its backend checks it, this command watches.
//!
//! # Interruption
//! The check goes on in the backend, and this is said.

use super::store_check::{could_not_run, verdict};
use crate::args::CheckArgs;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::progress::Progress;
use crate::settings::{Format, Settings};
use crate::units;
use block_store::check::Finding;
use control_api::types::{ScrubOutcome, ScrubPass, ScrubStatus, StartScrub};
use control_api::{Client, ClientError};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Between two looks.
const PACE: Duration = Duration::from_millis(300);

#[derive(Serialize)]
struct Checked {
    dir: String,
    #[serde(flatten)]
    pass: ScrubPass,
}

/// Says, when this command is dropped half-way, that the check goes on.
struct GoesOn(bool);

impl Drop for GoesOn {
    fn drop(&mut self) {
        if self.0 {
            output::print_error(
                "the check goes on in the backend: firn store scrub status shows it, firn store scrub stop stops it\n",
            );
        }
    }
}

/// Whether the backend that answers serves the store in this directory.
pub(super) async fn serves(settings: &Settings, dir: &Path) -> bool {
    let Ok(mut client) = Client::connect(&settings.run).await else {
        return false;
    };
    let Ok(health) = client.health().await else {
        return false;
    };
    let real = |path: &Path| path.canonicalize().ok();
    real(dir).is_some_and(|dir| real(Path::new(&health.store)) == Some(dir))
}

pub(super) async fn run(settings: &Settings, args: &CheckArgs) -> Result<(), Failure> {
    let client = Client::connect(&settings.run).await.map_err(nobody)?;
    watch(settings, args, client)
        .await
        .map_err(|failure| match failure.exit {
            Exit::Unreachable => Failure {
                exit: Exit::Usage,
                ..failure
            },
            _ => failure,
        })
}

/// It could not be checked, and why.
fn nobody(error: ClientError) -> Failure {
    let no_backend = matches!(error, ClientError::NotListening { .. });
    let (message, hint) = (error.to_string(), error.hint());
    Failure {
        hint: match no_backend {
            true => Some(
                "a store that no backend serves is checked by its directory: firn store check DIR"
                    .into(),
            ),
            false => hint,
        },
        ..could_not_run(message)
    }
}

async fn watch(settings: &Settings, args: &CheckArgs, mut client: Client) -> Result<(), Failure> {
    let dir = client.health().await?.store;
    let request = StartScrub {
        rate: Some(0),
        decode: args.decode,
        again: args.again,
    };
    let begun = client.start_scrub(&request).await?;
    let Some(first) = of(begun.scrub, None) else {
        return Err(could_not_run("the backend has begun no check".into()));
    };
    let which = first.started;
    if begun.outcome != ScrubOutcome::Started {
        output::print_error(&format!(
            "a scrub that began at {} goes on, now as fast as guests leave it time (--again begins anew)\n",
            units::moment(which)
        ));
    }
    let mut goes_on = GoesOn(true);
    let what = format!("check {dir}");
    let mut progress = Progress::new(settings.progress, what, first.total_bytes);
    let (mut told, mut now) = (0, first);
    loop {
        if settings.format == Format::Text {
            for finding in now.findings.iter().skip(told) {
                let text = show(finding)?;
                progress.aside(|| output::print(&text))?;
            }
        }
        told = now.findings.len();
        progress.at(now.verified_bytes);
        if !now.running {
            break;
        }
        tokio::time::sleep(PACE).await;
        let status = client.scrub().await;
        let status = status.map_err(|error| could_not_run(error.to_string()))?;
        now = of(status, Some(which)).ok_or_else(|| {
            could_not_run("another scrub was begun meanwhile: firn store scrub status".into())
        })?;
    }
    goes_on.0 = false;
    drop(progress);
    if now.ended.is_none() {
        let stopped = "somebody has stopped the check: firn store scrub start goes on with it";
        return Err(could_not_run(stopped.into()));
    }
    let damage = now.damage;
    settings.show(&Checked { dir, pass: now }, |checked| {
        summary(&checked.pass)
    })?;
    verdict(damage)
}

/// The pass that began at this time, or the one that began last.
fn of(status: ScrubStatus, started: Option<u64>) -> Option<ScrubPass> {
    let mut both = status.pass.into_iter().chain(status.last);
    both.find(|pass| started.is_none_or(|started| pass.started == started))
}

/// As a check of a stopped store tells it.
pub(super) fn show(finding: &control_api::types::Finding) -> Result<String, Failure> {
    let same = serde_json::to_value(finding).and_then(serde_json::from_value::<Finding>);
    let finding = same.map_err(|error| {
        Failure::failed(format!("the backend tells of something unknown: {error}"))
            .hint("check that firn and firn-vhost-backend are of the same release")
    })?;
    Ok(format!("{finding}\n"))
}

fn summary(pass: &ScrubPass) -> String {
    let verdict = match pass.damage {
        0 => "no damage".to_owned(),
        many => format!("damage: {many}"),
    };
    let mut text = format!(
        "{verdict}, notes: {}; looked at {} segments, {} map nodes, {} extents with {} blocks, while they were served\n",
        pass.notes, pass.segments, pass.nodes, pass.extents, pass.blocks
    );
    let kept = pass.findings.len() as u64;
    if kept < pass.damage.saturating_add(pass.notes) {
        text += &format!("only the first {kept} findings are listed\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_no_backend_listens_the_directory_is_asked_for() {
        let socket = || std::path::PathBuf::from("/run/firn/control.sock");
        let absent = nobody(ClientError::NotListening {
            socket: socket(),
            source: std::io::ErrorKind::NotFound.into(),
        });
        let denied = nobody(ClientError::Denied { socket: socket() });
        let hint = |failure: &Failure| failure.hint.clone().unwrap_or_default();
        assert!(hint(&absent).ends_with("firn store check DIR"));
        assert!(hint(&denied).contains("sudo"));
        assert_eq!((absent.exit, denied.exit), (Exit::Usage, Exit::Usage));
    }
}
