//! What goes wrong in the orchestrator, and whether it passes.

use crate::hypervisor::HypervisorError;
use control_api::{ApiError, ClientError, ErrorKind};

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// libvirt.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// The backend.
    #[error(transparent)]
    Backend(#[from] ClientError),
    /// What was asked for can't be.
    #[error(transparent)]
    Asked(#[from] ApiError),
    /// What it was started with.
    #[error("{0}")]
    Settings(String),
    /// The orchestrator's own database.
    #[error("the journal: {0}")]
    Journal(String),
}

/// What is there; nothing, if it is said not to be. Whoever does not answer has not said so.
pub(crate) fn unless_missing<T>(found: Result<T, Trouble>) -> Result<Option<T>, Trouble> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(trouble) if trouble.kind() == Some(ErrorKind::NotFound) => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

impl Trouble {
    /// What can't be, and the way out.
    pub(crate) fn refuse(kind: ErrorKind, message: impl Into<String>, hint: &str) -> Trouble {
        let error = ApiError::new(kind, message);
        Trouble::Asked(match hint {
            "" => error,
            hint => error.hint(hint),
        })
    }

    pub(crate) fn journal(error: redb::Error) -> Trouble {
        Trouble::Journal(error.to_string())
    }

    /// Whether it may go well later, since somebody does not answer now. What was asked for may have been done.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Trouble::Hypervisor(error) => matches!(error, HypervisorError::Lost(_)),
            Trouble::Backend(ClientError::Api(error)) | Trouble::Asked(error) => {
                error.kind == ErrorKind::Unavailable
            }
            Trouble::Backend(error) => !matches!(error, ClientError::Foreign { .. }),
            Trouble::Journal(_) | Trouble::Settings(_) => false,
        }
    }

    /// What the backend says it is.
    pub(crate) fn kind(&self) -> Option<ErrorKind> {
        match self {
            Trouble::Backend(ClientError::Api(error)) | Trouble::Asked(error) => Some(error.kind),
            _ => None,
        }
    }

    /// As an answer to who has asked.
    pub(crate) fn answer(self) -> ApiError {
        let text = self.to_string();
        match self {
            Trouble::Asked(error) | Trouble::Backend(ClientError::Api(error)) => error,
            Trouble::Backend(error) => {
                let answer = ApiError::new(ErrorKind::Unavailable, text);
                match error.hint() {
                    Some(hint) => answer.hint(hint),
                    None => answer,
                }
            }
            Trouble::Hypervisor(HypervisorError::Lost(_)) => {
                ApiError::new(ErrorKind::Unavailable, text)
                    .hint("start libvirtd (or virtqemud): systemctl status libvirtd")
            }
            Trouble::Hypervisor(HypervisorError::NoDomain(_)) => {
                ApiError::new(ErrorKind::NotFound, text).hint("see virsh list --all")
            }
            Trouble::Hypervisor(HypervisorError::Refused(_)) => {
                ApiError::new(ErrorKind::Refused, text)
            }
            Trouble::Journal(_) | Trouble::Settings(_) => ApiError::new(ErrorKind::Internal, text),
        }
    }
}
