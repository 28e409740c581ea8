//! `firn rules set`.

use super::rules_show;
use crate::args::SetRulesArgs;
use crate::failure::Failure;
use crate::settings::Settings;
use control_api::types::Rules;
use std::io::Read;
use std::path::Path;

/// Bytes of a rules file at most: the backend takes no more.
const FILE_MAX: u64 = 1 << 20;

pub(super) async fn run(settings: &Settings, args: &SetRulesArgs) -> Result<(), Failure> {
    let rules = parse(&args.file, &read(&args.file)?)?;
    let stored = settings
        .connect()
        .await?
        .set_rules(args.whose.vdisk.as_deref(), &rules)
        .await?;
    settings.show(&stored, |rules| {
        rules_show::text(rules) + "they hold for writes from now on\n"
    })
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::file("can't read the rules from", path, error);
    let input: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    let mut text = String::new();
    input
        .take(FILE_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    match text.len() as u64 > FILE_MAX {
        true => Err(Failure::usage(format!(
            "{} has more than 1 MiB: these are not rules",
            path.display()
        ))),
        false => Ok(text),
    }
}

fn parse(path: &Path, text: &str) -> Result<Rules, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::usage(format!("{}: {error}", path.display()))
            .hint("start from what this prints: firn rules show --json")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_is_named() {
        let text =
            r#"{"rules": [{"name": "a", "whenn": {}, "use": {"codec": "lz4", "extent_kib": 16}}]}"#;
        let failure = parse(Path::new("r.json"), text).unwrap_err();
        assert!(
            failure.message.contains("r.json") && failure.message.contains("whenn"),
            "{failure}"
        );
        assert_eq!(failure.exit as u8, 2);
    }
}
