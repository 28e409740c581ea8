//! `firn rules show`.

use crate::args::WhoseRules;
use crate::failure::Failure;
use crate::output::{Align, table};
use crate::settings::Settings;
use control_api::types::{Coalesce, CoalesceRule, Condition, Rules, Touched, Touching};

/// What becomes of blocks that no rule is about.
const LEFT: &str = "stay where they are";

pub(super) async fn run(settings: &Settings, args: &WhoseRules) -> Result<(), Failure> {
    let rules = settings
        .connect()
        .await?
        .rules(args.vdisk.as_deref())
        .await?;
    settings.show(&rules, text)
}

pub(super) fn text(rules: &Rules) -> String {
    let heading = [
        ("#", Align::Right),
        ("RULE", Align::Left),
        ("CODEC", Align::Left),
        ("EXTENT", Align::Right),
        ("WHEN", Align::Left),
    ];
    let mut rows: Vec<_> = Vec::new();
    for (number, rule) in rules.rules.iter().enumerate() {
        let treatment = &rule.treatment;
        let codec = match treatment.defer {
            true => format!("{}, later", treatment.codec),
            false => treatment.codec.clone(),
        };
        let extent = format!("{} KiB", treatment.extent_kib);
        rows.push([
            (number + 1).to_string(),
            rule.name.clone(),
            codec,
            extent,
            conditions(&rule.when),
        ]);
    }
    let last = [
        "-".into(),
        "(none matched)".into(),
        "lz4".into(),
        "16 KiB".into(),
        "always".into(),
    ];
    rows.push(last);
    let mut text = table(heading, &rows);
    if let Some(rules) = &rules.coalesce {
        text += "\n";
        text += &coalescing(rules);
    }
    text
}

fn coalescing(rules: &[CoalesceRule]) -> String {
    let heading = [
        ("#", Align::Right),
        ("COALESCING RULE", Align::Left),
        ("BLOCKS", Align::Left),
        ("WHEN", Align::Left),
    ];
    let mut rows: Vec<_> = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        let blocks = match rule.action {
            Coalesce::Together => "are put together",
            Coalesce::Leave => LEFT,
        };
        rows.push([
            (number + 1).to_string(),
            rule.name.clone(),
            blocks.to_owned(),
            touched(&rule.when),
        ]);
    }
    let last = ["-", "(none matched)", LEFT, "always"];
    rows.push(last.map(str::to_owned));
    table(heading, &rows)
}

fn touched(when: &Touched) -> String {
    let command = when.command.map(|c| match c {
        Touching::Read => "read".to_owned(),
        Touching::Write => "small writes in a row".to_owned(),
    });
    let conditions = [
        command,
        when.min_bytes
            .map(|bytes| format!("at least {bytes} bytes")),
        when.max_bytes.map(|bytes| format!("at most {bytes} bytes")),
        when.tag.as_ref().map(|tag| format!("tag {tag}")),
        when.min_reads
            .map(|reads| format!("at least {reads} single reads")),
        when.more_than_times
            .map(|times| format!("more than {times} times as many as side by side")),
        when.min_cpu_headroom
            .map(|percent| format!("CPU at least {percent} % idle")),
    ];
    all_of(conditions)
}

fn conditions(when: &Condition) -> String {
    let yes = |name: &str, value: bool| {
        if value {
            name.to_owned()
        } else {
            format!("not {name}")
        }
    };
    let conditions = [
        when.min_bytes
            .map(|bytes| format!("at least {bytes} bytes")),
        when.max_bytes.map(|bytes| format!("at most {bytes} bytes")),
        when.sequential.map(|value| yes("sequential", value)),
        when.aligned.map(|value| yes("aligned", value)),
        when.tag.as_ref().map(|tag| format!("tag {tag}")),
        when.min_age_secs
            .map(|seconds| format!("untouched for {seconds} s")),
        when.class.map(|class| format!("{class:?}").to_lowercase()),
        when.min_cpu_headroom
            .map(|percent| format!("CPU at least {percent} % idle")),
        when.max_cpu_headroom
            .map(|percent| format!("CPU at most {percent} % idle")),
    ];
    all_of(conditions)
}

fn all_of<const N: usize>(conditions: [Option<String>; N]) -> String {
    let all: Vec<String> = conditions.into_iter().flatten().collect();
    match all.is_empty() {
        true => "always".into(),
        false => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let rules: Rules = serde_json::from_str(
            r#"{"rules": [
                {"name": "noise", "when": {"class": "incompressible"}, "use": {"codec": "none", "extent_kib": 16}},
                {"name": "streams", "when": {"min_bytes": 65536, "sequential": true}, "use": {"codec": "zstd:3", "extent_kib": 128, "defer": true}},
                {"name": "rest", "use": {"codec": "lz4", "extent_kib": 16}}
            ], "coalesce": [
                {"name": "databases", "when": {"tag": "db"}, "use": "leave"},
                {"name": "scattered", "when": {"command": "read", "min_reads": 4, "more_than_times": 2}, "use": "together"}
            ]}"#,
        )
        .unwrap();
        assert_eq!(
            text(&rules),
            "#  RULE            CODEC           EXTENT  WHEN\n\
             1  noise           none            16 KiB  incompressible\n\
             2  streams         zstd:3, later  128 KiB  at least 65536 bytes, sequential\n\
             3  rest            lz4             16 KiB  always\n\
             -  (none matched)  lz4             16 KiB  always\n\n\
             #  COALESCING RULE  BLOCKS               WHEN\n\
             1  databases        stay where they are  tag db\n\
             2  scattered        are put together     read, at least 4 single reads, more than 2 times as many as side by side\n\
             -  (none matched)   stay where they are  always\n"
        );
    }
}
