//! Which snapshots stay, through the API, in front of a real store.

use super::snapshots::{group, refused};
use super::store::{Served, create, kind};
use control_api::types::*;

const MIB: u64 = 1 << 20;

fn keep_last(last: u32, dry_run: bool) -> PruneSnapshots {
    let keep = Keep {
        last,
        ..Keep::default()
    };
    PruneSnapshots { keep, dry_run }
}

#[tokio::test]
async fn what_no_rule_keeps_goes() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", 4 * MIB)).await.unwrap();
    for name in ["a", "b", "c", "d"] {
        client
            .create_snapshot(&group(name, &["web"]))
            .await
            .unwrap();
    }
    client.hold_snapshot("web", "a", "backup").await.unwrap();
    let mut daily = keep_last(1, true);
    daily.keep.monthly = 12;
    let dry = client.prune("web", &daily).await.unwrap();
    use KeptBy::*;
    let why: Vec<_> = dry.snapshots.iter().map(|s| s.kept_by.clone()).collect();
    // They were taken within seconds: of one month, or at most two.
    assert_eq!(why[0][..1], [Held]);
    assert_eq!(why[3], [Last, Monthly]);
    assert_eq!(dry.snapshots[0].holds, ["backup"]);
    assert_eq!(client.snapshots(None).await.unwrap().len(), 4);
    let pruned = client.prune("web", &keep_last(2, false)).await.unwrap();
    let why: Vec<_> = pruned.snapshots.iter().map(|s| &s.kept_by[..]).collect();
    assert_eq!(why, [&[Held][..], &[], &[Last], &[Last]]);
    let left = client.snapshots(Some("web")).await.unwrap();
    let left: Vec<_> = left.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(left, ["a", "c", "d"]);
    let nothing = client.prune("web", &keep_last(0, true)).await;
    refused(nothing, ErrorKind::Invalid, &["keep nothing"]);
    let nobody = client.prune("nobody", &keep_last(1, true)).await;
    refused(nobody, ErrorKind::NotFound, &["firn vdisk list"]);
}

fn every_second(name: &str, vdisks: &[&str]) -> CreateSchedule {
    CreateSchedule {
        name: name.into(),
        vdisks: vdisks.iter().map(|v| (*v).to_owned()).collect(),
        every_seconds: 1,
        prefix: Some("auto".into()),
        keep: keep_last(2, false).keep,
    }
}

#[tokio::test]
async fn a_schedule_takes_snapshots_until_it_is_ended() {
    let served = Served::new();
    let mut client = served.client().await;
    for name in ["web", "db"] {
        client.create(&create(name, 4 * MIB)).await.unwrap();
    }
    let made = client
        .create_schedule(&every_second("s", &["web", "db"]))
        .await
        .unwrap();
    assert_eq!(made.vdisks, ["web", "db"]);
    assert_eq!(
        (made.every_seconds, made.prefix.as_str(), made.kept),
        (1, "auto", 0)
    );
    let taken = async |client: &mut control_api::Client| loop {
        let list = client.schedules().await.unwrap();
        if list[0].kept == 2 {
            return list;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let patience = std::time::Duration::from_secs(30);
    let list = tokio::time::timeout(patience, taken(&mut client))
        .await
        .unwrap();
    assert!(list[0].last.is_some() && list[0].last_error.is_none());
    let (web, db) = (
        client.snapshots(Some("web")).await.unwrap(),
        client.snapshots(Some("db")).await.unwrap(),
    );
    assert!(web[0].name.starts_with("auto-20") && web[0].name.ends_with('Z'));
    assert_eq!((web.len(), db.len()), (2, 2));
    assert_eq!(web[0].schedule.as_deref(), Some("s"));
    let twice = client.create_schedule(&every_second("s", &["web"])).await;
    let words = ["firn snapshot unschedule s"];
    refused(twice, ErrorKind::AlreadyExists, &words);
    let nobody = client.create_schedule(&every_second("t", &["x"])).await;
    refused(nobody, ErrorKind::NotFound, &["firn vdisk list"]);
    let never = CreateSchedule {
        every_seconds: 0,
        ..every_second("t", &["web"])
    };
    let never = client.create_schedule(&never).await;
    refused(never, ErrorKind::Invalid, &["1 s to 366 days"]);
    let words = ["schedule \"s\"", "firn snapshot unschedule s"];
    refused(client.delete("web").await, ErrorKind::Refused, &words);
    assert_eq!(served.open_sockets(), ["db", "web"]);
    assert_eq!(client.status().await.unwrap().schedules, 1);
    let served = served.reopen();
    let mut client = served.client().await;
    assert_eq!(client.schedules().await.unwrap().len(), 1);
    client.delete_schedule("s").await.unwrap();
    assert!(client.schedules().await.unwrap().is_empty());
    assert_eq!(client.snapshots(Some("web")).await.unwrap().len(), 2);
    let gone = client.delete_schedule("s").await;
    refused(gone, ErrorKind::NotFound, &["firn snapshot schedules"]);
    let bad = client.delete_schedule("a/b").await;
    assert_eq!(kind(bad.unwrap_err()), ErrorKind::Invalid);
}
