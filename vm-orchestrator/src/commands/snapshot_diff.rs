//! `firn snapshot diff`: the backend answers in parts, what is shown is the whole.

use crate::args::DiffArgs;
use crate::failure::Failure;
use crate::output::{Align, table};
use crate::settings::Settings;
use crate::units::bytes;
use control_api::types::ByteRange;
use serde::Serialize;

#[derive(Serialize)]
struct Diff {
    vdisk: String,
    from: String,
    /// Absent: the present.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// Sum of the ranges.
    changed_bytes: u64,
    ranges: Vec<ByteRange>,
}

pub(super) async fn run(settings: &Settings, args: DiffArgs) -> Result<(), Failure> {
    let (vdisk, from, to) = (args.which.vdisk, args.which.name, args.other);
    let mut client = settings.connect().await?;
    let mut ranges = Vec::new();
    let mut next = Some(0);
    while let Some(at) = next {
        let part = client.snapshot_changes(&vdisk, &from, to.as_deref(), at);
        let part = part.await?;
        for range in part.ranges {
            add(&mut ranges, range);
        }
        // An answer that does not get on would have us ask for ever.
        next = part.next.filter(|next| *next > at);
    }
    let diff = Diff {
        vdisk,
        from,
        to,
        changed_bytes: ranges
            .iter()
            .fold(0, |sum: u64, range| sum.saturating_add(range.length)),
        ranges,
    };
    settings.show(&diff, text)
}

/// A range that goes on where the last one ended is part of that.
fn add(ranges: &mut Vec<ByteRange>, range: ByteRange) {
    match ranges.last_mut() {
        Some(last) if last.offset.checked_add(last.length) == Some(range.offset) => {
            last.length = last.length.saturating_add(range.length);
        }
        _ => ranges.push(range),
    }
}

fn text(diff: &Diff) -> String {
    let Diff { vdisk, from, .. } = diff;
    let states = match &diff.to {
        Some(to) => format!("between snapshots {from} and {to}"),
        None => format!("since snapshot {from}"),
    };
    if diff.ranges.is_empty() {
        return format!("nothing of vDisk {vdisk} was written {states}\n");
    }
    let row = |range: &ByteRange| {
        let (offset, length) = (range.offset, range.length);
        [offset.to_string(), length.to_string(), bytes(length)]
    };
    let rows: Vec<_> = diff.ranges.iter().map(row).collect();
    let heading = [
        ("OFFSET", Align::Right),
        ("BYTES", Align::Right),
        ("SIZE", Align::Right),
    ];
    let count = match diff.ranges.len() {
        1 => "1 range".into(),
        count => format!("{count} ranges"),
    };
    format!(
        "{}{} of vDisk {vdisk} in {count} were written, zeroed or discarded {states}\n",
        table(heading, &rows),
        bytes(diff.changed_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u64, length: u64) -> ByteRange {
        ByteRange { offset, length }
    }

    #[test]
    fn golden() {
        let mut ranges = Vec::new();
        for part in [
            range(0, 4096),
            range(1 << 30, 4096),
            range((1 << 30) + 4096, 1 << 20),
        ] {
            add(&mut ranges, part);
        }
        let mut diff = Diff {
            vdisk: "web".into(),
            from: "monday".into(),
            to: Some("tuesday".into()),
            changed_bytes: (1 << 20) + 8192,
            ranges,
        };
        assert_eq!(
            text(&diff),
            "    OFFSET    BYTES      SIZE\n         0     4096  4.00 KiB\n1073741824  1052672  1.00 MiB\n\
             1.01 MiB of vDisk web in 2 ranges were written, zeroed or discarded between snapshots monday and tuesday\n"
        );
        diff.to = None;
        diff.ranges.truncate(1);
        assert!(
            text(&diff)
                .contains("in 1 range were written, zeroed or discarded since snapshot monday\n")
        );
        diff.ranges.clear();
        assert_eq!(
            text(&diff),
            "nothing of vDisk web was written since snapshot monday\n"
        );
    }

    #[test]
    fn hostile_answers_do_not_overflow() {
        let mut ranges = vec![range(u64::MAX - 1, 9)];
        add(&mut ranges, range(7, 1));
        add(&mut ranges, range(8, u64::MAX));
        assert_eq!(ranges.len(), 2);
    }
}
