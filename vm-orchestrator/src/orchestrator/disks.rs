//! vDisks that are attached to domains and detached from them, and whose they are.

use super::decide::Seen;
use super::{Orchestrator, Outcome, Trouble};
use crate::domain::{edit, read};
use crate::hypervisor::{Description, DomainInfo, DomainState, HypervisorError, Scope};
use crate::xml::{DiskElement, disk};
use control_api::limits::QUEUES_MAX;
use control_api::types::{
    AttachDisk, DiskChanged, DomainState as Use, DomainUse, RecordDomain, VDisk,
};
use control_api::{Client, ErrorKind, check_name};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a guest may take to let go of a disk before that is said.
const LETTING_GO: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
/// Why a domain has stopped to use a disk that was taken from it.
const DETACHED: &str = "detached";

/// A domain's XML, as it is and as it will be.
struct Texts {
    info: DomainInfo,
    current: String,
    persistent: Option<String>,
}

impl Orchestrator {
    /// Attaches a vDisk, in the running domain and at its next start.
    pub(super) async fn attach(
        self: &Arc<Self>,
        domain: &str,
        request: &AttachDisk,
    ) -> Outcome<DiskChanged> {
        check_name(&request.vdisk).map_err(|error| Trouble::Asked(error.into()))?;
        let (info, _) = self.find(domain).await?;
        let _one = self.claim(info.uuid).await;
        let texts = self.texts(&info).await?;
        let mut backend = self.backend().await?;
        let vdisk = backend.vdisk(&request.vdisk).await?;
        let target = self.free_for(&texts, &vdisk, request)?;
        let runs = texts.info.state != DomainState::Off;
        let scope = Scope {
            live: runs && read::memory_is_shared(&texts.current),
            persistent: texts.persistent.is_some(),
        };
        if !scope.live && !scope.persistent {
            let text = format!(
                "domain {} has no shared memory, and is gone when it stops: it can't have a vDisk",
                info.name
            );
            return Err(Trouble::refuse(
                ErrorKind::Refused,
                text,
                "start it anew with shared memory: firn vdisk xml shows the element",
            ));
        }
        let queues = request.queues.or_else(|| {
            // QEMU's own choice is one for each virtual processor, whatever the backend can do.
            (read::vcpus(&texts.current) > u32::from(QUEUES_MAX)).then_some(QUEUES_MAX)
        });
        let element = |boot| {
            disk(&DiskElement {
                socket: &vdisk.socket,
                target: &target,
                queues,
                boot,
            })
        };
        let (live, lasting) = (element(false), element(request.boot));
        let prepared = match &texts.persistent {
            Some(text) => prepare(text, request.boot, &lasting).map_err(|error| {
                Trouble::refuse(
                    ErrorKind::Refused,
                    format!("domain {}: {error}", info.name),
                    "",
                )
            })?,
            None => None,
        };
        let uuid = info.uuid;
        self.ask(move |h| match prepared {
            // libvirt looks at both before it does anything.
            None => h.attach(uuid, &live, scope),
            Some(xml) => {
                if scope.live {
                    let scope = Scope {
                        persistent: false,
                        ..scope
                    };
                    h.attach(uuid, &live, scope)?;
                }
                h.define(&xml)
            }
        })
        .await
        .map_err(no_slot)?;
        if scope.live {
            record(&mut backend, &request.vdisk, &info, Use::Running, None).await?;
        }
        log::info!(
            "domain {}: vDisk {} attached as {target}",
            info.name,
            request.vdisk
        );
        Ok(DiskChanged {
            domain: info.name.clone(),
            vdisk: request.vdisk.clone(),
            target,
            live: scope.live,
            persistent: scope.persistent,
            note: attach_note(&info.name, runs, scope),
        })
    }

    /// Detaches a vDisk, from the running domain and from what it is at its next start.
    pub(super) async fn detach(
        self: &Arc<Self>,
        domain: &str,
        vdisk: &str,
    ) -> Outcome<DiskChanged> {
        check_name(vdisk).map_err(|error| Trouble::Asked(error.into()))?;
        let (info, _) = self.find(domain).await?;
        let _one = self.claim(info.uuid).await;
        let texts = self.texts(&info).await?;
        let runs = texts.info.state != DomainState::Off;
        let of = |text: &str| {
            let disks = read::vdisks(text, &self.run);
            disks.into_iter().find(|disk| disk.vdisk == vdisk)
        };
        let live = of(&texts.current).filter(|_| runs);
        let lasting = texts.persistent.as_deref().and_then(of);
        let Some(found) = live.clone().or(lasting.clone()) else {
            let text = format!("domain {} has no vDisk {vdisk}", info.name);
            return Err(Trouble::refuse(
                ErrorKind::NotFound,
                text,
                "firn vm status tells which it has",
            ));
        };
        let mut backend = self.backend().await?;
        let socket = self.run.join(format!("{vdisk}.sock")).display().to_string();
        let scope = Scope {
            live: live.is_some(),
            persistent: lasting.is_some(),
        };
        let element = disk(&DiskElement {
            socket: &socket,
            target: &found.target,
            queues: None,
            boot: false,
        });
        let uuid = info.uuid;
        self.ask(move |h| h.detach(uuid, &element, scope)).await?;
        let mut note = None;
        if scope.live {
            let began = Instant::now();
            while of(&self.current(&info).await?).is_some() && note.is_none() {
                tokio::time::sleep(PAUSE).await;
                if began.elapsed() > LETTING_GO {
                    note = Some("the guest was asked to let go of it, and has not yet: is it mounted, or the guest still booting?".into());
                }
            }
            if note.is_none() {
                let reason = Some(DETACHED.into());
                record(&mut backend, vdisk, &info, Use::Stopped, reason).await?;
            }
        }
        log::info!("domain {}: vDisk {vdisk} detached", info.name);
        Ok(DiskChanged {
            domain: info.name.clone(),
            vdisk: vdisk.to_owned(),
            target: found.target,
            live: scope.live && note.is_none(),
            persistent: scope.persistent,
            note,
        })
    }

    async fn current(&self, info: &DomainInfo) -> Outcome<String> {
        let uuid = info.uuid;
        self.ask(move |h| h.xml(uuid, Description::Current)).await
    }

    async fn texts(&self, info: &DomainInfo) -> Outcome<Texts> {
        let uuid = info.uuid;
        self.ask(move |h| {
            let info = h.domain(uuid)?;
            Ok(Texts {
                current: h.xml(uuid, Description::Current)?,
                persistent: match info.persistent {
                    true => Some(h.xml(uuid, Description::Persistent)?),
                    false => None,
                },
                info,
            })
        })
        .await
    }

    /// The target that a vDisk gets, if it may be attached at all.
    fn free_for(&self, texts: &Texts, vdisk: &VDisk, request: &AttachDisk) -> Outcome<String> {
        let all = [Some(texts.current.as_str()), texts.persistent.as_deref()];
        let all = || all.into_iter().flatten();
        for disk in all().flat_map(|text| read::vdisks(text, &self.run)) {
            if disk.vdisk == request.vdisk {
                let text = format!(
                    "domain {} has vDisk {} already, as {}",
                    texts.info.name, request.vdisk, disk.target
                );
                return Err(Trouble::refuse(ErrorKind::AlreadyExists, text, ""));
            }
        }
        if let Some(by) = &vdisk.attached {
            let whose = match &vdisk.domain {
                Some(user) if user.state == Use::Running => format!("domain {}", user.name),
                _ => format!("process {}", by.pid),
            };
            let text = format!(
                "vDisk {} is in use by {whose}: a vDisk has one user",
                vdisk.name
            );
            return Err(Trouble::refuse(
                ErrorKind::Busy,
                text,
                "stop that one, or use a clone: firn snapshot create, firn vdisk clone",
            ));
        }
        let taken: HashSet<String> = all().flat_map(read::targets).collect();
        match &request.target {
            None => Ok(read::free_target(&taken)),
            Some(target) if taken.contains(target) => {
                let text = format!("domain {} has a disk {target} already", texts.info.name);
                Err(Trouble::refuse(
                    ErrorKind::AlreadyExists,
                    text,
                    "choose another target, or none",
                ))
            }
            Some(target) => Ok(target.clone()),
        }
    }

    /// Keeps whose its vDisks are: nobody else says so of disks that were attached while it ran.
    pub(super) async fn record_uses(&self, seen: &Seen) -> Outcome<()> {
        if seen.info.state == DomainState::Off {
            return Ok(());
        }
        let mut backend = self.backend().await?;
        for disk in &seen.disks {
            let vdisk = match backend.vdisk(&disk.vdisk).await.map_err(Trouble::from) {
                Err(trouble) if trouble.kind() == Some(ErrorKind::NotFound) => continue,
                other => other?,
            };
            // What libvirt's hook has said of a start counts: another domain may name the same vDisk, and wait for it.
            if vdisk.attached.is_some() && !is_somebodys(vdisk.domain.as_ref()) {
                record(&mut backend, &disk.vdisk, &seen.info, Use::Running, None).await?;
            }
        }
        Ok(())
    }
}

fn is_somebodys(domain: Option<&DomainUse>) -> bool {
    domain.is_some_and(|domain| domain.state == Use::Running)
}

async fn record(
    backend: &mut Client,
    vdisk: &str,
    info: &DomainInfo,
    state: Use,
    reason: Option<String>,
) -> Outcome<()> {
    let request = RecordDomain {
        name: info.name.clone(),
        uuid: info.uuid,
        state,
        reason,
    };
    Ok(backend.record_domain(vdisk, &request).await.map(drop)?)
}

/// The domain with the disk and what that needs, where that is more than the disk.
fn prepare(text: &str, boot: bool, disk: &str) -> Result<Option<String>, edit::EditError> {
    let shared = read::memory_is_shared(text);
    if shared && !boot {
        return Ok(None);
    }
    let mut text = text.to_owned();
    if !shared {
        text = edit::with_shared_memory(&text)?;
    }
    if boot {
        text = edit::boots_later(&text)?;
    }
    edit::with_device(&text, disk).map(Some)
}

/// What has to be known where it is not all done.
fn attach_note(name: &str, runs: bool, scope: Scope) -> Option<String> {
    match (runs, scope.live) {
        (true, false) => Some(format!(
            "domain {name} has it at its next start: its memory is not shared yet, which can't be changed while it runs. Restart it: virsh shutdown {name}, virsh start {name}"
        )),
        _ => None,
    }
}

/// q35 has no slot for a device that was not thought of.
fn no_slot(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Hypervisor(HypervisorError::Refused(why)) if why.contains("PCI slots") => {
            Trouble::refuse(
                ErrorKind::Refused,
                format!("libvirt refused: {why}"),
                "give the domain more <controller type='pci' model='pcie-root-port'/> with virsh edit, one for each disk that is to be attached while it runs",
            )
        }
        other => other,
    }
}
