//! `firn store check`: looks a store over. Where a backend serves it, that does it ([`store_check_served`]); else it is read here.
//!
//! # Interruption
//! It only reads. When this command is dropped, its channel closes, and the reading thread stops at the next segment or node.

use super::store_check_served;
use crate::args::CheckArgs;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::progress::Progress;
use crate::settings::{Format, Settings};
use block_store::StoreError;
use block_store::check::{CheckOptions, Finding, MAX_KEPT, Report, Watch, check_directory};
use serde::Serialize;
use std::path::PathBuf;
use tokio::sync::mpsc::{Sender, channel};

#[derive(Serialize)]
struct Checked {
    dir: PathBuf,
    #[serde(flatten)]
    report: Report,
}

enum Event {
    Progress { done: u64, total: u64 },
    Found(Finding),
}

/// Tells the command what the reading thread meets.
struct Teller(Sender<Event>);

impl Watch for Teller {
    fn progress(&mut self, done: u64, total: u64) {
        let _ = self.0.blocking_send(Event::Progress { done, total });
    }

    fn found(&mut self, finding: &Finding) {
        let _ = self.0.blocking_send(Event::Found(finding.clone()));
    }

    fn go_on(&mut self) -> bool {
        !self.0.is_closed()
    }
}

pub(super) async fn run(settings: &Settings, args: &CheckArgs) -> Result<(), Failure> {
    let Some(dir) = &args.dir else {
        return store_check_served::run(settings, args).await;
    };
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
    let options = CheckOptions {
        decode: args.decode,
        ..CheckOptions::default()
    };
    let (sender, mut events) = channel(64);
    let of = dir.clone();
    let job =
        tokio::task::spawn_blocking(move || check_directory(&of, &options, &mut Teller(sender)));
    let mut progress: Option<Progress> = None;
    while let Some(event) = events.recv().await {
        match event {
            Event::Progress { done, total } => progress
                .get_or_insert_with(|| {
                    Progress::new(settings.progress, format!("check {}", dir.display()), total)
                })
                .at(done),
            // At once: a large store takes hours, and an interruption must not lose what was found.
            Event::Found(finding) if settings.format == Format::Text => {
                let tell = || output::print(&format!("{finding}\n"));
                progress.as_ref().map_or_else(tell, |p| p.aside(tell))?;
            }
            Event::Found(_) => {}
        }
    }
    drop(progress);
    let report = match job.await {
        Ok(Err(StoreError::Locked(_))) if store_check_served::serves(settings, &dir).await => {
            return store_check_served::run(settings, args).await;
        }
        Ok(outcome) => outcome.map_err(explain)?,
        Err(error) => return Err(could_not_run(format!("the check broke off: {error}"))),
    };
    let damage = report.damage;
    settings.show(&Checked { dir, report }, |checked| summary(&checked.report))?;
    verdict(damage)
}

/// The exit code.
pub(super) fn verdict(damage: u64) -> Result<(), Failure> {
    match damage {
        0 => Ok(()),
        1 => Err(Failure::failed("1 thing is damaged")),
        many => Err(Failure::failed(format!("{many} things are damaged"))),
    }
}

fn summary(report: &Report) -> String {
    let verdict = match report.damage {
        0 => "no damage".to_owned(),
        many => format!("damage: {many}"),
    };
    let mut text = format!(
        "{verdict}, notes: {}; looked at {} segments, {} map nodes, {} extents with {} blocks, {} records of the log\n",
        report.notes,
        report.segments,
        report.nodes,
        report.extents,
        report.blocks,
        report.log_records
    );
    if report.findings.len() as u64 == MAX_KEPT as u64 {
        text += &format!("with --json only the first {MAX_KEPT} findings are listed\n");
    }
    text
}

/// Exit code 2: 1 is for damage.
pub(super) fn could_not_run(message: String) -> Failure {
    Failure {
        exit: Exit::Usage,
        message,
        hint: None,
    }
}

fn explain(error: StoreError) -> Failure {
    let locked = matches!(error, StoreError::Locked(_));
    let failure = could_not_run(error.to_string());
    match locked {
        true => failure.hint(
            "stop the backend first (SIGTERM), or have it check its store itself: name its runtime directory with --run",
        ),
        false => failure,
    }
}
