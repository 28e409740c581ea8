//! The log's streams, and which of them a flush is about.
//!
//! A flush promises one vDisk's writes. Each vDisk knows up to which LSN it has written to each stream, the log up to which
//! each stream is synced: a flush that finds nothing of its own in a stream need not wait until what a neighbour
//! streams there is on the disk.

use crate::format::Temperature;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Data of unlike lifetime goes to segments of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Small writes, ranges, commit records.
    Fresh = 0,
    /// Large sequential writes.
    Streaming = 1,
    /// Relocated data.
    Cold = 2,
}

/// All streams.
pub const STREAMS: [Stream; 3] = [Stream::Fresh, Stream::Streaming, Stream::Cold];

impl From<Stream> for Temperature {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Fresh => Self::Fresh,
            Stream::Streaming => Self::Streaming,
            Stream::Cold => Self::Cold,
        }
    }
}

/// A set of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams(u8);

impl Streams {
    /// All of them.
    pub const ALL: Self = Self(0b111);
    /// What every commit covers: the record of the one before goes there.
    pub const FRESH: Self = Self(1 << Stream::Fresh as u8);

    /// This set and a stream.
    pub fn with(self, stream: Stream) -> Self {
        Self(self.0 | 1 << stream as u8)
    }

    /// Both sets.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a stream is in it.
    pub fn has(self, stream: Stream) -> bool {
        self.0 & 1 << stream as u8 != 0
    }

    /// Whether all of `other` is in it.
    pub fn cover(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is in it.
    pub fn are_none(self) -> bool {
        self.0 == 0
    }
}

/// Per stream: the last LSN that a vDisk has written there.
#[derive(Debug, Default)]
pub struct Marks([AtomicU64; STREAMS.len()]);

impl Marks {
    /// It has written with this LSN.
    pub fn note(&self, stream: Stream, lsn: u64) {
        if let Some(mark) = self.0.get(stream as usize) {
            // The guest orders what it wants ordered: a flush comes after it has seen the write completed.
            mark.fetch_max(lsn, Relaxed);
        }
    }

    /// The streams in which it has written something behind `synced`.
    pub fn beyond(&self, synced: &[u64; STREAMS.len()]) -> Streams {
        STREAMS
            .into_iter()
            .zip(self.0.iter().zip(synced))
            .filter(|(_, (mark, synced))| mark.load(Relaxed) > **synced)
            .fold(Streams::default(), |set, (stream, _)| set.with(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_about_what_its_vdisk_has_written_and_nobody_has_synced() {
        let marks = Marks::default();
        assert!(marks.beyond(&[0; 3]).are_none());
        marks.note(Stream::Fresh, 5);
        marks.note(Stream::Streaming, 7);
        marks.note(Stream::Streaming, 6);
        assert_eq!(
            marks.beyond(&[0; 3]),
            Streams::FRESH.with(Stream::Streaming)
        );
        assert_eq!(marks.beyond(&[0, 7, 0]), Streams::FRESH);
        assert!(marks.beyond(&[4, 6, 9]).cover(Streams::FRESH));
        assert!(marks.beyond(&[5, 7, 0]).are_none());
        assert!(Streams::ALL.cover(Streams::FRESH.with(Stream::Cold)));
        assert!(!Streams::FRESH.cover(Streams::ALL));
    }
}
