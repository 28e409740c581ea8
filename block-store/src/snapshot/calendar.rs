//! Seconds since 1970 as a calendar has them. All of it is UTC: a schedule means the same wherever its store is, and no
//! hour comes twice.

/// Seconds of an hour.
pub const HOUR: u64 = 3600;
/// Seconds of a day.
pub const DAY: u64 = 86_400;
/// The first Monday, 5 January 1970.
const MONDAY: u64 = 4 * DAY;
/// The last second of the year 9999.
const LAST: u64 = 253_402_300_799;

/// Weeks that have begun since 1970, on Mondays.
pub fn week(seconds: u64) -> u64 {
    (seconds / DAY + 3) / 7
}

/// Months that have begun since 1970.
pub fn month(seconds: u64) -> u64 {
    let (year, month, _) = date(seconds);
    year * 12 + month
}

/// The moment at or before `now` from which on intervals of this length are counted. Those that divide a day begin at its
/// midnight, whole weeks on Mondays.
pub fn begin_of_slot(every: u64, now: u64) -> u64 {
    let every = every.max(1);
    now.saturating_sub((now % every + (every - MONDAY % every)) % every)
}

/// `20260131T065903Z`: sorts as time does, and can be part of a name.
pub fn stamp(seconds: u64) -> String {
    let seconds = seconds.min(LAST);
    let (year, month, day) = date(seconds);
    let time = seconds % DAY;
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        time / HOUR,
        time / 60 % 60,
        time % 60
    )
}

/// Year, month from 1, day from 1.
fn date(seconds: u64) -> (u64, u64, u64) {
    // Years that begin in March have their leap day at the end; eras of 400 of them are all alike.
    let day = seconds / DAY + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    match month {
        0..10 => (era * 400 + year, month + 3, of_month),
        _ => (era * 400 + year + 1, month - 9, of_month),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-26 12:34:56 UTC, a Thursday.
    const NOW: u64 = 1_795_696_496;

    #[test]
    fn moments() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_769_842_743, "20260131T065903Z"),
            (NOW, "20261126T123456Z"),
            (4_107_542_399, "21000228T235959Z"),
            (u64::MAX, "99991231T235959Z"),
        ] {
            assert_eq!(stamp(seconds), text);
        }
    }

    #[test]
    fn periods() {
        // Sunday and Monday, the last second of January and the first of February.
        let (sunday, february) = (1_795_996_799, 1_769_904_000);
        assert_eq!(stamp(sunday + 1)[..8], *"20261130");
        assert_eq!(week(sunday) + 1, week(sunday + 1));
        assert_eq!(week(sunday + 7 * DAY), week(sunday + 1));
        assert_eq!(month(february - 1) + 1, month(february));
        assert_eq!(month(february), month(february + 28 * DAY - 1));
        assert!(month(u64::MAX) > 0 && week(u64::MAX) > 0);
    }

    #[test]
    fn slots_begin_where_clocks_do() {
        for (every, begin) in [
            (1, "20261126T123456Z"),
            (5 * 60, "20261126T123000Z"),
            (HOUR, "20261126T120000Z"),
            (DAY, "20261126T000000Z"),
            (7 * DAY, "20261123T000000Z"),
        ] {
            assert_eq!(stamp(begin_of_slot(every, NOW)), begin, "every {every}");
        }
        for every in [1, 7, 86_401, 366 * DAY, u64::MAX / 2] {
            for now in [0, 1, 345_599, 345_600, NOW, u64::MAX] {
                let begin = begin_of_slot(every, now);
                assert!(begin <= now && now - begin < every, "{every} {now}");
            }
        }
    }
}
