//! The tree of layers: which are needed, and what is to be done about the others. Pure decisions.

use crate::format::Catalogue;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use uuid::Uuid;

/// What is to be done next about layers that nothing names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Nothing lies over it: its map is dropped.
    Drop {
        /// The layer.
        layer: u32,
    },
    /// One layer lies over each of them, in a row.
    Merge {
        /// The nearest to the heir first, each the parent of the one before.
        from: Vec<u32>,
        /// What lies over the first of them.
        to: u32,
    },
}

/// The next task. A layer is needed that is a vDisk's live one, that a snapshot names, or that is pinned; one with several
/// layers over it waits until one is left.
///
/// Dropping goes first, since it gives back most. Of several merges that of the youngest heir: what has just been
/// deleted is most likely in memory.
pub fn next_task(catalogue: &Catalogue, pinned: &dyn Fn(u32) -> bool) -> Option<Task> {
    let live = catalogue.vdisks.iter().map(|v| v.layer);
    let named = catalogue.snapshots.iter().map(|s| s.layer);
    let needed: HashSet<u32> = live.chain(named).collect();
    let over = Over::of(catalogue);
    let of_no_use = |layer: u32| !needed.contains(&layer) && !pinned(layer);
    let goes = |layer: u32| over.layers(layer).len() == 1 && of_no_use(layer);
    let mut merge = None;
    for layer in catalogue.layers.values().rev() {
        if over.layers(layer.id).is_empty() && of_no_use(layer.id) {
            return Some(Task::Drop { layer: layer.id });
        }
        if merge.is_none() && !goes(layer.id) {
            let below = ancestors(catalogue, layer.id).skip(1);
            let from: Vec<u32> = below.take_while(|l| goes(*l)).collect();
            if !from.is_empty() {
                merge = Some(Task::Merge { from, to: layer.id });
            }
        }
    }
    merge
}

/// The layer from which one comes down to this one without a choice: of a vDisk's layers the highest sealed one.
pub fn top_of_row(catalogue: &Catalogue, layer: u32) -> u32 {
    let live: HashSet<u32> = catalogue.vdisks.iter().map(|v| v.layer).collect();
    let over = Over::of(catalogue);
    let mut top = layer;
    while let [child] = over.layers(top)
        && !live.contains(child)
    {
        top = *child;
    }
    top
}

/// What lies over what.
struct Over(HashMap<u32, Vec<u32>>);

impl Over {
    /// As the catalogue has it.
    fn of(catalogue: &Catalogue) -> Self {
        let mut over: HashMap<u32, Vec<u32>> = HashMap::new();
        for layer in catalogue.layers.values() {
            if let Some(parent) = layer.parent {
                over.entry(parent).or_default().push(layer.id);
            }
        }
        Self(over)
    }

    /// The layers directly over one.
    fn layers(&self, layer: u32) -> &[u32] {
        self.0.get(&layer).map_or(&[], Vec::as_slice)
    }
}

/// A layer, its parent, and so on to the bottom.
pub fn ancestors(catalogue: &Catalogue, layer: u32) -> impl Iterator<Item = u32> {
    // Parents are older than their children: it ends.
    std::iter::successors(catalogue.layers.get(&layer), |l| {
        catalogue.layers.get(&l.parent?)
    })
    .map(|l| l.id)
}

/// Layers that a vDisk or a snapshot reads: its own and all below. The others are on their way out.
fn read_layers(catalogue: &Catalogue) -> HashSet<u32> {
    let live = catalogue.vdisks.iter().map(|v| v.layer);
    let named = catalogue.snapshots.iter().map(|s| s.layer);
    let mut read = HashSet::new();
    for tip in live.chain(named) {
        // Below one that is known all are.
        for layer in ancestors(catalogue, tip) {
            if !read.insert(layer) {
                break;
            }
        }
    }
    read
}

/// What lies over each layer. Two passes over all of them number them so that those over a layer directly follow it: whoever asks for
/// thousands of snapshots walks down from none.
#[derive(Debug)]
pub struct Spread(HashMap<u32, Place>);

/// A layer among all.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its number.
    number: usize,
    /// How many layers have numbers from there on: itself and all over it.
    layers: usize,
    /// Of these, those that have got their numbers.
    numbered: usize,
    /// Whether a vDisk or a snapshot reads it.
    read: bool,
    /// Layers directly over it that are read. The others are on their way out.
    branches: usize,
}

impl Spread {
    /// Of layers with their parents, oldest first, some of which vDisks and snapshots name.
    pub fn of(layers: &[(u32, Option<u32>)], named: impl Iterator<Item = u32>) -> Self {
        let alone = Place {
            number: 0,
            layers: 1,
            numbered: 1,
            read: false,
            branches: 0,
        };
        let mut places: HashMap<u32, Place> = layers.iter().map(|(id, _)| (*id, alone)).collect();
        for layer in named {
            if let Some(place) = places.get_mut(&layer) {
                place.read = true;
            }
        }
        // Parents are older than their children: all that lies over a layer has been counted when its turn comes.
        for (id, parent) in layers.iter().rev() {
            if let Some(over) = places.get(id).copied()
                && let Some(below) = parent.and_then(|p| places.get_mut(&p))
            {
                below.layers += over.layers;
                below.read |= over.read;
                below.branches += usize::from(over.read);
            }
        }
        // And the other way round a parent has its number before its children.
        let mut next = 0;
        for (id, parent) in layers {
            let count = places.get(id).map_or(0, |place| place.layers);
            let number = match parent.and_then(|p| places.get_mut(&p)) {
                Some(below) => {
                    below.numbered += count;
                    below.number + below.numbered - count
                }
                None => {
                    next += count;
                    next - count
                }
            };
            if let Some(place) = places.get_mut(id) {
                place.number = number;
            }
        }
        Self(places)
    }

    /// Whether several branches that are read begin over a layer.
    pub fn is_forked(&self, layer: u32) -> bool {
        self.0.get(&layer).is_some_and(|place| place.branches > 1)
    }

    /// A layer's number, and those of all that lie over it.
    pub fn numbers(&self, layer: u32) -> Range<usize> {
        let place = self.0.get(&layer);
        place.map_or(0..0, |p| p.number..p.number + p.layers)
    }
}

/// What lies over a layer, as far as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Above {
    /// Nothing: it is the tip of a branch.
    Nothing,
    /// One layer, which it would be merged into.
    One(u32),
    /// Several: it stays until one is left.
    Several,
}

/// What lies over a layer.
pub fn above(catalogue: &Catalogue, layer: u32) -> Above {
    let over = Over::of(catalogue);
    let read = read_layers(catalogue);
    let mut children = over.layers(layer).iter().filter(|l| read.contains(l));
    match (children.next(), children.next()) {
        (None, _) => Above::Nothing,
        (Some(one), None) => Above::One(*one),
        _ => Above::Several,
    }
}

/// The layers that one of two states (by their highest layers) reads and the other does not; and the one where their ways
/// down meet, if they do.
pub fn differing(catalogue: &Catalogue, a: u32, b: u32) -> (Vec<u32>, Option<u32>) {
    let (ours, theirs): (Vec<u32>, Vec<u32>) = (
        ancestors(catalogue, a).collect(),
        ancestors(catalogue, b).collect(),
    );
    // What both read is the lower end of both.
    let pairs = ours.iter().rev().zip(theirs.iter().rev());
    let common = pairs.take_while(|(a, b)| a == b).count();
    let above = |all: &[u32]| all.len().saturating_sub(common);
    let meet = ours.get(above(&ours)).copied();
    let mut layers = ours;
    layers.truncate(above(&layers));
    layers.extend(theirs.iter().take(above(&theirs)));
    (layers, meet)
}

/// Where a clone lies over what it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Graft {
    /// The lowest layer of its own.
    pub own: u32,
    /// The layer under that, which others read, too.
    pub shared: u32,
}

/// Where a vDisk lies over layers of others; `None`: it is no clone (any more). A vDisk whose own snapshot names such a layer, or one
/// below it, is what clones were made from.
pub fn graft(catalogue: &Catalogue, vdisk: u32) -> Option<Graft> {
    let row = catalogue.vdisks.iter().find(|v| v.id == vdisk)?;
    let others = catalogue.vdisks.iter().filter(|v| v.id != vdisk);
    let live = others.map(|v| v.layer);
    let theirs = catalogue.snapshots.iter().filter(|s| s.vdisk != vdisk);
    let tips = live.chain(theirs.map(|s| s.layer));
    let read: HashSet<u32> = tips.flat_map(|l| ancestors(catalogue, l)).collect();
    let way: Vec<u32> = ancestors(catalogue, row.layer).collect();
    let n = way.iter().position(|l| read.contains(l))?;
    let graft = Graft {
        own: *way.get(n.checked_sub(1)?)?,
        shared: *way.get(n)?,
    };
    let below: HashSet<u32> = way.iter().skip(n).copied().collect();
    let ours = catalogue.snapshots.iter().filter(|s| s.vdisk == vdisk);
    let is_origin = ours.map(|s| s.layer).any(|l| below.contains(&l));
    (!is_origin).then_some(graft)
}

/// Snapshots that a clone takes over when it is promoted: those that its origin has in common with it.
pub fn to_take_over(catalogue: &Catalogue, graft: Graft) -> Vec<Uuid> {
    let named = |layer| {
        let mut rows = catalogue.snapshots.iter();
        rows.find(|s| s.layer == layer)
    };
    let below: Vec<u32> = ancestors(catalogue, graft.shared).collect();
    let nearest = below.iter().find_map(|layer| named(*layer));
    let Some(origin) = nearest.map(|s| s.vdisk) else {
        return Vec::new();
    };
    let rows = catalogue.snapshots.iter();
    rows.filter(|s| s.vdisk == origin && below.contains(&s.layer))
        .map(|s| s.uuid)
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::format::{LayerRow, SnapshotRow, VDiskRow};
    use uuid::Uuid;

    /// Layers with their parents (0: none), live layers of vDisks, layers that snapshots name.
    pub(crate) fn catalogue(layers: &[(u32, u32)], live: &[u32], named: &[u32]) -> Catalogue {
        let mut catalogue = Catalogue {
            next_layer: 100,
            next_vdisk: 100,
            ..Catalogue::default()
        };
        for (id, parent) in layers {
            let row = LayerRow {
                id: *id,
                uuid: Uuid::nil(),
                parent: (*parent != 0).then_some(*parent),
                root: 0,
                since: 0,
            };
            catalogue.layers.insert(*id, row);
        }
        for (id, layer) in (0..).zip(live) {
            catalogue.vdisks.push(VDiskRow {
                id,
                uuid: Uuid::nil(),
                name: format!("v{id}"),
                size: 4096,
                layer: *layer,
                write_cache: true,
                hidden: false,
                created: 0,
                tag: String::new(),
                rules: None,
                flatten: false,
                used: None,
            });
        }
        for layer in named {
            catalogue.snapshots.push(SnapshotRow {
                uuid: Uuid::nil(),
                name: format!("s{layer}"),
                vdisk: 0,
                layer: *layer,
                size: 4096,
                lsn: 1,
                created: 0,
                holds: Vec::new(),
                schedule: None,
            });
        }
        catalogue
    }

    fn task(layers: &[(u32, u32)], live: &[u32], named: &[u32]) -> Option<Task> {
        next_task(&catalogue(layers, live, named), &|_| false)
    }

    const CHAIN: [(u32, u32); 4] = [(1, 0), (2, 1), (3, 2), (4, 3)];

    #[test]
    fn what_is_named_stays() {
        assert_eq!(task(&CHAIN, &[4], &[1, 2, 3]), None);
        assert_eq!(task(&[(1, 0)], &[1], &[]), None);
    }

    #[test]
    fn a_row_without_names_is_merged_at_once() {
        let from = vec![3, 2, 1];
        assert_eq!(task(&CHAIN, &[4], &[]), Some(Task::Merge { from, to: 4 }));
        let from = vec![1];
        assert_eq!(
            task(&CHAIN, &[4], &[2, 3]),
            Some(Task::Merge { from, to: 2 })
        );
    }

    #[test]
    fn what_several_lie_over_waits_for_all_but_one() {
        let clones = [(1, 0), (2, 1), (3, 1)];
        assert_eq!(task(&clones, &[2, 3], &[]), None);
        assert_eq!(task(&clones, &[2], &[]), Some(Task::Drop { layer: 3 }));
        let from = vec![1];
        assert_eq!(
            task(&clones[..2], &[2], &[]),
            Some(Task::Merge { from, to: 2 })
        );
    }

    #[test]
    fn a_branch_is_dropped_from_its_tip() {
        assert_eq!(task(&CHAIN, &[], &[2]), Some(Task::Drop { layer: 4 }));
        assert_eq!(task(&CHAIN[..3], &[], &[2]), Some(Task::Drop { layer: 3 }));
    }

    #[test]
    fn what_lies_over_a_layer_counts_if_it_is_read() {
        let tree = [(1, 0), (2, 1), (3, 2), (4, 2), (5, 4)];
        let over =
            |live: &[u32], named: &[u32], layer| above(&catalogue(&tree, live, named), layer);
        assert_eq!(over(&[3, 5], &[2], 1), Above::One(2));
        assert_eq!(over(&[3, 5], &[2], 2), Above::Several);
        assert_eq!(over(&[3], &[2], 2), Above::One(3));
        assert_eq!(over(&[3], &[2, 4], 2), Above::Several);
        assert_eq!(over(&[3], &[2, 4], 4), Above::Nothing);
    }

    #[test]
    fn what_lies_over_a_layer_follows_it() {
        let mut x = 7_u64;
        for _ in 0..200 {
            let mut random = |below: u32| {
                x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (x >> 33) as u32 % below
            };
            // Some in long rows, some over any older one; numbers are not dense.
            let mut layers: Vec<(u32, u32)> = Vec::new();
            for n in 0..1 + random(30) {
                let older = random(n + 1) as usize;
                let any = layers.get(older).map_or(0, |(id, _)| *id);
                let parent = match random(3) {
                    0 => any,
                    _ => layers.last().map_or(0, |(id, _)| *id),
                };
                layers.push((3 * n + 1, parent));
            }
            let picked = |n: u32| layers[n as usize % layers.len()].0;
            let (live, named) = ([picked(random(100))], [picked(random(100)); 2]);
            let tree = catalogue(&layers, &live, &named);
            let rows: Vec<_> = tree.layers.values().map(|l| (l.id, l.parent)).collect();
            let spread = Spread::of(&rows, live.into_iter().chain(named));
            for (a, _) in &rows {
                for (b, _) in &rows {
                    let lies_over = ancestors(&tree, *a).any(|l| l == *b);
                    let number = spread.numbers(*a).start;
                    assert_eq!(spread.numbers(*b).contains(&number), lies_over, "{a} {b}");
                }
                assert_eq!(spread.is_forked(*a), above(&tree, *a) == Above::Several);
            }
        }
    }

    #[test]
    fn states_differ_by_what_lies_above_where_they_meet() {
        // 5 and 6 lie over 2 as well.
        let tree = [(1, 0), (2, 1), (3, 2), (4, 3), (5, 2), (6, 5), (7, 0)];
        let tree = catalogue(&tree, &[4, 6], &[1, 2, 3]);
        assert_eq!(differing(&tree, 2, 4), (vec![4, 3], Some(2)));
        assert_eq!(differing(&tree, 4, 2), (vec![4, 3], Some(2)));
        assert_eq!(differing(&tree, 3, 6), (vec![3, 6, 5], Some(2)));
        assert_eq!(differing(&tree, 3, 3), (vec![], Some(3)));
        assert_eq!(differing(&tree, 2, 7), (vec![2, 1, 7], None));
    }

    #[test]
    fn what_is_being_read_is_kept() {
        let catalogue = catalogue(&CHAIN, &[4], &[]);
        let from = vec![1];
        assert_eq!(
            next_task(&catalogue, &|l| l == 3 || l == 2),
            Some(Task::Merge { from, to: 2 })
        );
    }
}
