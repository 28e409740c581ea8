//! What the maps say lies where: pure bookkeeping, bounded.

use crate::format::Location;
use std::collections::BTreeMap;

/// What is said to lie somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// An extent of a layer that begins with this block.
    Extent { layer: u32, first: u64 },
    /// A node of a layer's map; `identity` is its level and number.
    Node { layer: u32, identity: u64 },
    /// A piece of the segment table or the catalogue.
    Piece,
}

/// One record that something names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub owner: Owner,
    /// Stored length in bytes.
    pub len: u32,
    /// Of an extent: which of its blocks are named, a bit each.
    pub blocks: u32,
}

/// Records of a range of segments, as far as they fit: about 64 bytes of memory each.
#[derive(Debug)]
pub(super) struct Batch {
    from: u32,
    /// The last segment that is taken in; those behind it are another batch's.
    to: u32,
    capacity: usize,
    claims: BTreeMap<(u32, u32), Claim>,
}

impl Batch {
    /// From this segment on, as many as fit. `capacity`: records.
    pub(super) fn new(from: u32, capacity: usize) -> Self {
        Self {
            from,
            to: u32::MAX,
            capacity: capacity.max(1),
            claims: BTreeMap::new(),
        }
    }

    /// Whether claims on a segment belong here.
    pub(super) fn takes(&self, segment: u32) -> bool {
        (self.from..=self.to).contains(&segment)
    }

    /// Enters a claim. `Err`: who has claimed the very same place before, or the very same block of it.
    pub(super) fn enter(&mut self, at: Location, claim: Claim) -> Result<(), Owner> {
        if !self.takes(at.segment) {
            return Ok(());
        }
        let entry = self
            .claims
            .entry((at.segment, at.offset))
            .or_insert(Claim { blocks: 0, ..claim });
        let disjoint =
            entry.blocks & claim.blocks == 0 && matches!(claim.owner, Owner::Extent { .. });
        let new = entry.blocks == 0;
        if (entry.owner, entry.len) != (claim.owner, claim.len) || !new && !disjoint {
            return Err(entry.owner);
        }
        entry.blocks |= claim.blocks;
        self.make_room();
        Ok(())
    }

    /// Leaves the last segment to the next batch; a single one stays: what lies in one segment is bounded by its size.
    fn make_room(&mut self) {
        while self.claims.len() > self.capacity {
            let Some(((last, _), _)) = self.claims.last_key_value() else {
                return;
            };
            let last = *last;
            if self
                .claims
                .first_key_value()
                .is_some_and(|((first, _), _)| *first == last)
            {
                // Only this one: those behind it have to wait.
                self.to = last;
                return;
            }
            self.claims.split_off(&(last, 0));
            self.to = last.saturating_sub(1);
        }
    }

    /// The claims on each segment, by offset.
    pub(super) fn segments(
        &self,
    ) -> impl Iterator<Item = (u32, impl Iterator<Item = (u32, &Claim)>)> {
        let mut next = self.claims.keys().next().map(|(s, _)| *s);
        std::iter::from_fn(move || {
            let segment = next?;
            let mut behind = self.claims.range((segment + 1, 0)..);
            next = behind.next().map(|((s, _), _)| *s);
            let claims = self.claims.range((segment, 0)..=(segment, u32::MAX));
            Some((segment, claims.map(|((_, offset), claim)| (*offset, claim))))
        })
    }

    /// The segment that the next batch begins with; `None`: this was the last.
    pub(super) fn next(&self) -> Option<u32> {
        self.to.checked_add(1)
    }
}

/// Claims, in order, that reach into the one behind them.
pub(super) fn reaches_into(end: u32, next: u32) -> bool {
    end > next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segment: u32, offset: u32) -> Location {
        Location {
            segment,
            offset,
            len: 128,
        }
    }

    fn extent(first: u64, blocks: u32) -> Claim {
        Claim {
            owner: Owner::Extent { layer: 1, first },
            len: 128,
            blocks,
        }
    }

    #[test]
    fn blocks_of_one_extent_are_one_claim() {
        let mut batch = Batch::new(0, 10);
        assert_eq!(batch.enter(at(1, 4096), extent(8, 1)), Ok(()));
        assert_eq!(batch.enter(at(1, 4096), extent(8, 2)), Ok(()));
        let twice = batch.enter(at(1, 4096), extent(8, 2));
        assert_eq!(twice, Err(Owner::Extent { layer: 1, first: 8 }));
        assert!(batch.enter(at(1, 4096), extent(9, 4)).is_err());
        let all: Vec<_> = batch.segments().map(|(s, c)| (s, c.count())).collect();
        assert_eq!((all, batch.next()), (vec![(1, 1)], None));
    }

    #[test]
    fn what_does_not_fit_is_left_to_later_batches() {
        let mut seen = Vec::new();
        let (mut from, mut rounds) = (0, 0);
        loop {
            let mut batch = Batch::new(from, 5);
            for n in 0..40u32 {
                // In an order that is not the segments'.
                let n = n * 7 % 40;
                batch
                    .enter(at(n / 4, 4096 + n * 128), extent(u64::from(n), 1))
                    .unwrap();
                assert!(batch.claims.len() <= 5 + 3);
            }
            seen.extend(
                batch
                    .segments()
                    .flat_map(|(s, c)| c.map(move |(o, _)| (s, o)).collect::<Vec<_>>()),
            );
            rounds += 1;
            match batch.next() {
                Some(next) => from = next,
                None => break,
            }
        }
        let want: Vec<_> = (0..40u32).map(|n| (n / 4, 4096 + n * 128)).collect();
        assert_eq!(seen, want);
        assert!(rounds > 5);
    }
}
