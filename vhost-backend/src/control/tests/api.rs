//! What the client asks is what the store gets, and back.

use super::{Served, eventually};
use control_api::types::*;
use control_api::{Client, ClientError};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

fn kind(error: ClientError) -> ErrorKind {
    match error {
        ClientError::Api(error) => error.kind,
        other => panic!("not an answer: {other}"),
    }
}

#[tokio::test]
async fn vdisks_come_and_go() {
    let served = Served::new();
    let mut client = served.client().await;
    assert_eq!(client.health().await.unwrap().api, control_api::API_VERSION);
    let made = client
        .create(&CreateVDisk {
            name: "web".into(),
            size: 1 << 30,
        })
        .await
        .unwrap();
    assert_eq!(client.vdisk("web").await.unwrap(), made);
    let twice = client
        .create(&CreateVDisk {
            name: "web".into(),
            size: 1 << 30,
        })
        .await;
    assert_eq!(kind(twice.unwrap_err()), ErrorKind::AlreadyExists);
    client
        .create(&CreateVDisk {
            name: "db".into(),
            size: 4096,
        })
        .await
        .unwrap();
    let names: Vec<_> = client
        .vdisks()
        .await
        .unwrap()
        .into_iter()
        .map(|vdisk| vdisk.name)
        .collect();
    assert_eq!(names, ["db", "web"]);
    let resized = client
        .resize(
            "db",
            &ResizeVDisk {
                size: 8192,
                shrink: false,
            },
        )
        .await
        .unwrap();
    assert_eq!((resized.old_size, resized.vdisk.size), (4096, 8192));
    client.delete("db").await.unwrap();
    assert_eq!(
        kind(client.vdisk("db").await.unwrap_err()),
        ErrorKind::NotFound
    );
    served.target.attach("web");
    assert_eq!(client.vdisk("web").await.unwrap().attached.unwrap().pid, 1);
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_it_reaches_the_store() {
    let served = Served::new();
    let mut client = served.client().await;
    for (name, size) in [
        ("a/b", 4096),
        ("", 4096),
        ("..", 4096),
        ("control", 4096),
        ("x", 0),
        ("x", 513),
        ("x", u64::MAX),
    ] {
        let made = client
            .create(&CreateVDisk {
                name: name.into(),
                size,
            })
            .await;
        assert_eq!(
            kind(made.unwrap_err()),
            ErrorKind::Invalid,
            "{name:?} {size}"
        );
        let begun = client
            .begin_import(&BeginImport {
                name: name.into(),
                size,
            })
            .await;
        assert_eq!(
            kind(begun.unwrap_err()),
            ErrorKind::Invalid,
            "{name:?} {size}"
        );
    }
    assert!(served.target.names().is_empty());
}

#[tokio::test]
async fn an_import_appears_whole_or_not_at_all() {
    let served = Served::new();
    let mut client = served.client().await;
    let import = client
        .begin_import(&BeginImport {
            name: "disk".into(),
            size: 1 << 20,
        })
        .await
        .unwrap();
    assert_eq!(import.chunk_max, control_api::DATA_MAX);
    client
        .import_data("disk", 4096, vec![7; 4096].into())
        .await
        .unwrap();
    client
        .import_data("disk", 65536, vec![8; 512].into())
        .await
        .unwrap();
    assert_eq!(
        kind(client.vdisk("disk").await.unwrap_err()),
        ErrorKind::NotFound,
        "visible before its commit"
    );
    assert_eq!(client.commit_import("disk").await.unwrap().size, 1 << 20);
    let first = client.allocated("disk", 0).await.unwrap();
    assert_eq!(
        first.ranges,
        [ByteRange {
            offset: 4096,
            length: 4096
        }]
    );
    let second = client.allocated("disk", first.next.unwrap()).await.unwrap();
    assert_eq!(
        (second.ranges, second.next),
        (
            vec![ByteRange {
                offset: 65536,
                length: 512
            }],
            None
        )
    );
    let data = client.read("disk", 4096 - 512, 1024).await.unwrap();
    assert!(data[..512].iter().all(|b| *b == 0) && data[512..].iter().all(|b| *b == 7));
    assert_eq!(
        kind(client.commit_import("disk").await.unwrap_err()),
        ErrorKind::NotFound,
        "committed twice"
    );
}

#[tokio::test]
async fn an_import_ends_with_its_connection() {
    let served = Served::new();
    let mut client = served.client().await;
    client
        .begin_import(&BeginImport {
            name: "lost".into(),
            size: 1 << 20,
        })
        .await
        .unwrap();
    client
        .import_data("lost", 0, vec![7; 4096].into())
        .await
        .unwrap();
    let mut other = served.client().await;
    let foreign = other.import_data("lost", 0, vec![7; 512].into()).await;
    assert_eq!(
        kind(foreign.unwrap_err()),
        ErrorKind::NotFound,
        "written from another connection"
    );
    let rival = other
        .begin_import(&BeginImport {
            name: "lost".into(),
            size: 4096,
        })
        .await;
    assert_eq!(kind(rival.unwrap_err()), ErrorKind::AlreadyExists);
    assert_eq!(served.target.names(), ["lost"]);
    drop(client);
    tokio::task::spawn_blocking(move || {
        eventually("the import is gone", || served.target.names().is_empty())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_aborted_import_is_gone_when_the_answer_comes() {
    let served = Served::new();
    let mut client = served.client().await;
    for _ in 0..3 {
        client
            .begin_import(&BeginImport {
                name: "again".into(),
                size: 1 << 20,
            })
            .await
            .unwrap();
        client.abort_import("again").await.unwrap();
        assert!(served.target.names().is_empty());
    }
}

#[tokio::test]
async fn a_full_store_says_so() {
    let served = Served::new();
    served.target.full.store(true, Ordering::Relaxed);
    let mut client = served.client().await;
    client
        .begin_import(&BeginImport {
            name: "big".into(),
            size: 1 << 20,
        })
        .await
        .unwrap();
    let written = client.import_data("big", 0, vec![1; 4096].into()).await;
    assert_eq!(kind(written.unwrap_err()), ErrorKind::NoSpace);
}

#[tokio::test]
async fn imports_of_one_connection_are_bounded() {
    let served = Served::new();
    let mut client = served.client().await;
    for i in 0..16 {
        client
            .begin_import(&BeginImport {
                name: format!("i{i}"),
                size: 4096,
            })
            .await
            .unwrap();
    }
    let more = client
        .begin_import(&BeginImport {
            name: "more".into(),
            size: 4096,
        })
        .await;
    assert_eq!(kind(more.unwrap_err()), ErrorKind::Busy);
}

#[tokio::test]
async fn rules_go_there_and_back() {
    let served = Served::new();
    let mut client = served.client().await;
    let treatment = Treatment {
        codec: "zstd:3".into(),
        extent_kib: 64,
        defer: false,
    };
    let when = Condition {
        min_bytes: Some(65536),
        sequential: Some(true),
        ..Condition::default()
    };
    let rules = Rules {
        rules: vec![Rule {
            name: "streams".into(),
            when,
            treatment,
        }],
        coalesce: Some(vec![CoalesceRule {
            name: "databases".into(),
            when: Touched {
                tag: Some("db".into()),
                ..Touched::default()
            },
            action: Coalesce::Leave,
        }]),
    };
    assert_eq!(client.set_rules(None, &rules).await.unwrap(), rules);
    assert_eq!(client.rules(None).await.unwrap(), rules);
}

#[tokio::test]
async fn a_panic_in_the_store_is_an_answer() {
    let served = Served::new();
    served.target.panics.store(true, Ordering::Relaxed);
    let mut client = served.client().await;
    assert_eq!(
        kind(client.status().await.unwrap_err()),
        ErrorKind::Internal
    );
    client.health().await.unwrap();
}

#[test]
fn the_socket_is_private_alone_and_cleaned_up() {
    let served = Served::new();
    let socket = served.server.socket().to_owned();
    assert_eq!(
        std::fs::metadata(&socket).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let second = super::ControlServer::start(served.run.path(), served.target.clone()).unwrap_err();
    assert!(
        second.to_string().contains("another backend holds"),
        "{second}"
    );
    let Served {
        run,
        target,
        server,
    } = served;
    drop(server);
    assert!(!socket.exists());
    // What a killed backend leaves behind is no obstacle, anything else is.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    drop(super::ControlServer::start(run.path(), target.clone()).unwrap());
    std::fs::write(&socket, "mine").unwrap();
    let error = super::ControlServer::start(run.path(), target).unwrap_err();
    assert!(error.to_string().contains("is not a socket"), "{error}");
}

/// systemd keeps the socket while there is no backend: who connects then is served by the next one.
#[tokio::test]
async fn an_inherited_socket_outlives_its_server() {
    let run = tempfile::tempdir().unwrap();
    let socket = run.path().join("control.sock");
    let keeper = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let serve = || {
        let elsewhere = run.path().join("elsewhere");
        let _ = std::fs::remove_file(&elsewhere);
        let others = std::os::unix::net::UnixListener::bind(elsewhere).unwrap();
        let inherited = vec![others, keeper.try_clone().unwrap()];
        let target = std::sync::Arc::new(super::MemoryTarget::default());
        let claimed = crate::control::RunDir::claim(run.path(), inherited).unwrap();
        claimed.serve(target).unwrap()
    };
    let first = serve();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let mut client = Client::connect(run.path()).await.unwrap();
    client.health().await.unwrap();
    drop(first);
    assert!(socket.exists(), "it is not ours to remove");
    let mut client = Client::connect(run.path()).await.unwrap();
    let waiting = tokio::spawn(async move { client.health().await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "nobody is there to answer");
    let second = serve();
    waiting.await.unwrap().unwrap();
    // Where nobody would find it any more, a new one is made.
    drop(second);
    std::fs::remove_file(&socket).unwrap();
    let third = serve();
    let mut client = Client::connect(run.path()).await.unwrap();
    client.health().await.unwrap();
    drop(third);
    assert!(!socket.exists(), "this one was its own");
}

#[test]
fn a_long_runtime_directory_is_refused_by_name() {
    let run = tempfile::tempdir().unwrap();
    let long = run.path().join("x".repeat(100));
    std::fs::create_dir(&long).unwrap();
    let error =
        super::ControlServer::start(&long, std::sync::Arc::new(super::MemoryTarget::default()))
            .unwrap_err();
    assert!(
        error.to_string().contains("too long") && error.to_string().contains("--run"),
        "{error}"
    );
}

#[tokio::test]
async fn nobody_listening_is_an_error_with_a_way_out() {
    let run = tempfile::tempdir().unwrap();
    let error = Client::connect(run.path()).await.unwrap_err();
    let socket = run.path().join("control.sock");
    assert_eq!(
        error.to_string(),
        format!(
            "firn-vhost-backend is not running: nobody listens on {}",
            socket.display()
        )
    );
    let command = format!(
        "firn-vhost-backend --store DIR --run {}",
        run.path().display()
    );
    assert!(error.hint().unwrap().contains(&command));
}

#[test]
fn the_checked_in_description_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let current = crate::control::openapi();
    if std::env::var_os("FIRN_UPDATE").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == current,
        "docs/openapi.json is out of date: run FIRN_UPDATE=1 cargo test -p vhost-backend openapi"
    );
}
