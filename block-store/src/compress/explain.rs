//! Why a rule matched a write, or didn't: for people.

use super::codec::Codec;
use super::rules::{Match, Rules, WriteTraits};
use serde::Serialize;
use std::fmt::Display;

/// What one rule has to do with a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The rule's name; `(no rule matched)` for the built-in last resort, which stands at the end.
    pub rule: String,
    /// Whether all its conditions hold.
    pub matched: bool,
    /// Whether it is the one that decides: the first that matched.
    pub chosen: bool,
    /// What it does.
    pub codec: Codec,
    /// One line for each condition, whether it holds and why.
    pub reasons: Vec<String>,
}

impl Rules {
    /// Tells of each rule why it matched or didn't. Exactly one is `chosen`, and it is [`Rules::choose`]'s.
    pub fn explain(&self, write: &WriteTraits<'_>) -> Vec<Explained> {
        let mut undecided = true;
        let mut explained = Vec::with_capacity(self.rules.len() + 1);
        for rule in &self.rules {
            let conditions = rule.when.conditions(write);
            let matched = conditions.iter().all(|(holds, _)| *holds);
            let mut reasons: Vec<String> =
                conditions.into_iter().map(|(_, reason)| reason).collect();
            if reasons.is_empty() {
                reasons.push("it has no conditions".to_owned());
            }
            let chosen = matched && std::mem::take(&mut undecided);
            undecided &= !chosen;
            if matched && !chosen {
                reasons.push("an earlier rule matched first".to_owned());
            }
            explained.push(Explained {
                rule: rule.name.clone(),
                matched,
                chosen,
                codec: rule.action.codec,
                reasons,
            });
        }
        explained.push(Explained {
            rule: "(no rule matched)".to_owned(),
            matched: true,
            chosen: undecided,
            codec: Rules::last_resort().codec,
            reasons: vec!["the last resort".to_owned()],
        });
        explained
    }
}

impl Match {
    /// Each condition that is set: whether it holds, and in words.
    fn conditions(&self, write: &WriteTraits<'_>) -> Vec<(bool, String)> {
        let mut conditions = Vec::new();
        let mut at_least = |name: &str, min: Option<u64>, is: u64| {
            if let Some(min) = min {
                let sign = if is >= min { "at least" } else { "less than" };
                conditions.push((is >= min, format!("{name}: {is} is {sign} {min}")));
            }
        };
        at_least("min_bytes", self.min_bytes, write.bytes);
        at_least("min_age_secs", self.min_age_secs, write.age_secs);
        at_least(
            "min_cpu_headroom",
            self.min_cpu_headroom.map(u64::from),
            write.cpu_headroom.into(),
        );
        let mut at_most = |name: &str, max: Option<u64>, is: u64| {
            if let Some(max) = max {
                let sign = if is <= max { "at most" } else { "more than" };
                conditions.push((is <= max, format!("{name}: {is} is {sign} {max}")));
            }
        };
        at_most("max_bytes", self.max_bytes, write.bytes);
        at_most(
            "max_cpu_headroom",
            self.max_cpu_headroom.map(u64::from),
            write.cpu_headroom.into(),
        );
        conditions.extend(
            self.sequential
                .map(|wanted| equal("sequential", wanted, write.sequential)),
        );
        conditions.extend(
            self.aligned
                .map(|wanted| equal("aligned", wanted, write.aligned)),
        );
        conditions.extend(self.class.map(|wanted| equal("class", wanted, write.class)));
        if let Some(wanted) = &self.tag {
            conditions.push(match write.tag {
                Some(tag) => equal("tag", wanted.as_str(), tag),
                None => (
                    false,
                    format!("tag: the vDisk has none, {wanted} is asked for"),
                ),
            });
        }
        conditions
    }
}

fn equal<T: Display + PartialEq>(name: &str, wanted: T, is: T) -> (bool, String) {
    if wanted == is {
        (true, format!("{name}: it is {is}"))
    } else {
        (false, format!("{name}: it is {is}, {wanted} is asked for"))
    }
}
