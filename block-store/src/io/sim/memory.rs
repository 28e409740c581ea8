//! Simulated buffer memory.

use super::super::BufferMemory;
use super::SimDisk;
use std::collections::BTreeMap;
use std::io;

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
}

impl Drop for SimMemory {
    fn drop(&mut self) {
        let mut state = self.disk.world.state.lock();
        state
            .memory
            .give_back(&self.name, self.number, std::mem::take(&mut self.bytes));
    }
}
