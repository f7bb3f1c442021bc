//! What a person sees while state builds up: bytes replayed, and how fast.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for replaying `total_bytes` of journal; silent where standard error is no terminal.
pub(crate) fn replay(total_bytes: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("replaying {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {msg}")
            .expect("the template is fixed and valid");
    let bar = ProgressBar::new(total_bytes).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// One line about a step that takes a moment.
pub(crate) fn step(what: &str) {
    eprintln!("  {what}");
}
