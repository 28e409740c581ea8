use super::*;
use proptest::option;
use proptest::prelude::*;

fn write(bytes: u64) -> WriteTraits<'static> {
    WriteTraits {
        bytes,
        sequential: false,
        aligned: true,
        tag: None,
        age_secs: 0,
        class: Class::Compressible,
        cpu_headroom: 80,
    }
}

fn with(rules: Vec<Rule>) -> Rules {
    Rules {
        rules,
        ..Rules::default()
    }
}

fn decided(write: WriteTraits<'_>) -> (Codec, u32) {
    let choice = Rules::default().choose(&write);
    (choice.codec, choice.extent_blocks * 4)
}

#[test]
fn the_shipped_rules_do_what_they_say() {
    Rules::default().validate().unwrap();
    assert_eq!(decided(write(4096)), (Codec::Lz4, 8));
    assert_eq!(decided(write(65536)), (Codec::Zstd(1), 64));
    assert_eq!(
        decided(WriteTraits {
            sequential: true,
            ..write(32768)
        }),
        (Codec::Zstd(1), 64)
    );
    assert_eq!(
        decided(WriteTraits {
            sequential: true,
            ..write(4096)
        }),
        (Codec::Lz4, 8)
    );
    assert_eq!(
        decided(WriteTraits {
            cpu_headroom: 79,
            ..write(1 << 20)
        }),
        (Codec::Lz4, 8)
    );
    assert_eq!(
        decided(WriteTraits {
            class: Class::Incompressible,
            ..write(1 << 20)
        }),
        (Codec::None, 8)
    );
}

#[test]
fn without_a_match_the_last_resort_holds() {
    let choice = with(vec![]).choose(&write(4096));
    assert_eq!(
        choice,
        Choice {
            rule: None,
            codec: Codec::Lz4,
            extent_blocks: 4,
            defer: false
        }
    );
}

#[test]
fn rules_are_written_in_json() {
    let text = r#"{"rules": [
        {"name": "databases", "when": {"tag": "db", "max_bytes": 16384}, "use": {"codec": "lz4", "extent_kib": 16}},
        {"name": "cold", "when": {"min_age_secs": 86400}, "use": {"codec": "zstd:9", "extent_kib": 128}},
        {"name": "rest", "use": {"codec": "zstd:3", "extent_kib": 64, "defer": true}}
    ]}"#;
    let rules: Rules = serde_json::from_str(text).unwrap();
    rules.validate().unwrap();
    let choice = |write| rules.choose(&write).rule;
    assert_eq!(
        choice(WriteTraits {
            tag: Some("db"),
            ..write(8192)
        }),
        Some(0)
    );
    assert_eq!(
        choice(WriteTraits {
            tag: Some("dbx"),
            ..write(8192)
        }),
        Some(2)
    );
    assert_eq!(
        choice(WriteTraits {
            age_secs: 86400,
            ..write(8192)
        }),
        Some(1)
    );
    assert!(rules.choose(&write(512)).defer);
}

#[test]
fn mistakes_in_json_are_named() {
    for (text, named) in [
        (
            r#"{"rules": [{"name": "a", "use": {"codec": "lz5", "extent_kib": 4}}]}"#,
            "lz5",
        ),
        (
            r#"{"rules": [{"name": "a", "when": {"size": 1}, "use": {"codec": "lz4", "extent_kib": 4}}]}"#,
            "size",
        ),
        (
            r#"{"rules": [{"name": "a", "use": {"codec": "lz4"}}]}"#,
            "extent_kib",
        ),
        (
            r#"{"rules": [{"name": "a", "use": {"codec": "lz4", "extent_kib": 4, "x": 1}}]}"#,
            "x",
        ),
        (r#"{"rules": [], "rule": []}"#, "rule"),
    ] {
        let error = serde_json::from_str::<Rules>(text).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn validation_names_the_rule_and_the_field() {
    let good = Rule {
        name: "good".to_owned(),
        when: Match::default(),
        action: Action {
            codec: Codec::Lz4,
            extent_kib: 16,
            defer: false,
        },
    };
    let refused = |change: fn(&mut Rule)| {
        let mut bad = Rule {
            name: "bad".to_owned(),
            ..good.clone()
        };
        change(&mut bad);
        let error = with(vec![good.clone(), bad]).validate().unwrap_err();
        let RulesError::Field { index, field, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*index, 1);
        assert!(error.to_string().contains("rule 1"), "{error}");
        *field
    };
    assert_eq!(refused(|rule| rule.name.clear()), "name");
    assert_eq!(refused(|rule| rule.name = "good".to_owned()), "name");
    assert_eq!(refused(|rule| rule.name = "x".repeat(65)), "name");
    assert_eq!(refused(|rule| rule.name = "a\nb".to_owned()), "name");
    assert_eq!(refused(|rule| rule.action.extent_kib = 0), "use.extent_kib");
    assert_eq!(
        refused(|rule| rule.action.extent_kib = 48),
        "use.extent_kib"
    );
    assert_eq!(
        refused(|rule| rule.action.extent_kib = 256),
        "use.extent_kib"
    );
    assert_eq!(
        refused(|rule| rule.when = Match {
            min_bytes: Some(2),
            max_bytes: Some(1),
            ..Match::default()
        }),
        "when.max_bytes"
    );
    assert_eq!(
        refused(|rule| rule.when.min_cpu_headroom = Some(101)),
        "when.min_cpu_headroom"
    );
    assert_eq!(
        refused(|rule| rule.when.max_cpu_headroom = Some(255)),
        "when.max_cpu_headroom"
    );
    assert_eq!(
        refused(|rule| {
            rule.when = Match {
                min_cpu_headroom: Some(9),
                max_cpu_headroom: Some(8),
                ..Match::default()
            };
        }),
        "when.max_cpu_headroom"
    );
    assert_eq!(
        refused(|rule| rule.when.class = Some(Class::Zero)),
        "when.class"
    );
    assert_eq!(
        refused(|rule| rule.when.tag = Some(String::new())),
        "when.tag"
    );
    assert_eq!(
        refused(|rule| rule.action = Action {
            codec: Codec::None,
            extent_kib: 4,
            defer: true
        }),
        "use.defer"
    );
    let many = with(vec![good; 65]);
    assert_eq!(many.validate(), Err(RulesError::TooMany(65)));
}

fn any_class() -> impl Strategy<Value = Class> {
    prop_oneof![
        Just(Class::Zero),
        Just(Class::Incompressible),
        Just(Class::Compressible)
    ]
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop_oneof![
        Just(Codec::None),
        Just(Codec::Lz4),
        (1..=19).prop_map(Codec::Zstd),
        (-7..=-1).prop_map(Codec::Zstd)
    ]
}

prop_compose! {
    fn any_match()(
        sizes in (option::of(0..10u64), option::of(0..10u64)),
        flags in (option::of(any::<bool>()), option::of(any::<bool>())),
        tag in option::of("[ab]"),
        min_age_secs in option::of(0..5u64),
        class in option::of(any_class()),
        headroom in (option::of(0..5u8), option::of(0..5u8)),
    ) -> Match {
        Match {
            min_bytes: sizes.0,
            max_bytes: sizes.1,
            sequential: flags.0,
            aligned: flags.1,
            tag,
            min_age_secs,
            class,
            min_cpu_headroom: headroom.0,
            max_cpu_headroom: headroom.1,
        }
    }
}

prop_compose! {
    /// Mostly few conditions, so that rules match; sizes also such as validation would refuse.
    fn any_rule()(
        name in "[a-z]{1,8}",
        when in prop_oneof![any_match(), any_match().prop_map(|some| Match { class: some.class, ..Match::default() })],
        codec in any_codec(),
        extent_kib in any::<u32>(),
        defer in any::<bool>(),
    ) -> Rule {
        Rule { name, when, action: Action { codec, extent_kib, defer } }
    }
}

proptest! {
    #[test]
    fn choosing_agrees_with_explaining(
        rules in proptest::collection::vec(any_rule(), 0..8),
        bytes in 0..10u64,
        flags in any::<(bool, bool)>(),
        tag in option::of("[ab]"),
        age_secs in 0..5u64,
        class in any_class(),
        cpu_headroom in 0..5u8,
    ) {
        let rules = with(rules);
        let write = WriteTraits {
            bytes, sequential: flags.0, aligned: flags.1, tag: tag.as_deref(), age_secs, class, cpu_headroom,
        };
        let choice = rules.choose(&write);
        let explained = rules.explain(&write);
        prop_assert_eq!(explained.len(), rules.rules.len() + 1);
        prop_assert_eq!(explained.iter().filter(|rule| rule.chosen).count(), 1);
        let chosen = explained.iter().position(|rule| rule.chosen).unwrap();
        prop_assert_eq!(choice.rule.unwrap_or(rules.rules.len()), chosen);
        prop_assert_eq!(choice.codec, explained[chosen].codec);
        prop_assert!((1..=32).contains(&choice.extent_blocks));
        for (rule, explained) in rules.rules.iter().zip(&explained) {
            prop_assert_eq!(rule.when.matches(&write), explained.matched);
            prop_assert!(!explained.reasons.is_empty());
        }
    }

    #[test]
    fn rules_survive_json(rules in proptest::collection::vec(any_rule(), 0..8)) {
        let rules = with(rules);
        let text = serde_json::to_string(&rules).unwrap();
        prop_assert_eq!(serde_json::from_str::<Rules>(&text).unwrap(), rules);
    }
}
