//! What follows from the command line, the environment and the terminal, decided once.

use crate::args::Global;
use crate::failure::Failure;
use crate::output;
use control_api::{Client, Orchestrator};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How a command talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Tables and sentences.
    Text,
    /// One JSON document on standard output; failures as one on standard error.
    Json,
}

/// How progress is shown, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressStyle {
    /// A bar that is redrawn.
    Bar,
    /// A line now and then: a log, a pipe.
    Lines,
    /// Not at all.
    Silent,
}

/// Settings that all commands share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The backend's runtime directory, absolute.
    pub run: PathBuf,
    /// How results and failures are written.
    pub format: Format,
    /// How progress is shown.
    pub progress: ProgressStyle,
}

impl Settings {
    /// Resolves what was typed.
    pub fn resolve(global: &Global) -> Settings {
        let format = if global.json {
            Format::Json
        } else {
            Format::Text
        };
        let progress = match (global.quiet, std::io::stderr().is_terminal()) {
            (true, _) => ProgressStyle::Silent,
            (false, true) => ProgressStyle::Bar,
            (false, false) => ProgressStyle::Lines,
        };
        Settings {
            run: absolute(&global.run),
            format,
            progress,
        }
    }

    /// Connects to the backend.
    pub async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.run).await?)
    }

    /// Connects to the orchestrator.
    pub async fn orchestrator(&self) -> Result<Orchestrator, Failure> {
        Ok(Orchestrator::connect(&self.run).await?)
    }

    /// Prints a result: as JSON, or as the text that `text` makes of it.
    pub fn show<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => output::print(&output::json(value)?),
            Format::Text => output::print(&text(value)),
        }
    }

    /// Reports the end of the command.
    pub fn conclude(&self, outcome: Result<(), Failure>) -> ExitCode {
        let Err(failure) = outcome else {
            return ExitCode::SUCCESS;
        };
        match self.format {
            Format::Json => output::print_error(&failure.to_json()),
            Format::Text => output::print_error(&failure.to_text()),
        }
        ExitCode::from(failure.exit as u8)
    }
}

/// For messages and for libvirt: paths that mean the same everywhere.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
