//! Requests that wait for memory.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::store::vdisk::VDisk;

/// Each vDisk's in order, and the vDisks by turns: whoever asks for much waits behind himself, not before the others.
#[derive(Default)]
pub(super) struct Turns {
    /// Only vDisks that have something waiting; the first one's turn is next.
    vdisks: VecDeque<(Arc<VDisk>, VecDeque<usize>)>,
}

impl Turns {
    pub fn is_empty(&self) -> bool {
        self.vdisks.is_empty()
    }

    pub fn push(&mut self, vdisk: &Arc<VDisk>, index: usize) {
        let line = self.vdisks.iter_mut().find(|(v, _)| Arc::ptr_eq(v, vdisk));
        match line {
            Some((_, line)) => line.push_back(index),
            None => self
                .vdisks
                .push_back((Arc::clone(vdisk), VecDeque::from([index]))),
        }
    }

    /// Whose turn it is.
    pub fn next(&self) -> Option<usize> {
        self.vdisks.front()?.1.front().copied()
    }

    /// Takes out those that `which` says.
    pub fn take(&mut self, which: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut taken = Vec::new();
        for (_, line) in &mut self.vdisks {
            taken.extend(line.iter().copied().filter(|&index| which(index)));
            line.retain(|&index| !which(index));
        }
        self.vdisks.retain(|(_, line)| !line.is_empty());
        taken
    }

    /// Ends this turn.
    pub fn pop(&mut self) {
        if let Some((vdisk, mut line)) = self.vdisks.pop_front() {
            line.pop_front();
            if !line.is_empty() {
                self.vdisks.push_back((vdisk, line));
            }
        }
    }
}
