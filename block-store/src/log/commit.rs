//! Group commit: everything appended so far becomes durable at once.

use super::{Cause, Log, Marks, STREAMS, Stream, Streams};
use crate::format::{CommitRecord, Prefix, RecordFlags, RecordHeader, RecordKind};
use crate::io::DiskFile;
use std::sync::Arc;

/// What one commit covers. All LSNs up to `lsn` of its streams are durable once every file has been drained up to its end
/// and synced.
#[derive(Debug)]
pub struct Cut {
    /// The last LSN covered.
    pub lsn: u64,
    /// The streams covered.
    pub streams: Streams,
    /// The files to sync, with the end of what each must hold.
    pub files: Vec<(Arc<dyn DiskFile>, Prefix)>,
}

impl Cut {
    /// Where the cut ends in a segment, if it covers any of it.
    pub fn end_of(&self, segment: u32) -> Option<u32> {
        self.files
            .iter()
            .map(|(_, p)| p)
            .find(|p| p.segment == segment)
            .map(|p| p.end)
    }
}

impl Log {
    /// Whether there is anything that a commit of these streams would make durable.
    fn has_unsynced(&self, streams: Streams) -> bool {
        let mut covered = self.segments.iter().filter(|s| streams.has(s.stream));
        covered.any(|s| s.append > s.synced)
    }

    /// The streams that hold something of a vDisk's that is not durable.
    pub fn unsynced_of(&self, vdisk: &Marks) -> Streams {
        vdisk.beyond(&self.synced)
    }

    /// The record of the commit before, if it has not been recorded yet.
    fn commit_record(&self) -> Option<(RecordHeader, Vec<u8>)> {
        if self.unrecorded.is_empty() {
            return None;
        }
        let payload = CommitRecord {
            prefixes: self.unrecorded.clone(),
        }
        .encode();
        let header = RecordHeader {
            kind: RecordKind::Commit,
            flags: RecordFlags::default(),
            codec: 0,
            layer: 0,
            first: 0,
            count: 0,
            lsn: 0,
            payload_len: payload.len() as u32,
            raw_len: payload.len() as u32,
            payload_crc: crc32c::crc32c(&payload),
            link: 0,
        };
        Some((header, payload))
    }

    /// Begins a commit of these streams, and of that of small writes: records the prefixes of the one before, and pads the
    /// open segments to a page.
    ///
    /// The record rides along where there is room for it; without room the prefixes wait for the next commit, which
    /// only makes recovery take a little more of the log on the word of its own checksums.
    pub fn cut(&mut self, streams: Streams) -> Cut {
        let streams = streams.and(Streams::FRESH);
        if self.has_unsynced(streams)
            && let Some((header, payload)) = self.commit_record()
            && self
                .append(Stream::Fresh, Cause::Log, &header, &payload)
                .is_ok()
        {
            self.unrecorded.clear();
        }
        let lsn = self.last_lsn();
        for stream in STREAMS.into_iter().filter(|s| streams.has(*s)) {
            let open = self.open_in(stream);
            if let Some(segment) = self.segments.iter_mut().find(|s| Some(s.id) == open) {
                let skipped = segment.pad(&mut self.pool, lsn);
                self.appended += skipped;
                self.written.add(Cause::Padding, skipped);
            }
        }
        let files = self
            .segments
            .iter()
            .filter(|s| streams.has(s.stream) && s.append > s.synced)
            .map(|s| {
                let end = Prefix {
                    segment: s.id,
                    generation: s.generation,
                    end: s.append,
                };
                (Arc::clone(&s.file), end)
            });
        Cut {
            lsn,
            streams,
            files: files.collect(),
        }
    }

    /// Whether everything that the cut covers is in its files.
    pub fn is_drained(&self, cut: &Cut) -> bool {
        cut.files
            .iter()
            .all(|(_, p)| self.segment(p.segment).is_none_or(|s| s.drained >= p.end))
    }

    /// The cut's files are synced.
    pub fn committed(&mut self, cut: &Cut) {
        for (stream, synced) in STREAMS.into_iter().zip(&mut self.synced) {
            if cut.streams.has(stream) {
                *synced = (*synced).max(cut.lsn);
            }
        }
        for (_, prefix) in &cut.files {
            if let Some(segment) = self.segments.iter_mut().find(|s| s.id == prefix.segment) {
                segment.synced = segment.synced.max(prefix.end);
                segment.commits += 1;
            }
            self.unrecorded.retain(|p| p.segment != prefix.segment);
            self.unrecorded.push(*prefix);
        }
        self.forget_finished();
    }
}
