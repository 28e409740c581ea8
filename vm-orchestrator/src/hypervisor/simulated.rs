//! A hypervisor that goes away on demand: before it has done what it is asked for, or after, when only the answer is lost.

use super::{
    Description, DomainInfo, DomainSnapshot, DomainState, Hypervisor, HypervisorError, Result,
    Scope,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fails {
    /// Nothing is done.
    Before,
    /// It is done, and nobody hears of it.
    After,
}

/// A simulated domain.
#[derive(Debug, Clone)]
pub(crate) struct Simulated {
    pub info: DomainInfo,
    pub xml: String,
    pub snapshots: Vec<DomainSnapshot>,
    pub current: Option<String>,
    pub busy: bool,
    pub frozen: bool,
    pub metadata: BTreeMap<String, String>,
    /// How often it was started, or restored.
    pub starts: u32,
    /// The agent answers.
    pub agent: bool,
    /// libvirt keeps its memory for the next start.
    pub saved: bool,
    /// Its snapshots can't be deleted.
    pub undeletable: bool,
    /// Somebody else resumes it as soon as its snapshot was looked at.
    pub resumed: bool,
}

/// Everything there is.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub domains: BTreeMap<Uuid, Simulated>,
    /// Memory images: whose they are, and what that was.
    pub images: BTreeMap<PathBuf, (Uuid, String)>,
    /// Calls so far.
    pub calls: usize,
    /// The call that fails, and how.
    pub fault: Option<(usize, Fails)>,
}

/// The hypervisor.
#[derive(Debug, Default)]
pub(crate) struct Simulation {
    pub world: Mutex<World>,
}

impl Simulation {
    fn call<T>(&self, act: impl FnOnce(&mut World) -> Result<T>) -> Result<T> {
        let mut world = self.world.lock();
        let number = world.calls;
        world.calls += 1;
        let fails = world.fault.filter(|(at, _)| *at == number);
        let lost = HypervisorError::Lost(format!("call {number}"));
        match fails {
            Some((_, Fails::Before)) => Err(lost),
            Some((_, Fails::After)) => act(&mut world).and(Err(lost)),
            None => act(&mut world),
        }
    }

    fn with<T>(&self, uuid: Uuid, act: impl FnOnce(&mut Simulated) -> Result<T>) -> Result<T> {
        self.call(|world| {
            let found = world.domains.get_mut(&uuid);
            act(found.ok_or_else(|| HypervisorError::NoDomain(uuid.to_string()))?)
        })
    }
}

fn refuse<T>(why: &str) -> Result<T> {
    Err(HypervisorError::Refused(why.into()))
}

impl Hypervisor for Simulation {
    fn connect(&self) -> Result<()> {
        Ok(())
    }

    fn domains(&self) -> Result<Vec<DomainInfo>> {
        self.call(|world| Ok(world.domains.values().map(|d| d.info.clone()).collect()))
    }

    fn domain(&self, uuid: Uuid) -> Result<DomainInfo> {
        self.with(uuid, |domain| Ok(domain.info.clone()))
    }

    fn find(&self, name: &str) -> Result<DomainInfo> {
        self.call(|world| {
            let found = world.domains.values().find(|d| d.info.name == name);
            let found = found.ok_or_else(|| HypervisorError::NoDomain(name.into()))?;
            Ok(found.info.clone())
        })
    }

    fn xml(&self, uuid: Uuid, _: Description) -> Result<String> {
        self.with(uuid, |domain| Ok(domain.xml.clone()))
    }

    fn snapshots(&self, uuid: Uuid) -> Result<Vec<DomainSnapshot>> {
        self.with(uuid, |domain| Ok(domain.snapshots.clone()))
    }

    fn current_snapshot(&self, uuid: Uuid) -> Result<Option<DomainSnapshot>> {
        self.with(uuid, |domain| {
            if domain.resumed {
                domain.info.state = DomainState::Running;
            }
            let mut all = domain.snapshots.iter();
            Ok(all
                .find(|s| Some(&s.name) == domain.current.as_ref())
                .cloned())
        })
    }

    fn is_busy(&self, uuid: Uuid) -> Result<bool> {
        self.with(uuid, |domain| {
            Ok(domain.busy && domain.info.state != DomainState::Off)
        })
    }

    fn delete_snapshot(&self, uuid: Uuid, name: &str) -> Result<()> {
        self.with(uuid, |domain| {
            if domain.undeletable {
                return refuse("it is in use");
            }
            domain.snapshots.retain(|s| s.name != name);
            Ok(())
        })
    }

    fn resume(&self, uuid: Uuid) -> Result<()> {
        self.with(uuid, |domain| match domain.info.state {
            DomainState::Off | DomainState::Running => refuse("it is not paused"),
            _ => {
                domain.info.state = DomainState::Running;
                Ok(())
            }
        })
    }

    fn has_saved_memory(&self, uuid: Uuid) -> Result<bool> {
        self.with(uuid, |domain| Ok(domain.saved))
    }

    fn image_xml(&self, image: &Path) -> Result<String> {
        self.call(|world| match world.images.get(image) {
            Some((_, xml)) => Ok(xml.clone()),
            None => refuse("no such image"),
        })
    }

    fn start(&self, uuid: Uuid) -> Result<()> {
        self.with(uuid, |domain| match domain.info.state {
            DomainState::Off => {
                domain.info.state = DomainState::Running;
                domain.starts += 1;
                Ok(())
            }
            _ => refuse("it runs already"),
        })
    }

    fn destroy(&self, uuid: Uuid) -> Result<()> {
        self.with(uuid, |domain| {
            domain.info.state = DomainState::Off;
            domain.frozen = false;
            Ok(())
        })
    }

    fn restore(&self, image: &Path) -> Result<()> {
        let uuid = self.world.lock().images.get(image).map(|(uuid, _)| *uuid);
        let Some(uuid) = uuid else {
            return refuse("no such image");
        };
        self.start(uuid)
    }

    fn define(&self, xml: &str) -> Result<()> {
        let read = libvirt_hooks::Domain::read(xml)
            .map_err(|error| HypervisorError::Refused(error.to_string()))?;
        self.call(|world| {
            let state = world.domains.get(&read.uuid).map(|d| d.info.state);
            let info = DomainInfo {
                uuid: read.uuid,
                name: read.name,
                state: state.unwrap_or(DomainState::Off),
                persistent: true,
            };
            world.domains.insert(read.uuid, Simulated::new(info, xml));
            Ok(())
        })
    }

    fn undefine(&self, uuid: Uuid) -> Result<()> {
        self.call(|world| {
            world.domains.remove(&uuid);
            Ok(())
        })
    }

    fn attach(&self, _: Uuid, _: &str, _: Scope) -> Result<()> {
        refuse("not simulated")
    }

    fn detach(&self, _: Uuid, _: &str, _: Scope) -> Result<()> {
        refuse("not simulated")
    }

    fn freeze(&self, uuid: Uuid, _: u16) -> Result<u32> {
        self.with(uuid, |domain| {
            // An agent that does not answer may have frozen all the same.
            domain.frozen = true;
            match domain.agent {
                true => Ok(2),
                false => refuse("Guest agent is not responding"),
            }
        })
    }

    fn thaw(&self, uuid: Uuid, _: u16) -> Result<()> {
        self.with(uuid, |domain| match domain.agent {
            true => {
                domain.frozen = false;
                Ok(())
            }
            false => refuse("Guest agent is not responding"),
        })
    }

    fn metadata(&self, uuid: Uuid, uri: &str) -> Result<Option<String>> {
        self.with(uuid, |domain| Ok(domain.metadata.get(uri).cloned()))
    }

    fn set_metadata(&self, uuid: Uuid, uri: &str, _: &str, element: Option<&str>) -> Result<()> {
        self.with(uuid, |domain| {
            match element {
                Some(element) => drop(domain.metadata.insert(uri.into(), element.into())),
                None => drop(domain.metadata.remove(uri)),
            }
            Ok(())
        })
    }
}

impl Simulated {
    /// One that is as it was defined.
    pub fn new(info: DomainInfo, xml: &str) -> Simulated {
        Simulated {
            info,
            xml: xml.into(),
            snapshots: Vec::new(),
            current: None,
            busy: false,
            frozen: false,
            metadata: BTreeMap::new(),
            starts: 0,
            agent: true,
            saved: false,
            undeletable: false,
            resumed: false,
        }
    }
}
