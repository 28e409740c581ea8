//! When entries have last moved from one layer's map to another's: a search that was interrupted may have missed them.

/// Leaves that are told apart.
const PLACES: usize = 1024;

/// The last moves, by the number of the leaf, over all layers: two of the same number may share a place.
#[derive(Debug)]
pub(super) struct Moved {
    now: u64,
    everywhere: u64,
    leaves: Box<[u64; PLACES]>,
}

impl Default for Moved {
    fn default() -> Self {
        Self {
            now: 1,
            everywhere: 0,
            leaves: Box::new([0; PLACES]),
        }
    }
}

impl Moved {
    /// A moment that later moves come after.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Entries of a leaf have moved.
    pub fn note(&mut self, leaf: u64) {
        self.now += 1;
        if let Some(place) = self.leaves.get_mut(leaf as usize % PLACES) {
            *place = self.now;
        }
    }

    /// Whole subtrees have moved.
    pub fn note_everywhere(&mut self) {
        self.now += 1;
        self.everywhere = self.now;
    }

    /// Whether entries of a leaf may have moved since that moment.
    pub fn since(&self, moment: u64, leaf: u64) -> bool {
        let last = self.leaves.get(leaf as usize % PLACES);
        self.everywhere > moment || last.is_none_or(|last| *last > moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_seen_where_they_were() {
        let mut moved = Moved::default();
        let before = moved.now();
        moved.note(7);
        assert!(moved.since(before, 7) && !moved.since(before, 8));
        let between = moved.now();
        assert!(!moved.since(between, 7));
        moved.note_everywhere();
        assert!(moved.since(between, 8) && !moved.since(moved.now(), 7));
    }
}
