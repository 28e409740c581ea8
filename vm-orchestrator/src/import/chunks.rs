//! A thread that reads ahead of what is being sent.

use super::{BLOCK, Source, is_zero};
use crate::failure::Failure;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes read at once.
const CHUNK: u64 = 1 << 20;
/// Chunks that wait to be sent at most.
const AHEAD: usize = 8;
/// Zeroes in between that are cheaper to send than to skip.
const GAP: usize = 64 << 10;

/// Data and its place. The length is a multiple of 512.
pub struct Chunk {
    /// Where in the vDisk.
    pub offset: u64,
    /// The bytes, zeroes included.
    pub data: Vec<u8>,
}

/// The source's data in ascending order, holes left out, read ahead by a thread.
pub struct Chunks {
    receiver: mpsc::Receiver<Result<Chunk, Failure>>,
}

impl Chunks {
    /// Starts to read.
    pub fn read_ahead(source: Arc<Source>) -> Result<Chunks, Failure> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let run = move || {
            // A receiver that has gone has stopped the import: nothing is left to say.
            if let Err(Some(failure)) = read_all(&source, &sender) {
                let _ = sender.blocking_send(Err(failure));
            }
        };
        let thread = std::thread::Builder::new()
            .name("firn-read".into())
            .spawn(run);
        thread.map_err(|error| Failure::failed(format!("can't start a thread: {error}")))?;
        Ok(Chunks { receiver })
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Chunk, Failure>> {
        self.receiver.recv().await
    }
}

fn read_all(
    source: &Source,
    sender: &mpsc::Sender<Result<Chunk, Failure>>,
) -> Result<(), Option<Failure>> {
    let mut at = 0;
    while let Some((from, to)) = source.next_data(at) {
        // Whole blocks and chunks: what is around the data is zero, or data as well.
        let from = (from / BLOCK as u64 * BLOCK as u64).max(at);
        let to = to
            .min((from / CHUNK + 1) * CHUNK)
            .next_multiple_of(BLOCK as u64)
            .min(source.len);
        let mut data = vec![0; (to - from) as usize];
        source.read(&mut data, from).map_err(Some)?;
        data.resize(data.len().next_multiple_of(512), 0);
        sender
            .blocking_send(Ok(Chunk { offset: from, data }))
            .map_err(|_| None)?;
        at = to;
    }
    source.at_end().map_err(Some)
}

/// The parts of `data` that are worth sending: whole blocks, zeroes left out unless they are few.
pub fn data_runs(data: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (number, block) in data.chunks(BLOCK).enumerate() {
        if is_zero(block) {
            continue;
        }
        let (from, to) = (number * BLOCK, number * BLOCK + block.len());
        match runs.last_mut() {
            Some(last) if from - last.end <= GAP => last.end = to,
            _ => runs.push(from..to),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn zeroes_are_skipped_unless_they_are_few() {
        let mut data = vec![0; 1 << 20];
        assert!(data_runs(&data).is_empty());
        data[5000] = 1;
        data[20_000] = 1;
        data[(1 << 20) - 1] = 1;
        assert_eq!(data_runs(&data), [4096..20_480, (1 << 20) - 4096..1 << 20]);
        assert_eq!(data_runs(&[7; 512]).first(), Some(&(0..512)));
    }

    #[tokio::test]
    async fn a_sparse_file_arrives_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let len = (40 << 20) + 1000;
        file.as_file().set_len(len).unwrap();
        let mut expected = vec![0u8; len as usize];
        for (at, count) in [
            (0, 100),
            (5 << 20, 3 << 20),
            ((20 << 20) + 777, 9000),
            (len - 600, 600),
        ] {
            let bytes: Vec<u8> = (0..count).map(|i| (i % 251 + 1) as u8).collect();
            file.as_file().write_all_at(&bytes, at).unwrap();
            expected[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
        }
        let source = Arc::new(Source::open(file.path(), None).unwrap());
        let mut got = vec![0u8; source.size as usize];
        let mut chunks = Chunks::read_ahead(source.clone()).unwrap();
        let mut last = 0;
        let mut read = 0;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.unwrap();
            assert!(
                chunk.offset >= last
                    && chunk.data.len() % 512 == 0
                    && chunk.data.len() as u64 <= CHUNK
            );
            let at = chunk.offset as usize;
            got[at..at + chunk.data.len()].copy_from_slice(&chunk.data);
            last = chunk.offset + chunk.data.len() as u64;
            read += chunk.data.len();
        }
        assert!(
            got[..len as usize] == expected && got[len as usize..].iter().all(|byte| *byte == 0)
        );
        assert!(read < 6 << 20, "holes were read: {read} bytes");
    }
}
