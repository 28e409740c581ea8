//! Simulated buffer memory.

use super::super::{BufferMemory, DiskFile, LiveMemory, LivePages};
use super::SimDisk;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A buffer: its number (names come again), and its bytes unless a process has them.
type Buffer = (u64, Option<Vec<u8>>);

/// The buffers of the runtime directory.
#[derive(Default)]
pub(super) struct Memories {
    buffers: BTreeMap<String, Buffer>,
    created: u64,
}

impl Memories {
    pub(super) fn create(&mut self, name: &str, len: usize) -> io::Result<(u64, Vec<u8>)> {
        if self.buffers.contains_key(name) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{name}: exists already"),
            ));
        }
        self.created += 1;
        self.buffers.insert(name.to_owned(), (self.created, None));
        Ok((self.created, vec![0; len]))
    }

    pub(super) fn open(&mut self, name: &str, len: usize) -> io::Result<(u64, Vec<u8>)> {
        let (number, buffer) = self.buffers.get_mut(name).ok_or_else(|| missing(name))?;
        let error = |kind, why: &str| Err(io::Error::new(kind, format!("{name}: {why}")));
        match buffer {
            None => error(
                io::ErrorKind::WouldBlock,
                "still open; drop the dead process's store first",
            ),
            Some(bytes) if bytes.len() < len => {
                error(io::ErrorKind::InvalidData, "shorter than expected")
            }
            Some(_) => Ok((*number, buffer.take().unwrap_or_default())),
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.buffers
            .remove(name)
            .map(drop)
            .ok_or_else(|| missing(name))
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.buffers.keys().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.buffers.clear();
    }

    /// Takes a buffer back, unless it was removed or lost meanwhile.
    fn give_back(&mut self, name: &str, number: u64, bytes: Vec<u8>) {
        if let Some(buffer) = self
            .buffers
            .get_mut(name)
            .filter(|buffer| buffer.0 == number)
        {
            buffer.1 = Some(bytes);
        }
    }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{name}: no such buffer"))
}

/// A buffer in use. Its content goes back to the runtime directory when it is dropped, as it was when its process
/// died: what a dead process's code goes on to store while it is unwound goes into a copy.
pub(super) struct SimMemory {
    disk: SimDisk,
    name: String,
    number: u64,
    bytes: Vec<u8>,
    ghost: Option<Vec<u8>>,
}

impl SimMemory {
    pub(super) fn new(disk: SimDisk, name: &str, (number, bytes): (u64, Vec<u8>)) -> SimMemory {
        SimMemory {
            disk,
            name: name.to_owned(),
            number,
            bytes,
            ghost: None,
        }
    }
}

impl BufferMemory for SimMemory {
    fn bytes(&self) -> &[u8] {
        self.ghost.as_ref().unwrap_or(&self.bytes)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        if self.disk.is_crashed() {
            return self.ghost.get_or_insert_with(|| self.bytes.clone());
        }
        &mut self.bytes
    }

    fn into_live(self: Box<Self>) -> Box<dyn LiveMemory> {
        Box::new(LiveSim(Arc::new(Mutex::new(*self))))
    }
}

/// A [`SimMemory`] in use.
#[derive(Clone)]
struct LiveSim(Arc<Mutex<SimMemory>>);

impl LiveMemory for LiveSim {
    fn read(&self, at: usize, into: &mut [u8]) {
        match self.0.lock().bytes().get(at..at + into.len()) {
            Some(bytes) => into.copy_from_slice(bytes),
            None => into.fill(0),
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        if let Some(to) = self.0.lock().bytes_mut().get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }

    fn pages(&self) -> Arc<dyn LivePages> {
        Arc::new(self.clone())
    }
}

impl LivePages for LiveSim {
    fn write_out(
        &self,
        parts: &[Range<usize>],
        file: &dyn DiskFile,
        offset: u64,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for part in parts {
            let part = self.0.lock().bytes().get(part.clone()).map(<[u8]>::to_vec);
            bytes.extend(part.ok_or(io::ErrorKind::InvalidInput)?);
        }
        file.write_at(&bytes, offset)
    }
}

impl std::fmt::Debug for LiveSim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LiveSim")
    }
}

impl Drop for SimMemory {
    fn drop(&mut self) {
        let mut state = self.disk.world.state.lock();
        state
            .memory
            .give_back(&self.name, self.number, std::mem::take(&mut self.bytes));
    }
}
