//! One simulated file: what is durable, and what would be lost with the power.

use super::super::PAGE;
use super::rng::Rng;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

/// What a disk writes or leaves unwritten as a whole.
const SECTOR: usize = 512;

type Page = Box<[u8; PAGE]>;

/// A write of one page that no sync has covered.
#[derive(Debug, Clone)]
struct Unsynced {
    page: Page,
    /// A sync failed after it: no later one makes it durable.
    doomed: bool,
}

/// Content by page number; pages that are nowhere read as zero.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    durable: BTreeMap<u64, Page>,
    /// Per page, oldest write first; the last is what is read.
    unsynced: BTreeMap<u64, Vec<Unsynced>>,
    durable_len: u64,
    len: u64,
    /// Space is taken up to here; what is behind was given back and reads as zero.
    durable_end: u64,
    end: u64,
    /// Open handles.
    pub(super) handles: usize,
}

impl Inode {
    /// A new file, with one handle on it.
    pub(super) fn new(len: u64) -> Inode {
        Inode {
            len,
            durable_end: len,
            end: len,
            handles: 1,
            ..Inode::default()
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Where its space ends.
    pub(super) fn end(&self) -> u64 {
        self.end.min(self.len)
    }

    /// Reads one page.
    pub(super) fn read(&self, number: u64, into: &mut [u8]) {
        let page = match self.unsynced.get(&number).and_then(|writes| writes.last()) {
            Some(write) => Some(&write.page),
            None if number * PAGE as u64 >= self.end => None,
            None => self.durable.get(&number),
        };
        match page {
            Some(page) => into.copy_from_slice(page.as_slice()),
            None => into.fill(0),
        }
    }

    /// Writes one page; `from` is [`PAGE`] bytes.
    pub(super) fn write(&mut self, number: u64, from: &[u8]) {
        let mut page = Box::new([0; PAGE]);
        page.copy_from_slice(from);
        self.unsynced.entry(number).or_default().push(Unsynced {
            page,
            doomed: false,
        });
    }

    /// Makes writes and the length durable, except what an earlier failure has doomed.
    pub(super) fn sync(&mut self) {
        self.durable_len = self.len;
        self.durable_end = self.end;
        drop(self.durable.split_off(&(self.end / PAGE as u64)));
        let durable = &mut self.durable;
        self.unsynced.retain(|number, writes| match writes.pop() {
            Some(write) if write.doomed => {
                writes.push(write);
                true
            }
            Some(write) => {
                durable.insert(*number, write.page);
                false
            }
            None => false,
        });
    }

    /// A sync has failed: what it should have made durable never will be.
    pub(super) fn fail_sync(&mut self) {
        self.unsynced
            .values_mut()
            .flatten()
            .for_each(|write| write.doomed = true);
    }

    /// Gives space back. What is behind stays on the medium until that is durable.
    pub(super) fn give_back(&mut self, from: u64) {
        self.end = self.end.min(from);
        drop(self.unsynced.split_off(&(self.end / PAGE as u64)));
        // Writes behind must not shine through should this be undone: they were dropped above. Durable pages behind it
        // can't be reached while it stands.
    }

    /// Cuts it short, at once and for good.
    pub(super) fn shrink(&mut self, len: u64) {
        self.give_back(len);
        (self.len, self.durable_len) = (len, len);
        self.durable_end = self.durable_end.min(len);
        drop(self.durable.split_off(&(len / PAGE as u64)));
    }

    /// Loses the power: decides for every write, page by page, what became of it.
    pub(super) fn power_loss(&mut self, rng: &mut Rng) {
        for (number, writes) in std::mem::take(&mut self.unsynced) {
            for write in writes {
                if write.doomed {
                    continue;
                }
                match rng.below(4) {
                    0 => {}
                    1 => tear(self.durable.entry(number), &write.page, rng),
                    _ => drop(self.durable.insert(number, write.page)),
                }
            }
        }
        // A length that was never synced is the old one or the new one.
        if rng.coin() {
            self.len = self.durable_len;
        }
        self.durable_len = self.len;
        // So is space that was given back.
        if self.end != self.durable_end && rng.coin() {
            self.end = self.durable_end;
        }
        self.durable_end = self.end;
        drop(self.durable.split_off(&(self.end() / PAGE as u64)));
        self.handles = 0;
    }

    /// Changes bytes behind everyone's back, on the medium and in all that is on its way to it.
    pub(super) fn damage(&mut self, bytes: Range<u64>, mut change: impl FnMut(u64, &mut u8)) {
        let page_len = PAGE as u64;
        let bytes = bytes.start..bytes.end.min(self.len.max(self.durable_len));
        for number in bytes.start / page_len..bytes.end.div_ceil(page_len) {
            let base = number * page_len;
            let start = usize::try_from(bytes.start.saturating_sub(base)).unwrap_or(0);
            let end = usize::try_from((bytes.end - base).min(page_len)).unwrap_or(PAGE);
            let durable = self
                .durable
                .entry(number)
                .or_insert_with(|| Box::new([0; PAGE]));
            let unsynced = self
                .unsynced
                .get_mut(&number)
                .into_iter()
                .flatten()
                .map(|write| &mut write.page);
            for page in unsynced.chain([durable]) {
                for (index, byte) in page.iter_mut().enumerate().take(end).skip(start) {
                    change(base + index as u64, byte);
                }
            }
        }
    }

    /// Cuts the file on the medium, as no system call does.
    pub(super) fn damage_len(&mut self, len: u64) {
        self.len = len.min(self.len);
        self.durable_len = self.len;
        drop(self.unsynced.split_off(&(self.len / PAGE as u64)));
        drop(self.durable.split_off(&(self.len / PAGE as u64)));
    }
}

/// Writes some sectors of a page and not the others.
fn tear(durable: Entry<'_, u64, Page>, page: &Page, rng: &mut Rng) {
    let durable = durable.or_insert_with(|| Box::new([0; PAGE]));
    let sectors = rng.bits();
    let pairs = durable.chunks_mut(SECTOR).zip(page.chunks(SECTOR));
    for (index, (old, new)) in pairs.enumerate() {
        if sectors >> index & 1 == 1 {
            old.copy_from_slice(new);
        }
    }
}
