//! Making and opening stores.

use super::Store;
use super::config::{InitOptions, OpenConfig};
use super::scrub::Scrubber;
use super::status::Recovery;
use super::threads::Threads;
use super::upkeep::Upkeep;
use super::vdisk::VDisk;
use crate::check::Scrub;
use crate::checkpoint::{Checkpointer, SUPERBLOCK_FILE};
use crate::compress::Rules;
use crate::core::Core;
use crate::defrag::Spot;
use crate::error::StoreError;
use crate::format::{
    BUFFER_LAYOUT_VERSION, BufferHeader, BufferName, Chain, SUPERBLOCK_SIZE, Superblock, newest,
};
use crate::host::{Host, LOCK_FILE, RealHost};
use crate::io::real::{Lock, RealDisk, RealOptions, lock_exclusive};
use crate::io::{AlignedBuf, DiskFile};
use crate::log::{Log, SlotPool};
use crate::map::{NODE_MEMORY, Presence, RESOLVED_MEMORY, Resolved};
use crate::recover::{BufferFound, Recovered, note_failed_recovery, recover, replay_buffer};
use crate::state::State;
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// Bytes of a slot of the write buffer: longer than the longest extent.
const SLOT: u32 = 256 << 10;

impl Store {
    /// Makes a new store in `dir`, which is empty or not there yet.
    pub fn init(dir: &Path, options: &InitOptions) -> Result<(), StoreError> {
        std::fs::create_dir_all(dir)
            .map_err(StoreError::io(format!("making {}", dir.display())))?;
        let mut entries =
            std::fs::read_dir(dir).map_err(StoreError::io(format!("reading {}", dir.display())))?;
        if dir.join(SUPERBLOCK_FILE).exists() {
            return Err(StoreError::Exists(format!(
                "{} is a Firn store already; nothing was changed",
                dir.display()
            )));
        }
        // A filesystem of its own has this one folder.
        if entries.any(|e| e.is_ok_and(|e| e.file_name() != "lost+found")) {
            return Err(StoreError::Exists(format!(
                "{} is not empty; choose an empty directory",
                dir.display()
            )));
        }
        let disk = open_disk(dir)?;
        let host = RealHost::new(disk, dir);
        Self::init_on(&host, options)
    }

    /// Makes a new store on a machine.
    pub fn init_on(host: &dyn Host, options: &InitOptions) -> Result<(), StoreError> {
        // Generations seed the checksums of all records. They begin anywhere, so that no guest can write data that looks
        // like a record of the log.
        let store = host.new_uuid();
        let (_, anywhere) = host.new_uuid().as_u64_pair();
        let superblock = Superblock {
            store,
            generation: 1,
            checkpoint_lsn: 0,
            next_segment_generation: 1 + (anywhere >> 4),
            segment_size: options.segment_size,
            table: Chain::default(),
            catalogue: Chain::default(),
            buffer: None,
            created: host.now(),
        };
        let page = superblock
            .encode()
            .map_err(StoreError::damaged("encoding the superblock"))?;
        Superblock::decode(&page).map_err(|e| StoreError::Invalid(e.to_string()))?;
        let disk = host.disk();
        let context = || StoreError::io("writing the superblock");
        let file = disk
            .create(SUPERBLOCK_FILE, 2 * SUPERBLOCK_SIZE as u64)
            .map_err(context())?;
        let both = AlignedBuf::from_bytes(&[page, page].concat()).map_err(context())?;
        file.write_at(&both, 0).map_err(context())?;
        file.sync().map_err(context())?;
        disk.sync_dir().map_err(context())
    }

    /// Opens the store, recovers it, and starts its threads.
    pub fn open(config: OpenConfig) -> Result<Arc<Self>, StoreError> {
        let dir = config.dir.display().to_string();
        if !config.dir.join(SUPERBLOCK_FILE).exists() {
            return Err(StoreError::NotAStore(dir));
        }
        std::fs::create_dir_all(&config.run_dir).map_err(StoreError::io(format!(
            "making {}",
            config.run_dir.display()
        )))?;
        let lock = match lock_exclusive(&config.dir.join(LOCK_FILE)) {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(StoreError::Locked(dir)),
            Err(e) => return Err(StoreError::io(format!("locking {dir}"))(e)),
        };
        let disk = open_disk(&config.dir)?;
        let host = Box::new(RealHost::new(disk, &config.run_dir));
        let store = Self::open_on(host, config, Some(lock))?;
        store.start_threads()?;
        Ok(store)
    }

    /// Opens the store on a machine, without threads: whoever simulates calls the steps of [`Store`] himself.
    pub fn open_on(
        host: Box<dyn Host>,
        config: OpenConfig,
        lock: Option<Lock>,
    ) -> Result<Arc<Self>, StoreError> {
        let begun = Instant::now();
        let host: Arc<dyn Host> = host.into();
        let disk = host.disk();
        let file = disk
            .open(SUPERBLOCK_FILE)
            .map_err(StoreError::io("opening the superblock"))?;
        let (superblock, place) = read_superblock(&*file)?;
        let buffer = replay_buffer(&*host, &superblock, config.discard_write_buffer)?;
        let map_nodes = config.map_memory / NODE_MEMORY;
        // A buffer that is given up might have told of a failed fsync.
        let rewrite = matches!(
            buffer,
            BufferFound::ReplayedAfterFailure(_) | BufferFound::Discarded
        );
        let found = recover(
            &*disk,
            &superblock,
            map_nodes,
            config.accept_log_damage,
            rewrite,
        );
        let mut found = found.inspect_err(|_| note_failed_recovery(&*host, &superblock))?;
        drop_hidden(&mut found);
        let rules = stored_rules(found.catalogue.rules.as_deref(), "the store's");
        let recovery = Recovery {
            buffer: format!("{buffer:?}"),
            scanned_bytes: found.scanned,
            applied_records: found.applied as u64,
            milliseconds: begun.elapsed().as_millis() as u64,
        };
        let scrub = found.catalogue.scrub.take();
        let vdisks = found.catalogue.vdisks.iter().map(|row| {
            let own = row
                .rules
                .as_deref()
                .map(|r| stored_rules(Some(r), &row.name));
            (
                row.name.clone(),
                Arc::new(VDisk::of(row, own.unwrap_or_else(|| Arc::clone(&rules)))),
            )
        });
        let vdisks = vdisks.collect();
        let (pool, name) = new_buffer(&*host, &superblock, &config)?;
        let (chains, damaged) = (std::mem::take(&mut found.chains), found.damaged);
        let unused = std::mem::take(&mut found.unused);
        found.segments.start_clock(host.now());
        let state = State {
            map: found.map,
            presence: Presence::new(config.presence_memory),
            resolved: Resolved::new(config.resolved_memory / RESOLVED_MEMORY),
            segments: found.segments,
            log: Log::new(pool, found.next_lsn, found.prefixes, found.scanned),
            catalogue: found.catalogue,
            failed: None,
            full: false,
            exhausted: false,
            wants_room: false,
            segment_size: superblock.segment_size,
            readers: Vec::new(),
            left: HashMap::new(),
            stuck: HashSet::new(),
        };
        let mut core = Core::new(disk, superblock.store, state, config.checkpoint_log);
        core.spot = Spot::new(config.coalesce_rate);
        core.scrub = Scrub::of_json(scrub.as_deref());
        let old = superblock.buffer.clone();
        let created = superblock.created;
        let mut checkpointer = Checkpointer::new(superblock, place, file, chains);
        // From here on a crash finds the new buffer; the old one has been written out.
        checkpointer.amend(&core, |s| s.buffer = Some(name.clone()))?;
        if let Some(old) = old {
            let _ = host.runtime().remove_memory(&old.file());
        }
        remove_orphans(&*host, core.store, &name);
        for (file, from) in unused {
            if let Err(error) = file.give_back(u64::from(from)) {
                log::warn!("{file:?}: can't give back what is behind byte {from}: {error}");
            }
        }
        if damaged {
            checkpointer.run(&core, |_| {})?;
        }
        log::info!(
            "store {} is open after {} ms: {} bytes of log scanned, {} records applied",
            core.store,
            recovery.milliseconds,
            recovery.scanned_bytes,
            recovery.applied_records
        );
        let core = Arc::new(core);
        let vdisks = Arc::new(RwLock::new(vdisks));
        let upkeep = Upkeep {
            core: Arc::clone(&core),
            host: Arc::clone(&host),
            checkpointer: Mutex::new(checkpointer),
            flattener: Mutex::default(),
            flattening: Mutex::default(),
            vdisks: Arc::clone(&vdisks),
            low_space_percent: config.low_space_percent,
        };
        let upkeep = Arc::new(upkeep);
        let scrubber = Scrubber::new(&host, &upkeep, &vdisks, &config, created);
        Ok(Arc::new(Self {
            core,
            host,
            config,
            created,
            upkeep,
            scrubber: Arc::new(scrubber),
            vdisks,
            rules: RwLock::new(rules),
            changing: Arc::default(),
            healths: Arc::default(),
            threads: Threads::default(),
            recovered: recovery,
            _lock: lock,
        }))
    }
}

fn open_disk(dir: &Path) -> Result<RealDisk, StoreError> {
    RealDisk::open(dir, RealOptions::default())
        .map_err(StoreError::io(format!("opening {}", dir.display())))
}

/// The superblock that counts, and the byte at which it lies.
fn read_superblock(file: &dyn DiskFile) -> Result<(Superblock, u64), StoreError> {
    let len = file
        .len()
        .map_err(StoreError::io("reading the superblock"))?;
    let mut page =
        AlignedBuf::zeroed(SUPERBLOCK_SIZE).map_err(StoreError::io("reading the superblock"))?;
    let mut both = Vec::new();
    for place in [0, SUPERBLOCK_SIZE as u64] {
        if place + SUPERBLOCK_SIZE as u64 <= len {
            match file.read_at(&mut page, place) {
                Ok(()) => both.extend_from_slice(&page),
                Err(e) => {
                    log::error!(
                        "reading the superblock at byte {place}: {e}; trying the other one"
                    );
                    both.extend_from_slice(&[0; SUPERBLOCK_SIZE]);
                }
            }
        }
    }
    let newest = newest(&both).map_err(StoreError::damaged("the superblock"))?;
    let is_it = |page| Superblock::decode(page).is_ok_and(|s| s == newest);
    let place = both.chunks_exact(SUPERBLOCK_SIZE).position(is_it);
    Ok((newest, (place.unwrap_or(0) * SUPERBLOCK_SIZE) as u64))
}

/// Imports that were not finished leave nothing behind.
fn drop_hidden(found: &mut Recovered) {
    let hidden: Vec<_> = found
        .catalogue
        .vdisks
        .extract_if(.., |v| v.hidden)
        .collect();
    for row in hidden {
        log::info!("removing vDisk {}: its import was not finished", row.name);
        found.drop_layer(row.layer);
    }
}

/// Rules as the catalogue has them; broken ones give way to the shipped ones, so that disks can still be served.
fn stored_rules(json: Option<&str>, whose: &str) -> Arc<Rules> {
    let parsed = json.map(serde_json::from_str::<Rules>);
    match parsed {
        None => Arc::default(),
        Some(Ok(rules)) if rules.validate().is_ok() => Arc::new(rules),
        Some(_) => {
            log::error!(
                "the stored compression rules of {whose} can't be read; using the shipped ones"
            );
            Arc::default()
        }
    }
}

fn new_buffer(
    host: &dyn Host,
    superblock: &Superblock,
    config: &OpenConfig,
) -> Result<(SlotPool, BufferName), StoreError> {
    let slots = (config.write_buffer / SLOT as usize).max(12) as u32;
    let header = BufferHeader {
        store: superblock.store,
        nonce: buffer_nonce(superblock.store, host.new_uuid()),
        slot_size: SLOT,
        slots,
    };
    let boot = host
        .runtime()
        .boot_id()
        .map_err(StoreError::io("reading the machine's boot id"))?;
    let name = BufferName {
        boot: Uuid::from_bytes(boot),
        nonce: header.nonce,
        layout: BUFFER_LAYOUT_VERSION,
        len: header.bytes(),
        dir: host.run_dir().into(),
    };
    let memory = host
        .runtime()
        .create_memory(&name.file(), header.bytes() as usize)
        .map_err(StoreError::io(format!(
            "making the write buffer {}/{}",
            name.dir,
            name.file()
        )))?;
    Ok((SlotPool::create(memory, header), name))
}

/// Half the store's, half random: a buffer that was created and not named, because its process died in between, tells by
/// its file's name alone whose it was.
fn buffer_nonce(store: Uuid, random: Uuid) -> Uuid {
    Uuid::from_u64_pair(store.as_u64_pair().0, random.as_u64_pair().1)
}

/// Removes what earlier openings of this store that were cut short have left in the runtime directory. To be called when the
/// superblock names `ours`: nothing else of the store's can count then.
fn remove_orphans(host: &dyn Host, store: Uuid, ours: &BufferName) {
    let (whose, _) = store.as_u64_pair();
    let is_orphan = |name: &&String| {
        let nonce = name.strip_prefix(BufferName::FILE_PREFIX);
        let nonce = nonce.and_then(|n| Uuid::try_parse(n).ok());
        nonce.is_some_and(|n| n.as_u64_pair().0 == whose && n != ours.nonce)
    };
    let names = host.runtime().list_memory().unwrap_or_else(|e| {
        log::warn!("looking for write buffers that are left over: {e}");
        Vec::new()
    });
    for name in names.iter().filter(is_orphan) {
        match host.runtime().remove_memory(name) {
            Ok(()) => log::info!("removed {name}: an opening that was cut short had left it"),
            Err(e) => log::warn!("removing {name}, which is left over: {e}"),
        }
    }
}

impl Recovered {
    /// Forgets a layer and what only it named.
    fn drop_layer(&mut self, layer: u32) {
        let mut freed = Vec::new();
        self.map.drop_layer(layer, &mut |f| freed.push(f));
        self.catalogue.layers.remove(&layer);
        for f in freed {
            crate::state::release(&mut self.segments, &mut self.catalogue, f);
        }
    }
}
