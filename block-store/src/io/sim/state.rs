//! What a simulated machine consists of: names, files, buffer memory, faults to come.

use super::super::PAGE;
use super::Damage;
use super::inode::Inode;
use super::memory::Memories;
use super::rng::Rng;
use std::collections::BTreeMap;
use std::io;

/// Kinds of operations, for faults and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Reading a file.
    Read,
    /// Writing a file.
    Write,
    /// Syncing a file or the directory.
    Sync,
    /// Anything else: create, open, remove, list, truncate, buffer memory.
    Name,
}

/// How much was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Reads, failed ones included.
    pub reads: u64,
    /// Writes, failed ones included.
    pub writes: u64,
    /// Syncs of files and of the directory, failed ones included.
    pub syncs: u64,
    /// Everything else.
    pub others: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

impl Counters {
    /// Operations of all kinds: what [`super::SimDisk::crash_after`] counts.
    pub fn operations(&self) -> u64 {
        self.reads + self.writes + self.syncs + self.others
    }

    pub(super) fn count(&mut self, op: Op) {
        match op {
            Op::Read => self.reads += 1,
            Op::Write => self.writes += 1,
            Op::Sync => self.syncs += 1,
            Op::Name => self.others += 1,
        }
    }
}

/// What a name has stood for since the last `sync_dir`: the first is durable, the last is what is seen.
type Bindings = Vec<Option<u64>>;

pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) capacity: u64,
    pub(super) memory: Memories,
    pub(super) counters: Counters,
    pub(super) crash_after: Option<u64>,
    /// How often the machine was started.
    pub(super) boots: u64,
    faults: Vec<(Op, u64)>,
    names: BTreeMap<String, Bindings>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
}

impl State {
    pub(super) fn new(seed: u64, capacity: u64) -> State {
        State {
            rng: Rng::new(seed),
            capacity,
            memory: Memories::default(),
            counters: Counters::default(),
            crash_after: None,
            boots: 1,
            faults: Vec::new(),
            names: BTreeMap::new(),
            inodes: BTreeMap::new(),
            next_inode: 1,
        }
    }

    pub(super) fn create(&mut self, name: &str, len: u64) -> io::Result<u64> {
        if self.lookup(name).is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{name}: exists already"),
            ));
        }
        if len > self.free() {
            let message = format!("{name}: no space for {len} bytes");
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        let number = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(number, Inode::new(len));
        self.bind(name, Some(number));
        Ok(number)
    }

    pub(super) fn open(&mut self, name: &str) -> io::Result<u64> {
        let number = self.lookup(name).ok_or_else(|| not_found(name))?;
        self.inode(number)?.handles += 1;
        Ok(number)
    }

    pub(super) fn close(&mut self, number: u64) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.handles = inode.handles.saturating_sub(1);
        }
        self.collect();
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.lookup(name).ok_or_else(|| not_found(name))?;
        self.bind(name, None);
        Ok(())
    }

    pub(super) fn list(&self) -> Vec<String> {
        self.names
            .keys()
            .filter(|name| self.lookup(name).is_some())
            .cloned()
            .collect()
    }

    pub(super) fn sync_dir(&mut self) {
        for bindings in self.names.values_mut() {
            bindings.drain(..bindings.len().saturating_sub(1));
        }
        self.collect();
    }

    pub(super) fn inode(&mut self, number: u64) -> io::Result<&mut Inode> {
        self.inodes
            .get_mut(&number)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Bytes that new files can have.
    pub(super) fn free(&self) -> u64 {
        let named: Vec<u64> = self
            .names
            .values()
            .filter_map(|bindings| bindings.last().copied().flatten())
            .collect();
        let counts = |(number, inode): &(&u64, &Inode)| inode.handles > 0 || named.contains(number);
        let used: u64 = self
            .inodes
            .iter()
            .filter(counts)
            .map(|(_, inode)| inode.end())
            .sum();
        self.capacity.saturating_sub(used)
    }

    /// Handles and faults end with the process they were made for.
    pub(super) fn process_died(&mut self) {
        self.crash_after = None;
        self.faults.clear();
        self.inodes.values_mut().for_each(|inode| inode.handles = 0);
        self.collect();
    }

    pub(super) fn power_loss(&mut self) {
        self.boots += 1;
        self.memory.clear();
        for bindings in self.names.values_mut() {
            let kept = self.rng.below(bindings.len());
            *bindings = vec![bindings.get(kept).copied().flatten()];
        }
        self.collect();
        for inode in self.inodes.values_mut() {
            inode.power_loss(&mut self.rng);
        }
    }

    pub(super) fn fail_nth(&mut self, op: Op, n: u64) {
        self.faults.push((op, n));
    }

    pub(super) fn lift_faults(&mut self) {
        self.faults.clear();
    }

    /// Whether the process dies at this operation.
    pub(super) fn is_crash_due(&mut self) -> bool {
        match &mut self.crash_after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// The fault that was ordered for this operation.
    pub(super) fn injected(&mut self, op: Op) -> io::Result<()> {
        let mut due = false;
        self.faults.retain_mut(|(kind, left)| {
            if *kind == op {
                *left = left.saturating_sub(1);
                due |= *left == 0;
                return *left > 0;
            }
            true
        });
        if due {
            Err(io::Error::from_raw_os_error(libc::EIO))
        } else {
            Ok(())
        }
    }

    pub(super) fn damage(&mut self, name: &str, damage: Damage) -> io::Result<()> {
        let number = self.lookup(name).ok_or_else(|| not_found(name))?;
        if damage == Damage::Remove {
            self.names.remove(name);
            self.collect();
            return Ok(());
        }
        let seed = self.rng.bits();
        let inode = self.inode(number)?;
        match damage {
            Damage::Rot { offset, len } => inode.damage(offset..offset + len, |at, byte| {
                *byte ^= (Rng::new(seed ^ at).bits() as u8).max(1);
            }),
            Damage::Zero { offset, len } => inode.damage(offset..offset + len, |_, byte| *byte = 0),
            Damage::Swap { a, b, len } => {
                let (at_a, at_b) = (copy(inode, a, len), copy(inode, b, len));
                overwrite(inode, a, &at_b);
                overwrite(inode, b, &at_a);
            }
            Damage::Truncate(len) => inode.damage_len(len - len % PAGE as u64),
            Damage::Remove => {}
        }
        Ok(())
    }

    fn lookup(&self, name: &str) -> Option<u64> {
        *self.names.get(name)?.last()?
    }

    fn bind(&mut self, name: &str, inode: Option<u64>) {
        self.names
            .entry(name.to_owned())
            .or_insert_with(|| vec![None])
            .push(inode);
        self.collect();
    }

    /// Forgets names and files that nothing can bring back.
    fn collect(&mut self) {
        self.names
            .retain(|_, bindings| bindings.iter().any(Option::is_some));
        let names = &self.names;
        self.inodes.retain(|number, inode| {
            inode.handles > 0
                || names
                    .values()
                    .any(|bindings| bindings.contains(&Some(*number)))
        });
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name}: no such file"))
}

fn copy(inode: &Inode, offset: u64, len: u64) -> Vec<u8> {
    let page_len = PAGE as u64;
    let first = offset / page_len;
    let mut bytes = Vec::new();
    for number in first..(offset + len).div_ceil(page_len) {
        let mut page = [0; PAGE];
        inode.read(number, &mut page);
        bytes.extend_from_slice(&page);
    }
    bytes.drain(..(offset - first * page_len) as usize);
    bytes.truncate(len as usize);
    bytes
}

fn overwrite(inode: &mut Inode, offset: u64, bytes: &[u8]) {
    inode.damage(offset..offset + bytes.len() as u64, |at, byte| {
        *byte = bytes.get((at - offset) as usize).copied().unwrap_or(*byte);
    });
}
