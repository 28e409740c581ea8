//! The orchestrator's API: domains.

use super::{Client, ClientError};
use crate::limits::{check_domain, check_name};
use crate::types::*;
use crate::{ApiError, ORCHESTRATOR_SOCKET};
use hyper::Method;
use hyper::body::Bytes;
use std::path::Path;

/// One connection to an orchestrator.
#[derive(Debug)]
pub struct Orchestrator {
    client: Client,
}

impl Orchestrator {
    /// Connects to the orchestrator of the backend whose runtime directory is `run`.
    pub async fn connect(run: &Path) -> Result<Orchestrator, ClientError> {
        let client = Client::connect_to(run.join(ORCHESTRATOR_SOCKET)).await?;
        Ok(Orchestrator { client })
    }

    /// How it is doing.
    pub async fn status(&mut self) -> Result<OrchestratorStatus, ClientError> {
        self.client.get("/v1/status").await
    }

    /// Takes a snapshot of a domain's vDisks.
    pub async fn snapshot(
        &mut self,
        domain: &str,
        request: &SnapshotDomain,
    ) -> Result<DomainSnapshotTaken, ClientError> {
        self.act(domain, "snapshots", request).await
    }

    /// Makes a domain what it was at a snapshot.
    pub async fn revert(
        &mut self,
        domain: &str,
        request: &RevertDomain,
    ) -> Result<DomainReverted, ClientError> {
        self.act(domain, "revert", request).await
    }

    /// Makes a new domain of a snapshot.
    pub async fn clone_domain(
        &mut self,
        domain: &str,
        request: &CloneDomain,
    ) -> Result<DomainCloned, ClientError> {
        self.act(domain, "clone", request).await
    }

    /// Attaches a vDisk to a domain.
    pub async fn attach(
        &mut self,
        domain: &str,
        request: &AttachDisk,
    ) -> Result<DiskChanged, ClientError> {
        self.act(domain, "disks", request).await
    }

    /// Detaches a vDisk from a domain.
    pub async fn detach(&mut self, domain: &str, vdisk: &str) -> Result<DiskChanged, ClientError> {
        check_name(vdisk).map_err(ApiError::from)?;
        let path = domain_path(domain, &format!("disks/{vdisk}"))?;
        let body = self
            .client
            .request(Method::DELETE, &path, Bytes::new(), "")
            .await?;
        self.client.decode(&body)
    }

    async fn act<T: serde::de::DeserializeOwned>(
        &mut self,
        domain: &str,
        what: &str,
        request: &impl serde::Serialize,
    ) -> Result<T, ClientError> {
        let path = domain_path(domain, what)?;
        self.client.send(Method::POST, &path, request).await
    }
}

/// libvirt's names may hold anything but a slash and a line's end.
fn domain_path(domain: &str, what: &str) -> Result<String, ApiError> {
    check_domain(domain, None)?;
    let mut name = String::new();
    for byte in domain.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                name.push(char::from(byte));
            }
            byte => name += &format!("%{byte:02X}"),
        }
    }
    Ok(format!("/v1/domains/{name}/{what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_paths() {
        let path = domain_path("my vm/ä?", "revert").unwrap();
        assert_eq!(path, "/v1/domains/my%20vm%2F%C3%A4%3F/revert");
        assert!(domain_path("", "revert").is_err());
    }
}
