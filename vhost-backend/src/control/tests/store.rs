//! The API in front of a real store.

use crate::control::{ControlServer, Sockets, StoreTarget};
use block_store::{InitOptions, OpenConfig, Store, VDisk as StoreVDisk};
use control_api::types::*;
use control_api::{ApiError, Client, ClientError};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Sockets that only exist as names; a test says who is attached.
#[derive(Default, Clone)]
pub(super) struct Names(pub Arc<Mutex<Table>>);

#[derive(Default)]
pub(super) struct Table {
    open: BTreeSet<String>,
    pub attached: BTreeSet<String>,
    pub fails: bool,
    /// Somebody attaches between the look and the act.
    pub late: bool,
}

impl Sockets for Names {
    fn path(&self, name: &str) -> PathBuf {
        format!("/run/firn/{name}.sock").into()
    }

    fn attached(&self, name: &str) -> Option<Attachment> {
        self.0.lock().attached.contains(name).then_some(Attachment {
            pid: 9,
            uid: 9,
            since: 9,
        })
    }

    fn open(&self, vdisk: Arc<StoreVDisk>) -> Result<(), ApiError> {
        let mut table = self.0.lock();
        if table.fails {
            return Err(ApiError::new(ErrorKind::Refused, "no socket today"));
        }
        assert!(table.open.insert(vdisk.name().to_owned()), "opened twice");
        Ok(())
    }

    fn close(&self, name: &str) -> Result<(), ApiError> {
        let mut table = self.0.lock();
        if table.attached.contains(name) || table.late {
            return Err(ApiError::new(ErrorKind::Busy, "attached"));
        }
        table.open.remove(name);
        Ok(())
    }
}

pub(super) struct Served {
    dir: tempfile::TempDir,
    pub names: Names,
    pub store: Arc<Store>,
    server: Option<ControlServer>,
}

impl Served {
    pub fn new() -> Served {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let options = InitOptions {
            segment_size: 1 << 20,
        };
        Store::init(&dir.path().join("store"), &options).unwrap();
        Served::open(dir)
    }

    fn open(dir: tempfile::TempDir) -> Served {
        let run = dir.path().join("run");
        let store = Store::open(OpenConfig::new(dir.path().join("store"), &run)).unwrap();
        let names = Names::default();
        for vdisk in store.vdisks() {
            names.open(vdisk).unwrap();
        }
        let target = StoreTarget::new(Arc::clone(&store), Box::new(names.clone()), run.clone());
        let server = Some(ControlServer::start(&run, Arc::new(target)).unwrap());
        Served {
            dir,
            names,
            store,
            server,
        }
    }

    pub fn reopen(mut self) -> Served {
        drop(self.server.take());
        self.store.shutdown().unwrap();
        let Served { dir, store, .. } = self;
        drop(store);
        Served::open(dir)
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.dir.path().join("run")).await.unwrap()
    }

    /// In some extent of some segment.
    pub fn flip_a_bit(&self) {
        use std::os::unix::fs::FileExt;
        self.store.checkpoint().unwrap();
        for entry in std::fs::read_dir(self.dir.path().join("store")).unwrap() {
            let path = entry.unwrap().path();
            let file = std::fs::File::options().read(true).write(true).open(&path);
            let (file, mut byte) = (file.unwrap(), [0; 5]);
            if file.read_exact_at(&mut byte, 4096).is_ok() && byte == *b"FXT1\x01" {
                file.read_exact_at(&mut byte[..1], 4096 + 70).unwrap();
                file.write_all_at(&[byte[0] ^ 1], 4096 + 70).unwrap();
                return;
            }
        }
        panic!("no segment begins with an extent");
    }

    pub fn open_sockets(&self) -> Vec<String> {
        self.names.0.lock().open.iter().cloned().collect()
    }
}

pub(super) fn kind(error: ClientError) -> ErrorKind {
    match error {
        ClientError::Api(error) => error.kind,
        other => panic!("not an answer: {other}"),
    }
}

pub(super) fn create(name: &str, size: u64) -> CreateVDisk {
    CreateVDisk {
        name: name.into(),
        size,
    }
}

#[tokio::test]
async fn vdisks_have_sockets_and_survive_a_restart() {
    let served = Served::new();
    let mut client = served.client().await;
    let made = client.create(&create("web", 1 << 30)).await.unwrap();
    assert_eq!(made.socket, "/run/firn/web.sock");
    assert_eq!(
        kind(client.create(&create("web", 4096)).await.unwrap_err()),
        ErrorKind::AlreadyExists
    );
    assert_eq!(served.open_sockets(), ["web"]);
    let served = served.reopen();
    let mut client = served.client().await;
    assert_eq!(client.vdisk("web").await.unwrap(), made);
    client.delete("web").await.unwrap();
    assert_eq!(
        kind(client.delete("web").await.unwrap_err()),
        ErrorKind::NotFound
    );
    assert!(served.open_sockets().is_empty() && client.vdisks().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_vdisk_without_a_socket_does_not_stay() {
    let served = Served::new();
    served.names.0.lock().fails = true;
    let mut client = served.client().await;
    assert_eq!(
        kind(client.create(&create("web", 4096)).await.unwrap_err()),
        ErrorKind::Refused
    );
    assert!(client.vdisks().await.unwrap().is_empty());
    client
        .begin_import(&BeginImport {
            name: "web".into(),
            size: 4096,
        })
        .await
        .unwrap();
    assert_eq!(
        kind(client.commit_import("web").await.unwrap_err()),
        ErrorKind::Refused
    );
    served.names.0.lock().fails = false;
    client.create(&create("web", 4096)).await.unwrap();
}

#[tokio::test]
async fn what_is_attached_grows_and_nothing_else() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", 1 << 30)).await.unwrap();
    served.names.0.lock().attached.insert("web".into());
    let resize = |size, shrink| ResizeVDisk { size, shrink };
    let grown = client.resize("web", &resize(2 << 30, false)).await.unwrap();
    assert_eq!((grown.old_size, grown.vdisk.size), (1 << 30, 2 << 30));
    assert!(grown.note.unwrap().contains("cold start"));
    assert_eq!(
        kind(
            client
                .resize("web", &resize(1 << 30, true))
                .await
                .unwrap_err()
        ),
        ErrorKind::Busy
    );
    assert_eq!(
        kind(client.delete("web").await.unwrap_err()),
        ErrorKind::Busy
    );
    served.names.0.lock().attached.clear();
    assert_eq!(
        kind(
            client
                .resize("web", &resize(1 << 30, false))
                .await
                .unwrap_err()
        ),
        ErrorKind::Refused
    );
    let shrunk = client.resize("web", &resize(1 << 30, true)).await.unwrap();
    assert_eq!((shrunk.vdisk.size, shrunk.note), (1 << 30, None));
    assert_eq!(served.open_sockets(), ["web"]);
    client.delete("web").await.unwrap();
}

#[tokio::test]
async fn what_is_cut_off_does_not_come_back() {
    let served = Served::new();
    let mut client = served.client().await;
    client
        .begin_import(&BeginImport {
            name: "web".into(),
            size: 2 << 20,
        })
        .await
        .unwrap();
    client
        .import_data("web", 1 << 20, vec![7; 1 << 20].into())
        .await
        .unwrap();
    client.commit_import("web").await.unwrap();
    for (size, shrink) in [(1 << 20, true), (2 << 20, false)] {
        client
            .resize("web", &ResizeVDisk { size, shrink })
            .await
            .unwrap();
    }
    assert!(
        client
            .read("web", 1 << 20, 1 << 20)
            .await
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[tokio::test]
async fn what_a_domain_does_is_kept() {
    let served = Served::new();
    let mut client = served.client().await;
    let made = client.create(&create("web", 1 << 20)).await.unwrap();
    assert_eq!(made.domain, None);
    let said = |name: &str, state, reason: Option<&str>| RecordDomain {
        name: name.into(),
        uuid: uuid::Uuid::from_u128(7),
        state,
        reason: reason.map(str::to_owned),
    };
    let running = said("shop", DomainState::Running, None);
    client.record_domain("web", &running).await.unwrap();
    let stopped = said("shop", DomainState::Stopped, Some("crashed"));
    let shown = client.record_domain("web", &stopped).await.unwrap();
    let domain = shown.domain.clone().unwrap();
    assert_eq!(
        (domain.name.as_str(), domain.state, domain.reason.as_deref()),
        ("shop", DomainState::Stopped, Some("crashed"))
    );
    for (name, reason) in [("", None), ("a\nb", None), ("shop", Some("a\nb"))] {
        let bad = said(name, DomainState::Stopped, reason);
        let error = client.record_domain("web", &bad).await.unwrap_err();
        assert_eq!(kind(error), ErrorKind::Invalid);
    }
    let other = client.record_domain("other", &running).await;
    assert_eq!(kind(other.unwrap_err()), ErrorKind::NotFound);
    drop(client);
    let served = served.reopen();
    let mut client = served.client().await;
    assert_eq!(client.vdisk("web").await.unwrap(), shown);
}

#[tokio::test]
async fn an_import_reads_back_and_is_durable() {
    let served = Served::new();
    let mut client = served.client().await;
    let size = (64 << 20) + 512;
    let content = |offset: u64, len: usize| -> Vec<u8> {
        (0..len as u64)
            .map(|i| ((offset + i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8 & 0x3f)
            .collect()
    };
    client
        .begin_import(&BeginImport {
            name: "disk".into(),
            size,
        })
        .await
        .unwrap();
    let pieces = [
        (0, 4 << 20),
        (10 << 20, 4096),
        ((20 << 20) + 512, 1536),
        (size - 1024, 1024),
    ];
    for (offset, len) in pieces {
        client
            .import_data("disk", offset, content(offset, len).into())
            .await
            .unwrap();
    }
    let past = client
        .import_data("disk", size - 512, vec![1; 1024].into())
        .await;
    assert_eq!(kind(past.unwrap_err()), ErrorKind::Invalid);
    assert!(
        client.vdisks().await.unwrap().is_empty(),
        "visible before its commit"
    );
    assert_eq!(
        kind(client.delete("disk").await.unwrap_err()),
        ErrorKind::NotFound
    );
    client.commit_import("disk").await.unwrap();
    let served = served.reopen();
    let mut client = served.client().await;
    for (offset, len) in pieces {
        let data = client.read("disk", offset, len as u64).await.unwrap();
        assert!(data[..] == content(offset, len), "{len} bytes at {offset}");
    }
    let allocated = client.allocated("disk", 0).await.unwrap();
    assert_eq!(allocated.next, None);
    let range = |offset, length| ByteRange { offset, length };
    let expected = [
        range(0, 4 << 20),
        range(10 << 20, 4096),
        range(20 << 20, 4096),
        range(size - 512 - 4096, 4096 + 512),
    ];
    assert_eq!(allocated.ranges, expected);
    let inside = client.allocated("disk", 4096).await.unwrap();
    assert_eq!(inside.ranges[0], range(4096, (4 << 20) - 4096));
    assert!(
        client
            .read("disk", 5 << 20, 4096)
            .await
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
    assert_eq!(
        kind(client.read("disk", size, 512).await.unwrap_err()),
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn an_unfinished_import_is_gone() {
    let served = Served::new();
    let mut client = served.client().await;
    client
        .begin_import(&BeginImport {
            name: "lost".into(),
            size: 8 << 20,
        })
        .await
        .unwrap();
    client
        .import_data("lost", 0, vec![7; 1 << 20].into())
        .await
        .unwrap();
    drop(client);
    let mut client = served.client().await;
    // The name is free again, at once or a moment later.
    for attempt in 0.. {
        match client.create(&create("lost", 4096)).await {
            Ok(_) => break,
            Err(error) if attempt > 500 => panic!("{error}"),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
    assert!(
        client
            .read("lost", 0, 4096)
            .await
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[tokio::test]
async fn rules_status_and_stats_have_the_stores_shape() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", 1 << 20)).await.unwrap();
    let shipped = client.rules(None).await.unwrap();
    assert!(!shipped.rules.is_empty());
    assert_eq!(client.set_rules(None, &shipped).await.unwrap(), shipped);
    let mut own = shipped.clone();
    own.rules.truncate(1);
    client.set_rules(Some("web"), &own).await.unwrap();
    assert_eq!(client.rules(Some("web")).await.unwrap(), own);
    assert_eq!(client.rules(None).await.unwrap(), shipped);
    for value in ["zip", "zstd:99"] {
        let mut odd = shipped.clone();
        odd.rules[0].treatment.codec = value.into();
        let error = client.set_rules(None, &odd).await.unwrap_err();
        assert!(error.to_string().contains(value), "{error}");
        assert_eq!(kind(error), ErrorKind::Invalid);
    }
    let request = ExplainRequest {
        vdisk: Some("web".into()),
        bytes: 1 << 20,
        sequential: true,
        aligned: true,
        tag: None,
        age_secs: 0,
        class: Class::Incompressible,
        cpu_headroom: 50,
    };
    let explanation = client.explain(&request).await.unwrap();
    assert_eq!(explanation.treatment.codec, "none");
    assert_eq!(
        explanation.rules.iter().filter(|rule| rule.chosen).count(),
        1
    );
    let status = client.status().await.unwrap();
    assert_eq!((status.vdisks, status.provisioned_bytes), (1, 1 << 20));
    assert!(status.free_bytes > 0 && status.dir.ends_with("store"));
    assert_eq!(client.stats("web").await.unwrap().writes, 0);
}

#[tokio::test]
async fn a_scrub_finds_what_was_flipped_and_is_remembered() {
    let served = Served::new();
    let mut client = served.client().await;
    client
        .begin_import(&BeginImport {
            name: "web".into(),
            size: 2 << 20,
        })
        .await
        .unwrap();
    let data: Vec<u8> = (0..1u32 << 18)
        .flat_map(|n| n.wrapping_mul(0x9E37_79B9).to_le_bytes())
        .collect();
    client.import_data("web", 0, data.into()).await.unwrap();
    client.commit_import("web").await.unwrap();
    let status = client.scrub().await.unwrap();
    assert_eq!((status.pass, status.last), (None, None));
    assert_eq!(status.every_seconds, Some(30 * 86_400));
    let stopped = client.stop_scrub().await.unwrap();
    assert_eq!(stopped.outcome, ScrubOutcome::NotRunning);
    served.flip_a_bit();
    // At a rate at which it can be watched; and then as fast as can be.
    let slow = StartScrub {
        rate: Some(1),
        ..StartScrub::default()
    };
    let begun = client.start_scrub(&slow).await.unwrap();
    assert_eq!(begun.outcome, ScrubOutcome::Started);
    assert!(begun.scrub.pass.unwrap().running);
    assert!(client.status().await.unwrap().scrub.running);
    let stopped = client.stop_scrub().await.unwrap();
    assert_eq!(stopped.outcome, ScrubOutcome::Stopped);
    let served = served.reopen();
    let mut client = served.client().await;
    let pass = client.scrub().await.unwrap().pass.unwrap();
    assert!(!pass.running && pass.stopped.is_some());
    let fast = StartScrub {
        rate: Some(0),
        decode: true,
        again: false,
    };
    let begun = client.start_scrub(&fast).await.unwrap();
    assert_eq!(begun.outcome, ScrubOutcome::Continued);
    let last = loop {
        if let Some(last) = client.scrub().await.unwrap().last {
            break last;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert!(last.damage >= 1 && last.extents > 10, "{last:?}");
    let finding = &last.findings[0];
    assert_eq!(
        (finding.kind.as_str(), finding.vdisk.as_deref()),
        ("extent", Some("web"))
    );
    let brief = client.status().await.unwrap().scrub;
    assert_eq!((brief.running, brief.last_damage), (false, last.damage));
    let served = served.reopen();
    let again = served.client().await.scrub().await.unwrap();
    assert_eq!(again.last, Some(last));
}
