//! libvirt, through the `virt` crate and, for what that does not wrap (events, freezing), libvirt's own functions.
//!
//! One connection, opened again when it has ended. Its events come from a thread that runs libvirt's event loop for as long as the process lives.

mod raw;

use super::{
    Description, DomainInfo, DomainSnapshot, DomainState, Event, Hypervisor, HypervisorError,
    Result, Scope,
};
use parking_lot::Mutex;
use roxmltree::Document;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::{self, Domain, DomainPausedReason, DomainStateReason};
use virt::enumutil::Enum;
use virt::error::{Error, ErrorNumber};
use virt::sys;

/// Seconds between signs of life of the connection.
const KEEPALIVE: i32 = 2;
/// So many of them may go unanswered.
const KEEPALIVE_MISSED: u32 = 5;
/// The job type of a domain that has none.
const NO_JOB: i32 = sys::VIR_DOMAIN_JOB_NONE as i32;

/// Whom events are told.
pub type Listener = Arc<dyn Fn(Event) + Send + Sync>;

/// A libvirt daemon.
pub struct Libvirt {
    uri: String,
    listener: Listener,
    connection: Mutex<Option<Arc<Connection>>>,
}

/// A connection that is listened to.
struct Connection {
    /// First: callbacks hold the connection.
    _events: raw::Events,
    connect: Connect,
}

impl std::ops::Deref for Connection {
    type Target = Connect;

    fn deref(&self) -> &Connect {
        &self.connect
    }
}

impl Libvirt {
    /// The daemon at `uri`; it is connected to when it is needed.
    pub fn new(uri: &str, listener: Listener) -> Result<Libvirt> {
        // What goes wrong is returned, and not printed as well.
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl().map_err(refused)?;
        let run = || {
            loop {
                if let Err(error) = virt::event::event_run_default_impl() {
                    log::error!("libvirt's event loop: {}", error.message());
                    std::thread::sleep(std::time::Duration::from_secs(1));
                }
            }
        };
        let thread = std::thread::Builder::new().name("firn-libvirt".into());
        thread
            .spawn(run)
            .map_err(|error| HypervisorError::Refused(error.to_string()))?;
        Ok(Libvirt {
            uri: uri.to_owned(),
            listener,
            connection: Mutex::new(None),
        })
    }

    /// The connection, a new one where the old one has ended.
    fn connection(&self) -> Result<Arc<Connection>> {
        let mut connection = self.connection.lock();
        if let Some(connection) = connection.as_ref()
            && connection.is_alive().unwrap_or(false)
        {
            return Ok(connection.clone());
        }
        *connection = None;
        let lost = |error: Error| HypervisorError::Lost(error.message().to_owned());
        let new = Connect::open(Some(&self.uri)).map_err(lost)?;
        // A driver without a daemon has none of these, and needs none.
        drop(new.set_keep_alive(KEEPALIVE, KEEPALIVE_MISSED));
        let events = raw::Events::listen(&new, &self.listener).map_err(lost)?;
        let new = Arc::new(Connection {
            _events: events,
            connect: new,
        });
        *connection = Some(new.clone());
        Ok(new)
    }

    /// Does something to a domain.
    fn with<T>(
        &self,
        uuid: Uuid,
        act: impl FnOnce(&Domain) -> std::result::Result<T, Error>,
    ) -> Result<T> {
        let connection = self.connection()?;
        let told = |error| self.told(&connection, &uuid.to_string(), error);
        let domain = connection.lookup_domain_by_uuid(uuid).map_err(told)?;
        act(&domain).map_err(told)
    }

    /// What an error of a call means.
    fn told(&self, connection: &Connect, domain: &str, error: Error) -> HypervisorError {
        if error.code().is(ErrorNumber::NoDomain) {
            return HypervisorError::NoDomain(domain.to_owned());
        }
        // A call that the connection's end has cut short says so in many ways.
        match connection.is_alive() {
            Ok(true) => refused(error),
            _ => HypervisorError::Lost(error.message().to_owned()),
        }
    }
}

fn unreadable() -> HypervisorError {
    HypervisorError::Refused("a snapshot's XML can't be read".into())
}

fn refused(error: Error) -> HypervisorError {
    HypervisorError::Refused(error.message().to_owned())
}

impl Hypervisor for Libvirt {
    fn connect(&self) -> Result<()> {
        self.connection().map(drop)
    }

    fn domains(&self) -> Result<Vec<DomainInfo>> {
        let connection = self.connection()?;
        let told = |error| self.told(&connection, "", error);
        let all = connection.list_all_domains(0).map_err(told)?;
        // One that goes meanwhile is not there.
        Ok(all.iter().filter_map(|domain| info(domain).ok()).collect())
    }

    fn domain(&self, uuid: Uuid) -> Result<DomainInfo> {
        self.with(uuid, info)
    }

    fn find(&self, name: &str) -> Result<DomainInfo> {
        let connection = self.connection()?;
        let told = |error| self.told(&connection, name, error);
        let found = match connection.lookup_domain_by_name(name) {
            Err(error) if error.code().is(ErrorNumber::NoDomain) => match name.parse() {
                Ok(uuid) => connection.lookup_domain_by_uuid(uuid),
                Err(_) => Err(error),
            },
            other => other,
        };
        info(&found.map_err(told)?).map_err(told)
    }

    fn xml(&self, uuid: Uuid, which: Description) -> Result<String> {
        let flags = match which {
            Description::Current => 0,
            Description::Persistent => sys::VIR_DOMAIN_XML_INACTIVE,
        };
        // With its secrets: who defines it anew would lose them.
        self.with(uuid, |domain| {
            domain.xml_desc(flags | sys::VIR_DOMAIN_XML_SECURE)
        })
    }

    fn snapshots(&self, uuid: Uuid) -> Result<Vec<DomainSnapshot>> {
        self.with(uuid, |domain| {
            let mut all = Vec::new();
            for snapshot in domain.list_all_snapshots(0)? {
                match snapshot.xml_desc(0) {
                    Ok(xml) => all.push(read_snapshot(&xml)),
                    // It has gone meanwhile.
                    Err(error) if error.code().is(ErrorNumber::NoDomainSnapshot) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(all)
        })?
        .into_iter()
        .collect::<Option<Vec<_>>>()
        // Whoever takes it for gone would delete what belongs to it.
        .ok_or_else(unreadable)
    }

    fn current_snapshot(&self, uuid: Uuid) -> Result<Option<DomainSnapshot>> {
        let xml = self.with(uuid, |domain| match domain.current_snapshot(0) {
            Ok(snapshot) => snapshot.xml_desc(0).map(Some),
            Err(error) if error.code().is(ErrorNumber::NoDomainSnapshot) => Ok(None),
            Err(error) => Err(error),
        })?;
        match xml {
            Some(xml) => read_snapshot(&xml).map(Some).ok_or_else(unreadable),
            None => Ok(None),
        }
    }

    fn is_busy(&self, uuid: Uuid) -> Result<bool> {
        self.with(uuid, |domain| {
            // libvirt tells of none that is off.
            Ok(domain.is_active()? && domain.job_info()?.r#type != NO_JOB)
        })
    }

    fn delete_snapshot(&self, uuid: Uuid, name: &str) -> Result<()> {
        self.with(uuid, |domain| {
            let found = Domain::lookup_snapshot_by_name(domain, name, 0);
            let deleted = found.and_then(|snapshot| snapshot.delete(0));
            unless(deleted, ErrorNumber::NoDomainSnapshot)
        })
    }

    fn resume(&self, uuid: Uuid) -> Result<()> {
        self.with(uuid, Domain::resume)
    }

    fn start(&self, uuid: Uuid) -> Result<()> {
        self.with(uuid, |domain| {
            domain.create_with_flags(sys::VIR_DOMAIN_START_FORCE_BOOT)
        })
    }

    fn has_saved_memory(&self, uuid: Uuid) -> Result<bool> {
        self.with(uuid, |domain| domain.has_managed_save(0))
    }

    fn image_xml(&self, image: &Path) -> Result<String> {
        let connection = self.connection()?;
        let path = image.display().to_string();
        connection
            .save_image_xml_desc(&path, 0)
            .map_err(|error| self.told(&connection, &path, error))
    }

    fn destroy(&self, uuid: Uuid) -> Result<()> {
        self.with(uuid, |domain| match domain.is_active()? {
            true => domain.destroy(),
            false => Ok(()),
        })
    }

    fn restore(&self, image: &Path) -> Result<()> {
        let connection = self.connection()?;
        let path = image.display().to_string();
        connection
            .restore_domain_flags(&path, None, sys::VIR_DOMAIN_SAVE_RUNNING)
            .map_err(|error| self.told(&connection, &path, error))
    }

    fn define(&self, xml: &str) -> Result<()> {
        let connection = self.connection()?;
        let defined = connection.define_domain_xml(xml);
        let told = |error| self.told(&connection, "", error);
        defined.map(drop).map_err(told)
    }

    fn undefine(&self, uuid: Uuid) -> Result<()> {
        let all = sys::VIR_DOMAIN_UNDEFINE_NVRAM
            | sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
        match self.with(uuid, |domain| domain.undefine_flags(all)) {
            Err(HypervisorError::NoDomain(_)) => Ok(()),
            other => other,
        }
    }

    fn attach(&self, uuid: Uuid, device: &str, scope: Scope) -> Result<()> {
        self.with(uuid, |domain| {
            domain.attach_device_flags(device, impact(scope))
        })
    }

    fn detach(&self, uuid: Uuid, device: &str, scope: Scope) -> Result<()> {
        self.with(uuid, |domain| {
            domain.detach_device_flags(device, impact(scope))
        })
    }

    fn freeze(&self, uuid: Uuid, seconds: u16) -> Result<u32> {
        self.with(uuid, |domain| raw::freeze(domain, seconds))
    }

    fn thaw(&self, uuid: Uuid, seconds: u16) -> Result<()> {
        self.with(uuid, |domain| raw::thaw(domain, seconds))
    }

    fn metadata(&self, uuid: Uuid, uri: &str) -> Result<Option<String>> {
        const ELEMENT: i32 = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;
        self.with(uuid, |domain| {
            match domain.metadata(ELEMENT, Some(uri), sys::VIR_DOMAIN_AFFECT_CURRENT) {
                Ok(element) => Ok(Some(element)),
                Err(error) if error.code().is(ErrorNumber::NoDomainMetadata) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn set_metadata(&self, uuid: Uuid, uri: &str, key: &str, element: Option<&str>) -> Result<()> {
        const ELEMENT: i32 = sys::VIR_DOMAIN_METADATA_ELEMENT as i32;
        self.with(uuid, |domain| {
            let scope = Scope {
                live: domain.is_active()?,
                persistent: domain.is_persistent()?,
            };
            let scopes = [
                scope.live.then_some(sys::VIR_DOMAIN_AFFECT_LIVE),
                scope.persistent.then_some(sys::VIR_DOMAIN_AFFECT_CONFIG),
            ];
            // One by one: it may be in one of the two only.
            for flags in scopes.into_iter().flatten() {
                let set = domain.set_metadata(ELEMENT, element, Some(key), Some(uri), flags);
                unless(set, ErrorNumber::NoDomainMetadata)?;
            }
            Ok(())
        })
    }
}

/// A call that may as well find its work done.
fn unless(
    done: std::result::Result<(), Error>,
    already: ErrorNumber,
) -> std::result::Result<(), Error> {
    match done {
        Err(error) if error.code().is(already) => Ok(()),
        other => other,
    }
}

fn impact(scope: Scope) -> u32 {
    let live = scope.live.then_some(sys::VIR_DOMAIN_AFFECT_LIVE);
    let persistent = scope.persistent.then_some(sys::VIR_DOMAIN_AFFECT_CONFIG);
    live.unwrap_or(0) | persistent.unwrap_or(0)
}

fn info(domain: &Domain) -> std::result::Result<DomainInfo, Error> {
    Ok(DomainInfo {
        uuid: domain.uuid()?,
        name: domain.name()?,
        state: state(domain.state()?),
        persistent: domain.is_persistent()?,
    })
}

fn state((state, reason): (domain::DomainStateEnum, domain::DomainStateReasonEnum)) -> DomainState {
    use domain::DomainState as Of;
    match (state, reason) {
        (Enum::Known(Of::Shutoff | Of::NoState), _) => DomainState::Off,
        (Enum::Known(Of::Paused), Enum::Known(DomainStateReason::Paused(why)))
            if why.is_any(vec![
                DomainPausedReason::Snapshot,
                DomainPausedReason::Unknown,
            ]) =>
        {
            DomainState::PausedForSnapshot
        }
        (Enum::Known(Of::Paused | Of::PMSuspended), _) => DomainState::Paused,
        _ => DomainState::Running,
    }
}

/// Reads a `<domainsnapshot>`.
fn read_snapshot(xml: &str) -> Option<DomainSnapshot> {
    let document = Document::parse(xml).ok()?;
    let root = document.root_element();
    let child = |name: &str| root.children().find(|node| node.has_tag_name(name));
    let text = |name: &str| child(name).and_then(|node| node.text());
    let memory = child("memory").filter(|node| node.attribute("snapshot") == Some("external"));
    let disks = child("disks").into_iter().flat_map(|node| node.children());
    let manual = disks
        .filter(|disk| disk.attribute("snapshot") == Some("manual"))
        .filter_map(|disk| disk.attribute("name"));
    Some(DomainSnapshot {
        name: text("name")?.to_owned(),
        created: text("creationTime")?.parse().ok()?,
        memory: memory
            .and_then(|node| node.attribute("file"))
            .map(Into::into),
        manual: manual.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_snapshot() {
        let xml = "<domainsnapshot><name>a b</name><state>running</state><creationTime>1700000000</creationTime>\
            <memory snapshot='external' file='/x/a'/><disks><disk name='vda' snapshot='manual'/>\
            <disk name='vdb' snapshot='no'/></disks><domain><name>web</name></domain></domainsnapshot>";
        let snapshot = read_snapshot(xml).unwrap();
        assert_eq!(snapshot.name, "a b");
        assert_eq!(snapshot.created, 1_700_000_000);
        assert_eq!(snapshot.memory.as_deref(), Some(Path::new("/x/a")));
        assert_eq!(snapshot.manual, ["vda"]);
        for bad in [
            "",
            "<domainsnapshot/>",
            "<domainsnapshot><name>a</name></domainsnapshot>",
        ] {
            assert_eq!(read_snapshot(bad), None);
        }
    }
}
