//! Scanning a segment's records by their own headers.

use crate::format::{
    CommitRecord, CutRecord, MAX_SEGMENT, RECORD_HEADER, RecordHeader, RecordKind, Seed,
};
use crate::io::{AlignedBuf, DiskFile, PAGE};
use std::collections::BTreeMap;
use std::io;

/// Bytes read at a time; longer than any record with the page it begins in.
const WINDOW: usize = 4 << 20;

/// Bytes without a record after which nothing more is looked for: more than one write of draining can have lost.
const SILENCE: u32 = 2 << 20;

/// A record as it was found.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// Its header.
    pub header: RecordHeader,
    /// Its offset in the segment.
    pub offset: u32,
    /// Whether its payload is what was written.
    pub intact: bool,
}

/// What a segment holds from some offset on.
#[derive(Debug)]
pub struct Scan {
    /// Segment number.
    pub segment: u32,
    /// Its generation.
    pub generation: u64,
    /// Where the scan began.
    pub from: u32,
    /// Extents, ranges, commits and cuts.
    pub records: Vec<Scanned>,
    /// Commit records; also such as stand behind the end.
    pub commits: Vec<CommitRecord>,
    /// Cut records by LSN.
    pub cuts: BTreeMap<u64, CutRecord>,
    /// Where it ends: zeroes, a header that does not verify, or the end of the file.
    pub end: u32,
    /// Why it ends there.
    pub why: String,
}

/// Scans a segment from `from` to its end.
pub fn scan(file: &dyn DiskFile, segment: u32, generation: u64, from: u32) -> io::Result<Scan> {
    let mut records = Records::of(file, segment, generation, from)?;
    let found = records.by_ref().collect::<io::Result<Vec<_>>>()?;
    Ok(Scan {
        records: found,
        ..records.scan
    })
}

/// The records of a segment one by one: there may be a million of them. Ends after an error.
#[derive(Debug)]
pub struct Records<'a> {
    /// Of what has been passed, but for the records.
    scan: Scan,
    window: Window<'a>,
    ended: bool,
}

impl<'a> Records<'a> {
    /// From `from` on.
    pub fn of(
        file: &'a dyn DiskFile,
        segment: u32,
        generation: u64,
        from: u32,
    ) -> io::Result<Self> {
        let window = Window::new(file)?;
        let scan = Scan {
            segment,
            generation,
            from,
            records: Vec::new(),
            commits: Vec::new(),
            cuts: BTreeMap::new(),
            end: from.min(window.len),
            why: String::new(),
        };
        Ok(Self {
            scan,
            window,
            ended: false,
        })
    }
}

impl Iterator for Records<'_> {
    type Item = io::Result<Scanned>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.scan.record_at(&mut self.window, self.scan.end) {
                Ok(Ok((record, end))) => {
                    self.scan.end = end;
                    if record.is_some() {
                        return record.map(Ok);
                    }
                }
                Ok(Err(why)) => {
                    self.scan.why = why;
                    self.ended = true;
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Scan {
    /// The record at `at` (none: padding) and its end; or why there is none. What a commit record promises is kept.
    fn record_at(
        &mut self,
        window: &mut Window<'_>,
        at: u32,
    ) -> io::Result<Result<(Option<Scanned>, u32), String>> {
        let seed = Seed {
            segment: self.segment,
            generation: self.generation,
            offset: at,
        };
        let head = window.get(at, RECORD_HEADER)?;
        if head.len() < RECORD_HEADER {
            return Ok(Err("the file ends here".into()));
        }
        if head.iter().all(|b| *b == 0) {
            return Ok(Err("there are only zeroes".into()));
        }
        let header = match RecordHeader::decode(head, seed) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if header.kind == RecordKind::Pad {
            return Ok(Ok((None, (at + 1).next_multiple_of(PAGE as u32))));
        }
        let len = header.stored_len();
        let stored = window.get(at, len)?;
        let Some(payload) = stored.get(RECORD_HEADER..RECORD_HEADER + header.payload_len as usize)
        else {
            return Ok(Err("the file ends within a record".into()));
        };
        let mut intact = header.payload_is_intact(payload);
        match header.kind {
            RecordKind::Commit if intact => self.commits.extend(CommitRecord::decode(payload)),
            RecordKind::Cut if intact => match CutRecord::decode(payload) {
                Ok(cut) => drop(self.cuts.insert(header.lsn, cut)),
                Err(_) => intact = false,
            },
            _ => {}
        }
        let record = Scanned {
            header,
            offset: at,
            intact,
        };
        Ok(Ok((Some(record), at + len as u32)))
    }

    /// Looks for commit records behind the end: what they promise must be there, so the end may be damage. Every
    /// group of records begins with a page; past [`SILENCE`] without one there are none.
    pub fn look_beyond(&mut self, file: &dyn DiskFile) -> io::Result<()> {
        let mut window = Window::new(file)?;
        let mut page = self.end.next_multiple_of(PAGE as u32);
        let mut heard = page;
        while page < window.len && page - heard < SILENCE {
            let mut at = page;
            while let Ok((_, end)) = self.record_at(&mut window, at)? {
                (at, heard) = (end, end);
            }
            page = at.max(page + 1).next_multiple_of(PAGE as u32);
        }
        Ok(())
    }

    /// Above what commits have promised, a payload that does not verify is where the log ends. Below, the record
    /// stays: its blocks read as I/O errors and not as something older.
    pub fn keep_intact_beyond(&mut self, promised: u32) {
        if let Some(n) = self
            .records
            .iter()
            .position(|r| !r.intact && r.offset >= promised)
        {
            if let Some(torn) = self.records.get(n) {
                self.end = torn.offset;
            }
            self.records.truncate(n);
        }
    }
}

/// A window of the file that moves forward: few large reads, 4 MiB of memory.
#[derive(Debug)]
pub struct Window<'a> {
    file: &'a dyn DiskFile,
    len: u32,
    at: u32,
    pages: AlignedBuf,
}

impl<'a> Window<'a> {
    /// Over the whole pages of `file`.
    pub fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        let len = file.len()?.min(u64::from(MAX_SEGMENT)) as u32;
        let len = len / PAGE as u32 * PAGE as u32;
        Ok(Self {
            file,
            len,
            at: 0,
            pages: AlignedBuf::zeroed(0)?,
        })
    }

    /// Up to `len` bytes from `offset`; fewer at the end of the file.
    pub fn get(&mut self, offset: u32, len: usize) -> io::Result<&[u8]> {
        let end = (offset as usize + len).min(self.len as usize);
        if offset < self.at || end > self.at as usize + self.pages.len() {
            self.at = (offset / PAGE as u32 * PAGE as u32).min(self.len);
            let size = WINDOW.min((self.len - self.at) as usize);
            if self.pages.capacity() < size {
                self.pages = AlignedBuf::zeroed(size)?;
            }
            self.pages.set_len(size)?;
            if size > 0
                && let Err(error) = self.file.read_at(&mut self.pages, u64::from(self.at))
            {
                // What was not read must not be taken for what is there.
                self.pages.set_len(0)?;
                return Err(error);
            }
        }
        let from = offset as usize - self.at as usize;
        let to = end.saturating_sub(self.at as usize);
        Ok(self.pages.get(from..to).unwrap_or_default())
    }
}
