//! Reads the tables out of `docs/disk-format.md`.

use std::collections::BTreeMap;
use std::ops::Range;

const TEXT: &str = include_str!("../../../docs/disk-format.md");

/// The rows of all tables in a section (from its heading to the next one), each cell trimmed of blanks and backticks.
pub fn rows(heading: &str) -> Vec<Vec<String>> {
    let section = TEXT
        .lines()
        .skip_while(|line| line.trim_start_matches('#').trim() != heading || !line.starts_with('#'))
        .skip(1)
        .take_while(|line| !line.starts_with('#'));
    let rows: Vec<_> = section
        .filter(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells
                .map(|c| c.trim().trim_matches('`').to_owned())
                .collect()
        })
        .collect();
    assert!(
        !rows.is_empty(),
        "the document has no table under {heading:?}"
    );
    rows
}

/// The fields of the structure that a section describes: name and byte range. Fields must be in order and must not overlap.
pub fn fields(heading: &str) -> BTreeMap<String, Range<usize>> {
    let mut out = BTreeMap::new();
    let mut end = 0;
    for row in rows(heading) {
        let [offset, size, field, ..] = row.as_slice() else {
            continue;
        };
        let (Ok(offset), Ok(size)) = (offset.parse::<usize>(), size.parse::<usize>()) else {
            continue;
        };
        assert!(
            offset >= end && size > 0,
            "{heading}: {field} overlaps what is before it"
        );
        end = offset + size;
        assert!(
            out.insert(field.clone(), offset..end).is_none(),
            "{heading}: {field} twice"
        );
    }
    out
}

/// The value of a constant in the table of sizes.
pub fn constants() -> BTreeMap<String, u64> {
    rows("Sizes")
        .into_iter()
        .filter_map(|row| Some((row.first()?.clone(), row.get(1)?.parse().ok()?)))
        .collect()
}
