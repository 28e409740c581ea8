//! A disk in memory, and an engine that can be told to misbehave.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use crate::engine::{Command, Disk, Done, Engine, Payload, RequestError};
use crate::memory::GuestPayload;

/// How the engine treats commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trick {
    /// Carries them out at once.
    None,
    /// Carries them out when told to do something else.
    Hold,
    /// Carries them out, but completes them in reverse order, a poll at a time.
    Reverse,
    /// Writes wait for space.
    Full,
    /// They fail.
    Fail,
}

/// What a command was, for tests to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Read(u64, usize),
    Write(u64, usize),
    Flush,
    Discard(u64, u64),
    WriteZeroes(u64, u64, bool),
}

pub struct RamDisk {
    pub name: String,
    pub data: Mutex<Vec<u8>>,
    pub seen: Mutex<Vec<Seen>>,
    trick: Mutex<Trick>,
    cache: Mutex<bool>,
    read_only: bool,
    bells: Mutex<Vec<Arc<OwnedFd>>>,
    polls: Arc<AtomicU64>,
}

impl std::fmt::Debug for RamDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl RamDisk {
    pub fn new(name: &str, size: usize) -> Arc<Self> {
        Self::make(name, size, false)
    }

    pub fn read_only(name: &str, size: usize) -> Arc<Self> {
        Self::make(name, size, true)
    }

    fn make(name: &str, size: usize, read_only: bool) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            data: Mutex::new(vec![0; size]),
            seen: Mutex::default(),
            trick: Mutex::new(Trick::None),
            cache: Mutex::new(true),
            read_only,
            bells: Mutex::default(),
            polls: Arc::default(),
        })
    }

    /// Changes how commands are treated, held ones included.
    pub fn play(&self, trick: Trick) {
        *self.trick.lock() = trick;
        for bell in self.bells.lock().iter() {
            rustix::io::write(bell, &1u64.to_ne_bytes()).unwrap();
        }
    }

    /// How often the engines over this disk were polled.
    pub fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    fn carry_out(
        &self,
        command: Command<GuestPayload>,
    ) -> (Option<GuestPayload>, Result<(), RequestError>) {
        let mut data = self.data.lock();
        let range = |offset: u64, len: usize| offset as usize..offset as usize + len;
        match command {
            Command::Read { offset, mut into } => {
                self.seen.lock().push(Seen::Read(offset, into.len()));
                let range = range(offset, into.len());
                // In two pieces, as a store would from two extents.
                let mid = into.len() / 3;
                let from = &data[range];
                into.copy_in(0, &from[..mid]).unwrap();
                into.copy_in(mid, &from[mid..]).unwrap();
                (Some(into), Ok(()))
            }
            Command::Write { offset, from } => {
                self.seen.lock().push(Seen::Write(offset, from.len()));
                let range = range(offset, from.len());
                from.copy_out(0, &mut data[range]).unwrap();
                (Some(from), Ok(()))
            }
            Command::Flush => {
                self.seen.lock().push(Seen::Flush);
                (None, Ok(()))
            }
            Command::Discard { offset, len } => {
                self.seen.lock().push(Seen::Discard(offset, len));
                data[range(offset, len as usize)].fill(0);
                (None, Ok(()))
            }
            Command::WriteZeroes { offset, len, unmap } => {
                self.seen.lock().push(Seen::WriteZeroes(offset, len, unmap));
                data[range(offset, len as usize)].fill(0);
                (None, Ok(()))
            }
        }
    }
}

impl Disk for RamDisk {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.data.lock().len() as u64
    }

    fn serial(&self) -> [u8; 20] {
        *b"firn-0123456789abcde"
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn write_cache(&self) -> bool {
        *self.cache.lock()
    }

    fn set_write_cache(&self, on: bool) -> Result<(), String> {
        *self.cache.lock() = on;
        Ok(())
    }
}

type Held = (Arc<RamDisk>, Command<GuestPayload>, u64);

pub struct RamEngine {
    bell: Arc<OwnedFd>,
    held: Vec<Held>,
    polls: Vec<Arc<AtomicU64>>,
}

impl RamEngine {
    /// `disks` ring this engine's bell when their trick changes.
    pub fn new(disks: &[Arc<RamDisk>]) -> Self {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let bell = Arc::new(bell);
        for disk in disks {
            disk.bells.lock().push(Arc::clone(&bell));
        }
        let polls = disks.iter().map(|disk| Arc::clone(&disk.polls)).collect();
        Self {
            bell,
            held: Vec::new(),
            polls,
        }
    }
}

fn stalls(disk: &RamDisk, command: &Command<GuestPayload>) -> bool {
    *disk.trick.lock() == Trick::Full && matches!(command, Command::Write { .. })
}

impl Engine for RamEngine {
    type Disk = RamDisk;

    fn submit(&mut self, disk: &Arc<RamDisk>, command: Command<GuestPayload>, tag: u64) {
        self.held.push((Arc::clone(disk), command, tag));
    }

    fn poll(&mut self, done: &mut Vec<Done<GuestPayload>>) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        for polls in &self.polls {
            polls.fetch_add(1, Ordering::Relaxed);
        }
        let mut reversed = Vec::new();
        for (disk, command, tag) in std::mem::take(&mut self.held) {
            let trick = *disk.trick.lock();
            if trick == Trick::Hold || stalls(&disk, &command) {
                self.held.push((disk, command, tag));
                continue;
            }
            if trick == Trick::Fail {
                let payload = match command {
                    Command::Read { into: p, .. } | Command::Write { from: p, .. } => Some(p),
                    _ => None,
                };
                done.push(Done {
                    tag,
                    payload,
                    result: Err(RequestError::Io),
                });
                continue;
            }
            let (payload, result) = disk.carry_out(command);
            let one = Done {
                tag,
                payload,
                result,
            };
            if trick == Trick::Reverse {
                reversed.push(one)
            } else {
                done.push(one)
            }
        }
        done.extend(reversed.into_iter().rev());
    }

    fn pollable(&self) -> Vec<RawFd> {
        vec![self.bell.as_raw_fd()]
    }

    fn cancel_stalled(&mut self, done: &mut Vec<Done<GuestPayload>>, which: &dyn Fn(u64) -> bool) {
        for (disk, command, tag) in std::mem::take(&mut self.held) {
            if stalls(&disk, &command) && which(tag) {
                let Command::Write { from, .. } = command else {
                    unreachable!()
                };
                let result = Err(RequestError::Cancelled);
                done.push(Done {
                    tag,
                    payload: Some(from),
                    result,
                });
            } else {
                self.held.push((disk, command, tag));
            }
        }
    }
}
