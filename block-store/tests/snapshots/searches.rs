//! Reads that look for their blocks in many layers while these are merged, dropped and written.

use super::*;

/// Whoever reads a snapshot reads on when its name goes.
#[test]
fn a_reader_keeps_what_it_reads() {
    let m = Machine::new(9, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 500);
    store.create_snapshot(&["a"], "s").unwrap();
    let (view, old) = (store.open_snapshot("a", "s").unwrap(), live.clone());
    write(&mut client, "a", &mut live, 2, 0, 700);
    store.delete_snapshots("a", &["s"], false).unwrap();
    settle(&store);
    verify(&store, &view, &old, "the view");
    drop(view);
    settle(&store);
    assert_eq!(layers(&store), 1);
    verify_all(&store, &live, &BTreeMap::new(), "at last");
}

/// A search that has passed a layer must not miss what a merge moves up into that layer while it waits for a node.
#[test]
fn a_merge_in_the_middle_of_a_search_is_not_missed() {
    let mut m = Machine::new(10, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 10);
    store.create_snapshot(&["a"], "s").unwrap();
    write(&mut client, "a", &mut live, 2, 5, 1);
    store.create_snapshot(&["a"], "t").unwrap();
    drop((client, store));
    m.kill();
    let store = m.open();
    let core = store.core();
    let live_layer = core.state.lock().catalogue.vdisks[0].layer;
    let mut search = Search::default();
    let mut passed = Vec::new();
    // Until it is stopped in front of the lowest layer.
    while passed.last() != Some(&1) {
        let mut state = core.state.lock();
        match search.run(&mut state, live_layer, 3, 1) {
            Err(Blocked::Node(missing)) => {
                passed.push(missing.key.layer());
                if missing.key.layer() != 1 {
                    load_node(&mut state, missing).unwrap();
                }
            }
            other => panic!("{other:?} after {passed:?}"),
        }
    }
    store.delete_snapshots("a", &["s"], false).unwrap();
    // Some entries only, as a step of a merge does it that is at its end in the middle of a leaf.
    let mut none = |freed| panic!("{freed:?}");
    let done = core.with_nodes(|state| {
        let step = state.map.merge_step(1, 2, u64::MAX, 8, &mut none);
        step.map_err(Blocked::Node)
    });
    assert_eq!(done.unwrap(), Ok(false));
    let left = core.with_nodes(|state| state.map.lookup(1, 3).map_err(Blocked::Node));
    assert_eq!(left.unwrap(), Ok(0), "it has moved");
    let found = core.with_nodes(|state| search.run(state, live_layer, 3, 1).map(|f| f[0]));
    let (layer, bits) = found.unwrap().unwrap();
    assert!(layer == 2 && bits != 0, "found {bits:x} in layer {layer}");
    settle(&store);
    verify_all(&store, &live, &BTreeMap::new(), "after");
}

/// What was resolved once stays right when the data moves away, and layers are merged.
#[test]
fn resolved_leaves_follow_what_moves() {
    let m = Machine::new(11, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let (mut live, mut snapshots) = (vec![0; BLOCKS as usize], BTreeMap::new());
    for version in 1..=6 {
        for first in (version..1000).step_by(7) {
            // Half of what is stored is garbage.
            write(&mut client, "a", &mut live, 99, first, 1);
            write(&mut client, "a", &mut live, version, first, 1);
        }
        let name = format!("s{version}");
        store.create_snapshot(&["a"], &name).unwrap();
        snapshots.insert(name, live.clone());
    }
    verify_all(&store, &live, &snapshots, "resolved");
    let status = store.status();
    let known = status.resolved_leaves;
    assert!(known >= 3 * 6, "{known} leaves are resolved");
    assert_eq!((status.snapshots, status.layers), (6, 7));
    let each = block_store::map::RESOLVED_MEMORY as u64;
    assert_eq!(status.resolved_memory_bytes, known * each);
    // All segments are rewritten, as far as they are alive, and removed.
    let before = m.segments();
    for _ in 0..20 {
        store.core().state.lock().full = true;
        let _ = store.upkeep();
        store.core().state.lock().full = false;
        step(&store, true);
        verify_all(&store, &live, &snapshots, "compacted");
    }
    let left = m.segments().into_iter().filter(|s| before.contains(s));
    assert!(left.count() < before.len(), "nothing was compacted");
    for version in [2, 5, 3] {
        let name = format!("s{version}");
        store.delete_snapshots("a", &[&name], false).unwrap();
        snapshots.remove(&name);
        settle(&store);
        verify_all(&store, &live, &snapshots, "merged");
    }
}

/// Presence maps come when a read has had to pass a layer, and not before; then layers are passed without a look into their maps.
#[test]
fn presence_maps_are_built_lazily_and_spare_reads() {
    const LAYERS: u64 = 40;
    let mut m = Machine::new(12, 256 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    write(&mut client, "a", &mut live, 1, 0, 1000);
    for version in 2..LAYERS {
        write(&mut client, "a", &mut live, version, version * 3, 1);
        store
            .create_snapshot(&["a"], &format!("s{version}"))
            .unwrap();
    }
    assert_eq!(store.core().state.lock().presence.size().0, 0);
    store.shutdown().unwrap();
    drop((client, store));
    m.kill();
    let cost = |resolved: usize, first: u64, passes: u64| {
        let store = m.try_open(|c| c.resolved_memory = resolved).unwrap();
        let disk = store.vdisk("a").unwrap();
        let mut client = Client::new(&store);
        let mut costs = Vec::new();
        for pass in 0..passes {
            let block = first + pass;
            let before = m.disk.counters().reads;
            let read = client.read(&disk, block * BLOCK as u64, BLOCK).unwrap();
            assert!(read == content(live[block as usize], block, 1));
            costs.push(m.disk.counters().reads - before);
            while block_store::snapshot::build_one(store.core(), &|| true).unwrap() {}
        }
        let status = store.status();
        let maps = (status.presence_maps, status.presence_memory_bytes);
        store.shutdown().unwrap();
        (costs, maps)
    };
    // Block 700 was written first and never again: the search goes down to the lowest layer.
    let (costs, (maps, bytes)) = cost(0, 700, 2);
    assert!(
        costs[0] > 2 * LAYERS,
        "the first read looks into all maps: {costs:?}"
    );
    assert_eq!(maps, LAYERS - 2, "one for each layer that was passed");
    assert!(bytes < 40 * 1024, "{bytes}");
    assert!(costs[1] <= 2, "{costs:?}");
    // Another leaf of the map: only of the lowest layer's there is something to be read.
    let (costs, _) = cost(0, 511, 2);
    assert!(costs[1] <= 6, "{costs:?}");
    // While so many maps were built, all leaves were resolved: what is left to be read is the data.
    let (costs, _) = cost(1 << 20, 511, 2);
    assert_eq!(costs[1], 1, "{costs:?}");
}

/// A layer that is not at rest keeps nobody busy: its map waits until a read asks for it again.
#[test]
fn maps_that_can_not_be_built_now_are_not_tried_for_ever() {
    let mut m = Machine::new(14, 64 << 20);
    let store = m.open();
    vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    let mut live = vec![0; BLOCKS as usize];
    for version in 1..=12 {
        write(&mut client, "a", &mut live, version, version, 1);
        let name = format!("s{version}");
        store.create_snapshot(&["a"], &name).unwrap();
    }
    drop((client, store));
    m.kill();
    let store = m.open();
    let mut client = Client::new(&store);
    // The highest sealed layer waits for a checkpoint.
    write(&mut client, "a", &mut live, 13, 20, 1);
    let cut = store.cut_snapshot(&["a"], "t").unwrap();
    let core = store.core();
    let top = core.state.lock().catalogue.vdisks[0].layer;
    let mut search = Search::default();
    let found = core.with_nodes(|state| search.run(state, top, 700, 1).map(|f| f[0]));
    assert_eq!(found.unwrap().unwrap().1, 0);
    assert!(core.state.lock().presence.is_wanted());
    let builds = (0..100).take_while(|_| block_store::snapshot::build_one(core, &|| true).unwrap());
    assert!(builds.count() < 20, "it goes on and on");
    drop(cut);
}

/// A write of a part of a block reads the rest from a layer that is merged meanwhile, and then the block is discarded: the live layer
/// says the same as before, and yet what was read is out of date.
#[test]
fn a_discard_after_a_merge_is_seen_by_writes_of_parts() {
    let m = Machine::new(16, 64 << 20);
    let store = m.open();
    let disk = vdisk(&store, "a", SIZE);
    let mut client = Client::new(&store);
    client.write(&disk, 0, &content(1, 0, 4)).unwrap();
    store.create_snapshot(&["a"], "s").unwrap();
    store.delete_snapshots("a", &["s"], false).unwrap();
    // Its data is written out, so that it has to be read.
    client.flush(&disk).unwrap();
    step(&store, false);
    let mut slow = Client::new(&store);
    let part = Command::Write {
        offset: 512,
        from: vec![7; 512],
    };
    slow.lane.submit(&disk, part, 0);
    while tidy(store.core(), 1000).unwrap().more {}
    assert_eq!(layers(&store), 1);
    client.discard(&disk, 0, BLOCK as u64).unwrap();
    slow.wait(200).unwrap().result.unwrap();
    let mut wanted = vec![0; BLOCK];
    wanted[512..1024].fill(7);
    let found = client.read(&disk, 0, BLOCK).unwrap();
    assert!(found == wanted, "{:?}", &found[..16]);
}

/// While a layer of a row is pinned, the one below is merged into it and not past it, which its alias says.
#[test]
fn a_merge_that_stops_short_of_its_heir_is_seen() {
    for (between_has_some, map_is_old) in [(true, true), (true, false), (false, false)] {
        let m = Machine::new(11, 64 << 20);
        let store = m.open();
        vdisk(&store, "a", SIZE);
        let mut client = Client::new(&store);
        let mut live = vec![0; BLOCKS as usize];
        write(&mut client, "a", &mut live, 1, 0, 1100);
        store.create_snapshot(&["a"], "lower").unwrap();
        if between_has_some {
            write(&mut client, "a", &mut live, 2, 1000, 10);
        }
        store.create_snapshot(&["a"], "between").unwrap();
        let numbers = |n| {
            *store
                .core()
                .state
                .lock()
                .catalogue
                .layers
                .keys()
                .nth(n)
                .unwrap()
        };
        let (lower, between) = (numbers(0), numbers(1));
        write(&mut client, "a", &mut live, 3, 1050, 1);
        store
            .delete_snapshots("a", &["lower", "between"], false)
            .unwrap();
        // Somebody asks for the presence map of what lies between, before or after the merge has begun.
        let ask_for_map = || {
            store.core().state.lock().presence.of(between);
            drop(block_store::snapshot::build_one(store.core(), &|| true));
        };
        if map_is_old {
            ask_for_map();
        }
        tidy(store.core(), 1).unwrap();
        store.checkpoint().unwrap();
        {
            let state = store.core().state.lock();
            let aliases = &state.catalogue.aliases;
            assert!(state.catalogue.layers.contains_key(&lower), "merged");
            assert_eq!(aliases.heir(lower), aliases.heir(between));
        }
        if !map_is_old {
            ask_for_map();
        }
        // And somebody reads it.
        let pin = Arc::new(());
        let reader = (between, Arc::downgrade(&pin));
        store.core().state.lock().readers.push(reader);
        tidy(store.core(), 100).unwrap();
        assert!(
            !store
                .core()
                .state
                .lock()
                .catalogue
                .layers
                .contains_key(&lower)
        );
        verify_all(&store, &live, &BTreeMap::new(), "merged halfway");
        drop(pin);
        settle(&store);
        assert_eq!(layers(&store), 1);
        verify_all(&store, &live, &BTreeMap::new(), "merged");
        m.assert_sound("at last");
    }
}
