//! Checks of this host: what is wrong or could be better, and what to do about it.

mod access;
mod domains;
mod host;
mod run_dir;
mod store_dir;

use serde::Serialize;
use std::path::{Path, PathBuf};

pub(crate) use access::Account;
use control_api::types::{Health, VDisk};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Works, and could be better.
    Note,
    /// Works, and will be in the way.
    Warning,
    /// Does not work.
    Broken,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            check,
            verdict: Verdict::Ok,
            found: found.into(),
            cure: None,
        }
    }

    fn bad(
        verdict: Verdict,
        check: &'static str,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Finding {
        Finding {
            check,
            verdict,
            found: found.into(),
            cure: Some(cure.into()),
        }
    }
}

/// What is known before the checks begin.
pub(crate) struct Patient {
    /// The runtime directory.
    pub run: PathBuf,
    /// Who answers on the control socket, or why nobody does: message and hint.
    pub backend: Result<Health, (String, String)>,
    /// The backend's vDisks.
    pub vdisks: Vec<VDisk>,
    /// The store's directory, where it is known.
    pub store: Option<PathBuf>,
    /// The user that QEMU runs as: its name, and its account where there is one.
    pub qemu: (String, Option<Account>),
}

/// Runs all checks.
pub(crate) fn examine(patient: &Patient) -> Vec<Finding> {
    let mut findings = run_dir::check(patient);
    findings.extend(store_dir::check(patient));
    findings.extend(host::check(patient));
    let defined = Path::new("/etc/libvirt/qemu");
    findings.push(domains::check(defined, &patient.run));
    findings
}
