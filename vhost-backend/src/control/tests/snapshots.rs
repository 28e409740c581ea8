//! Snapshots through the API, in front of a real store.

use super::eventually;
use super::store::{Served, create, kind};
use block_store::VDisk as StoreVDisk;
use control_api::types::*;
use control_api::{Client, ClientError};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

pub(super) fn group(name: &str, vdisks: &[&str]) -> CreateSnapshot {
    CreateSnapshot {
        name: name.into(),
        vdisks: vdisks.iter().map(|v| (*v).to_owned()).collect(),
        hold: None,
    }
}

fn back_to(snapshot: &str, keep: Option<&str>, discard: bool) -> RevertVDisk {
    RevertVDisk {
        snapshot: snapshot.into(),
        keep: keep.map(str::to_owned),
        discard,
    }
}

fn cloned(name: &str) -> CloneSnapshot {
    CloneSnapshot { name: name.into() }
}

fn going(name: &str, defer: bool) -> DeleteSnapshots {
    let names = vec![name.into()];
    DeleteSnapshots { names, defer }
}

fn renamed(name: &str) -> RenameSnapshot {
    RenameSnapshot { name: name.into() }
}

impl Served {
    /// What a guest would write: `byte` all over a range, flushed.
    fn write(&self, vdisk: &str, offset: u64, len: u64, byte: u8) {
        let disk: Arc<StoreVDisk> = self.store.vdisk(vdisk).unwrap();
        let mut client = self.store.client().unwrap();
        client
            .write(&disk, offset, &vec![byte; len as usize])
            .unwrap();
        client.flush(&disk).unwrap();
    }

    fn attach(&self, vdisk: &str) {
        self.names.0.lock().attached.insert(vdisk.into());
    }

    fn detach_all(&self) {
        self.names.0.lock().attached.clear();
    }
}

/// Whether all of the first MiB is `byte`.
async fn reads(client: &mut Client, vdisk: &str, byte: u8) -> bool {
    let data = client.read(vdisk, 0, MIB).await.unwrap();
    data.iter().all(|b| *b == byte)
}

async fn snapshot_reads(client: &mut Client, vdisk: &str, name: &str, byte: u8) -> bool {
    let data = client.read_snapshot(vdisk, name, 0, MIB).await.unwrap();
    data.iter().all(|b| *b == byte)
}

/// A refusal: its kind, and what it says together with its way out.
fn said<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> (ErrorKind, String) {
    match outcome.unwrap_err() {
        ClientError::Api(error) => {
            let hint = error.hint.unwrap_or_default();
            (error.kind, format!("{} / {hint}", error.message))
        }
        other => panic!("not an answer: {other}"),
    }
}

#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(
    outcome: Result<T, ClientError>,
    kind: ErrorKind,
    words: &[&str],
) {
    let (actual, text) = said(outcome);
    assert_eq!(actual, kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing: {text}");
    }
}

#[tokio::test]
async fn a_group_is_taken_at_one_instant_and_survives_a_restart() {
    let served = Served::new();
    let mut client = served.client().await;
    for name in ["web", "db", "other"] {
        client.create(&create(name, 4 * MIB)).await.unwrap();
    }
    assert!(client.snapshots(None).await.unwrap().is_empty());
    let made = client
        .create_snapshot(&group("monday", &["web", "db"]))
        .await
        .unwrap();
    assert_eq!((made.name.as_str(), made.vdisks.len()), ("monday", 2));
    assert!(made.lsn > 0 && made.stall_microseconds < made.durable_microseconds);
    client
        .resize(
            "web",
            &ResizeVDisk {
                size: 8 * MIB,
                shrink: false,
            },
        )
        .await
        .unwrap();
    client
        .create_snapshot(&group("tuesday", &["web"]))
        .await
        .unwrap();
    let served = served.reopen();
    let mut client = served.client().await;
    let all = client.snapshots(None).await.unwrap();
    assert_eq!(all.len(), 3);
    let of_web = client.snapshots(Some("web")).await.unwrap();
    let names: Vec<_> = of_web.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["monday", "tuesday"], "oldest first");
    assert_eq!((of_web[0].size, of_web[1].size), (4 * MIB, 8 * MIB));
    assert!(client.snapshots(Some("other")).await.unwrap().is_empty());
    let both = ["web", "db"];
    for vdisk in both {
        let shown = client.snapshot(vdisk, "monday").await.unwrap();
        assert!(all.contains(&shown) && shown.vdisk == vdisk);
        assert_eq!(shown.lsn, made.lsn);
        assert!(shown.created > 1_600_000_000 && shown.holds.is_empty());
    }
    let mut request = group("c", &["web", "db"]);
    request.hold = Some("libvirt".into());
    client.create_snapshot(&request).await.unwrap();
    for vdisk in ["web", "db"] {
        let made = client.snapshot(vdisk, "c").await.unwrap();
        assert_eq!(made.holds, ["libvirt"]);
    }
    request.hold = Some("no/holder".into());
    assert!(client.create_snapshot(&request).await.is_err());
}

#[tokio::test]
async fn snapshots_are_renamed_held_released_and_deleted() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", 4 * MIB)).await.unwrap();
    client.create_snapshot(&group("a", &["web"])).await.unwrap();
    let before = client.snapshot("web", "a").await.unwrap();
    let b = client
        .rename_snapshot("web", "a", &renamed("b"))
        .await
        .unwrap();
    assert_eq!((b.name.as_str(), b.uuid), ("b", before.uuid));
    for holder in ["backup", "dr", "backup"] {
        client.hold_snapshot("web", "b", holder).await.unwrap();
    }
    let held = client.snapshot("web", "b").await.unwrap();
    assert_eq!(held.holds, ["backup", "dr"]);
    for defer in [false, true] {
        let deleted = client.delete_snapshots("web", &going("b", defer)).await;
        let words = ["held by backup, dr", "firn snapshot release web b"];
        refused(deleted, ErrorKind::Refused, &words);
    }
    assert_eq!(client.snapshot("web", "b").await.unwrap(), held);
    client.release_snapshot("web", "b", "backup").await.unwrap();
    let left = client.release_snapshot("web", "b", "dr").await.unwrap();
    assert!(left.holds.is_empty());
    client
        .delete_snapshots("web", &going("b", false))
        .await
        .unwrap();
    assert!(client.snapshots(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_snapshot_is_read_as_it_was() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", 4 * MIB)).await.unwrap();
    served.write("web", 0, MIB, 1);
    client.create_snapshot(&group("s", &["web"])).await.unwrap();
    served.write("web", 0, 3 * MIB, 2);
    assert!(snapshot_reads(&mut client, "web", "s", 1).await);
    assert!(reads(&mut client, "web", 2).await);
    let allocated = client.snapshot_allocated("web", "s", 0).await.unwrap();
    let first = ByteRange {
        offset: 0,
        length: MIB,
    };
    assert_eq!((allocated.ranges, allocated.next), (vec![first], None));
    let past = client.read_snapshot("web", "s", 4 * MIB, 512).await;
    refused(past, ErrorKind::Invalid, &["outside of vDisk web@s"]);
}

/// An export is many requests: it must not end as a mixture of two snapshots, nor fail because somebody tidies up.
#[tokio::test]
async fn what_a_connection_reads_stays_what_it_is() {
    let served = Served::new();
    let (mut reader, mut other) = (served.client().await, served.client().await);
    other.create(&create("web", 4 * MIB)).await.unwrap();
    served.write("web", 0, MIB, 1);
    other.create_snapshot(&group("s", &["web"])).await.unwrap();
    served.write("web", 0, MIB, 2);
    assert!(snapshot_reads(&mut reader, "web", "s", 1).await);
    other
        .delete_snapshots("web", &going("s", false))
        .await
        .unwrap();
    let gone = other.read_snapshot("web", "s", 0, 512).await;
    refused(gone, ErrorKind::NotFound, &["firn snapshot list web"]);
    assert!(snapshot_reads(&mut reader, "web", "s", 1).await);
    other.create_snapshot(&group("s", &["web"])).await.unwrap();
    let replaced = reader.read_snapshot("web", "s", 0, 512).await;
    refused(replaced, ErrorKind::Busy, &["\"s\"", "new connection"]);
    let replaced = reader.snapshot_allocated("web", "s", 0).await;
    refused(replaced, ErrorKind::Busy, &["new connection"]);
    assert!(snapshot_reads(&mut other, "web", "s", 2).await);
}

#[tokio::test]
async fn a_connection_reads_a_bounded_number_of_snapshots() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", MIB)).await.unwrap();
    for n in 0..65 {
        let name = format!("s{n}");
        let made = client.create_snapshot(&group(&name, &["web"])).await;
        made.unwrap();
        let read = client.read_snapshot("web", &name, 0, 512).await;
        match n {
            64 => refused(read, ErrorKind::Busy, &["another connection"]),
            _ => drop(read.unwrap()),
        }
    }
    client.read_snapshot("web", "s3", 0, 512).await.unwrap();
}

#[tokio::test]
async fn changes_are_told_from_either_side() {
    let served = Served::new();
    let mut client = served.client().await;
    for name in ["web", "db"] {
        client.create(&create(name, 8 * MIB)).await.unwrap();
    }
    client
        .create_snapshot(&group("a", &["web", "db"]))
        .await
        .unwrap();
    served.write("web", MIB, MIB, 1);
    client.create_snapshot(&group("b", &["web"])).await.unwrap();
    let smaller = ResizeVDisk {
        size: 4 * MIB,
        shrink: true,
    };
    client.resize("web", &smaller).await.unwrap();
    served.write("web", 0, 4096, 2);
    let range = |offset, length| ByteRange { offset, length };
    for (name, to, offset, want) in [
        ("a", Some("b"), 0, vec![range(MIB, MIB)]),
        ("b", Some("a"), 0, vec![range(MIB, MIB)]),
        ("b", None, 0, vec![range(0, 4096), range(4 * MIB, 4 * MIB)]),
        (
            "b",
            None,
            512,
            vec![range(512, 4096 - 512), range(4 * MIB, 4 * MIB)],
        ),
        ("a", None, 5 * MIB, vec![range(5 * MIB, 3 * MIB)]),
        ("a", None, u64::MAX, vec![]),
    ] {
        let found = client.snapshot_changes("web", name, to, offset).await;
        let want = Changes {
            ranges: want,
            next: None,
        };
        assert_eq!(found.unwrap(), want, "{name} to {to:?} from {offset}");
    }
    use ErrorKind::*;
    let list = "firn snapshot list web";
    for (vdisk, name, to, kind, words) in [
        ("web", "a", Some("a"), Invalid, "with itself"),
        ("web", "a", Some("x"), NotFound, list),
        ("web", "x", None, NotFound, list),
        // Another vDisk's.
        ("db", "a", Some("b"), NotFound, "firn snapshot list db"),
        ("none", "a", None, NotFound, "firn vdisk list"),
    ] {
        let found = client.snapshot_changes(vdisk, name, to, 0).await;
        refused(found, kind, &[words]);
    }
}

#[tokio::test]
async fn what_a_snapshot_costs() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", 8 * MIB)).await.unwrap();
    served.write("web", 0, MIB, 1);
    client.create_snapshot(&group("s", &["web"])).await.unwrap();
    let usage = client.snapshot_usage("web", "s", 0).await.unwrap();
    assert_eq!((usage.data_blocks, usage.exclusive_blocks), (256, 0));
    assert!(
        usage.stored_bytes > 0 && usage.stored_bytes < MIB,
        "{usage:?}"
    );
    served.write("web", 0, MIB / 2, 2);
    let usage = client.snapshot_usage("web", "s", 0).await.unwrap();
    assert_eq!((usage.data_blocks, usage.exclusive_blocks), (256, 128));
    assert!(usage.exclusive_bytes > 0 && usage.exclusive_bytes < usage.stored_bytes);
    assert_eq!(usage.next, None);
    let behind = client.snapshot_usage("web", "s", 2 * MIB).await.unwrap();
    assert_eq!(behind.data_blocks, 0);
    let unknown = client.snapshot_usage("web", "t", 0).await;
    refused(unknown, ErrorKind::NotFound, &["firn snapshot list web"]);
}

/// A comparison is many requests: it must not end as one of other snapshots, nor fail because somebody tidies up.
#[tokio::test]
async fn what_a_connection_compares_stays_what_it_is() {
    let served = Served::new();
    let (mut reader, mut other) = (served.client().await, served.client().await);
    other.create(&create("web", 4 * MIB)).await.unwrap();
    other.create_snapshot(&group("a", &["web"])).await.unwrap();
    served.write("web", 0, MIB, 1);
    other.create_snapshot(&group("b", &["web"])).await.unwrap();
    served.write("web", 0, 2 * MIB, 2);
    let before = reader
        .snapshot_changes("web", "a", Some("b"), 0)
        .await
        .unwrap();
    for name in ["a", "b"] {
        other
            .delete_snapshots("web", &going(name, false))
            .await
            .unwrap();
    }
    served.store.upkeep().unwrap();
    let after = reader
        .snapshot_changes("web", "a", Some("b"), 0)
        .await
        .unwrap();
    assert_eq!(after, before);
    let gone = other.snapshot_changes("web", "a", Some("b"), 0).await;
    refused(gone, ErrorKind::NotFound, &["firn snapshot list web"]);
    for name in ["a", "b"] {
        other.create_snapshot(&group(name, &["web"])).await.unwrap();
    }
    let replaced = reader.snapshot_changes("web", "a", Some("b"), 0).await;
    refused(replaced, ErrorKind::Busy, &["new connection"]);
    // And there is an end to what one connection keeps.
    for n in 0..32 {
        let name = format!("s{n}");
        other
            .create_snapshot(&group(&name, &["web"]))
            .await
            .unwrap();
        let compared = reader.snapshot_changes("web", &name, None, 0).await;
        match n {
            31 => refused(
                compared,
                ErrorKind::Busy,
                &["32 comparisons", "another connection"],
            ),
            _ => drop(compared.unwrap()),
        }
    }
}

#[tokio::test]
async fn a_revert_wants_nobody_attached_and_says_what_it_loses() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", 4 * MIB)).await.unwrap();
    served.write("web", 0, MIB, 1);
    client.create_snapshot(&group("s", &["web"])).await.unwrap();
    served.write("web", 0, MIB, 2);
    client
        .resize(
            "web",
            &ResizeVDisk {
                size: 8 * MIB,
                shrink: false,
            },
        )
        .await
        .unwrap();
    served.attach("web");
    for request in [back_to("s", Some("kept"), false), back_to("s", None, true)] {
        let reverted = client.revert("web", &request).await;
        let words = ["process 9", "stop its guest"];
        refused(reverted, ErrorKind::Busy, &words);
    }
    served.detach_all();
    served.names.0.lock().late = true;
    let late = client.revert("web", &back_to("s", None, true)).await;
    refused(late, ErrorKind::Busy, &["attached"]);
    served.names.0.lock().late = false;
    let unasked = client.revert("web", &back_to("s", None, false)).await;
    let words = ["loses", "--keep NAME", "--discard"];
    refused(unasked, ErrorKind::Refused, &words);
    let both = client.revert("web", &back_to("s", Some("k"), true)).await;
    refused(both, ErrorKind::Invalid, &["kept (as k)"]);
    let taken = client.revert("web", &back_to("s", Some("s"), false)).await;
    let words = ["already", "firn snapshot delete"];
    refused(taken, ErrorKind::AlreadyExists, &words);
    let nowhere = client.revert("web", &back_to("t", None, true)).await;
    refused(nowhere, ErrorKind::NotFound, &["firn snapshot list web"]);
    // Nothing of it has changed anything, and the socket is there.
    assert!(reads(&mut client, "web", 2).await);
    assert_eq!(client.snapshots(None).await.unwrap().len(), 1);
    assert_eq!(served.open_sockets(), ["web"]);

    let reverted = client
        .revert("web", &back_to("s", Some("kept"), false))
        .await;
    let reverted = reverted.unwrap();
    assert_eq!((reverted.old_size, reverted.vdisk.size), (8 * MIB, 4 * MIB));
    assert_eq!(reverted.kept.as_deref(), Some("kept"));
    assert_eq!(reverted.snapshot.name, "s");
    assert_eq!(served.open_sockets(), ["web"]);
    let served = served.reopen();
    let mut client = served.client().await;
    assert_eq!(client.vdisk("web").await.unwrap().size, 4 * MIB);
    assert!(reads(&mut client, "web", 1).await);
    assert!(snapshot_reads(&mut client, "web", "kept", 2).await);
    // And forth again, with nothing kept.
    let forth = client.revert("web", &back_to("kept", None, true)).await;
    assert_eq!(forth.unwrap().vdisk.size, 8 * MIB);
    assert!(reads(&mut client, "web", 2).await);
}

#[tokio::test]
async fn a_clone_has_a_socket_and_data_of_its_own() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", 4 * MIB)).await.unwrap();
    served.write("web", 0, MIB, 1);
    client.create_snapshot(&group("s", &["web"])).await.unwrap();
    served.write("web", 0, MIB, 2);
    let clone = client.clone_snapshot("web", "s", &cloned("test")).await;
    let clone = clone.unwrap();
    assert_eq!(clone.socket, "/run/firn/test.sock");
    assert_ne!(clone.uuid, client.vdisk("web").await.unwrap().uuid);
    assert_eq!(served.open_sockets(), ["test", "web"]);
    assert!(reads(&mut client, "test", 1).await);
    served.write("test", 0, MIB, 3);
    assert!(reads(&mut client, "web", 2).await);
    assert!(snapshot_reads(&mut client, "web", "s", 1).await);

    let taken = client.clone_snapshot("web", "s", &cloned("test")).await;
    let words = ["\"test\" already", "firn vdisk delete"];
    refused(taken, ErrorKind::AlreadyExists, &words);
    let nowhere = client.clone_snapshot("web", "t", &cloned("new")).await;
    refused(nowhere, ErrorKind::NotFound, &["firn snapshot list web"]);
    served.names.0.lock().fails = true;
    let deaf = client.clone_snapshot("web", "s", &cloned("new")).await;
    refused(deaf, ErrorKind::Refused, &["no socket today"]);
    served.names.0.lock().fails = false;
    assert_eq!(client.vdisks().await.unwrap().len(), 2);

    // The snapshot that it came from can't go, unless its name alone does.
    let snapshot = client.snapshot("web", "s").await.unwrap();
    assert_eq!(snapshot.clones, ["test"]);
    let deleted = client.delete_snapshots("web", &going("s", false)).await;
    refused(deleted, ErrorKind::Refused, &["test", "--defer"]);
    assert_eq!(client.snapshot("web", "s").await.unwrap(), snapshot);
    client
        .delete_snapshots("web", &going("s", true))
        .await
        .unwrap();
    assert!(reads(&mut client, "test", 3).await && reads(&mut client, "web", 2).await);
    let served = served.reopen();
    let mut client = served.client().await;
    assert!(reads(&mut client, "test", 3).await && reads(&mut client, "web", 2).await);
}

#[tokio::test]
async fn what_is_asked_for_wrongly_is_refused_and_changes_nothing() {
    let served = Served::new();
    let mut client = served.client().await;
    for name in ["web", "db"] {
        client.create(&create(name, MIB)).await.unwrap();
    }
    client.create_snapshot(&group("s", &["web"])).await.unwrap();
    let before = client.snapshots(None).await.unwrap();
    use ErrorKind::*;
    for (request, kind, words) in [
        (group("s", &["web"]), AlreadyExists, "already / choose"),
        // A group gets it, or nobody does.
        (group("s", &["db", "web"]), AlreadyExists, "\"web\" has"),
        (group("t", &["db", "none"]), NotFound, "firn vdisk list"),
        (group("t", &["db", "db"]), Invalid, "twice"),
        (group("t", &[]), Invalid, "1 to"),
        (group(".t", &["db"]), Invalid, "starts with"),
    ] {
        refused(client.create_snapshot(&request).await, kind, &[words]);
    }
    client.create_snapshot(&group("t", &["web"])).await.unwrap();
    client
        .delete_snapshots("web", &going("t", false))
        .await
        .unwrap();
    let list = "firn snapshot list web";
    let to_itself = client.rename_snapshot("web", "s", &renamed("s")).await;
    refused(to_itself, AlreadyExists, &["firn snapshot delete"]);
    let unknown = client.rename_snapshot("web", "x", &renamed("y")).await;
    refused(unknown, NotFound, &[list]);
    let (delete, hold) = (
        client.delete_snapshots("web", &going("x", true)).await,
        client.hold_snapshot("web", "x", "me").await,
    );
    refused(delete, NotFound, &[list]);
    refused(hold, NotFound, &[list]);
    let release = client.release_snapshot("web", "s", "me").await;
    refused(release, Refused, &["does not hold"]);
    let of_none = client.snapshots(Some("none")).await;
    refused(of_none, NotFound, &["firn vdisk list"]);
    assert_eq!(client.snapshots(None).await.unwrap(), before);
}

#[tokio::test]
async fn a_vdisk_with_snapshots_is_not_deleted() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", MIB)).await.unwrap();
    client.create_snapshot(&group("s", &["web"])).await.unwrap();
    let deleted = client.delete("web").await;
    let words = ["snapshots (1)", "firn snapshot delete web --all"];
    refused(deleted, ErrorKind::Refused, &words);
    assert_eq!(served.open_sockets(), ["web"]);
    client
        .delete_snapshots("web", &going("s", false))
        .await
        .unwrap();
    client.delete("web").await.unwrap();
    assert!(served.open_sockets().is_empty());
}

#[tokio::test]
async fn what_is_being_imported_is_nobodys_business() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", MIB)).await.unwrap();
    client.create_snapshot(&group("s", &["web"])).await.unwrap();
    let import = BeginImport {
        name: "new".into(),
        size: MIB,
    };
    client.begin_import(&import).await.unwrap();
    // As if it had one.
    served.store.create_snapshot(&["new"], "s").unwrap();
    let made = client.create_snapshot(&group("t", &["web", "new"])).await;
    assert_eq!(kind(made.unwrap_err()), ErrorKind::NotFound);
    let outcomes = [
        client.snapshots(Some("new")).await.map(drop),
        client.snapshot("new", "s").await.map(drop),
        client
            .delete_snapshots("new", &going("s", true))
            .await
            .map(drop),
        client.hold_snapshot("new", "s", "me").await.map(drop),
        client.release_snapshot("new", "s", "me").await.map(drop),
        client.read_snapshot("new", "s", 0, 512).await.map(drop),
        client.snapshot_allocated("new", "s", 0).await.map(drop),
        client.snapshot_changes("new", "s", None, 0).await.map(drop),
        client
            .revert("new", &back_to("s", None, true))
            .await
            .map(drop),
        client
            .rename_snapshot("new", "s", &renamed("t"))
            .await
            .map(drop),
        client
            .clone_snapshot("new", "s", &cloned("c"))
            .await
            .map(drop),
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let kind = kind(outcome.unwrap_err());
        assert_eq!(kind, ErrorKind::NotFound, "request {number}");
    }
    let all = client.snapshots(None).await.unwrap();
    assert!(all.iter().all(|s| s.vdisk == "web"), "{all:?}");
    assert_eq!(client.snapshots(Some("web")).await.unwrap().len(), 1);
    served.store.delete_snapshots("new", &["s"], false).unwrap();
}

/// Space of what was deleted comes back, also after somebody has read it.
#[tokio::test]
async fn a_reader_lets_go_with_its_connection() {
    let served = Served::new();
    let mut client = served.client().await;
    client.create(&create("web", 4 * MIB)).await.unwrap();
    served.write("web", 0, MIB, 1);
    client.create_snapshot(&group("s", &["web"])).await.unwrap();
    served.write("web", 0, MIB, 2);
    assert!(snapshot_reads(&mut client, "web", "s", 1).await);
    client
        .delete_snapshots("web", &going("s", false))
        .await
        .unwrap();
    assert!(snapshot_reads(&mut client, "web", "s", 1).await);
    drop(client);
    tokio::task::spawn_blocking(move || {
        eventually("the layer is merged away", || {
            served.store.upkeep().unwrap();
            served.store.status().live_bytes == MIB
        })
    })
    .await
    .unwrap();
}
