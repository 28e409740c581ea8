//! The store over the real disk.

use block_store::{InitOptions, OpenConfig, Store, VDiskSpec};
use std::sync::Arc;

fn open(dir: &std::path::Path) -> Arc<Store> {
    Store::open(OpenConfig::new(dir.join("store"), dir.join("run"))).unwrap()
}

#[test]
fn writes_are_read_back_also_after_reopening() {
    let _ = env_logger::builder().is_test(true).try_init();
    let dir = tempfile::tempdir_in(".").unwrap();
    Store::init(&dir.path().join("store"), &InitOptions::default()).unwrap();
    let store = open(dir.path());
    let vdisk = store
        .create_vdisk(&VDiskSpec {
            name: "a".into(),
            size: 1 << 30,
            hidden: false,
        })
        .unwrap();
    let mut client = store.client().unwrap();
    let data: Vec<u8> = (0..1 << 20).map(|n: u32| (n / 7 % 251) as u8).collect();
    client.write(&vdisk, 512, &data).unwrap();
    client
        .write(&vdisk, (1 << 29) + 4096, &data[..4096])
        .unwrap();
    client.flush(&vdisk).unwrap();
    let mut back = vec![0; data.len()];
    client.read(&vdisk, 512, &mut back).unwrap();
    assert!(back == data);
    client.write_zeroes(&vdisk, 1024, 8192).unwrap();
    client.read(&vdisk, 512, &mut back).unwrap();
    assert!(
        back[..512] == data[..512]
            && back[512..8704].iter().all(|b| *b == 0)
            && back[8704..] == data[8704..]
    );
    drop(client);
    store.shutdown().unwrap();
    drop((store, vdisk));
    let store = open(dir.path());
    let vdisk = store.vdisk("a").unwrap();
    let mut client = store.client().unwrap();
    client.read(&vdisk, 512, &mut back).unwrap();
    assert!(
        back[..512] == data[..512]
            && back[512..8704].iter().all(|b| *b == 0)
            && back[8704..] == data[8704..]
    );
}
