//! Statistics through the API, in front of a real store and of one in memory.

use super::store::{Served, create, kind};
use control_api::Client;
use control_api::types::*;

const MIB: u64 = 1 << 20;

/// A vDisk with 4 MiB at its beginning, and a bit of data far behind.
async fn import(client: &mut Client, name: &str) {
    let request = BeginImport {
        name: name.into(),
        size: 1 << 40,
    };
    client.begin_import(&request).await.unwrap();
    let byte = |n: u64| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 41) as u8;
    let data: Vec<u8> = (0..4 * MIB).map(byte).collect();
    client.import_data(name, 0, data.into()).await.unwrap();
    let far = client.import_data(name, 900 << 30, vec![7; 4096].into());
    far.await.unwrap();
    client.commit_import(name).await.unwrap();
}

async fn usage(client: &mut Client, layer: u32) -> SnapshotUsage {
    let (mut sum, mut next) = (SnapshotUsage::default(), Some(0));
    while let Some(at) = next {
        let part = client.layer_usage(layer, at).await.unwrap();
        sum.add(&part);
        next = part.next;
    }
    sum
}

#[tokio::test]
async fn figures_have_the_stores_shape_and_add_up() {
    let served = Served::new();
    let mut client = served.client().await;
    let before = client.store_stats().await.unwrap();
    import(&mut client, "web").await;
    client.create(&create("empty", 1 << 44)).await.unwrap();
    served.store.flush().unwrap();
    let stats = client.store_stats().await.unwrap();
    let requested = stats.writes.requested_bytes - before.writes.requested_bytes;
    assert_eq!(requested, 4 * MIB + 4096);
    assert!(stats.writes.guest_bytes > 0 && stats.writes.guest_bytes < stats.writes.total_bytes);
    let status = client.status().await.unwrap();
    let used = |row: &&SpaceOf| row.temperature != Temperature::Spare;
    let used: u64 = stats.space.iter().filter(used).map(|r| r.used_bytes).sum();
    // Upkeep goes on between the two answers.
    let now = status.data_bytes + status.meta_bytes;
    assert!(used <= now && now - used < MIB, "{used} of {now}");
    for row in &stats.space {
        assert_eq!(row.by_live_share.len(), 11);
        assert_eq!(row.file_bytes, row.segments * stats.segment_bytes);
    }

    let found = client.fragmentation("web", 0).await.unwrap();
    assert_eq!((found.spans, found.blocks, found.next), (5, 1025, None));
    assert_eq!(found.index(), 1.0);
    let behind = client.fragmentation("web", 3 * MIB + 5).await.unwrap();
    assert_eq!((behind.spans, behind.blocks), (2, 257), "rounded down");
    let nothing = Fragmentation::default();
    for (name, offset) in [("empty", 0), ("web", 1 << 40), ("web", u64::MAX)] {
        let found = client.fragmentation(name, offset).await.unwrap();
        assert_eq!(found, nothing, "{name} from {offset}");
    }

    let request = CreateSnapshot {
        name: "s".into(),
        vdisks: vec!["web".into()],
        hold: None,
    };
    client.create_snapshot(&request).await.unwrap();
    let hidden = BeginImport {
        name: "hidden".into(),
        size: MIB,
    };
    client.begin_import(&hidden).await.unwrap();
    let layers = client.layers().await.unwrap();
    let of: Vec<_> = layers
        .iter()
        .map(|l| (l.kind, l.vdisk.as_deref(), l.snapshot.as_deref()))
        .collect();
    let expected = [
        (LayerKind::Snapshot, Some("web"), Some("s")),
        (LayerKind::Live, Some("empty"), None),
        (LayerKind::Live, Some("web"), None),
        (LayerKind::Import, None, None),
    ];
    assert_eq!(of, expected);
    assert_eq!(layers[2].parent, Some(layers[0].id));
    let sealed = usage(&mut client, layers[0].id).await;
    let shown = client.snapshot_usage("web", "s", 0).await.unwrap();
    assert_eq!((sealed.data_blocks, shown.data_blocks), (1025, 1025));
    assert_eq!(sealed.exclusive_blocks, 0, "the live layer needs it");
    assert_eq!(usage(&mut client, layers[2].id).await.data_blocks, 0);
    let none = client.layer_usage(layers[3].id + 1, 0).await;
    assert_eq!(kind(none.unwrap_err()), ErrorKind::NotFound);
    let far = client.layer_usage(layers[0].id, u64::MAX).await.unwrap();
    assert_eq!((far.data_blocks, far.next), (0, None));
    // Of an import nobody is told how it lies.
    let hidden = client.fragmentation("hidden", 0).await;
    assert_eq!(kind(hidden.unwrap_err()), ErrorKind::NotFound);
}

#[tokio::test]
async fn fragmentation_is_asked_for_part_by_part() {
    let served = super::Served::new();
    let mut client = served.client().await;
    client.create(&create("web", MIB)).await.unwrap();
    let begin = BeginImport {
        name: "disk".into(),
        size: MIB,
    };
    client.begin_import(&begin).await.unwrap();
    for offset in [4096, 65536, 131_072] {
        let data = client.import_data("disk", offset, vec![7; 512].into());
        data.await.unwrap();
    }
    client.commit_import("disk").await.unwrap();
    let (mut sum, mut next, mut asked) = (Fragmentation::default(), Some(0), 0);
    while let Some(at) = next {
        let part = client.fragmentation("disk", at).await.unwrap();
        sum.add(&part);
        (next, asked) = (part.next, asked + 1);
    }
    assert_eq!((sum.spans, asked), (3, 3));
    assert_eq!(sum.index(), 1.0);
    let error = client.fragmentation("../web", 0).await.unwrap_err();
    assert_eq!(kind(error), ErrorKind::Invalid);
}
