//! Workflows with a real backend, and a hypervisor that goes away at each of its calls in turn, the orchestrator with it: what it has begun, the next
//! one ends.

use super::journal::Journal;
use super::metadata::{REQUEST, RESULT};
use super::{Orchestrator, Trouble};
use crate::hypervisor::simulated::{Fails, Simulated, Simulation};
use crate::hypervisor::{DomainInfo, DomainSnapshot, DomainState};
use block_store::{InitOptions, OpenConfig, Store, VDisk};
use control_api::types::*;
use control_api::{ApiError, Client};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;
use vhost_backend::control::{ControlServer, Sockets, StoreTarget};

const SHOP: Uuid = Uuid::from_u128(0x5b0b);
const MIB: u64 = 1 << 20;

/// Sockets that are names alone.
struct Names(PathBuf);

impl Sockets for Names {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.sock"))
    }

    fn attached(&self, _: &str) -> Option<Attachment> {
        None
    }

    fn open(&self, _: Arc<VDisk>) -> Result<(), ApiError> {
        Ok(())
    }

    fn close(&self, _: &str) -> Result<(), ApiError> {
        Ok(())
    }
}

/// A host: a backend with vDisks web and db, and a domain that has them.
struct Host {
    dir: tempfile::TempDir,
    simulation: Arc<Simulation>,
    orchestrator: Option<Arc<Orchestrator>>,
    store: Arc<Store>,
    _server: ControlServer,
}

impl Host {
    async fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        for name in ["run", "state"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let store = dir.path().join("store");
        let segment_size = 1 << 20;
        Store::init(&store, &InitOptions { segment_size }).unwrap();
        let store = Store::open(OpenConfig::new(&store, &run)).unwrap();
        let target = StoreTarget::new(store.clone(), Box::new(Names(run.clone())), run.clone());
        let server = ControlServer::start(&run, Arc::new(target)).unwrap();
        let simulation = Arc::new(Simulation::default());
        let info = DomainInfo {
            uuid: SHOP,
            name: "shop".into(),
            state: DomainState::Running,
            persistent: true,
        };
        let domain = Simulated::new(info, &xml(&run));
        simulation.world.lock().domains.insert(SHOP, domain);
        let mut client = Client::connect(&run).await.unwrap();
        for name in ["web", "db"] {
            let request = CreateVDisk {
                name: name.into(),
                size: MIB,
            };
            client.create(&request).await.unwrap();
        }
        let mut host = Host {
            dir,
            simulation,
            orchestrator: None,
            store,
            _server: server,
        };
        host.restart();
        host
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The orchestrator dies, and another one comes.
    fn restart(&mut self) {
        self.orchestrator = None;
        let journal = Journal::open(&self.dir.path().join("state")).unwrap();
        let orchestrator = Orchestrator::new(self.simulation.clone(), "", self.run(), journal);
        self.orchestrator = Some(Arc::new(orchestrator));
    }

    fn orchestrator(&self) -> &Arc<Orchestrator> {
        self.orchestrator.as_ref().unwrap()
    }

    fn shop<T>(&self, look: impl FnOnce(&mut Simulated) -> T) -> T {
        look(self.simulation.world.lock().domains.get_mut(&SHOP).unwrap())
    }

    /// What the process does all the time.
    async fn rounds(&self) {
        for _ in 0..3 {
            self.orchestrator().finish_all(true).await;
            self.look().await;
        }
    }

    /// A look at everything, to its end.
    async fn look(&self) {
        self.orchestrator().look_at_all().await;
        self.orchestrator().look(SHOP).await;
        // What was queued finds nothing to do.
        drop(self.orchestrator().claim(SHOP).await);
    }

    /// libvirt has saved its memory, and paused it.
    fn pause(&self, name: &str, created: u64) {
        let memory = self.dir.path().join(name);
        std::fs::write(&memory, "memory").unwrap();
        let of = (SHOP, xml(&self.run()));
        let mut world = self.simulation.world.lock();
        world.images.insert(memory.clone(), of);
        drop(world);
        self.shop(|shop| {
            shop.info.state = DomainState::PausedForSnapshot;
            shop.current = Some(name.into());
            shop.snapshots.push(DomainSnapshot {
                name: name.into(),
                created,
                memory: Some(memory),
                manual: vec!["vda".into()],
            });
        });
    }

    /// Somebody writes to a vDisk.
    async fn write(&self, vdisk: &str) {
        let disk = self.store.vdisk(vdisk).unwrap();
        let mut client = self.store.client().unwrap();
        client.write(&disk, 0, &[7; 4096]).unwrap();
    }

    async fn snapshots(&self) -> Vec<Snapshot> {
        let mut client = Client::connect(&self.run()).await.unwrap();
        client.snapshots(None).await.unwrap()
    }

    /// Names and number of the snapshots of both vDisks, which must have the same.
    async fn names(&self) -> Vec<String> {
        let all = self.snapshots().await;
        let of = |vdisk: &str| -> Vec<String> {
            let of = all.iter().filter(|s| s.vdisk == vdisk);
            of.map(|s| s.name.clone()).collect()
        };
        assert_eq!(of("web"), of("db"), "a group is whole");
        of("web")
    }

    fn is_well(&self) {
        let (state, frozen) = self.shop(|shop| (shop.info.state, shop.frozen));
        assert_eq!((state, frozen), (DomainState::Running, false));
        let plain = |(_, work): &(u64, super::journal::Work)| {
            matches!(
                work.kind,
                super::journal::Kind::Snapshot { quiesce: false, .. }
            )
        };
        let mut left = self.orchestrator().journal.all().unwrap();
        left.retain(|entry| !plain(entry));
        assert_eq!(left, []);
    }
}

fn xml(run: &Path) -> String {
    let disk = |vdisk: &str, target: &str| {
        format!(
            "<disk type='vhostuser'><source type='unix' path='{}/{vdisk}.sock'/><target dev='{target}'/></disk>",
            run.display()
        )
    };
    format!(
        "<domain><name>shop</name><uuid>{SHOP}</uuid><memoryBacking><access mode='shared'/></memoryBacking>\
         <devices>{}{}</devices></domain>",
        disk("web", "vda"),
        disk("db", "vdb")
    )
}

/// Does something on hosts where each call in turn fails, before and after it is done, and the orchestrator dies of it; what then must hold.
async fn at_each_call(
    prepare: impl AsyncFn(&Host),
    act: impl AsyncFn(&Host) -> Result<(), Trouble>,
    holds: impl AsyncFn(&Host, bool),
) {
    let host = Host::new().await;
    prepare(&host).await;
    let before = host.simulation.world.lock().calls;
    act(&host).await.unwrap();
    let calls = host.simulation.world.lock().calls - before;
    host.rounds().await;
    host.is_well();
    holds(&host, true).await;
    assert!(calls > 2, "there is something to fail");
    for call in 0..calls {
        for fails in [Fails::Before, Fails::After] {
            let mut host = Host::new().await;
            prepare(&host).await;
            {
                let mut world = host.simulation.world.lock();
                world.fault = Some((world.calls + call, fails));
            }
            let done = act(&host).await;
            host.restart();
            host.rounds().await;
            host.is_well();
            println!("call {call} {fails:?}: {:?}", done.as_ref().err());
            holds(&host, done.is_ok()).await;
        }
    }
}

#[tokio::test]
async fn a_checkpoint_is_taken_once_whoever_dies() {
    at_each_call(
        async |host| host.pause("a", 7),
        async |host| {
            host.look().await;
            Ok(())
        },
        async |host, _| {
            assert_eq!(host.names().await, ["a"]);
            for snapshot in host.snapshots().await {
                assert_eq!(snapshot.holds.len(), 1);
            }
            assert_eq!(host.shop(|shop| shop.snapshots.len()), 1);
        },
    )
    .await;
}

#[tokio::test]
async fn filesystems_are_thawed_whoever_dies() {
    at_each_call(
        async |_| {},
        async |host| {
            let orchestrator = host.orchestrator();
            let (info, disks) = orchestrator.find("shop").await?;
            let _one = orchestrator.claim(info.uuid).await;
            orchestrator
                .snapshot(&info, &disks, "a", true)
                .await
                .map(drop)
        },
        async |host, done| {
            let names = host.names().await;
            assert!(names.is_empty() || names == ["a"]);
            assert!(!done || names == ["a"], "what was answered is there");
        },
    )
    .await;
}

#[tokio::test]
async fn what_metadata_asks_for_is_done_once() {
    at_each_call(
        async |host| {
            host.shop(|shop| {
                shop.metadata
                    .insert(REQUEST.into(), "<snapshot name='a' quiesce='yes'/>".into())
            });
        },
        async |host| {
            host.look().await;
            Ok(())
        },
        async |host, _| {
            assert_eq!(host.names().await, ["a"]);
            let (request, result) = host.shop(|shop| {
                (
                    shop.metadata.get(REQUEST).cloned(),
                    shop.metadata.get(RESULT).cloned(),
                )
            });
            assert_eq!(request, None);
            assert!(result.is_some_and(|said| said.contains("state='done'")));
        },
    )
    .await;
}

#[tokio::test]
async fn a_revert_is_ended_whoever_dies() {
    at_each_call(
        async |host| {
            host.pause("a", 7);
            host.look().await;
        },
        async |host| {
            let request = RevertDomain {
                snapshot: "a".into(),
                memory: true,
                keep: Some("before".into()),
                discard: false,
            };
            host.orchestrator().revert("shop", &request).await.map(drop)
        },
        async |host, done| {
            let names = host.names().await;
            // It was begun, and is ended, or it was not begun.
            let starts = host.shop(|shop| shop.starts);
            match names.len() {
                1 => assert!(!done && starts == 0, "{starts}"),
                _ => assert_eq!(
                    (names, starts),
                    (vec!["a".to_owned(), "before".to_owned()], 1)
                ),
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_clone_is_whole_or_not_there() {
    at_each_call(
        async |host| {
            let mut client = Client::connect(&host.run()).await.unwrap();
            let request = CreateSnapshot {
                name: "a".into(),
                vdisks: vec!["web".into(), "db".into()],
                hold: None,
            };
            client.create_snapshot(&request).await.unwrap();
        },
        async |host| {
            let request = CloneDomain {
                snapshot: "a".into(),
                name: "copy".into(),
                start: true,
            };
            host.orchestrator()
                .clone_domain("shop", &request)
                .await
                .map(drop)
        },
        async |host, done| {
            let mut client = Client::connect(&host.run()).await.unwrap();
            let vdisks = client.vdisks().await.unwrap();
            let vdisks: Vec<_> = vdisks.iter().map(|v| v.name.as_str()).collect();
            let world = host.simulation.world.lock();
            match world.domains.len() {
                1 => {
                    assert!(!done);
                    assert_eq!(vdisks, ["db", "web"]);
                }
                _ => {
                    assert_eq!(vdisks, ["copy-vda", "copy-vdb", "db", "web"]);
                    let copy = world.domains.values().find(|d| d.info.name == "copy");
                    let copy = copy.unwrap();
                    assert_eq!((copy.starts, copy.info.state), (1, DomainState::Running));
                    assert!(copy.xml.contains("copy-vda.sock") && !copy.xml.contains("web.sock"));
                }
            }
        },
    )
    .await;
}

/// One that never answers a freeze may have frozen all the same: it is thawed when it answers again.
#[tokio::test]
async fn an_agent_that_does_not_answer() {
    let host = Host::new().await;
    host.shop(|shop| shop.agent = false);
    let orchestrator = host.orchestrator();
    let (info, disks) = orchestrator.find("shop").await.unwrap();
    let refused = orchestrator
        .snapshot(&info, &disks, "a", true)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("not responding"), "{refused}");
    host.rounds().await;
    assert!(host.shop(|shop| shop.frozen));
    let status = orchestrator.status().await;
    assert!(status.tasks[0].waits_for.is_some(), "{:?}", status.tasks);
    host.shop(|shop| shop.agent = true);
    host.rounds().await;
    host.is_well();
    assert_eq!(orchestrator.status().await.tasks, []);
    assert!(host.names().await.is_empty());
}

#[tokio::test]
async fn events_that_come_twice_or_never_change_nothing() {
    let host = Host::new().await;
    host.pause("a", 7);
    host.shop(|shop| shop.busy = true);
    // libvirt is still at it, says so twice, and never when it is done.
    host.orchestrator().notice(SHOP);
    host.orchestrator().notice(SHOP);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(host.names().await.is_empty());
    host.shop(|shop| shop.busy = false);
    let began = std::time::Instant::now();
    while host.shop(|shop| shop.info.state) != DomainState::Running {
        assert!(began.elapsed().as_secs() < 10, "it is left paused");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // A person pauses it: that is not ours.
    host.shop(|shop| shop.info.state = DomainState::PausedForSnapshot);
    host.orchestrator().notice(SHOP);
    host.rounds().await;
    assert_eq!(
        host.shop(|shop| shop.info.state),
        DomainState::PausedForSnapshot
    );
    assert_eq!(host.names().await, ["a"]);
}

/// Only what libvirt had, and deleted with its memory, goes.
#[tokio::test]
async fn what_libvirt_deletes_goes_and_nothing_else() {
    let mut host = Host::new().await;
    // Two begun within a second are two.
    for (name, created) in [("a", 7), ("b", 7), ("c", 8)] {
        host.pause(name, created);
        host.rounds().await;
        host.is_well();
    }
    assert_eq!(host.names().await, ["a", "b", "c"]);
    host.shop(|shop| shop.snapshots.retain(|s| s.name != "a"));
    std::fs::remove_file(host.dir.path().join("a")).unwrap();
    host.restart();
    host.rounds().await;
    assert_eq!(
        host.names().await,
        ["b", "c"],
        "also when it was not looked at meanwhile"
    );
    // Undefined, and defined again, at once: its snapshots are forgotten by libvirt, not deleted.
    host.shop(|shop| shop.snapshots.clear());
    host.rounds().await;
    assert_eq!(host.names().await, ["b", "c"]);
    // A new one of the same name: the old one is not its disks.
    host.pause("b", 9);
    host.rounds().await;
    host.is_well();
    assert_eq!(host.names().await, ["b", "c"]);
    assert!(
        host.shop(|shop| shop.snapshots.is_empty()),
        "it could not be taken"
    );
}

/// A checkpoint that can't be is undone as a whole, whoever dies meanwhile.
#[tokio::test]
async fn a_checkpoint_that_can_not_be_leaves_nothing() {
    at_each_call(
        async |host| host.pause("not a name", 7),
        async |host| {
            host.look().await;
            Ok(())
        },
        async |host, _| {
            assert!(host.names().await.is_empty());
            let result = host.shop(|shop| {
                assert!(shop.snapshots.is_empty());
                shop.metadata.get(RESULT).cloned()
            });
            assert!(result.is_some_and(|said| said.contains("state='failed'")));
        },
    )
    .await;
}

/// libvirt may refuse to delete what has no disks: the guest runs nevertheless.
#[tokio::test]
async fn one_that_libvirt_does_not_delete_runs_nevertheless() {
    let host = Host::new().await;
    host.shop(|shop| shop.undeletable = true);
    host.pause("not a name", 7);
    host.rounds().await;
    host.is_well();
}

/// Somebody resumes a domain while its checkpoint waits: what is snapshotted then is not of the memory's instant.
#[tokio::test]
async fn one_that_was_resumed_by_somebody_else_gets_no_snapshot() {
    let host = Host::new().await;
    host.shop(|shop| shop.resumed = true);
    host.pause("a", 7);
    host.rounds().await;
    host.is_well();
    assert!(host.names().await.is_empty());
    assert!(host.shop(|shop| shop.snapshots.is_empty()));
}

fn back(memory: bool, keep: Option<&str>) -> RevertDomain {
    RevertDomain {
        snapshot: "a".into(),
        memory,
        keep: keep.map(str::to_owned),
        discard: keep.is_none(),
    }
}

/// Whoever starts a domain that a revert has switched off, and was interrupted in, keeps what that writes.
#[tokio::test]
async fn a_domain_that_was_started_meanwhile_is_left_alone() {
    let mut host = Host::new().await;
    host.pause("a", 7);
    host.rounds().await;
    // Lost when it asks whether the domain is off at its very end: everything is reverted by then.
    let calls = {
        let before = host.simulation.world.lock().calls;
        host.orchestrator()
            .revert("shop", &back(true, None))
            .await
            .unwrap();
        host.simulation.world.lock().calls - before
    };
    for fails in [Fails::Before, Fails::After] {
        {
            let mut world = host.simulation.world.lock();
            world.fault = Some((world.calls + calls - 1, fails));
        }
        let refused = host
            .orchestrator()
            .revert("shop", &back(true, None))
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("not done yet"), "{refused}");
        // Another one has to wait.
        let busy = host
            .orchestrator()
            .revert("shop", &back(false, None))
            .await
            .unwrap_err();
        assert!(busy.to_string().contains("not done yet"), "{busy}");
        // It runs, writes, and is switched off.
        host.write("web").await;
        host.shop(|shop| shop.info.state = DomainState::Off);
        let starts = host.shop(|shop| shop.starts);
        host.restart();
        host.rounds().await;
        assert_eq!(
            host.shop(|shop| shop.starts),
            starts,
            "old memory over new disks"
        );
        assert_eq!(host.orchestrator().journal.all().unwrap(), []);
        let waits = host.orchestrator().waits.lock().len();
        assert_eq!(waits, 0, "what is given up waits for nothing");
        host.shop(|shop| shop.info.state = DomainState::Running);
    }
}

#[tokio::test]
async fn memory_that_does_not_belong_to_the_disks_is_not_restored() {
    let host = Host::new().await;
    host.pause("a", 7);
    host.rounds().await;
    let image = host.dir.path().join("a");
    let own = xml(&host.run());
    let file =
        "<disk type='file' device='disk'><source file='/x'/><target dev='vdz'/></disk></devices>";
    for (of, why) in [
        (own.replace("db.sock", "other.sock"), "had other, web then"),
        (own.replace("</devices>", file), "vdz is no vDisk"),
        (
            own.replace(&SHOP.to_string(), &Uuid::nil().to_string()),
            "it is domain shop's",
        ),
    ] {
        host.simulation
            .world
            .lock()
            .images
            .insert(image.clone(), (SHOP, of));
        let refused = host
            .orchestrator()
            .revert("shop", &back(true, None))
            .await
            .unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    host.simulation
        .world
        .lock()
        .images
        .insert(image, (SHOP, own));
    host.shop(|shop| shop.saved = true);
    let refused = host
        .orchestrator()
        .revert("shop", &back(false, None))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("for its next start"),
        "{refused}"
    );
    assert_eq!(host.shop(|shop| shop.starts), 0);
}

#[tokio::test]
async fn memory_and_disks_of_different_instants_are_not_put_together() {
    let host = Host::new().await;
    host.pause("a", 7);
    host.rounds().await;
    // libvirt's is made anew behind our back.
    host.shop(|shop| shop.snapshots[0].created = 8);
    let request = RevertDomain {
        snapshot: "a".into(),
        memory: true,
        keep: None,
        discard: true,
    };
    let refused = host
        .orchestrator()
        .revert("shop", &request)
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("not of the instant"),
        "{refused}"
    );
    assert_eq!(
        host.shop(|shop| (shop.info.state, shop.starts)),
        (DomainState::Running, 0)
    );
}
