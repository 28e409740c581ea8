//! Which segment to compact next.

use super::{Content, Phase, Segments};

/// A segment worth compacting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// Its number.
    pub id: u32,
    /// What is in it.
    pub content: Content,
}

/// The sealed segment of this content, none of `except`, with the smallest share of live entries, if that share is
/// at most `percent`. Greedy choice: right for the uniform overwrites that fill a store; a cost-benefit choice by age
/// (Rosenblum and Ousterhout, "The Design and Implementation of a Log-Structured File System", 1991) needs the
/// temperatures kept apart to gain over it.
pub fn choose_victim(
    segments: &Segments,
    content: Content,
    percent: u32,
    except: &[u32],
) -> Option<Victim> {
    let share = |live: u32, total: u32| u64::from(live) * 10_000 / u64::from(total.max(1));
    segments
        .iter()
        .filter(|(_, s)| s.phase == Phase::Sealed && s.content == content && s.live > 0)
        .filter(|(id, _)| !except.contains(id))
        .map(|(id, s)| (share(s.live, s.total), id))
        .filter(|(share, _)| *share <= u64::from(percent) * 100)
        .min()
        .map(|(_, id)| Victim { id, content })
}

#[cfg(test)]
mod tests {
    use super::super::Segment;
    use super::*;
    use crate::io::sim::SimDisk;
    use crate::io::{Disk, PAGE};

    #[test]
    fn takes_the_sparsest_sealed_one() {
        let disk = SimDisk::new(1, 1 << 30);
        let mut segments = Segments::default();
        for (id, live, phase) in [
            (0, 90, Phase::Sealed),
            (1, 20, Phase::Open),
            (2, 40, Phase::Sealed),
            (3, 0, Phase::Sealed),
        ] {
            let file = disk.create(&format!("f{id}"), PAGE as u64).unwrap();
            segments.insert(
                id,
                Segment {
                    generation: 1,
                    file,
                    phase,
                    content: Content::Data,
                    temperature: Default::default(),
                    prewritten: false,
                    used: 4096,
                    live,
                    total: 100,
                },
            );
        }
        assert_eq!(
            choose_victim(&segments, Content::Data, 75, &[]),
            Some(Victim {
                id: 2,
                content: Content::Data
            })
        );
        assert_eq!(choose_victim(&segments, Content::Data, 39, &[]), None);
        assert_eq!(choose_victim(&segments, Content::Data, 75, &[2]), None);
        assert_eq!(choose_victim(&segments, Content::Meta, 100, &[]), None);
    }
}
