//! Which segment to compact next, and why: a pure choice.

use super::{Content, Phase, Segments};

/// A segment that could not be emptied so often holds something damaged, and is left alone until the store is opened again.
const TRIES: u8 = 3;

/// What is known of a segment that could be compacted: sealed, and with something alive in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub id: u32,
    /// What is in it.
    pub content: Content,
    /// Blocks, or nodes, that are alive.
    pub live: u32,
    /// Blocks, or nodes, that were ever in it.
    pub total: u32,
    /// Bytes in use.
    pub used: u32,
    /// How many segments have been begun since this one was.
    pub age: u64,
    /// Seconds for which nothing of it has been written or read.
    pub untouched: u64,
    /// All of it was packed for good.
    pub settled: bool,
}

/// What is worth compacting now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appetite {
    /// Data segments with at most this share of live blocks, in per cent.
    pub data: u32,
    /// Metadata segments with at most this share of live nodes, in per cent.
    pub meta: u32,
    /// Space is needed at once: the sparsest ones first, however soon others would be as sparse by themselves.
    pub urgent: bool,
    /// Data that was untouched for so many seconds may be packed harder. `None`: not now.
    pub cold: Option<u64>,
}

/// Why a segment is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// For the space of what is dead in it.
    Sparse,
    /// To be packed harder.
    Cold,
}

impl Segments {
    /// What could be compacted.
    pub fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let sealed = |s: &super::Segment| s.phase == Phase::Sealed && s.live > 0 && s.left < TRIES;
        self.iter()
            .filter(move |(_, s)| sealed(s))
            .map(|(id, s)| Candidate {
                id,
                content: s.content,
                live: s.live,
                total: s.total,
                used: s.used,
                age: self.next_generation.saturating_sub(s.generation),
                untouched: self.now.saturating_sub(s.touched),
                settled: s.settled,
            })
    }
}

/// The best segment to compact, if one is worth it. What is sparse goes before what is cold, maps before data.
///
/// Benefit over cost, (1 - u) · age / (1 + u) for a live share of u: Rosenblum and Ousterhout, "The Design and Implementation of
/// a Log-Structured File System" (1991), section 3.5. Space in an old segment is worth more: what has lived long will,
/// and nothing more of it will free itself.
pub fn choose(
    candidates: impl Iterator<Item = Candidate>,
    appetite: Appetite,
) -> Option<(Candidate, Why)> {
    let (mut sparse, mut cold): (Option<(_, Candidate)>, Option<(_, Candidate)>) = (None, None);
    for c in candidates {
        let share = share(c);
        let most = match c.content {
            Content::Data => appetite.data,
            Content::Meta => appetite.meta,
        };
        if share <= u64::from(most) * 100 {
            let age = if appetite.urgent { 1 } else { c.age.max(1) };
            let worth = u128::from((10_000 - share) * 1_000_000 / (10_000 + share));
            // Maps are rewritten without any space being taken first.
            let rank = (c.content == Content::Meta, worth * u128::from(age));
            if sparse.is_none_or(|(best, _)| best < rank) {
                sparse = Some((rank, c));
            }
        }
        let is_cold = appetite.cold.is_some_and(|secs| c.untouched >= secs);
        if is_cold
            && c.content == Content::Data
            && !c.settled
            && cold.is_none_or(|(best, _)| best < c.age)
        {
            cold = Some((c.age, c));
        }
    }
    let cold = cold.map(|(_, c)| (c, Why::Cold));
    sparse.map(|(_, c)| (c, Why::Sparse)).or(cold)
}

impl Candidate {
    /// Bytes that have to move, about.
    pub fn bytes_alive(&self) -> u64 {
        u64::from(self.used) * share(*self) / 10_000
    }
}

/// Live share in hundredths of a per cent.
fn share(c: Candidate) -> u64 {
    (u64::from(c.live) * 10_000 / u64::from(c.total.max(1))).min(10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HUNGRY: Appetite = Appetite {
        data: 75,
        meta: 50,
        urgent: false,
        cold: None,
    };

    fn segment(id: u32, live: u32, age: u64) -> Candidate {
        Candidate {
            id,
            content: Content::Data,
            live,
            total: 100,
            used: 1000,
            age,
            untouched: 0,
            settled: false,
        }
    }

    fn chosen(all: &[Candidate], appetite: Appetite) -> Option<(u32, Why)> {
        choose(all.iter().copied(), appetite).map(|(c, why)| (c.id, why))
    }

    #[test]
    fn an_old_segment_goes_before_a_young_one_that_is_a_little_sparser() {
        let all = [segment(1, 40, 3), segment(2, 50, 100), segment(3, 90, 1000)];
        assert_eq!(chosen(&all, HUNGRY), Some((2, Why::Sparse)));
        let urgent = Appetite {
            urgent: true,
            ..HUNGRY
        };
        assert_eq!(chosen(&all, urgent), Some((1, Why::Sparse)));
    }

    #[test]
    fn what_is_hardly_sparse_is_left_alone() {
        let all = [segment(1, 76, 9), segment(2, 100, 9)];
        assert_eq!(chosen(&all, HUNGRY), None);
        let meta = Candidate {
            content: Content::Meta,
            ..segment(3, 60, 9)
        };
        assert_eq!(chosen(&[meta], HUNGRY), None);
    }

    #[test]
    fn cold_segments_are_packed_once_and_after_sparse_ones() {
        let cold = Candidate {
            untouched: 100,
            ..segment(1, 100, 7)
        };
        let appetite = Appetite {
            cold: Some(100),
            ..HUNGRY
        };
        let settled = Candidate {
            settled: true,
            ..cold
        };
        assert_eq!(chosen(&[cold], appetite), Some((1, Why::Cold)));
        assert_eq!(chosen(&[cold], HUNGRY), None);
        assert_eq!(chosen(&[settled], appetite), None);
        let sparse = segment(2, 10, 1);
        assert_eq!(chosen(&[cold, sparse], appetite), Some((2, Why::Sparse)));
        let later = Appetite {
            cold: Some(101),
            ..HUNGRY
        };
        assert_eq!(chosen(&[cold], later), None);
    }

    proptest! {
        /// Of two that differ in one respect only, the one that gives more for less is chosen, in whatever order they come.
        #[test]
        fn more_for_less(
            live in 1..75u32,
            age in 1..1000u64,
            less in 1..20u32,
            older in 1..1000u64,
            swap in any::<bool>(),
        ) {
            let worse = segment(1, live, age);
            for better in [segment(2, live.saturating_sub(less).max(1), age + older), segment(2, live, age + older)] {
                let mut all = [worse, better];
                if swap {
                    all.reverse();
                }
                prop_assert_eq!(chosen(&all, HUNGRY), Some((2, Why::Sparse)));
            }
        }
    }
}
