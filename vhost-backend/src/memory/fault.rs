//! Surviving a peer that shortens a file which we have mapped.
//!
//! Touching a page behind the end of a file raises SIGBUS, whose default is the end of the process, and with it of
//! every other guest. A memfd can be sealed against that (see [`super::Mapping`]), a plain file or hugetlbfs can't. So the
//! signal is caught: if the address lies in a mapping of ours, the whole mapping is replaced by private zeroes, in
//! place. The peer that did it talks to nobody from then on: its rings read as zeroes, and its queues come to rest.
//! Any other SIGBUS ends the process as before.
//!
//! # What the handler may do
//!
//! It runs in the middle of a copy. It takes no lock and allocates nothing: it walks a list of atomics that only ever
//! grows, calls mmap(2), and writes one line to stderr.

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use vm_memory::{MmapRegion, VolatileMemory};

/// Ranges per block of the list.
const BLOCK: usize = 256;

struct Range {
    /// 0 while the place is free.
    start: AtomicUsize,
    len: AtomicUsize,
}

struct Block {
    ranges: [Range; BLOCK],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Self {
        let free = [const {
            Range {
                start: AtomicUsize::new(0),
                len: AtomicUsize::new(0),
            }
        }; BLOCK];
        Self {
            ranges: free,
            next: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// The block behind this one, if there is one.
    fn next(&self) -> Option<&'static Block> {
        let next = self.next.load(Ordering::Acquire);
        // SAFETY: `next` is null or came from `Box::leak` in `Guard::new`, so it points to a block that lives for ever and
        // is only ever used by shared reference.
        unsafe { next.as_ref() }
    }
}

static FIRST: Block = Block::new();
/// Taken by those who claim and free places, never by the handler.
static CLAIMING: Mutex<()> = Mutex::new(());

fn blocks() -> impl Iterator<Item = &'static Block> {
    std::iter::successors(Some(&FIRST), |block| block.next())
}

/// Keeps a mapping on the list. Must be dropped before the mapping is.
#[derive(Debug)]
pub struct Guard {
    range: &'static AtomicUsize,
}

impl Guard {
    /// Puts a mapping on the list, and the handler in place.
    pub fn new(map: &MmapRegion<()>) -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(install);
        let start = map.as_ptr() as usize;
        let len = VolatileMemory::len(map);
        let _claiming = CLAIMING.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut last = &FIRST;
            for block in blocks() {
                last = block;
                let free = block
                    .ranges
                    .iter()
                    .find(|r| r.start.load(Ordering::Relaxed) == 0);
                if let Some(range) = free {
                    range.len.store(len, Ordering::Relaxed);
                    range.start.store(start, Ordering::Release);
                    return Self {
                        range: &range.start,
                    };
                }
            }
            last.next
                .store(Box::leak(Box::new(Block::new())), Ordering::Release);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _claiming = CLAIMING.lock().unwrap_or_else(PoisonError::into_inner);
        self.range.store(0, Ordering::Release);
    }
}

fn install() {
    // SAFETY: all zeroes is a valid sigaction: default action, empty mask, no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_sigbus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `action` is a valid sigaction whose handler has the signature that SA_SIGINFO asks for and does only what
    // may be done in a handler.
    let result = unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        log::warn!(
            "a front end that shortens its memory will end this process: sigaction: {error}"
        );
    }
}

extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: of SIGBUS, si_addr is what is set.
    let address = unsafe { info.si_addr() } as usize;
    if info.si_code == libc::BUS_ADRERR && replace(address) {
        return;
    }
    // Not ours: the fault comes again, and ends the process.
    // SAFETY: setting a signal to its default is always allowed.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

/// Puts zeroes in the place of the mapping that the address lies in.
fn replace(address: usize) -> bool {
    for range in blocks().flat_map(|block| &block.ranges) {
        let start = range.start.load(Ordering::Acquire);
        let len = range.len.load(Ordering::Acquire);
        // A place that is being given to another mapping at this moment isn't that of the address.
        let moved = range.start.load(Ordering::Relaxed) != start;
        if start == 0 || moved || address < start || address - start >= len {
            continue;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the range is exactly one mapping of ours, which stays mapped while it is on the list; it is accessed
        // by volatile and atomic operations only, which zeroes are as good for as any other content.
        let at = unsafe { libc::mmap(start as *mut libc::c_void, len, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return false;
        }
        const WORD: &[u8] =
            b"a front end has shortened memory that it shares with us; it is served zeroes now\n";
        // SAFETY: the buffer is valid for its length. If nobody reads stderr, so be it.
        unsafe { libc::write(libc::STDERR_FILENO, WORD.as_ptr().cast(), WORD.len()) };
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::Ordering::Relaxed;

    use crate::memory::Mapping;

    #[test]
    fn a_file_that_is_shortened_reads_as_zeroes_and_hurts_nobody_else() {
        // No sealing: this one can be shortened.
        let memfd = || {
            let flags = rustix::fs::MemfdFlags::CLOEXEC;
            let file = File::from(rustix::fs::memfd_create("short", flags).unwrap());
            file.set_len(1 << 20).unwrap();
            file
        };
        let (bad, good) = (memfd(), memfd());
        // More than one block of the list.
        let maps: Vec<Mapping> = (0..300)
            .map(|_| Mapping::new(good.try_clone().unwrap(), 0, 1 << 20, "test").unwrap())
            .collect();
        let map = Mapping::new(bad.try_clone().unwrap(), 0, 1 << 20, "test").unwrap();
        map.store(0x8000, 7u32, Relaxed).unwrap();
        maps[299].store(0x8000, 8u32, Relaxed).unwrap();
        bad.set_len(0).unwrap();
        assert_eq!(map.load::<u32>(0x8000, Relaxed), Some(0));
        map.store(0xf000, 1u32, Relaxed).unwrap();
        assert_eq!(maps[0].load::<u32>(0x8000, Relaxed), Some(8));
        drop((map, maps));
        let map = Mapping::new(good, 0, 1 << 20, "test").unwrap();
        assert_eq!(map.load::<u32>(0x8000, Relaxed), Some(8));
    }
}
