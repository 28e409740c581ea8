//! `firn store scrub status`.

use super::store_check_served::show;
use crate::failure::Failure;
use crate::output::facts;
use crate::settings::{Format, Settings};
use crate::units::{bytes, duration, moment};
use control_api::types::{ScrubPass, ScrubStatus};

pub(super) async fn run(settings: &Settings) -> Result<(), Failure> {
    let status = settings.connect().await?.scrub().await?;
    let mut findings = String::new();
    if settings.format == Format::Text {
        // What is under way has the newer ones.
        let newest = status.pass.iter().chain(&status.last);
        for finding in newest.flat_map(|pass| &pass.findings) {
            let text = show(finding)?;
            if !findings.contains(&text) {
                findings += &text;
            }
        }
    }
    settings.show(&status, |status| text(status) + &findings)
}

fn text(status: &ScrubStatus) -> String {
    let mut lines = Vec::new();
    match &status.pass {
        None => lines.push(("state", "no scrub is running".to_owned())),
        Some(pass) => {
            lines.push(("state", state(pass)));
            lines.push(("began", moment(pass.started)));
            lines.push(("verified", verified(pass)));
            lines.push(("damage", pass.damage.to_string()));
        }
    }
    lines.push((
        "last",
        match &status.last {
            None => "none has come to its end yet".to_owned(),
            Some(last) => format!(
                "from {} to {}: {}; damage: {}",
                moment(last.started),
                last.ended.map_or_else(|| "now".to_owned(), moment),
                verified(last),
                last.damage
            ),
        },
    ));
    lines.push((
        "by itself",
        match status.every_seconds {
            None => "never: the backend was started with --scrub-every 0".to_owned(),
            Some(every) => format!("every {}", duration(every as f64)),
        },
    ));
    facts(&lines)
}

fn state(pass: &ScrubPass) -> String {
    let percent = (u128::from(pass.verified_bytes) * 100)
        .checked_div(pass.total_bytes.into())
        .unwrap_or(100)
        .min(100);
    if let Some(stopped) = pass.stopped {
        return format!(
            "stopped at {}, {percent} % done; firn store scrub start goes on from there",
            moment(stopped)
        );
    }
    let rate = match pass.rate {
        0 => "as fast as guests leave it time".to_owned(),
        rate => format!("at {}/s at most", bytes(rate)),
    };
    let left = pass.seconds_left.map(|seconds| duration(seconds as f64));
    let left = left.map_or_else(String::new, |left| format!(", about {left} left"));
    format!(
        "running: {percent} % of about {}, {rate}{left}",
        bytes(pass.total_bytes)
    )
}

fn verified(pass: &ScrubPass) -> String {
    format!(
        "{} in {} map nodes and {} extents, {} segments{}",
        bytes(pass.verified_bytes),
        pass.nodes,
        pass.extents,
        pass.segments,
        if pass.decode { ", decompressed" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass() -> ScrubPass {
        ScrubPass {
            running: true,
            started: 1_700_000_000,
            ended: None,
            stopped: None,
            rate: 64 << 20,
            decode: false,
            stage: "data".into(),
            total_bytes: 8 << 30,
            verified_bytes: 2 << 30,
            seconds_left: Some(96),
            segments: 130,
            nodes: 4096,
            extents: 250_000,
            blocks: 1 << 20,
            damage: 0,
            notes: 0,
            findings: Vec::new(),
        }
    }

    #[test]
    fn golden() {
        let mut status = ScrubStatus {
            pass: Some(pass()),
            last: None,
            every_seconds: Some(30 * 86_400),
        };
        assert_eq!(
            text(&status),
            "state      running: 25 % of about 8.00 GiB, at 64.0 MiB/s at most, about 1 min 36 s left\n\
             began      2023-11-14 22:13:20 UTC\n\
             verified   2.00 GiB in 4096 map nodes and 250000 extents, 130 segments\n\
             damage     0\n\
             last       none has come to its end yet\n\
             by itself  every 30 d 0 h\n"
        );
        let ended = ScrubPass {
            running: false,
            ended: Some(1_700_000_600),
            damage: 3,
            ..pass()
        };
        let stopped = ScrubPass {
            running: false,
            stopped: Some(1_700_000_100),
            rate: 0,
            ..pass()
        };
        status = ScrubStatus {
            pass: Some(stopped),
            last: Some(ended),
            every_seconds: None,
        };
        let text = text(&status);
        for part in [
            "stopped at 2023-11-14 22:15:00 UTC, 25 % done",
            "from 2023-11-14 22:13:20 UTC to 2023-11-14 22:23:20 UTC",
            "damage: 3",
            "never",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }
}
