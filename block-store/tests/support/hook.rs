//! A disk that lets a test act in the middle of what the store does: what other threads could do there.

use block_store::io::sim::SimDisk;
use block_store::io::{Disk, DiskFile, ReadQueue, Space};
use parking_lot::Mutex;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

/// What the store is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Create,
    Read,
    Write,
    Sync,
    Remove,
}

type Hook = Box<dyn FnOnce() + Send>;
type Watch = Arc<dyn Fn(Event, &str) + Send + Sync>;

/// Actions that wait for their moment; each happens once.
#[derive(Clone, Default)]
pub struct Hooks {
    waiting: Arc<Mutex<Vec<(Event, String, Hook)>>>,
    /// Files that can still be created; none: as many as the disk has space for.
    creations: Arc<Mutex<Option<u64>>>,
    watch: Arc<Mutex<Option<Watch>>>,
}

impl Hooks {
    /// Runs `hook` right before the next `event` on a file whose name begins with `name`.
    pub fn before(&self, event: Event, name: &str, hook: impl FnOnce() + Send + 'static) {
        self.waiting
            .lock()
            .push((event, name.into(), Box::new(hook)));
    }

    /// Calls `watch` before every event from now on.
    pub fn watch(&self, watch: impl Fn(Event, &str) + Send + Sync + 'static) {
        *self.watch.lock() = Some(Arc::new(watch));
    }

    /// Whether all have happened.
    pub fn all_ran(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// The disk is full after so many more files, until this is lifted.
    pub fn full_after(&self, creations: Option<u64>) {
        *self.creations.lock() = creations;
    }

    /// Whether it has become so.
    pub fn is_full(&self) -> bool {
        *self.creations.lock() == Some(0)
    }

    fn take_space(&self) -> io::Result<()> {
        match &mut *self.creations.lock() {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub fn around(&self, disk: SimDisk) -> Arc<dyn Disk> {
        Arc::new(HookedDisk {
            disk,
            hooks: self.clone(),
        })
    }

    fn happens(&self, event: Event, name: &str) {
        let watch = self.watch.lock().clone();
        if let Some(watch) = watch {
            watch(event, name);
        }
        let mut waiting = self.waiting.lock();
        let Some(n) = waiting
            .iter()
            .position(|(e, prefix, _)| *e == event && name.starts_with(prefix))
        else {
            return;
        };
        let (_, _, hook) = waiting.remove(n);
        drop(waiting);
        hook();
    }
}

struct HookedDisk {
    disk: SimDisk,
    hooks: Hooks,
}

#[derive(Debug)]
struct HookedFile {
    name: String,
    file: Arc<dyn DiskFile>,
    hooks: Hooks,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} hooks", self.waiting.lock().len())
    }
}

impl HookedDisk {
    fn file(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let (name, hooks) = (name.to_owned(), self.hooks.clone());
        Arc::new(HookedFile { name, file, hooks })
    }
}

impl Disk for HookedDisk {
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.hooks.happens(Event::Create, name);
        self.hooks.take_space()?;
        Ok(self.file(name, self.disk.create(name, len)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.hooks.happens(Event::Remove, name);
        self.disk.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.hooks.happens(Event::Sync, "");
        self.disk.sync_dir()
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }

    fn read_queue(&self, depth: u32) -> io::Result<Box<dyn ReadQueue>> {
        self.disk.read_queue(depth)
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.hooks.happens(Event::Read, &self.name);
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.hooks.happens(Event::Write, &self.name);
        self.file.write_at(buf, offset)
    }

    fn write_parts(&self, parts: &[io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.hooks.happens(Event::Write, &self.name);
        self.file.write_parts(parts, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.hooks.happens(Event::Sync, &self.name);
        self.file.sync()
    }

    fn read_unit(&self) -> usize {
        self.file.read_unit()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn give_back(&self, from: u64) -> io::Result<()> {
        self.file.give_back(from)
    }

    fn shrink(&self, len: u64) -> io::Result<()> {
        self.file.shrink(len)
    }

    fn raw_fd(&self) -> Option<RawFd> {
        self.file.raw_fd()
    }
}
