//! Blocking access to vDisks: for imports, exports and tools.

use super::lane::{Command, Done, Lane};
use super::vdisk::VDisk;
use crate::error::RequestError;
use crate::io::wait_readable;
use std::sync::Arc;

/// One request at a time, waited for.
pub struct BlockClient {
    lane: Lane<Vec<u8>>,
    done: Vec<Done<Vec<u8>>>,
}

impl BlockClient {
    pub(crate) fn new(lane: Lane<Vec<u8>>) -> Self {
        Self {
            lane,
            done: Vec::new(),
        }
    }

    /// Fills `buf` from `offset`.
    pub fn read(
        &mut self,
        vdisk: &Arc<VDisk>,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), RequestError> {
        let into = vec![0; buf.len()];
        if let Some(bytes) = self.run(vdisk, Command::Read { offset, into })? {
            buf.copy_from_slice(bytes.get(..buf.len()).ok_or(RequestError::Payload)?);
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write(
        &mut self,
        vdisk: &Arc<VDisk>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), RequestError> {
        self.run(
            vdisk,
            Command::Write {
                offset,
                from: bytes.to_vec(),
            },
        )
        .map(drop)
    }

    /// Forgets a range.
    pub fn discard(
        &mut self,
        vdisk: &Arc<VDisk>,
        offset: u64,
        len: u64,
    ) -> Result<(), RequestError> {
        self.run(vdisk, Command::Discard { offset, len }).map(drop)
    }

    /// Makes a range zero.
    pub fn write_zeroes(
        &mut self,
        vdisk: &Arc<VDisk>,
        offset: u64,
        len: u64,
    ) -> Result<(), RequestError> {
        self.run(
            vdisk,
            Command::WriteZeroes {
                offset,
                len,
                unmap: true,
            },
        )
        .map(drop)
    }

    /// Makes everything written before durable.
    pub fn flush(&mut self, vdisk: &Arc<VDisk>) -> Result<(), RequestError> {
        self.run(vdisk, Command::Flush).map(drop)
    }

    fn run(
        &mut self,
        vdisk: &Arc<VDisk>,
        command: Command<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, RequestError> {
        self.lane.submit(vdisk, command, 0);
        loop {
            self.lane.poll(&mut self.done);
            if let Some(done) = self.done.pop() {
                return done.result.map(|()| done.payload);
            }
            // Reads that no descriptor tells of come by asking: a simulated disk has none.
            if !self.lane.must_be_asked() {
                wait_readable(&self.lane.pollable());
            }
        }
    }
}
