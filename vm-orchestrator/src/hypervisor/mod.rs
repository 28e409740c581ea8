//! What the orchestrator needs of a hypervisor, and the two there are: [`libvirt`], and one that is simulated for what libvirt can't be made to
//! do on demand.
//!
//! Calls block, some for seconds. Events say only that it is worth looking at a domain again: they may be lost, come twice, or late.

pub mod libvirt;
#[cfg(test)]
pub(crate) mod simulated;

use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HypervisorError {
    /// Nobody answers. What was asked for may have happened.
    #[error("libvirt does not answer: {0}")]
    Lost(String),
    /// There is no such domain.
    #[error("there is no domain {0}")]
    NoDomain(String),
    /// It says no.
    #[error("libvirt refused: {0}")]
    Refused(String),
}

/// What calls give.
pub type Result<T> = std::result::Result<T, HypervisorError>;

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainInfo {
    /// Its identity.
    pub uuid: Uuid,
    /// Its name, which can change while it is off.
    pub name: String,
    /// What it does.
    pub state: DomainState,
    /// Whether it stays when it is off.
    pub persistent: bool,
}

/// What a domain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainState {
    /// It runs.
    Running,
    /// It is paused, and maybe by a snapshot that waits for somebody to snapshot its disks and to resume it, or is still at it. (One that has
    /// saved the memory of a guest that ran meanwhile leaves it paused without a reason.)
    PausedForSnapshot,
    /// It is paused for another reason.
    Paused,
    /// It is off.
    Off,
}

impl DomainState {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            DomainState::Running => "running",
            DomainState::PausedForSnapshot | DomainState::Paused => "paused",
            DomainState::Off => "off",
        }
    }
}

/// One of a domain's own snapshots, as libvirt keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSnapshot {
    /// Its name, which may be anything.
    pub name: String,
    /// When it was begun, in seconds since 1970.
    pub created: u64,
    /// Where the memory is, if it was saved.
    pub memory: Option<PathBuf>,
    /// The disks, by their targets, that it leaves to others.
    pub manual: Vec<String>,
}

/// Which description of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Description {
    /// What it is now.
    Current,
    /// What it is at its next start.
    Persistent,
}

/// Where a device is attached, or detached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// In the domain that runs.
    pub live: bool,
    /// In what it is at its next start.
    pub persistent: bool,
}

/// That a domain is worth a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Something of it has changed.
    Changed(Uuid),
    /// The connection has ended, or is there again: anything may have changed.
    Connection,
}

/// A hypervisor.
pub trait Hypervisor: Send + Sync + 'static {
    /// Connects, if there is no connection.
    fn connect(&self) -> Result<()>;
    /// All domains, whatever they do.
    fn domains(&self) -> Result<Vec<DomainInfo>>;
    /// One domain.
    fn domain(&self, uuid: Uuid) -> Result<DomainInfo>;
    /// A domain by its name, or by its UUID.
    fn find(&self, name: &str) -> Result<DomainInfo>;
    /// Its XML.
    fn xml(&self, uuid: Uuid, which: Description) -> Result<String>;
    /// Its snapshots, those among them that are under way.
    fn snapshots(&self, uuid: Uuid) -> Result<Vec<DomainSnapshot>>;
    /// The one that its present comes from.
    fn current_snapshot(&self, uuid: Uuid) -> Result<Option<DomainSnapshot>>;
    /// Whether it has a job under way: a save, a snapshot, a migration. One that is off has none.
    fn is_busy(&self, uuid: Uuid) -> Result<bool>;
    /// Deletes one of its snapshots, and what belongs to it. One that is not there is deleted.
    fn delete_snapshot(&self, uuid: Uuid, name: &str) -> Result<()>;
    /// Lets it go on.
    fn resume(&self, uuid: Uuid) -> Result<()>;
    /// Whether a start would restore a memory image that libvirt keeps for it (`virsh managedsave`).
    fn has_saved_memory(&self, uuid: Uuid) -> Result<bool>;
    /// The domain that a memory image is of, as it was then.
    fn image_xml(&self, image: &Path) -> Result<String>;
    /// Starts it anew, whatever memory is kept for it.
    fn start(&self, uuid: Uuid) -> Result<()>;
    /// Switches it off, as by its plug. One that is off is off.
    fn destroy(&self, uuid: Uuid) -> Result<()>;
    /// Starts a domain from a memory image, running.
    fn restore(&self, image: &Path) -> Result<()>;
    /// Defines a domain, or defines it anew.
    fn define(&self, xml: &str) -> Result<()>;
    /// Undefines a domain. One that runs runs on, and is gone when it stops; one that is not there is undefined.
    fn undefine(&self, uuid: Uuid) -> Result<()>;
    /// Attaches a device.
    fn attach(&self, uuid: Uuid, device: &str, scope: Scope) -> Result<()>;
    /// Detaches a device; where it is live, the guest may still be letting go of it afterwards.
    fn detach(&self, uuid: Uuid, device: &str, scope: Scope) -> Result<()>;
    /// Freezes the guest's filesystems by its agent, which has so many seconds to answer. How many were.
    fn freeze(&self, uuid: Uuid, seconds: u16) -> Result<u32>;
    /// Thaws them. Thawing what is not frozen is no error.
    fn thaw(&self, uuid: Uuid, seconds: u16) -> Result<()>;
    /// The metadata element of a namespace.
    fn metadata(&self, uuid: Uuid, uri: &str) -> Result<Option<String>>;
    /// Replaces it, or removes it. It is written below the prefix `key`.
    fn set_metadata(&self, uuid: Uuid, uri: &str, key: &str, element: Option<&str>) -> Result<()>;
}
