//! Nodes of the block map: 512 entries each, packed as runs.

use super::FormatError;
use super::entry::Entry;

/// Entries in a node. A leaf covers 2 MiB of a vDisk, the levels above it 1 GiB, 512 GiB and 256 TiB.
pub const NODE_SLOTS: usize = 512;
const WHAT: &str = "map node";

const RUN: usize = 12;
/// In place of the number of runs: all entries follow as they are.
const DENSE: u16 = u16::MAX;

/// Packs a node as runs: `(start u16, count u16, entry u64)`, or entry by entry where that is shorter. Blocks of one
/// extent, or that read the same, make one run: the n-th slot of a run of stored blocks is the first one's with an
/// index n higher.
pub fn pack_node(slots: &[u64; NODE_SLOTS], out: &mut Vec<u8>) {
    pack_runs(slots, out);
    if out.len() > 2 + NODE_SLOTS * 8 {
        out.clear();
        out.extend_from_slice(&DENSE.to_le_bytes());
        out.extend(slots.iter().flat_map(|s| s.to_le_bytes()));
    }
}

fn pack_runs(slots: &[u64; NODE_SLOTS], out: &mut Vec<u8>) {
    out.clear();
    let mut runs: u16 = 0;
    out.extend_from_slice(&runs.to_le_bytes());
    let mut at = 0;
    while let Some(&first) = slots.get(at) {
        let step = step_of(first);
        let mut count: usize = 1;
        while slots
            .get(at + count)
            .is_some_and(|s| Some(*s) == first.checked_add(step * count as u64))
        {
            count += 1;
        }
        if first != 0 {
            out.extend_from_slice(&(at as u16).to_le_bytes());
            out.extend_from_slice(&(count as u16).to_le_bytes());
            out.extend_from_slice(&first.to_le_bytes());
            runs += 1;
        }
        at += count;
    }
    if let Some(head) = out.get_mut(..2) {
        head.copy_from_slice(&runs.to_le_bytes());
    }
}

/// What one block further adds to an entry's bits: 1 in the index of a stored block.
fn step_of(bits: u64) -> u64 {
    match Entry::unpack(bits) {
        Ok(Entry::Stored { .. }) => 1 << 56,
        _ => 0,
    }
}

/// Unpacks what [`pack_node`] wrote; runs must be in order and within the node.
pub fn unpack_node(bytes: &[u8]) -> Result<Box<[u64; NODE_SLOTS]>, FormatError> {
    let bad = |why: &str| FormatError::new(WHAT, why);
    let (count, mut rest) = bytes.split_first_chunk::<2>().ok_or_else(|| bad("empty"))?;
    let count = u16::from_le_bytes(*count);
    let mut slots = Box::new([0; NODE_SLOTS]);
    if count == DENSE {
        if rest.len() != NODE_SLOTS * 8 {
            return Err(bad("a dense node of another size"));
        }
        for (slot, bytes) in slots.iter_mut().zip(rest.as_chunks::<8>().0) {
            *slot = u64::from_le_bytes(*bytes);
            Entry::unpack(*slot)?;
        }
        return Ok(slots);
    }
    let mut next = 0;
    for _ in 0..count {
        let (run, tail) = rest
            .split_first_chunk::<RUN>()
            .ok_or_else(|| bad("ends within a run"))?;
        rest = tail;
        let [s0, s1, c0, c1, entry @ ..] = *run;
        let (start, len) = (
            usize::from(u16::from_le_bytes([s0, s1])),
            usize::from(u16::from_le_bytes([c0, c1])),
        );
        let first = u64::from_le_bytes(entry);
        Entry::unpack(first)?;
        if start < next || len == 0 {
            return Err(bad("runs out of order"));
        }
        let run = slots
            .get_mut(start..start + len)
            .ok_or_else(|| bad("a run past the end"))?;
        let step = step_of(first);
        for (n, slot) in run.iter_mut().enumerate() {
            *slot = first
                .checked_add(step * n as u64)
                .ok_or_else(|| bad("an index past the extent"))?;
            Entry::unpack(*slot)?;
        }
        next = start + len;
    }
    if rest.is_empty() {
        Ok(slots)
    } else {
        Err(bad("bytes behind the last run"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Location;
    use super::*;
    use proptest::prelude::*;

    fn stored(segment: u32, offset: u32, index: u8) -> u64 {
        Entry::Stored {
            at: Location {
                segment,
                offset: offset * 64,
                len: 2112,
            },
            index,
        }
        .pack()
    }

    #[test]
    fn an_extent_is_one_run() {
        let mut slots = [0; NODE_SLOTS];
        for (n, slot) in slots[100..116].iter_mut().enumerate() {
            *slot = stored(5, 64, n as u8);
        }
        slots[200..512].fill(Entry::Zero.pack());
        let mut bytes = Vec::new();
        pack_node(&slots, &mut bytes);
        assert_eq!(bytes.len(), 2 + 2 * 12);
        assert_eq!(*unpack_node(&bytes).unwrap(), slots);
    }

    proptest! {
        #[test]
        fn round_trip(picks in proptest::collection::vec((0u8..4, 0u32..6, 0u8..32), NODE_SLOTS)) {
            let mut slots = [0; NODE_SLOTS];
            for (slot, (kind, place, index)) in slots.iter_mut().zip(picks) {
                *slot = match kind { 0 => 0, 1 => Entry::Zero.pack(), _ => stored(place, place, index) };
            }
            let mut bytes = Vec::new();
            pack_node(&slots, &mut bytes);
            prop_assert_eq!(*unpack_node(&bytes).unwrap(), slots);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack_node(&bytes);
        }
    }
}
