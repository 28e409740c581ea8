//! How far a long command has come, on standard error.

use crate::output::print_error;
use crate::settings::ProgressStyle;
use crate::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as Look};
use std::time::{Duration, Instant};

/// Time between two lines.
const PACE: Duration = Duration::from_secs(3);

/// A command that knows how many bytes it has to go through.
pub struct Progress {
    what: String,
    total: u64,
    done: u64,
    started: Instant,
    said: Instant,
    style: ProgressStyle,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `what` reads like "import web".
    pub fn new(style: ProgressStyle, what: impl Into<String>, total: u64) -> Progress {
        let what = what.into();
        let bar = (style == ProgressStyle::Bar).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{msg} [{wide_bar}] {percent}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
            if let Ok(look) = Look::with_template(template) {
                bar.set_style(look.progress_chars("=> "));
            }
            bar.set_message(what.clone());
            bar
        });
        let now = Instant::now();
        Progress {
            what,
            total,
            done: 0,
            started: now,
            said: now,
            style,
            bar,
        }
    }

    /// `done` bytes of the total lie behind us.
    pub fn at(&mut self, done: u64) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.style == ProgressStyle::Lines && self.said.elapsed() >= PACE {
            self.said = Instant::now();
            print_error(&self.line());
        }
    }

    /// Writes something else in between.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn line(&self) -> String {
        let percent = (u128::from(self.done) * 100)
            .checked_div(self.total.into())
            .unwrap_or(100);
        let speed = self.done as f64 / self.seconds().max(0.001);
        format!(
            "{}: {percent}% of {}, {}/s\n",
            self.what,
            units::bytes(self.total),
            units::bytes(speed as u64)
        )
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // Also when interrupted: the terminal's line is free for what comes next.
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
