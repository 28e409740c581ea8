//! Which snapshots stay, through the API, in front of a real store.

use super::snapshots::{group, refused};
use super::store::{Served, create};
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
