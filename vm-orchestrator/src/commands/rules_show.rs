//! `firn rules show`.

use crate::args::WhoseRules;
use crate::failure::Failure;
use crate::output::{Align, table};
use crate::settings::Settings;
use control_api::types::{Condition, Rules};

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
    table(heading, &rows)
}

fn conditions(when: &Condition) -> String {
    let yes = |name: &str, value: bool| {
        if value {
            name.to_owned()
        } else {
            format!("not {name}")
        }
    };
    let all: Vec<String> = [
        when.min_bytes
            .map(|bytes| format!("at least {bytes} bytes")),
        when.max_bytes.map(|bytes| format!("at most {bytes} bytes")),
        when.sequential.map(|value| yes("sequential", value)),
        when.aligned.map(|value| yes("aligned", value)),
        when.tag.as_ref().map(|tag| format!("tag {tag}")),
        when.min_age_secs
            .map(|seconds| format!("at least {seconds} s old")),
        when.class.map(|class| format!("{class:?}").to_lowercase()),
        when.min_cpu_headroom
            .map(|percent| format!("CPU at least {percent} % idle")),
        when.max_cpu_headroom
            .map(|percent| format!("CPU at most {percent} % idle")),
    ]
    .into_iter()
    .flatten()
    .collect();
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
            ]}"#,
        )
        .unwrap();
        assert_eq!(
            text(&rules),
            "#  RULE            CODEC           EXTENT  WHEN\n\
             1  noise           none            16 KiB  incompressible\n\
             2  streams         zstd:3, later  128 KiB  at least 65536 bytes, sequential\n\
             3  rest            lz4             16 KiB  always\n\
             -  (none matched)  lz4             16 KiB  always\n"
        );
    }
}
