//! `firn rules explain`.

use crate::args::ExplainArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use control_api::types::{Class, ExplainRequest, Explanation};

pub(super) async fn run(settings: &Settings, args: ExplainArgs) -> Result<(), Failure> {
    let request = ExplainRequest {
        vdisk: args.vdisk,
        bytes: args.size,
        sequential: args.sequential,
        aligned: !args.unaligned && args.size.is_multiple_of(4096),
        tag: args.tag,
        age_secs: args.age,
        class: if args.incompressible {
            Class::Incompressible
        } else {
            Class::Compressible
        },
        cpu_headroom: args.idle,
    };
    let explanation = settings.connect().await?.explain(&request).await?;
    settings.show(&explanation, text)
}

fn text(explanation: &Explanation) -> String {
    let mut text = String::new();
    for rule in &explanation.rules {
        let verdict = match (rule.chosen, rule.matched) {
            (true, _) => "decides",
            (false, true) => "would match",
            (false, false) => "does not match",
        };
        text += &format!(
            "{} {}: {verdict} ({})\n",
            if rule.chosen { ">" } else { " " },
            rule.rule,
            rule.codec
        );
        for reason in &rule.reasons {
            text += &format!("      {reason}\n");
        }
    }
    let treatment = &explanation.treatment;
    let when = if treatment.defer {
        "stored as it is now and compressed when it is relocated"
    } else {
        "within the command"
    };
    text += &format!(
        "result: codec {}, extents of up to {} KiB, {when}\n",
        treatment.codec, treatment.extent_kib
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_api::types::{ExplainedRule, Treatment};

    #[test]
    fn golden() {
        let rule = |name: &str, matched, chosen, reason: &str| ExplainedRule {
            rule: name.into(),
            matched,
            chosen,
            codec: "lz4".into(),
            reasons: vec![reason.into()],
        };
        let explanation = Explanation {
            rules: vec![
                rule("large", false, false, "min_bytes: 4096 is less than 65536"),
                rule("small", true, true, "it has no conditions"),
                rule("(no rule matched)", true, false, "the last resort"),
            ],
            treatment: Treatment {
                codec: "lz4".into(),
                extent_kib: 16,
                defer: false,
            },
        };
        assert_eq!(
            text(&explanation),
            "  large: does not match (lz4)\n      \
                   min_bytes: 4096 is less than 65536\n\
             > small: decides (lz4)\n      \
                   it has no conditions\n  \
               (no rule matched): would match (lz4)\n      \
                   the last resort\n\
             result: codec lz4, extents of up to 16 KiB, within the command\n"
        );
    }
}
