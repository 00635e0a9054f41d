//! The progress bar of a long command, on standard error if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";
const ITEMS: &str = "{msg} {wide_bar} {pos}/{len} {eta}";

/// A progress bar. Dropping it clears it.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn of_bytes(label: &'static str, total: u64) -> Self {
        Self::new(label, total, BYTES)
    }

    pub(super) fn of_items(label: &'static str, total: u64) -> Self {
        Self::new(label, total, ITEMS)
    }

    fn new(label: &'static str, total: u64, template: &str) -> Self {
        // This draw target is hidden if standard error is no terminal.
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(label);
        Self(bar)
    }

    pub(super) fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    pub(super) fn advance(&self, by: u64) {
        self.0.inc(by);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
