//! vDisks: what they are, how they are made, filled and read.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// One vDisk as its users see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VDisk {
    /// Its name.
    pub name: String,
    /// Its identity, kept over renames and copies of the store.
    pub uuid: Uuid,
    /// What GET_ID tells the guest (`/dev/disk/by-id/virtio-SERIAL`).
    pub serial: String,
    /// Size in bytes, as the guest sees it.
    pub size: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Text that rules can match on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whether the guest's writes are durable only after a flush.
    pub write_cache: bool,
    /// Whether guests may only read.
    pub read_only: bool,
    /// Path of the vhost-user socket that it listens on.
    pub socket: String,
    /// Who is attached; absent when nobody is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Attachment>,
    /// A second front end that is connected: a guest is being migrated to it, or it has no business there. It is served when
    /// the first one has handed over, or has gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Attachment>,
    /// The libvirt domain that uses it, or did last, as libvirt's hook has said; absent: it has never said anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainUse>,
    /// How far it has got on its way to independence of what it was cloned from; absent when it is not on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flattening: Option<Flattening>,
}

/// A clone on its way to independence of what it was cloned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flattening {
    /// Bytes of its address space that are its own by now.
    pub done_bytes: u64,
    /// Bytes of its address space.
    pub of_bytes: u64,
    /// Bytes that were copied since the backend started.
    pub copied_bytes: u64,
    /// Why it does not go on before the backend is started again; absent: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// What libvirt's hook says of a domain that uses a vDisk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DomainUse {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// What it does.
    pub state: DomainState,
    /// Why it has stopped, in libvirt's words: `shutdown`, `crashed`, `destroyed`, `migrated`, `failed` and so on. Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// What a domain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DomainState {
    /// Its QEMU runs.
    Running,
    /// Its QEMU has gone.
    Stopped,
}

impl DomainState {
    /// The same as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            DomainState::Running => "running",
            DomainState::Stopped => "stopped",
        }
    }
}

/// Keeps what a domain does with a vDisk. What it has written before is durable when the answer comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordDomain {
    /// The domain's name, 1 to 255 bytes.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// What it does.
    pub state: DomainState,
    /// Why it has stopped, at most 64 bytes.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A front end that is connected to a vDisk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// Process id of the front end, usually a QEMU; 0 where the kernel can't tell (another pid namespace).
    pub pid: u32,
    /// Its user id.
    pub uid: u32,
    /// When it connected, in seconds since 1970.
    pub since: u64,
}

/// All visible vDisks, ordered by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VDiskList {
    /// The vDisks.
    pub vdisks: Vec<VDisk>,
}

/// Makes an empty vDisk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVDisk {
    /// 1 to 64 characters of `[A-Za-z0-9._-]`, the first neither dot nor dash.
    pub name: String,
    /// A multiple of 512 from 4 KiB to 64 TiB.
    pub size: u64,
}

/// Changes the size of a vDisk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeVDisk {
    /// The new size.
    pub size: u64,
    /// Must be true where the new size is smaller: what lies behind it is lost.
    #[serde(default)]
    pub shrink: bool,
}

/// A vDisk after its size changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resized {
    /// The vDisk as it is now.
    pub vdisk: VDisk,
    /// Its size before.
    pub old_size: u64,
    /// What a person has to know or do, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes, never 0.
    pub length: u64,
}

/// Where a vDisk holds data; everything else reads as zeroes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Allocated {
    /// Ascending, apart from one another, within what was asked.
    pub ranges: Vec<ByteRange>,
    /// Ask on from here: the answer was cut to a bounded number of ranges or length. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Begins an import: a vDisk that nobody sees until it is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginImport {
    /// The vDisk's name to be.
    pub name: String,
    /// The vDisk's size.
    pub size: u64,
}

/// An import under way. It ends with the connection it was begun on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Import {
    /// Name of the vDisk to be.
    pub name: String,
    /// Its size.
    pub size: u64,
    /// Bytes that one data request takes at most.
    pub chunk_max: u64,
}

/// What a vDisk has done since the backend started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VDiskStats {
    /// Its name.
    pub name: String,
    /// Reads completed.
    pub reads: u64,
    /// Bytes read by the guest.
    pub read_bytes: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written by the guest.
    pub written_bytes: u64,
    /// Bytes that these writes take in segments, headers included.
    pub stored_bytes: u64,
    /// Bytes written or discarded that became zeroes and take no space.
    pub zero_bytes: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Requests that failed.
    pub errors: u64,
}
