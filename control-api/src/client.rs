//! A client of the control API over a Unix socket.
//!
//! One [`Client`] is one connection: an import that was begun on it ends with it, and so does the reading of a snapshot. Requests go one after
//! the other. Nothing is retried here: whether a repeated request is harmless is the caller's knowledge.

mod orchestrator;
mod snapshots;
mod stats;

pub use orchestrator::Orchestrator;

use crate::limits::check_name;
use crate::types::*;
use crate::{DATA_MAX, ORCHESTRATOR_SOCKET, control_socket};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// How long a request may take: long enough for a slow disk, short enough to notice a hung backend.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes that a JSON answer may have.
const JSON_MAX: usize = 64 << 20;

/// Why a request got no successful answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("{} is not running: nobody listens on {}", program(.socket), .socket.display())]
    NotListening {
        /// The control socket.
        socket: PathBuf,
        /// What connect said.
        source: io::Error,
    },
    /// The socket, or the backend behind it, does not let us in.
    #[error("no permission to use {}", .socket.display())]
    Denied {
        /// The control socket.
        socket: PathBuf,
    },
    /// The connection ended before the answer did.
    #[error("{} on {} went away: {source}", program(.socket), .socket.display())]
    Lost {
        /// The control socket.
        socket: PathBuf,
        /// What the transport said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer within two minutes.
    #[error("{} on {} did not answer within {} s", program(.socket), .socket.display(), PATIENCE.as_secs())]
    Silent {
        /// The control socket.
        socket: PathBuf,
    },
    /// Something answers that does not speak this API.
    #[error("what listens on {} does not speak Firn's control API: {detail}", .socket.display())]
    Foreign {
        /// The control socket.
        socket: PathBuf,
        /// What was odd.
        detail: String,
    },
    /// The backend understood and said no.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl ClientError {
    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            ClientError::NotListening { socket, .. } => {
                let run = socket
                    .parent()
                    .unwrap_or(Path::new(crate::DEFAULT_RUN))
                    .display();
                let start = match is_orchestrator(socket) {
                    true => "firn-orchestrator",
                    false => "firn-vhost-backend --store DIR",
                };
                Some(format!(
                    "start it with: {start} --run {run}   (another runtime directory: --run DIR or FIRN_RUN)"
                ))
            }
            ClientError::Denied { .. } => {
                Some("only root and the user that the backend runs as may: try sudo".into())
            }
            ClientError::Lost { .. } => {
                Some("see its log; once it is restarted it serves again at once".into())
            }
            ClientError::Silent { .. } => {
                Some("see its log: a hung disk is the usual cause".into())
            }
            ClientError::Foreign { socket, .. } => Some(format!(
                "check that firn and {} are of the same release",
                program(socket)
            )),
            ClientError::Api(error) => error.hint.clone(),
        }
    }
}

fn is_orchestrator(socket: &Path) -> bool {
    socket.ends_with(ORCHESTRATOR_SOCKET)
}

/// Whose socket it is.
fn program(socket: &Path) -> &'static str {
    match is_orchestrator(socket) {
        true => "firn-orchestrator",
        false => "firn-vhost-backend",
    }
}

/// One connection to a backend.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        // The connection must end with us, not when its task is next polled: imports hang on it.
        self.connection.abort();
    }
}

/// Connection, store and rules.
impl Client {
    /// Connects to the backend whose runtime directory is `run`.
    pub async fn connect(run: &Path) -> Result<Client, ClientError> {
        Client::connect_to(control_socket(run)).await
    }

    async fn connect_to(socket: PathBuf) -> Result<Client, ClientError> {
        let stream = match UnixStream::connect(&socket).await {
            Ok(stream) => stream,
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ClientError::Denied { socket });
            }
            Err(source) => return Err(ClientError::NotListening { socket, source }),
        };
        let (sender, connection) = match handshake(TokioIo::new(stream)).await {
            Ok(pair) => pair,
            Err(error) => {
                return Err(ClientError::Lost {
                    socket,
                    source: error.into(),
                });
            }
        };
        // Its error, if any, reaches the request that is under way.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Client {
            socket,
            sender,
            connection,
        })
    }

    /// The socket that this client talks to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Who answers.
    pub async fn health(&mut self) -> Result<Health, ClientError> {
        self.get("/v1/health").await
    }

    /// The store's state.
    pub async fn status(&mut self) -> Result<StoreStatus, ClientError> {
        self.get("/v1/store").await
    }

    /// How checking what is stored is getting on.
    pub async fn scrub(&mut self) -> Result<ScrubStatus, ClientError> {
        self.get("/v1/scrub").await
    }

    /// Begins to check everything that is stored, or goes on with what was begun.
    pub async fn start_scrub(&mut self, request: &StartScrub) -> Result<ScrubChanged, ClientError> {
        self.send(Method::POST, "/v1/scrub", request).await
    }

    /// Stops checking; it can go on later.
    pub async fn stop_scrub(&mut self) -> Result<ScrubChanged, ClientError> {
        let body = self
            .request(Method::DELETE, "/v1/scrub", Bytes::new(), "")
            .await?;
        self.decode(&body)
    }

    /// The store's rules, or those that hold for a vDisk.
    pub async fn rules(&mut self, vdisk: Option<&str>) -> Result<Rules, ClientError> {
        self.get(&rules_path(vdisk)?).await
    }

    /// Replaces the store's rules, or gives a vDisk its own; they count from the next write on.
    pub async fn set_rules(
        &mut self,
        vdisk: Option<&str>,
        rules: &Rules,
    ) -> Result<Rules, ClientError> {
        self.send(Method::PUT, &rules_path(vdisk)?, rules).await
    }

    /// What the rules make of a request.
    pub async fn explain(&mut self, request: &ExplainRequest) -> Result<Explanation, ClientError> {
        self.send(Method::POST, "/v1/rules/explain", request).await
    }
}

/// vDisks.
impl Client {
    /// All visible vDisks.
    pub async fn vdisks(&mut self) -> Result<Vec<VDisk>, ClientError> {
        Ok(self.get::<VDiskList>("/v1/vdisks").await?.vdisks)
    }

    /// One vDisk.
    pub async fn vdisk(&mut self, name: &str) -> Result<VDisk, ClientError> {
        self.get(&vdisk_path(name, "")?).await
    }

    /// Makes an empty vDisk.
    pub async fn create(&mut self, request: &CreateVDisk) -> Result<VDisk, ClientError> {
        self.send(Method::POST, "/v1/vdisks", request).await
    }

    /// Deletes a vDisk and everything in it.
    pub async fn delete(&mut self, name: &str) -> Result<(), ClientError> {
        self.request(Method::DELETE, &vdisk_path(name, "")?, Bytes::new(), "")
            .await
            .map(drop)
    }

    /// Changes a vDisk's size.
    pub async fn resize(
        &mut self,
        name: &str,
        request: &ResizeVDisk,
    ) -> Result<Resized, ClientError> {
        self.send(Method::POST, &vdisk_path(name, "/resize")?, request)
            .await
    }

    /// Tells what a libvirt domain does with a vDisk. All that was written before is durable when the answer comes.
    pub async fn record_domain(
        &mut self,
        name: &str,
        request: &RecordDomain,
    ) -> Result<VDisk, ClientError> {
        self.send(Method::PUT, &vdisk_path(name, "/domain")?, request)
            .await
    }

    /// A vDisk's counters.
    pub async fn stats(&mut self, name: &str) -> Result<VDiskStats, ClientError> {
        self.get(&vdisk_path(name, "/stats")?).await
    }

    /// Where a vDisk holds data, from `offset` on; see [`Allocated::next`].
    pub async fn allocated(&mut self, name: &str, offset: u64) -> Result<Allocated, ClientError> {
        self.get(&vdisk_path(name, &format!("/allocated?offset={offset}"))?)
            .await
    }

    /// `length` bytes (at most [`DATA_MAX`]) of a vDisk.
    pub async fn read(
        &mut self,
        name: &str,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, ClientError> {
        let path = vdisk_path(name, &format!("/data?offset={offset}&length={length}"))?;
        self.data(&path, length).await
    }
}

/// Imports: begun, written and committed on one connection.
impl Client {
    /// Begins an import.
    pub async fn begin_import(&mut self, request: &BeginImport) -> Result<Import, ClientError> {
        self.send(Method::POST, "/v1/imports", request).await
    }

    /// Writes `data` (at most [`Import::chunk_max`] bytes, a multiple of 512) at `offset` of the vDisk to be.
    pub async fn import_data(
        &mut self,
        name: &str,
        offset: u64,
        data: Bytes,
    ) -> Result<(), ClientError> {
        let path = import_path(name, &format!("/data?offset={offset}"))?;
        self.request(Method::PUT, &path, data, "application/octet-stream")
            .await
            .map(drop)
    }

    /// Makes everything durable and the vDisk visible.
    pub async fn commit_import(&mut self, name: &str) -> Result<VDisk, ClientError> {
        let path = import_path(name, "/commit")?;
        let body = self.request(Method::POST, &path, Bytes::new(), "").await?;
        self.decode(&body)
    }

    /// Gives an import up; nothing of it remains.
    pub async fn abort_import(&mut self, name: &str) -> Result<(), ClientError> {
        self.request(Method::DELETE, &import_path(name, "")?, Bytes::new(), "")
            .await
            .map(drop)
    }
}

/// Transport.
impl Client {
    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        let body = self.request(Method::GET, path, Bytes::new(), "").await?;
        self.decode(&body)
    }

    /// Exactly `length` bytes of data.
    async fn data(&mut self, path: &str, length: u64) -> Result<Bytes, ClientError> {
        let data = self.request(Method::GET, path, Bytes::new(), "").await?;
        match data.len() as u64 == length {
            true => Ok(data),
            false => Err(self.foreign(format!(
                "{} bytes came where {length} were asked for",
                data.len()
            ))),
        }
    }

    async fn send<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.foreign(error.to_string()))?;
        let answer = self
            .request(method, path, body.into(), "application/json")
            .await?;
        self.decode(&answer)
    }

    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.foreign(error.to_string()))
    }

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        kind: &str,
    ) -> Result<Bytes, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "firn");
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| self.foreign(error.to_string()))?;
        match tokio::time::timeout(PATIENCE, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Silent {
                socket: self.socket.clone(),
            }),
        }
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, ClientError> {
        self.sender
            .ready()
            .await
            .map_err(|error| self.lost(error))?;
        let response = self
            .sender
            .send_request(request)
            .await
            .map_err(|error| self.lost(error))?;
        let status = response.status();
        let body = self.collect(response).await?;
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<ApiError>(&body) {
            Ok(error) => Err(error.into()),
            Err(_) => Err(self.foreign(format!("status {status} without an explanation"))),
        }
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let limit = JSON_MAX.max(DATA_MAX as usize);
        let body = Limited::new(response.into_body(), limit).collect().await;
        Ok(body
            .map_err(|source| ClientError::Lost {
                socket: self.socket.clone(),
                source,
            })?
            .to_bytes())
    }

    fn lost(&self, error: hyper::Error) -> ClientError {
        ClientError::Lost {
            socket: self.socket.clone(),
            source: error.into(),
        }
    }

    fn foreign(&self, detail: String) -> ClientError {
        ClientError::Foreign {
            socket: self.socket.clone(),
            detail,
        }
    }
}

/// Names go into paths unescaped, so only names that need no escaping get there.
fn vdisk_path(name: &str, rest: &str) -> Result<String, ApiError> {
    check_name(name)?;
    Ok(format!("/v1/vdisks/{name}{rest}"))
}

fn import_path(name: &str, rest: &str) -> Result<String, ApiError> {
    check_name(name)?;
    Ok(format!("/v1/imports/{name}{rest}"))
}

fn rules_path(vdisk: Option<&str>) -> Result<String, ApiError> {
    match vdisk {
        Some(name) => vdisk_path(name, "/rules"),
        None => Ok("/v1/rules".into()),
    }
}
