//! Retention: which of many snapshots stay, and why. A pure decision.
//!
//! The rules are those of `restic forget` (restic, `internal/restic/snapshot_policy.go`, `ApplyPolicy`): each rule goes over all
//! snapshots from the newest down, and keeps the first that it meets in each hour, day, week or month, so the last one of that
//! period, until it has kept as many as it may. Rules know nothing of each other: what several keep counts for each of them,
//! and what one keeps is kept. Periods without a snapshot don't count. (`borg prune` differs: there a rule passes over what the
//! rules before it keep.)
//!
//! Three things are otherwise than in restic:
//! - Periods are those of UTC (`calendar.rs`).
//! - Newest is what was cut last, and not what the clock said: it may have been set back in between.
//! - A rule with room left does not keep the oldest snapshot of all for that.
//!
//! What is held, or has clones, stays. For the rules it is a snapshot like any other: a hold or a clone changes nothing for its
//! neighbours, neither when it comes nor when it goes.

use super::calendar::{DAY, HOUR, month, week};
use crate::format::Keep;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// A snapshot to be decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The cut. Snapshots of one cut are a consistency group, about which the rules decide together.
    pub lsn: u64,
    /// Seconds since 1970.
    pub created: u64,
    /// Somebody holds it.
    pub held: bool,
    /// Clones lie over it, or branches of its vDisk's own.
    pub cloned: bool,
}

/// Why a snapshot stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// One of the last.
    Last,
    /// The last one of its hour.
    Hourly,
    /// Of its day.
    Daily,
    /// Of its week.
    Weekly,
    /// Of its month.
    Monthly,
    /// Somebody holds it.
    Held,
    /// Clones lie over it.
    Cloned,
}

/// For each snapshot why it stays; nothing: it goes. `None`: these rules keep nothing at all, which nobody can mean.
pub fn retain(all: &[Candidate], keep: &Keep) -> Option<Vec<Vec<Reason>>> {
    if keep.most() == 0 {
        return None;
    }
    let cuts: BTreeMap<u64, u64> = all.iter().map(|c| (c.lsn, c.created)).collect();
    let mut reasons: BTreeMap<u64, Vec<Reason>> = BTreeMap::new();
    for (reason, count) in [
        (Reason::Last, keep.last),
        (Reason::Hourly, keep.hourly),
        (Reason::Daily, keep.daily),
        (Reason::Weekly, keep.weekly),
        (Reason::Monthly, keep.monthly),
    ] {
        let mut met = HashSet::new();
        for (lsn, created) in cuts.iter().rev() {
            if met.len() >= count as usize {
                break;
            }
            let period = match reason {
                Reason::Hourly => created / HOUR,
                Reason::Daily => created / DAY,
                Reason::Weekly => week(*created),
                Reason::Monthly => month(*created),
                _ => *lsn,
            };
            if met.insert(period) {
                reasons.entry(*lsn).or_default().push(reason);
            }
        }
    }
    let why = |c: &Candidate| {
        let mut why = reasons.get(&c.lsn).cloned().unwrap_or_default();
        why.extend(c.held.then_some(Reason::Held));
        why.extend(c.cloned.then_some(Reason::Cloned));
        why
    };
    Some(all.iter().map(why).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-26 12:00:00 UTC.
    const NOON: u64 = 1_795_694_400;

    fn taken(lsn: u64, created: u64) -> Candidate {
        Candidate {
            lsn,
            created,
            held: false,
            cloned: false,
        }
    }

    /// Which of these stay, by number.
    fn stay(all: &[Candidate], keep: &Keep) -> Vec<usize> {
        let why = retain(all, keep).unwrap();
        (0..all.len()).filter(|n| !why[*n].is_empty()).collect()
    }

    #[test]
    fn the_last_of_each_period_stays() {
        // Every 20 minutes for ten days.
        let all: Vec<_> = (0..720).map(|n| taken(n, NOON + n * 1200)).collect();
        let keep = |last, hourly, daily, weekly, monthly| Keep {
            last,
            hourly,
            daily,
            weekly,
            monthly,
        };
        assert_eq!(stay(&all, &keep(3, 0, 0, 0, 0)), [717, 718, 719]);
        // Hours end with :40, days with 23:40.
        assert_eq!(stay(&all, &keep(0, 3, 0, 0, 0)), [713, 716, 719]);
        assert_eq!(stay(&all, &keep(0, 0, 3, 0, 0)), [611, 683, 719]);
        // The weeks end on Sunday 29 November and 6 December, the month on Monday.
        assert_eq!(stay(&all, &keep(0, 0, 0, 9, 0)), [251, 719]);
        assert_eq!(stay(&all, &keep(0, 0, 0, 0, 9)), [323, 719]);
        let why = retain(&all, &keep(1, 1, 2, 0, 0)).unwrap();
        use Reason::*;
        assert_eq!(why[719], [Last, Hourly, Daily]);
        assert_eq!((why[683].as_slice(), why[700].len()), (&[Daily][..], 0));
    }

    #[test]
    fn nothing_kept_is_refused_and_nothing_there_is_not() {
        assert_eq!(retain(&[taken(1, NOON)], &Keep::default()), None);
        let keep = Keep {
            last: 1,
            ..Keep::default()
        };
        assert_eq!(retain(&[], &keep), Some(vec![]));
    }

    #[test]
    fn a_group_goes_together_but_for_what_is_held() {
        let held = Candidate {
            held: true,
            ..taken(1, NOON)
        };
        let all = [held, taken(1, NOON), taken(2, NOON), taken(2, NOON)];
        let keep = Keep {
            last: 1,
            ..Keep::default()
        };
        assert_eq!(stay(&all, &keep), [0, 2, 3]);
    }

    /// A clock that ran ahead and was set right: what was taken last stays.
    #[test]
    fn newest_is_what_was_cut_last() {
        let year = 365 * DAY;
        let all = [
            taken(1, NOON + year),
            taken(2, NOON + year),
            taken(3, NOON),
            taken(4, NOON + 1),
        ];
        let keep = |last, hourly| Keep {
            last,
            hourly,
            ..Keep::default()
        };
        assert_eq!(stay(&all, &keep(2, 0)), [2, 3]);
        assert_eq!(stay(&all, &keep(0, 2)), [1, 3]);
        // Back and forth in one hour is one hour.
        let all = [taken(1, NOON), taken(2, NOON + year), taken(3, NOON)];
        assert_eq!(stay(&all, &keep(0, 9)), [1, 2]);
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0..40_u64, 0..5_000_000_u64, 0..10_u8, 0..10_u8);
        prop::collection::vec(one, 0..60).prop_map(|all| {
            let mut lsn = 0;
            let mut candidates = Vec::new();
            for (step, created, held, cloned) in all {
                // Some of one cut, with its one moment.
                let created = match (step, candidates.last()) {
                    (0, Some(last)) => {
                        let last: &Candidate = last;
                        last.created
                    }
                    _ => NOON + created,
                };
                lsn += step.min(1);
                candidates.push(Candidate {
                    lsn,
                    created,
                    held: held == 0,
                    cloned: cloned == 0,
                });
            }
            candidates
        })
    }

    fn rules() -> impl Strategy<Value = Keep> {
        let count = || prop_oneof![Just(0_u32), 0..8_u32, Just(u32::MAX)];
        let all = (count(), count(), count(), count(), count());
        let keep = all.prop_map(|(last, hourly, daily, weekly, monthly)| Keep {
            last,
            hourly,
            daily,
            weekly,
            monthly,
        });
        keep.prop_filter("keeps something", |k| k.most() > 0)
    }

    fn by_rule(why: &[Reason]) -> bool {
        why.iter()
            .any(|r| !matches!(r, Reason::Held | Reason::Cloned))
    }

    proptest! {
        #[test]
        fn what_stays_stays_the_next_time_too(all in candidates(), keep in rules()) {
            let once: Vec<_> = stay(&all, &keep).iter().map(|n| all[*n]).collect();
            prop_assert_eq!(stay(&once, &keep).len(), once.len());
        }

        #[test]
        fn no_more_stay_than_the_rules_say(all in candidates(), keep in rules()) {
            let why = retain(&all, &keep).unwrap();
            let kept = all.iter().zip(&why).filter(|(_, w)| by_rule(w)).map(|(c, _)| c.lsn);
            let cuts: HashSet<u64> = kept.collect();
            prop_assert!(cuts.len() as u64 <= keep.most());
            for (c, why) in all.iter().zip(&why) {
                prop_assert_eq!(why.is_empty(), !by_rule(why) && !c.held && !c.cloned);
            }
        }

        #[test]
        fn the_last_are_exactly_the_last(all in candidates(), last in 1..20_u32) {
            let keep = Keep { last, ..Keep::default() };
            let why = retain(&all, &keep).unwrap();
            let mut cuts: Vec<u64> = all.iter().map(|c| c.lsn).collect();
            cuts.dedup();
            let first = cuts.len().saturating_sub(last as usize);
            for (c, why) in all.iter().zip(&why) {
                prop_assert_eq!(by_rule(why), cuts[first..].contains(&c.lsn));
            }
        }

        #[test]
        fn larger_numbers_keep_no_less(all in candidates(), a in rules(), b in rules()) {
            let more = Keep {
                last: a.last.max(b.last),
                hourly: a.hourly.max(b.hourly),
                daily: a.daily.max(b.daily),
                weekly: a.weekly.max(b.weekly),
                monthly: a.monthly.max(b.monthly),
            };
            let (fewer, more) = (stay(&all, &a), stay(&all, &more));
            prop_assert!(fewer.iter().all(|n| more.contains(n)));
        }

        #[test]
        fn holds_and_clones_change_nothing_for_others(all in candidates(), keep in rules()) {
            let free: Vec<_> = all.iter().map(|c| taken(c.lsn, c.created)).collect();
            let (with, without) = (stay(&all, &keep), stay(&free, &keep));
            for (n, c) in all.iter().enumerate() {
                let bound = c.held || c.cloned;
                prop_assert_eq!(with.contains(&n), bound || without.contains(&n));
            }
        }
    }
}
