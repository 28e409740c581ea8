//! Aliases: what a merged layer has left behind is valid as its heir's.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// All aliases of a store, by the merged layer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Alias>", into = "Vec<Alias>")]
pub struct Aliases(BTreeMap<u32, Alias>);

impl From<Vec<Alias>> for Aliases {
    fn from(rows: Vec<Alias>) -> Self {
        Self(rows.into_iter().map(|a| (a.from, a)).collect())
    }
}

impl From<Aliases> for Vec<Alias> {
    fn from(aliases: Aliases) -> Self {
        aliases.0.into_values().collect()
    }
}

impl Aliases {
    /// Adds one; `to` must be younger than `from`.
    pub fn insert(&mut self, alias: Alias) {
        debug_assert!(alias.from < alias.to, "{alias:?}");
        self.0.insert(alias.from, alias);
    }

    /// The alias of a merged layer.
    pub fn get(&self, from: u32) -> Option<&Alias> {
        self.0.get(&from)
    }

    /// The layer whose map names what was written for `layer`: itself, or its last heir.
    pub fn heir(&self, layer: u32) -> u32 {
        let mut layer = layer;
        // Every alias leads to a younger layer: it ends.
        while let Some(alias) = self.0.get(&layer).filter(|a| a.to > layer) {
            layer = alias.to;
        }
        layer
    }

    /// The layers whose merges are under way, oldest first.
    pub fn under_way(&self) -> impl Iterator<Item = u32> {
        self.0
            .values()
            .filter(|a| a.until.is_none())
            .map(|a| a.from)
    }

    /// The merge of `from` is done: segments of generation `until` and later hold nothing of it.
    pub fn finish(&mut self, from: u32, until: u64) {
        if let Some(alias) = self.0.get_mut(&from) {
            alias.until = Some(until);
        }
    }

    /// Lets every alias lead straight to the last heir, and forgets those that nothing can need any more: `is_there` says
    /// whether there is a segment with a generation in a range.
    pub fn tidy(&mut self, is_there: impl Fn(std::ops::Range<u64>) -> bool) {
        // Heirs are younger: from the youngest on, each one's last heir is known when it is asked for.
        let all: Vec<u32> = self.0.keys().rev().copied().collect();
        for from in all {
            let Some(alias) = self.0.get(&from) else {
                continue;
            };
            let last = self.0.get(&alias.to).map_or(alias.to, |next| next.to);
            if let Some(alias) = self.0.get_mut(&from) {
                alias.to = last;
            }
        }
        self.0.retain(|_, alias| match alias.until {
            Some(until) => is_there(alias.since..until),
            None => true,
        });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, oldest layer first.
    pub fn iter(&self) -> impl Iterator<Item = &Alias> {
        self.0.values()
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
        aliases.tidy(|range| range.end > 4);
        assert_eq!((aliases.heir(1), aliases.heir(3)), (9, 3));
        assert_eq!(
            aliases.get(1).map(|a| a.to),
            Some(9),
            "straight to the last"
        );
        assert_eq!(aliases.under_way().collect::<Vec<_>>(), [4]);
        aliases.finish(4, 7);
        aliases.tidy(|_| false);
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
}
