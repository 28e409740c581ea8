//! How much compaction is worth at present: a pure decision.

use crate::alloc::Appetite;

/// Dead blocks, in per cent of all data segments' blocks, above which space is got back although guests are busy: what is stored
/// takes at most about twice its size.
const MUCH_DEAD: u64 = 50;

/// What the decision depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    /// No further segment can be allocated.
    pub full: bool,
    /// The filesystem has less free space than it should keep.
    pub low_space: bool,
    /// Dead blocks in data segments, in per cent.
    pub dead_percent: u64,
    /// The host has CPU time to spare.
    pub idle: bool,
    /// The age in seconds from which on some compression rule looks at data again.
    pub cold_from: Option<u64>,
}

/// What to compact. A segment of which a share u is alive costs u in writes for every 1 - u gained: without need only what is at
/// most half alive moves, each byte for a byte. Maps are small, and rewritten all the time anyway.
pub fn appetite(now: &Circumstances) -> Appetite {
    let (data, meta) = match () {
        () if now.full => (95, 75),
        () if now.low_space => (75, 50),
        () if now.idle || now.dead_percent >= MUCH_DEAD => (50, 25),
        () => (0, 25),
    };
    Appetite {
        data,
        meta,
        urgent: now.full,
        cold: now.cold_from.filter(|_| now.idle && !now.full),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Circumstances = Circumstances {
        full: false,
        low_space: false,
        dead_percent: 20,
        idle: false,
        cold_from: Some(3600),
    };

    #[test]
    fn busy_hosts_with_space_move_no_data() {
        assert_eq!(appetite(&BUSY).data, 0);
        assert_eq!(appetite(&BUSY).cold, None);
    }

    #[test]
    fn the_less_space_the_more_is_moved() {
        let data = |now: Circumstances| appetite(&now).data;
        let dead = Circumstances {
            dead_percent: 50,
            ..BUSY
        };
        let low = Circumstances {
            low_space: true,
            ..dead
        };
        let full = Circumstances { full: true, ..low };
        assert_eq!((data(dead), data(low), data(full)), (50, 75, 95));
        assert!(appetite(&full).urgent && !appetite(&low).urgent);
    }

    #[test]
    fn idle_hosts_tidy_up_and_pack_what_is_cold() {
        let idle = Circumstances { idle: true, ..BUSY };
        assert_eq!(appetite(&idle).data, 50);
        assert_eq!(appetite(&idle).cold, Some(3600));
        // Packing anew takes space before it gives any.
        let full = Circumstances { full: true, ..idle };
        assert_eq!(appetite(&full).cold, None);
    }
}
