//! Sizes, names and times as people write and read them. Units are binary: 1K is 1024 bytes.

use control_api::limits::check_size;

const UNITS: [(char, u32); 5] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];

/// Parses `4096`, `512M`, `10G`, `1.5T`, `10GiB`: bytes, or binary units of 1024.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let usage = || {
        format!(
            "{text:?} is not a size: write bytes or a number with K, M, G or T (binary: 1K = 1024), like 4096, 512M, 1.5T"
        )
    };
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "KB" | "MB" | "GB" | "TB" | "PB" => {
            return Err(format!(
                "{text:?} is ambiguous: write {number}{} (binary: 1K = 1024)",
                &unit[..1]
            ));
        }
        unit => {
            let letter = unit.strip_suffix("IB").unwrap_or(unit);
            let known = UNITS.iter().find(|(c, _)| letter.chars().eq([*c]));
            known.ok_or_else(usage)?.1
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
        return Err(usage());
    }
    let too_large = || format!("{text:?} is too large: the largest vDisk is 64T");
    // Twelve digits after the point are finer than a byte of 1T.
    if fraction.len() > 12 {
        return Err(usage());
    }
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let scaled = u128::from(whole) << shift;
    let scale = 10u128.pow(fraction.len() as u32);
    let fraction: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().map_err(|_| usage())?
    };
    if !(fraction << shift).is_multiple_of(scale) {
        return Err(format!("{text:?} is not a whole number of bytes"));
    }
    u64::try_from(scaled + (fraction << shift) / scale).map_err(|_| too_large())
}

/// Parses the size of a vDisk: [`parse_bytes`] within a vDisk's limits.
pub fn parse_vdisk_size(text: &str) -> Result<u64, String> {
    if text.trim_start().starts_with('-') {
        return Err(format!(
            "{text:?} is not a size: a vDisk's size is positive"
        ));
    }
    let size = parse_bytes(text)?;
    check_size(size).map_err(|error| error.to_string())?;
    Ok(size)
}

/// Parses the name of a vDisk.
pub fn parse_name(text: &str) -> Result<String, String> {
    control_api::check_name(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Parses the name of a snapshot, or of somebody who holds one.
pub fn parse_snapshot_name(text: &str) -> Result<String, String> {
    control_api::check_snapshot_name(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Seconds of the units that intervals are written in.
const INTERVALS: [(char, u64); 5] = [
    ('s', 1),
    ('m', 60),
    ('h', 3600),
    ('d', 86_400),
    ('w', 604_800),
];
/// The longest one: 366 days.
const LONGEST: u64 = 366 * 86_400;

/// Parses `1s`, `5m`, `1h`, `1d`, `2w` into seconds.
pub fn parse_interval(text: &str) -> Result<u64, String> {
    let usage = || {
        format!(
            "{text:?} is not an interval: write a number with s, m, h, d or w, like 30s, 5m, 1h; from 1s to 366d"
        )
    };
    let unit = text.chars().last().ok_or_else(usage)?;
    let known = INTERVALS.iter().find(|(letter, _)| *letter == unit);
    let (_, seconds) = known.ok_or_else(usage)?;
    let number = text.strip_suffix(unit).unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(usage());
    }
    let count: u64 = number.parse().map_err(|_| usage())?;
    let interval = count.checked_mul(*seconds);
    interval
        .filter(|i| (1..=LONGEST).contains(i))
        .ok_or_else(usage)
}

/// An interval as [`parse_interval`] takes it: `90s`, `5m`, `1h`, `1w`.
pub fn interval(seconds: u64) -> String {
    let fits = |unit: u64| seconds > 0 && seconds.is_multiple_of(unit);
    match INTERVALS.iter().rev().find(|(_, unit)| fits(*unit)) {
        Some((letter, unit)) => format!("{}{letter}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// Bytes for people: `512 B`, `4.00 KiB`, `10.0 GiB`, `1.50 TiB`. Three digits.
pub fn bytes(count: u64) -> String {
    let names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = count as f64;
    let mut names = names.iter();
    let mut name = names.next().unwrap_or(&"");
    for next in names {
        // Below it would be rounded to "1024".
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        name = next;
    }
    match () {
        () if *name == "B" => format!("{count} B"),
        () if value < 9.995 => format!("{value:.2} {name}"),
        () if value < 99.95 => format!("{value:.1} {name}"),
        () => format!("{value:.0} {name}"),
    }
}

/// Bytes as [`parse_bytes`] takes them, exactly: `10G`, `1536M`, `513`.
pub fn exact(count: u64) -> String {
    let fits = |shift: u32| count > 0 && count.trailing_zeros() >= shift;
    match UNITS.iter().rev().find(|(_, shift)| fits(*shift)) {
        Some((letter, shift)) => format!("{}{letter}", count >> shift),
        None => count.to_string(),
    }
}

/// How much smaller: `2.04x`; a dash where there is nothing to compare.
pub fn ratio(content: u64, stored: u64) -> String {
    match stored {
        0 => "-".into(),
        stored => format!("{:.2}x", content as f64 / stored as f64),
    }
}

/// A duration for people: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`, `3 d 4 h`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..86400 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86400, whole % 86400 / 3600),
    }
}

/// A short duration for people: `85 us`, `1.2 ms`, then as [`duration`].
pub fn short_duration(microseconds: u64) -> String {
    match microseconds {
        0..1000 => format!("{microseconds} us"),
        1000..100_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        _ => duration(microseconds as f64 / 1e6),
    }
}

/// A moment, given in seconds since 1970, for people everywhere: `2026-01-31 06:59:03 UTC`.
pub fn moment(seconds: u64) -> String {
    let (day, time) = (seconds / 86400, seconds % 86400);
    // Years that begin in March have their leap day at the end; eras of 400 of them are all alike.
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (era * 400 + year, month + 3),
        _ => (era * 400 + year + 1, month - 9),
    };
    format!(
        "{year:04}-{month:02}-{of_month:02} {:02}:{:02}:{:02} UTC",
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4k", 4096),
            ("4K", 4096),
            ("512M", 512 << 20),
            ("10G", 10 << 30),
            ("1T", 1 << 40),
            ("64T", 64 << 40),
            ("1.5G", 3 << 29),
            ("10GiB", 10 << 30),
            ("512B", 512),
            ("0.5k", 512),
            (" 7M ", 7 << 20),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in [
            "", "G", "10X", "10 G", "1e3", "-1", "+1", "1..5G", ".5G", "1.G", "10GG", "10iB",
            "0x10", "ten", "10G\n1", "१",
        ] {
            assert!(parse_bytes(text).is_err(), "{text:?}");
        }
        assert!(parse_bytes("10GB").unwrap_err().contains("10G (binary"));
        assert!(
            parse_bytes("99999999999999999999")
                .unwrap_err()
                .contains("64T")
        );
        assert!(parse_bytes("16777216T").unwrap_err().contains("64T"));
        assert!(parse_bytes("1.3K").unwrap_err().contains("whole number"));
    }

    #[test]
    fn vdisk_sizes_in() {
        assert_eq!(parse_vdisk_size("10G"), Ok(10 << 30));
        assert_eq!(parse_vdisk_size("64T"), Ok(64 << 40));
        assert!(parse_vdisk_size("0").unwrap_err().contains("can't be zero"));
        assert!(parse_vdisk_size("1K").unwrap_err().contains("too small"));
        assert!(
            parse_vdisk_size("5000")
                .unwrap_err()
                .contains("multiple of 512")
        );
        assert!(
            parse_vdisk_size("65T")
                .unwrap_err()
                .contains("largest is 64T")
        );
        assert!(parse_vdisk_size("-5G").unwrap_err().contains("positive"));
    }

    #[test]
    fn sizes_out() {
        for (count, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10 << 30, "10.0 GiB"),
            (3 << 39, "1.50 TiB"),
            (1023 << 20, "1023 MiB"),
            ((1 << 30) - 1, "1.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (count, text) in [(0, "0"), (513, "513"), (1 << 20, "1M"), (3 << 29, "1536M")] {
            assert_eq!(exact(count), text);
            assert_eq!(parse_bytes(text), Ok(count));
        }
        assert_eq!(ratio(200, 100), "2.00x");
        assert_eq!(ratio(200, 0), "-");
        assert_eq!(duration(0.44), "0.4 s");
        assert_eq!(duration(185.0), "3 min 05 s");
        assert_eq!(duration(90_000.0), "1 d 1 h");
    }

    #[test]
    fn intervals() {
        for (text, seconds) in [
            ("1s", 1),
            ("90s", 90),
            ("5m", 300),
            ("1h", 3600),
            ("36h", 129_600),
            ("1d", 86_400),
            ("2w", 1_209_600),
            ("366d", LONGEST),
        ] {
            assert_eq!(parse_interval(text), Ok(seconds), "{text}");
            assert_eq!(parse_interval(&interval(seconds)), Ok(seconds), "{text}");
        }
        for text in [
            "",
            "s",
            "0s",
            "5",
            "1.5h",
            "-1s",
            "+1s",
            "1y",
            "1H",
            "1 h",
            "367d",
            "1sé",
            "99999999999999999999d",
            "18446744073709551615w",
        ] {
            assert!(parse_interval(text).is_err(), "{text:?}");
        }
        assert_eq!((interval(90), interval(7200)), ("90s".into(), "2h".into()));
    }

    #[test]
    fn times_out() {
        assert_eq!(short_duration(85), "85 us");
        assert_eq!(short_duration(1_240), "1.2 ms");
        assert_eq!(short_duration(440_000), "0.4 s");
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_769_842_743, "2026-01-31 06:59:03 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(moment(seconds), text);
        }
        // As far as a hostile answer can go.
        assert!(moment(u64::MAX).ends_with("UTC"));
    }
}
