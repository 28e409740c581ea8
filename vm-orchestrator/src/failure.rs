//! Errors of commands: what went wrong, the way out, and the exit code.

use control_api::{ApiError, ClientError, ErrorKind, LimitError};
use serde::Serialize;
use std::fmt::Display;
use std::path::Path;

/// Exit codes, documented in `docs/operations.md` and in `firn --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It failed for another reason than those below.
    Failed = 1,
    /// The command line is wrong: a name, a size, an option.
    Usage = 2,
    /// What the command names is not there.
    NotFound = 3,
    /// Refused: attached, the name is taken, or it needs an explicit option.
    Refused = 4,
    /// No backend answers.
    Unreachable = 5,
    /// There is no space for it.
    NoSpace = 6,
    /// Stopped by Ctrl-C or SIGTERM.
    Interrupted = 130,
}

/// Why a command did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The process's exit code.
    pub exit: Exit,
    /// Names the thing.
    pub message: String,
    /// The way out, where there is one.
    pub hint: Option<String>,
}

/// How a failure looks with `--json`, on standard error.
#[derive(Serialize)]
struct Report<'a> {
    error: &'a str,
    hint: Option<&'a str>,
    exit: u8,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    /// Exit code 1.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    /// Exit code 2.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// Exit code 3.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(Exit::NotFound, message)
    }

    /// Exit code 4.
    pub fn refused(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Refused, message)
    }

    /// Exit code 6.
    pub fn no_space(message: impl Into<String>) -> Failure {
        Failure::new(Exit::NoSpace, message)
    }

    /// Exit code 130.
    pub fn interrupted() -> Failure {
        Failure::new(
            Exit::Interrupted,
            "interrupted; no unfinished file or import is left behind, but what the backend was told to do may still be done",
        )
    }

    /// A file operation that failed: `doing` reads like "can't open".
    pub fn file(doing: impl Display, path: &Path, error: impl Into<std::io::Error>) -> Failure {
        let error = error.into();
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            std::io::ErrorKind::StorageFull => Exit::NoSpace,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("{doing} {}: {error}", path.display()))
    }

    /// The same failure with a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// As text for people: one or two lines.
    pub fn to_text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("firn: {}\n      {hint}\n", self.message),
            None => format!("firn: {}\n", self.message),
        }
    }

    /// As one JSON object.
    pub fn to_json(&self) -> String {
        let report = Report {
            error: &self.message,
            hint: self.hint.as_deref(),
            exit: self.exit as u8,
        };
        serde_json::to_string(&report).unwrap_or_default() + "\n"
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        let exit = match error.kind {
            ErrorKind::Invalid | ErrorKind::TooLarge => Exit::Usage,
            ErrorKind::NotFound => Exit::NotFound,
            ErrorKind::AlreadyExists | ErrorKind::Busy | ErrorKind::Refused => Exit::Refused,
            ErrorKind::Unavailable => Exit::Unreachable,
            ErrorKind::NoSpace => Exit::NoSpace,
            _ => Exit::Failed,
        };
        Failure {
            exit,
            message: error.message,
            hint: error.hint,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let hint = error.hint();
        let message = error.to_string();
        match error {
            ClientError::Api(error) => error.into(),
            ClientError::Foreign { .. } => Failure {
                exit: Exit::Failed,
                message,
                hint,
            },
            _ => Failure {
                exit: Exit::Unreachable,
                message,
                hint,
            },
        }
    }
}

impl From<LimitError> for Failure {
    fn from(error: LimitError) -> Failure {
        Failure::usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_thing_and_the_way_out() {
        let failure = Failure::refused("vDisk web is attached").hint("stop its guest first");
        assert_eq!(
            failure.to_text(),
            "firn: vDisk web is attached\n      stop its guest first\n"
        );
        let json: serde_json::Value = serde_json::from_str(&failure.to_json()).unwrap();
        assert_eq!(json["exit"], 4);
        assert_eq!(json["hint"], "stop its guest first");
    }

    #[test]
    fn kinds_have_the_documented_exit_codes() {
        let code = |kind| Failure::from(ApiError::new(kind, "x")).exit as u8;
        assert_eq!(code(ErrorKind::Invalid), 2);
        assert_eq!(code(ErrorKind::NotFound), 3);
        assert_eq!(code(ErrorKind::Busy), 4);
        assert_eq!(code(ErrorKind::AlreadyExists), 4);
        assert_eq!(code(ErrorKind::Unavailable), 5);
        assert_eq!(code(ErrorKind::NoSpace), 6);
        assert_eq!(code(ErrorKind::Damaged), 1);
    }
}
