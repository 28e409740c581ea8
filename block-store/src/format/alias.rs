//! Aliases: what a merged layer has left behind is valid as its heir's.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Extents and nodes of `from` are valid as `to`'s: left by a merge, which rewrites no data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// A layer that was merged away, or is being.
    pub from: u32,
    /// Its heir, always a younger layer. Heirs may themselves be merged.
    pub to: u32,
    /// Only segments from this generation on can hold something of `from`'s.
    pub since: u64,
    /// And only segments below this one; `None` while the merge is under way.
    pub until: Option<u64>,
}

/// All aliases of a store, by the merged layer. There may be very many: what is asked for often looks at few of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Alias>", into = "Vec<Alias>")]
pub struct Aliases {
    /// Shared with the checkpoint that is being taken; copied only if it changes meanwhile.
    all: Arc<BTreeMap<u32, Alias>>,
    /// Those of merges under way, a handful.
    under_way: BTreeSet<u32>,
    /// How many segments had vanished when they were last tidied; `None`: they have changed since.
    tidied: Option<u64>,
}

/// Whether they say the same.
impl PartialEq for Aliases {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl From<Vec<Alias>> for Aliases {
    fn from(rows: Vec<Alias>) -> Self {
        let mut aliases = Self::default();
        rows.into_iter().for_each(|alias| aliases.set(alias));
        aliases
    }
}

impl From<Aliases> for Vec<Alias> {
    fn from(aliases: Aliases) -> Self {
        aliases.all.values().copied().collect()
    }
}

impl Aliases {
    /// Adds one; `to` must be younger than `from`.
    pub fn insert(&mut self, alias: Alias) {
        debug_assert!(alias.from < alias.to, "{alias:?}");
        self.set(alias);
    }

    fn set(&mut self, alias: Alias) {
        match alias.until {
            None => self.under_way.insert(alias.from),
            Some(_) => self.under_way.remove(&alias.from),
        };
        Arc::make_mut(&mut self.all).insert(alias.from, alias);
        self.tidied = None;
    }

    /// The alias of a merged layer.
    pub fn get(&self, from: u32) -> Option<&Alias> {
        self.all.get(&from)
    }

    /// The layer whose map names what was written for `layer`: itself, or its last heir. One step, and one for each heir that has
    /// begun to be merged itself since the last checkpoint.
    pub fn heir(&self, layer: u32) -> u32 {
        let mut layer = layer;
        // Every alias leads to a younger layer: it ends.
        while let Some(alias) = self.all.get(&layer).filter(|a| a.to > layer) {
            layer = alias.to;
        }
        layer
    }

    /// The layers whose merges are under way, oldest first.
    pub fn under_way(&self) -> impl Iterator<Item = u32> {
        self.under_way.iter().copied()
    }

    /// The merge of `from` is done: segments of generation `until` and later hold nothing of it.
    pub fn finish(&mut self, from: u32, until: u64) {
        if let Some(alias) = self.all.get(&from).copied() {
            let until = Some(until);
            self.set(Alias { until, ..alias });
        }
    }

    /// Lets every alias lead straight to the last heir, and forgets those that nothing can need any more, where there is no segment
    /// with a generation in their range. `generations` are those of all segments, in order.
    ///
    /// Only a merge, or a segment's vanishing, leaves something to tidy: without either nothing is looked at. `vanished` counts
    /// the latter.
    pub fn tidy(&mut self, vanished: u64, generations: impl FnOnce() -> Vec<u64>) {
        if self.tidied == Some(vanished) {
            return;
        }
        self.tidied = Some(vanished);
        if self.all.is_empty() {
            return;
        }
        let generations = generations();
        let all = Arc::make_mut(&mut self.all);
        // Heirs are younger: from the youngest on, each one's last heir is known when it is asked for.
        let layers: Vec<u32> = all.keys().rev().copied().collect();
        for from in layers {
            let next = all.get(&from).and_then(|alias| all.get(&alias.to));
            if let Some(last) = next.map(|next| next.to)
                && let Some(alias) = all.get_mut(&from)
            {
                alias.to = last;
            }
        }
        all.retain(|_, alias| {
            let Some(until) = alias.until else {
                return true;
            };
            let first = generations.partition_point(|g| *g < alias.since);
            generations.get(first).is_some_and(|g| *g < until)
        });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them, oldest layer first.
    pub fn iter(&self) -> impl Iterator<Item = &Alias> {
        self.all.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(from: u32, to: u32, until: Option<u64>) -> Alias {
        Alias {
            from,
            to,
            since: u64::from(from),
            until,
        }
    }

    #[test]
    fn heirs_of_heirs_and_what_nothing_needs_any_more() {
        let rows = vec![
            alias(1, 2, Some(5)),
            alias(2, 4, Some(6)),
            alias(4, 9, None),
            alias(3, 5, Some(4)),
        ];
        let mut aliases = Aliases::from(rows);
        assert_eq!(
            (aliases.heir(1), aliases.heir(3), aliases.heir(8)),
            (9, 5, 8)
        );
        // Only segments of generation 4 and later are there.
        aliases.tidy(0, || vec![4, 5, 6]);
        assert_eq!((aliases.heir(1), aliases.heir(3)), (9, 3));
        assert_eq!(
            aliases.get(1).map(|a| a.to),
            Some(9),
            "straight to the last"
        );
        assert_eq!(aliases.under_way().collect::<Vec<_>>(), [4]);
        aliases.finish(4, 7);
        aliases.tidy(0, Vec::new);
        assert!(aliases.is_empty());
    }

    #[test]
    fn hostile_loops_end() {
        let aliases = Aliases::from(vec![
            alias(1, 2, None),
            alias(2, 1, None),
            alias(3, 3, None),
        ]);
        assert_eq!((aliases.heir(1), aliases.heir(3)), (2, 3));
    }

    /// A look-up does not depend on how many there are, nor on how often an heir was merged itself.
    #[test]
    fn those_of_merges_under_way_are_kept_apart() {
        let mut aliases = Aliases::default();
        for from in 1..=1000 {
            aliases.insert(alias(from, from + 1, None));
            assert_eq!(aliases.under_way, BTreeSet::from([from]));
            aliases.tidy(0, || vec![500]);
            assert_eq!(aliases.get(1).map(|a| a.to), Some(from + 1));
            if from < 1000 {
                aliases.finish(from, 1000);
            }
        }
        assert_eq!(aliases.len(), 501);
        let again = Aliases::from(Vec::from(aliases.clone()));
        assert_eq!(again.under_way, aliases.under_way);
    }

    /// A checkpoint without a merge or a removed segment since the last one neither walks them nor copies them.
    #[test]
    fn they_are_tidied_only_where_there_is_a_reason() {
        let untouched = || panic!("looked at for nothing");
        let mut aliases = Aliases::default();
        aliases.tidy(0, || panic!("there are none"));
        aliases.insert(alias(1, 2, None));
        aliases.tidy(0, || vec![1]);
        aliases.tidy(0, untouched);
        aliases.finish(1, 2);
        aliases.finish(7, 2);
        aliases.tidy(0, || vec![1]);
        // Dropped layers have none.
        aliases.finish(7, 2);
        aliases.tidy(0, untouched);
        let checkpoint = aliases.clone();
        assert!(Arc::ptr_eq(&aliases.all, &checkpoint.all));
        aliases.tidy(1, Vec::new);
        assert_eq!((aliases.len(), checkpoint.len()), (0, 1));
        // What comes from the disk has not been looked at yet.
        let mut aliases = Aliases::from(Vec::from(checkpoint));
        aliases.tidy(1, Vec::new);
        assert!(aliases.is_empty());
    }
}
